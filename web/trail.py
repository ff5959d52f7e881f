"""The audit trail as the pages write it: an act is never undone or held up because the database is away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Protocol

from sqlalchemy.exc import SQLAlchemyError

from bus.clock import now_ms

log = logging.getLogger("web.trail")

WAITING: Final = 10_000
"""Rows kept while the database is away; beyond it the oldest is lost and counted."""
SEEN_S: Final = 600.0
"""A person who goes on looking at a patient is noted again after so long."""


class AuditStore(Protocol):
    """Where rows go (`alerts.audit.Audit`); blocks."""

    def add(self, ms: int, user: str, act: str, subject: str, detail: Mapping[str, Any] | None = None) -> int:
        """Add a row."""
        ...


class Trail:
    """Writes rows in order; those that the database did not take wait and go before the next one.

    Parameters
    ----------
    store : AuditStore or None
        None keeps no trail (an app made of parts without one).
    """

    def __init__(self, store: AuditStore | None) -> None:
        self._store = store
        self._waiting: deque[tuple[int, str, str, str, Mapping[str, Any]]] = deque()
        self._turn = asyncio.Lock()
        self._seen: dict[tuple[str, str], float] = {}
        self.lost = 0

    @property
    def waiting(self) -> int:
        """Rows that are not in the database yet."""
        return len(self._waiting)

    async def add(self, user: str, act: str, subject: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write a row, with all that wait."""
        if self._store is None:
            return
        self._waiting.append((now_ms(), user, act, subject, dict(detail or {})))
        if len(self._waiting) > WAITING:
            self._waiting.popleft()
            self.lost += 1
        await self.flush()

    async def seen(self, user: str, subject: str) -> None:
        """Note that a person looked at a patient, once in `SEEN_S`."""
        now = time.monotonic()
        last = self._seen.pop((user, subject), None)
        fresh = last is not None and now - last < SEEN_S
        # Put in anew at the end, so that the oldest are at the front.
        self._seen[user, subject] = last if last is not None and fresh else now
        while len(self._seen) > WAITING:
            self._seen.pop(next(iter(self._seen)))
        if not fresh:
            await self.add(user, "patient.seen", subject)

    async def flush(self) -> None:
        """Try to write all that wait."""
        if self._store is None:
            return
        async with self._turn:
            while self._waiting:
                # Taken out first: rows that come meanwhile may push the oldest out.
                row = self._waiting.popleft()
                try:
                    await asyncio.to_thread(self._store.add, *row)
                except (SQLAlchemyError, OSError) as error:
                    self._waiting.appendleft(row)
                    log.error(
                        "audit trail can't be written, %d rows wait: %s", len(self._waiting), type(error).__name__
                    )
                    return
