"""Entries put on the bus, however long it is away, and on its replicas where that is asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from bus.errors import BusError
from bus.lease import LeaseLostError
from bus.streams import Bus

BACKOFF_S: Final = (0.05, 0.5)
REPLICATED_S: Final = 10.0
"""After this long without an entry that no replica took: not every batch goes to the server that lacks one."""

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


async def until_done(ask: Callable[[], Awaitable[_T]], counts: Counter[str], waiting: int) -> tuple[_T, bool]:
    """Ask the bus, however long it is away.

    Parameters
    ----------
    ask : callable
        May be called again after a failure.
    counts : Counter
        ``bus_retries`` are counted.
    waiting : int
        Messages that wait for it, for the log.

    Returns
    -------
    answer : object
        What `ask` gave.
    at_once : bool
        Whether it did so the first time.

    Raises
    ------
    LeaseLostError
        As of `ask`: to ask again is of no use.
    """
    pause, longest = BACKOFF_S
    at_once = True
    while True:
        try:
            return await ask(), at_once
        except LeaseLostError:
            raise
        except BusError as error:
            at_once = False
            counts["bus_retries"] += 1
            _log.warning("bus_retry", why=str(error), waiting=waiting)
            await asyncio.sleep(pause)
            pause = min(longest, 2 * pause)


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
        partitions = {partition for partition, _ in items}

        async def put() -> bool:
            await self._bus.append_in(items)
            return await self._bus.until_replicated(partitions)

        replicated, at_once = await until_done(put, self._counts, len(items))
        self._counts["stored"] += len(items)
        self._note_replicas(replicated, len(items))
        return replicated and at_once

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
