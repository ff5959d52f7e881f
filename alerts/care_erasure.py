"""Erasure of a person in SQL, and the list of what else it has to reach until it is done. Calls block."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import delete, insert, select, text, update

from alerts.care import CONSENTS, NOTES, PERSONS, STAYS
from alerts.care_rows import Span, delete_rows
from alerts.database import Rows, StoreError
from alerts.tables import table_of
from alerts.tables_care import ErasureRow, ExportRow

ERASURES: Final = table_of(ErasureRow)
EXPORTS: Final = table_of(ExportRow)
FOREVER: Final = 2**62


class Erasure(msgspec.Struct, frozen=True):
    """An erasure on its way, or done."""

    id: int
    person: str
    asked_ms: int
    who: str
    spans: list[Span]
    done_ms: int | None
    left: str


class Erasures(Rows):
    """Erasures in SQL."""

    def ask(self, person: str, who: str, now_ms: int) -> Erasure:
        """Delete what is known of a person, and note which channels and times are to be erased.

        Raises
        ------
        StoreError
            If the person is unknown or still admitted.
        """
        with self._writer.begin() as connection:
            spans = _spans(connection.execute(select(STAYS).order_by(STAYS.c.from_ms)).all(), person)
            if not connection.execute(delete(PERSONS).where(PERSONS.c.person == person)).rowcount:
                raise StoreError("there is no such person")
            if any(span.to_ms == FOREVER for span in spans):
                raise StoreError("this person is admitted; discharge first")
            for table in (CONSENTS, NOTES, STAYS):
                connection.execute(delete(table).where(table.c.person == person))
            row = {
                "person": person, "asked_ms": now_ms, "who": who, "done_ms": None, "left": "not begun",
                "spans": json.dumps([[span.patient, span.from_ms, span.to_ms, span.later_ms] for span in spans]),
            }  # fmt: skip
            made = connection.execute(insert(ERASURES).returning(ERASURES), row).mappings().one()
        return _erasure(dict(made))

    def spans(self, person: str) -> list[Span]:
        """Channels and times of a person's stays; one that goes on ends at `FOREVER`."""
        with self._engine.connect() as connection:
            return _spans(connection.execute(select(STAYS).order_by(STAYS.c.from_ms)).all(), person)

    def list(self, *, pending: bool = False) -> list[Erasure]:
        """List erasures, newest first; only those that are not done if asked for."""
        chosen = select(ERASURES).order_by(ERASURES.c.id.desc())
        if pending:
            chosen = chosen.where(ERASURES.c.done_ms.is_(None))
        with self._engine.connect() as connection:
            return [_erasure(dict(row)) for row in connection.execute(chosen).mappings()]

    def delete_rows(self, spans: Sequence[Span]) -> int:
        """Delete the rows of the spans from every table that has any."""
        with self._writer.begin() as connection:
            return delete_rows(connection, spans)

    def exports(self, person: str) -> Sequence[str]:
        """Folders on disk with data of a person."""
        with self._engine.connect() as connection:
            return list(connection.scalars(select(EXPORTS.c.path).where(EXPORTS.c.person == person)))

    def add_export(self, person: str, path: str, now_ms: int) -> None:
        """Note a folder before anything is written there."""
        with self._writer.begin() as connection:
            connection.execute(insert(EXPORTS), {"person": person, "path": path, "ms": now_ms})

    def forget_exports(self, person: str) -> None:
        """Note that the folders are gone."""
        with self._writer.begin() as connection:
            connection.execute(delete(EXPORTS).where(EXPORTS.c.person == person))

    def note(self, ident: int, left: str, done_ms: int | None) -> None:
        """Note how far an erasure got."""
        with self._writer.begin() as connection:
            connection.execute(update(ERASURES).where(ERASURES.c.id == ident).values(left=left, done_ms=done_ms))

    def scrub(self) -> bool:
        """Let nothing deleted stand in the database's files: SQLite zeroes pages itself and empties its log here.

        Returns
        -------
        bool
            False while others use the log; call again.
        """
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as connection:
                connection.exec_driver_sql("COMMIT")
                busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()[0][0]
                connection.exec_driver_sql("BEGIN")
            return not busy
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM"))
        return True


def _spans(stays: Sequence[object], person: str) -> list[Span]:
    out = []
    rows = [row._mapping for row in stays]  # type: ignore[attr-defined]
    for row in rows:
        if row["person"] != person:
            continue
        to_ms = FOREVER if row["to_ms"] is None else row["to_ms"]
        later = [other["from_ms"] for other in rows if other["patient"] == row["patient"] and other["from_ms"] >= to_ms]
        out.append(Span(row["patient"], row["from_ms"], to_ms, min(later, default=FOREVER)))
    return out


def _erasure(row: dict[str, object]) -> Erasure:
    spans = [Span(*item) for item in json.loads(str(row.pop("spans")))]
    return msgspec.convert({**row, "spans": spans}, Erasure)
