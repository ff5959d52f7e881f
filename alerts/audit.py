"""The audit trail: who did what to whom and when, in rows chained by hash so that a change afterwards shows.

A row's hash is the SHA-256 of the former row's hash and of the row's own content as JSON. No row holds data of a
person (names, birth dates, notes): subjects are channels, alarms, accounts and opaque person ids, so that the erasure
of a person leaves the trail whole. Old rows go only by `Audit.trim`, which says so in the trail itself.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, delete, func, insert, select, text

from alerts.database import Rows
from alerts.tables import table_of
from alerts.tables_people import AuditRow

GENESIS: Final = "0" * 64
"""What the first row holds as the hash of the one before."""
TRIM: Final = "audit.trim"
_LOCK: Final = 0x52574132
"""Number of PostgreSQL's advisory lock round an addition."""
_BATCH: Final = 2000

AUDIT: Final = table_of(AuditRow)


class AuditEntry(msgspec.Struct, frozen=True):
    """A row of the trail as it is shown."""

    seq: int
    ms: int
    user: str
    act: str
    subject: str
    detail: dict[str, Any]
    hash: str


def chained(former: str, seq: int, ms: int, user: str, act: str, subject: str, detail: str) -> str:
    """Hash of a row.

    Parameters
    ----------
    former : str
        Hash of the row before, hex.
    seq, ms, user, act, subject
        Content.
    detail : str
        Content, the JSON text as it is stored.

    Returns
    -------
    str
        SHA-256, hex.
    """
    content = json.dumps([seq, ms, user, act, subject, detail], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(former.encode() + content.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class _Checked:
    """How far a trail was found whole.

    Attributes
    ----------
    start : (int, str)
        Number and hash of the row before the first.
    at : (int, str)
        Of the last one that was looked at.
    """

    start: tuple[int, str]
    at: tuple[int, str]


def _follow(connection: Connection, known: _Checked) -> _Checked | int:
    """Read on from where a trail was found whole; gives how far it is now, or the first row that does not fit."""
    chosen = select(AUDIT).where(AUDIT.c.seq > known.at[0]).order_by(AUDIT.c.seq)
    begins = known.start == known.at and known.start != (0, GENESIS)
    trims: set[tuple[int, str]] = set()
    at = known.at
    with connection.execution_options(yield_per=_BATCH).execute(chosen) as rows:
        for row in rows:
            hashed = chained(row.former, row.seq, row.ms, row.who, row.act, row.subject, row.detail)
            if row.seq != at[0] + 1 or row.former != at[1] or row.hash != hashed:
                return int(row.seq)
            if row.act == TRIM:
                detail = json.loads(row.detail)
                trims.add((detail["seq"], detail["hash"]))
            at = (row.seq, row.hash)
    if begins and known.start not in trims:
        return known.start[0] + 1
    return _Checked(known.start, at)


class Audit(Rows):
    """The trail in SQL; calls block."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._turn = threading.Lock()
        self._checked: _Checked | None = None

    def add(self, ms: int, user: str, act: str, subject: str, detail: Mapping[str, Any] | None = None) -> int:
        """Add a row; several processes may do so at once.

        Parameters
        ----------
        ms : int
            Server time of the act.
        user : str
            Who did it.
        act : str
            What, as ``thing.verb``.
        subject : str
            To what: a channel, an alarm, an account.
        detail : mapping, optional
            Further values that JSON can hold; no data of a person.

        Returns
        -------
        int
            Number of the row, from 1.
        """
        with self._writer.begin() as connection:
            return self._add(connection, ms, user, act, subject, detail or {})

    def _add(
        self, connection: Connection, ms: int, user: str, act: str, subject: str, detail: Mapping[str, Any]
    ) -> int:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        last = connection.execute(select(AUDIT.c.seq, AUDIT.c.hash).order_by(AUDIT.c.seq.desc()).limit(1)).first()
        seq, former = (last.seq + 1, last.hash) if last else (1, GENESIS)
        # Neither database holds a NUL in text; what is cut is cut before it is hashed.
        user, act, subject = user.replace("\0", "")[:255], act[:64], subject.replace("\0", "")[:512]
        kept = json.dumps(detail, ensure_ascii=True, sort_keys=True, separators=(",", ":"), default=str)
        row = {
            "seq": seq, "ms": ms, "who": user, "act": act, "subject": subject, "detail": kept, "former": former,
            "hash": chained(former, seq, ms, user, act, subject, kept),
        }  # fmt: skip
        connection.execute(insert(AUDIT), row)
        return seq

    def rows(self, before: int | None = None, limit: int = 100, subject: str | None = None) -> list[AuditEntry]:
        """List rows, newest first.

        Parameters
        ----------
        before : int, optional
            Only rows with a smaller number.
        limit : int
            At most so many.
        subject : str, optional
            Only rows about it.
        """
        chosen = select(AUDIT).order_by(AUDIT.c.seq.desc()).limit(limit)
        if before is not None:
            chosen = chosen.where(AUDIT.c.seq < before)
        if subject is not None:
            chosen = chosen.where(AUDIT.c.subject == subject)
        with self._engine.connect() as connection:
            return [
                AuditEntry(row.seq, row.ms, row.who, row.act, row.subject, json.loads(row.detail), row.hash)
                for row in connection.execute(chosen)
            ]

    def verify(self, *, whole: bool = True) -> int | None:
        """Look for the first row that does not fit the chain.

        Parameters
        ----------
        whole : bool
            Read every row. Else only those that were added since the last call of this object that found the trail
            whole: a row before them that was changed with its hash left as it was shows only in a whole look.

        Returns
        -------
        int or None
            Number of the first row that was changed, put in, or whose predecessor was taken away; None when the trail
            is whole. Rows cut off at the end leave no trace in the chain itself: keep `head` elsewhere.
        """
        with self._turn, self._engine.connect() as connection:
            known = None if whole else self._checked
            first = connection.execute(select(AUDIT.c.seq, AUDIT.c.former).order_by(AUDIT.c.seq).limit(1)).first()
            if known is not None:
                # Whatever a trim took away, or anybody else, is judged by a whole look.
                last = connection.scalar(select(AUDIT.c.hash).where(AUDIT.c.seq == known.at[0]))
                if first is None or (first.seq - 1, first.former) != known.start or last != known.at[1]:
                    known = None
            if first is None:
                self._checked = None
                return None
            if known is None:
                start = (first.seq - 1, first.former)
                known = _Checked(start, start)
            found = _follow(connection, known)
            self._checked = found if isinstance(found, _Checked) else None
            return found if isinstance(found, int) else None

    def head(self) -> tuple[int, str]:
        """Give number and hash of the newest row; 0 and `GENESIS` before the first."""
        with self._engine.connect() as connection:
            last = connection.execute(select(AUDIT.c.seq, AUDIT.c.hash).order_by(AUDIT.c.seq.desc()).limit(1)).first()
            return (last.seq, last.hash) if last else (0, GENESIS)

    def trim(self, ms: int, user: str, before_ms: int) -> int:
        """Take rows older than `before_ms` away and add the row that says so.

        Returns
        -------
        int
            How many rows went.
        """
        with self._writer.begin() as connection:
            # Clocks may step back; rows go from the start of the chain up to the first that is young enough.
            young = connection.scalar(select(func.min(AUDIT.c.seq)).where(AUDIT.c.ms >= before_ms))
            chosen = select(AUDIT.c.seq, AUDIT.c.hash).order_by(AUDIT.c.seq.desc()).limit(1)
            last = connection.execute(chosen if young is None else chosen.where(AUDIT.c.seq < young)).first()
            if last is None:
                return 0
            self._add(connection, ms, user, TRIM, "audit", {"seq": last.seq, "hash": last.hash})
            return connection.execute(delete(AUDIT).where(AUDIT.c.seq <= last.seq)).rowcount
