"""Old rows go in strokes that are found by an index: nobody who keeps or tells alarms waits for a whole table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, select

from alerts.archive import Archive
from alerts.care_retention import expire_events
from alerts.care_rows import reached
from alerts.database import open_engine, upgrade
from alerts.sweeping import delete_old


@pytest.mark.parametrize(("at_once", "expected"), [(1, 5), (2, 3), (3, 3), (100, 1)])
def test_old_rows_go_in_strokes(engine: Engine, at_once: int, expected: int):
    """All that is old and wanted goes, with rows of one and the same time and rows that stay among it."""
    judgements = reached()["judgements"][0]
    times = [1, 1, 1, 2, 3, 3, 5, 7, 8, 8, 9]
    row = {"alarm": "x", "patient": "p", "who": "u", "comment": ""}
    rows = [{**row, "ms": ms, "verdict": "true" if number % 3 else "kept"} for number, ms in enumerate(times)]
    with engine.begin() as connection:
        connection.execute(insert(judgements), rows)
    strokes = 0

    @event.listens_for(engine, "commit")
    def count(connection: Any) -> None:
        nonlocal strokes
        strokes += 1

    went = delete_old(engine, judgements.c.ms, 8, judgements.c.verdict != "kept", at_once=at_once)
    assert strokes == expected
    with engine.connect() as connection:
        left = connection.execute(select(judgements.c.ms, judgements.c.verdict).order_by(judgements.c.seq)).all()
    assert went == 5
    assert left == [(r["ms"], r["verdict"]) for r in rows if r["verdict"] == "kept" or int(str(r["ms"])) >= 8]
    assert delete_old(engine, judgements.c.ms, 8, judgements.c.verdict != "kept", at_once=at_once) == 0


def test_no_table_is_read_whole_to_find_old_rows(tmp_path: Path):
    """What the retention runs each hour names an index for every table; the largest have millions of rows."""
    address = f"sqlite:///{tmp_path}/history.db"
    engine = open_engine(address)
    upgrade(engine)
    said: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        said.append((statement, values))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        expire_events(engine, {"events": 10, "evidence": 10, "stays": 10})
        with Archive(address, tmp_path) as archive:
            archive.expire(10**6)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    deletes = [(statement, values) for statement, values in said if statement.startswith("DELETE")]
    assert {statement.split()[2] for statement, _ in deletes} >= set(reached())
    with engine.connect() as connection:
        for statement, values in deletes:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            found = re.search(r"USING (COVERING )?INDEX ix_\w+_ms \(\w*ms[<>]", plan[0][-1])
            assert found, (statement, plan)
    engine.dispose()
