"""How long entries and events stay on the bus: until their readers have stored them, or for a time that passes.

Their age is measured by what was the newest one when (`bus.ages`). What a worker knows of that is kept on the bus, so
that one that takes over need not go by ids, which say nothing where the server's clock was set. Time in which no worker
ran does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from bus.ages import Ages
from bus.pressure import Pressure
from bus.streams import Bus, Position, order

log = structlog.get_logger()

EVENTS_KEPT_MS: Final = 3_600_000
HELD_MS: Final = 4 * 3_600_000
"""Longest that entries and events are kept for a reader that holds them (the recorder)."""
PRESSED_MS: Final = 60_000
"""The same where the memory of the bus is nearly used up: to go on watching patients counts more than their history."""
NOTED_MS: Final = 60_000
"""What is known of ages is put on the bus this often."""


class _Partition:
    """What is known of a partition's two streams."""

    def __init__(self) -> None:
        self.entries, self.events = Ages(), Ages()
        self.noted_ms = float("-inf")

    def dump(self, now_ms: float) -> bytes:
        return msgspec.msgpack.encode([self.entries.dump(now_ms), self.events.dump(now_ms)])

    def load(self, data: bytes, now_ms: float) -> None:
        entries, events = msgspec.msgpack.decode(data, type=tuple[bytes, bytes])
        self.entries.load(entries, now_ms)
        self.events.load(events, now_ms)


class Trimming:
    """Forgets what is old, for one worker.

    Parameters
    ----------
    bus : Bus
    pressure : Pressure
        How the memory of the bus stands.
    clock : callable
        The machine's clock, s; never set.
    """

    def __init__(self, bus: Bus, pressure: Pressure, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus, self._pressure, self._clock = bus, pressure, clock
        self._partitions: dict[int, _Partition] = {}

    async def trim(self, partition: int, position: Position) -> None:
        """Forget what everybody has stored; a reader that is too far behind is not waited for.

        Parameters
        ----------
        partition : int
        position : str
            Up to where outputs are stored.
        """
        held = await self._bus.held(partition)
        newest = (await self._bus.last([partition], "events"))[partition]
        known = await self._known(partition)
        now_ms = self._clock() * 1000
        known.entries.add(now_ms, position)
        known.events.add(now_ms, newest)
        patience, kept = (PRESSED_MS, PRESSED_MS) if self._pressure.holding else (HELD_MS, EVENTS_KEPT_MS)
        shortest = known.events.before(now_ms, kept)
        for name, ages, done in (("in", known.entries, position), ("events", known.events, shortest)):
            waits = held.get(name, done)
            upto = min(done, max(waits, ages.before(now_ms, patience), key=order), key=order)
            oldest = await self._bus.first(partition, name) if order(waits) < order(upto) else None
            if oldest is not None and order(oldest) < order(upto):
                log.error("a reader is too far behind, entries are dropped unread", partition=partition, stream=name)
                await self._bus.give_up(partition, name, upto)
            await self._bus.trim(partition, upto, name)
        # Last, since a bus that is full takes nothing before it is trimmed.
        if now_ms - known.noted_ms >= NOTED_MS:
            await self._bus.put_ages(partition, known.dump(now_ms))
            known.noted_ms = now_ms

    async def _known(self, partition: int) -> _Partition:
        known = self._partitions.get(partition)
        if known is None:
            known = _Partition()
            data = await self._bus.ages_of(partition)
            if data is not None:
                try:
                    known.load(data, self._clock() * 1000)
                except msgspec.DecodeError as error:
                    known = _Partition()
                    log.warning("what was known of ages can't be read", partition=partition, why=str(error))
            self._partitions[partition] = known
        return known
