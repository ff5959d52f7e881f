"""Entries put on the bus, however long it is away, and on its replicas where that is asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

from bus.errors import BusError
from bus.streams import Bus

BACKOFF_S: Final = (0.05, 0.5)
REPLICATED_S: Final = 10.0
"""After this long without an entry that no replica took: not every batch goes to the server that lacks one."""

_log = structlog.get_logger(__name__)


class Storing:
    """Puts batches on the bus, one at a time.

    Parameters
    ----------
    bus : Bus
        Where entries go.
    counts : Counter
        ``stored``, ``bus_retries`` and ``unreplicated`` are counted.
    monotonic : callable
        Clock, s.
    """

    def __init__(self, bus: Bus, counts: Counter[str], monotonic: Callable[[], float]) -> None:
        self._bus, self._counts, self._monotonic = bus, counts, monotonic
        self._alone = False
        self._alone_at = 0.0

    async def put(self, items: list[tuple[int, bytes]]) -> bool:
        """Store a batch, trying until it is.

        Returns
        -------
        bool
            Whether the bus took it at once, and replicas where they are asked for. Else what it took before, or takes
            now, may get lost.
        """
        pause, longest = BACKOFF_S
        at_once = True
        partitions = {partition for partition, _ in items}
        while True:
            try:
                await self._bus.append_in(items)
                replicated = await self._bus.until_replicated(partitions)
            except BusError as error:
                at_once = False
                self._counts["bus_retries"] += 1
                _log.warning("bus_retry", why=str(error), entries=len(items))
                await asyncio.sleep(pause)
                pause = min(longest, 2 * pause)
            else:
                self._counts["stored"] += len(items)
                self._note_replicas(replicated, len(items))
                return at_once and replicated

    def _note_replicas(self, replicated: bool, count: int) -> None:
        """Say when a server of the bus has lost its replica, and when it has one again: patients are watched on."""
        now = self._monotonic()
        if not replicated:
            self._counts["unreplicated"] += count
            self._alone_at = now
            if not self._alone:
                self._alone = True
                _log.error("no_replica", why="what is acknowledged now is lost if its server is")
        elif self._alone and now - self._alone_at >= REPLICATED_S:
            self._alone = False
            _log.info("replicated_again")
