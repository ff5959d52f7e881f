"""How long entries and events stay on the bus: until their readers have stored them, or for a time that passes.

The ids of entries hold the time of the server, which is set at times: after a step forward what came a second ago seems
hours old, and after a step back ids stand still for as long. So the age of an entry is measured by what was the newest
one when, on the clock of the machine that nobody sets. Only what was there before the first look is judged by its id,
against that look.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Final, NamedTuple

import structlog

from bus.pressure import Pressure
from bus.streams import Bus, Position, milliseconds, order

log = structlog.get_logger()

EVENTS_KEPT_MS: Final = 3_600_000
HELD_MS: Final = 4 * 3_600_000
"""Longest that entries and events are kept for a reader that holds them (the recorder)."""
PRESSED_MS: Final = 60_000
"""The same where the memory of the bus is nearly used up: to go on watching patients counts more than their history."""
COARSE: Final = 8
"""Marks are kept apart by at most this part of their age."""


class Mark(NamedTuple):
    """The newest position of each stream at a time, ms of the machine's clock."""

    ms: float
    entries: Position
    events: Position


class Marks:
    """What was newest when, of one partition; about 50 marks."""

    def __init__(self) -> None:
        self._marks: list[Mark] = []

    def add(self, mark: Mark) -> None:
        """Note what is newest now; what is close together is thinned out, what nobody asks for is forgotten."""
        kept: list[Mark] = []
        for this, following in pairwise([*self._marks, mark]):
            if kept and COARSE * (following.ms - kept[-1].ms) <= mark.ms - following.ms:
                continue
            kept.append(this)
        while len(kept) > 1 and mark.ms - kept[1].ms >= HELD_MS:
            del kept[0]
        self._marks = [*kept, mark]

    def before(self, now_ms: float, age_ms: float) -> Mark:
        """Give positions that nothing younger than `age_ms` is before; at least one mark must have been added."""
        for mark in reversed(self._marks):
            if now_ms - mark.ms >= age_ms:
                return mark
        oldest = self._marks[0]
        rest = age_ms - (now_ms - oldest.ms)
        entries, events = (
            f"{max(0, milliseconds(position) - round(rest))}-0" for position in (oldest.entries, oldest.events)
        )
        return Mark(oldest.ms, entries, events)


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
        self._marks: dict[int, Marks] = {}

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
        now_ms = self._clock() * 1000
        marks = self._marks.setdefault(partition, Marks())
        marks.add(Mark(now_ms, position, newest))
        patience, kept = (PRESSED_MS, PRESSED_MS) if self._pressure.holding else (HELD_MS, EVENTS_KEPT_MS)
        longest = marks.before(now_ms, patience)
        shortest = marks.before(now_ms, kept).events
        for name, done, last in (("in", position, longest.entries), ("events", shortest, longest.events)):
            waits = held.get(name, done)
            upto = min(done, max(waits, last, key=order), key=order)
            oldest = await self._bus.first(partition, name) if order(waits) < order(upto) else None
            if oldest is not None and order(oldest) < order(upto):
                log.error("a reader is too far behind, entries are dropped unread", partition=partition, stream=name)
                await self._bus.give_up(partition, name, upto)
            await self._bus.trim(partition, upto, name)
