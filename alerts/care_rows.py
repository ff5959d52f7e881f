"""All rows of a person: every table with a channel and a time, within the times of the person's stays.

Tables are found by their columns, so that one that is added later is reached too: ``patient`` holds the channel, the
time is the first of `TIMES`, and ``alarm`` ties a row to an alarm whatever its own time is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, select

from alerts.tables_all import Base

TIMES: Final = ("onset_ms", "raised_ms", "ms", "made_ms")
"""Columns that tell when a row's matter was, in order of preference."""
ELSEWHERE: Final = frozenset({"stays", "segments"})
"""Handled by those who know them: the care store, and the archive with its files."""
WITHOUT_TIME: Final = frozenset({"contacts"})
"""Tables about a channel for as long as it exists, whoever lies there."""
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Span:
    """A channel for a time, the end left out.

    Attributes
    ----------
    later_ms : int
        Until then nobody else was on the channel: what was written about this time afterwards lies before it.
    """

    patient: str
    from_ms: int
    to_ms: int
    later_ms: int


def reached() -> dict[str, tuple[Table, str | None]]:
    """Tables that hold rows of a channel, with their column of time; None where rows go with their alarm."""
    found: dict[str, tuple[Table, str | None]] = {}
    for table in Base.metadata.sorted_tables:
        names = set(table.c.keys())
        if "patient" not in names or table.name in ELSEWHERE | WITHOUT_TIME:
            continue
        if "alarm" in names:
            found[table.name] = (table, None)
            continue
        time = next((name for name in TIMES if name in names), None)
        if time is None:
            raise LookupError(f"table {table.name} has a channel and no time; name its column as one of {TIMES}")
        found[table.name] = (table, time)
    return found


def rows_of(connection: Connection, spans: Sequence[Span]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give table and content of every row that belongs to the spans."""
    for span in spans:
        for table, wanted in _wanted(connection, span):
            for row in connection.execute(select(table).where(wanted)).mappings():
                yield table.name, dict(row)


def delete_rows(connection: Connection, spans: Sequence[Span]) -> int:
    """Delete every row that belongs to the spans; returns how many."""
    count = 0
    for span in spans:
        for table, wanted in _wanted(connection, span):
            count += connection.execute(delete(table).where(wanted)).rowcount
    return count


def _wanted(connection: Connection, span: Span) -> Iterator[tuple[Table, Any]]:
    tables = reached()
    alarms, time = tables["alarms"]
    assert time is not None  # noqa: S101
    mine = (alarms.c.patient == span.patient, alarms.c[time] >= span.from_ms, alarms.c[time] < span.to_ms)
    ids = list(connection.scalars(select(alarms.c.id).where(*mine)))
    for name, (table, column) in tables.items():
        if column is None:
            for at in range(0, len(ids), _BATCH):
                yield table, table.c.alarm.in_(ids[at : at + _BATCH])
        else:
            # A label is given long after the beat; nobody else was there in between.
            end = span.later_ms if name == "beat_labels" else span.to_ms
            yield table, (table.c.patient == span.patient) & (table.c[column] >= span.from_ms) & (table.c[column] < end)
