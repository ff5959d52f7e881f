"""The historian: carries events from the bus into SQL, exactly once, through failures of either side.

The position up to which a partition's events were read is written in the transaction that writes them. Beats are not
kept here (they lie with the recordings). While the database can't be written nothing is read on: events wait on the
bus. An event that the database refuses for what it holds is counted and left out, and the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import msgspec
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from alerts.store import Batch, Store
from bus.ages import Ages
from bus.errors import BusError
from bus.messages import AlarmEvent, Event, RhythmEvent, SettingsEvent, StatusEvent, is_beat, unpack_event
from bus.reading import count_each, may_be_more
from bus.streams import START, Record

READER: Final = "historian"
"""Of all historians: what the bus holds is how far the history of a partition is, whoever writes it."""
WAIT_S: Final = 0.5
MAX_WAIT_S: Final = 30.0
BATCH: Final = 500
BATCH_MOST: Final = 4_000
"""Events of all partitions in one go: what has come while the database was away is written in many."""
BLOCK_MS: Final = 500
CURSOR_S: Final = 5.0
"""Positions are kept at least this often where only beats came."""
GATHER_S: Final = 0.25
HOLD_S: Final = 10.0
"""The bus is told this often how far the history is, so that it forgets nothing before."""
Hold: TypeAlias = Callable[[Mapping[int, str]], Awaitable[int]]
"""Tells the bus positions; gives how many streams were cut behind them all the same. Raises `BusError`."""


class Events(Protocol):
    """The part of the bus that the historian needs (`bus.streams.Bus`)."""

    async def read_events(
        self, cursors: Mapping[int, str], *, count: int = 500, block_ms: int = 0
    ) -> list[tuple[int, list[Record]]]:
        """Read events after the cursors."""
        ...

    async def last(self, cursors: Sequence[int], name: str = "events") -> dict[int, str]:
        """Newest position of each partition."""
        ...


@dataclass(slots=True)
class Counters:
    """What the historian did since its start, for health and logs."""

    alarms: int = 0
    """Alarm changes written."""
    rhythms: int = 0
    statuses: int = 0
    settings: int = 0
    beats: int = 0
    """Seen and left to the recordings."""
    unreadable: int = 0
    """Entries that are no event; they are passed over."""
    refused: int = 0
    """Events with values that the database can't hold; they are left out."""
    database_failures: int = 0
    bus_failures: int = 0
    lost: int = 0
    """Times that the bus had dropped events that were not written yet."""
    waiting: int = 0
    """Events in hand that the database did not take yet."""
    behind_ms: int = 0
    """Age of the oldest of these, while the database fails."""
    last_error: str = ""

    def count(self, events: Iterable[Event]) -> None:
        """Count what was written."""
        for event in events:
            if isinstance(event, AlarmEvent):
                self.alarms += 1
            elif isinstance(event, RhythmEvent):
                self.rhythms += 1
            elif isinstance(event, StatusEvent):
                self.statuses += 1
            elif isinstance(event, SettingsEvent):
                self.settings += 1


async def keep_history(
    bus: Events,
    store: Store,
    partitions: Sequence[int],
    stop: asyncio.Event,
    counters: Counters,
    *,
    wait_s: float = WAIT_S,
    report: Callable[[str], None] = lambda line: None,
    hold: Hold | None = None,
    hold_s: float = HOLD_S,
) -> None:
    """Write the events of the partitions into the store until told to stop; what was read is written before it ends.

    Parameters
    ----------
    bus : Events
        Where they come from.
    store : Store
        Its schema is brought up to date first, as soon as the database can be reached.
    partitions : sequence of int
        All that this historian keeps.
    stop : asyncio.Event
        Set to end.
    counters : Counters
        Changed in place.
    wait_s : float
        First wait after a failure; doubles up to `MAX_WAIT_S`.
    report : callable
        Takes one line when a side fails and when it is back.
    hold : callable, optional
        See `Hold`; called at the start and every `hold_s`.
    """
    keeper = _Keeper(bus, store, stop, counters, wait_s, report)
    await keeper.run(partitions, hold, hold_s)


class _Keeper:
    def __init__(
        self,
        bus: Events,
        store: Store,
        stop: asyncio.Event,
        counters: Counters,
        wait_s: float,
        report: Callable[[str], None],
    ) -> None:
        self.bus, self.store, self.stop, self.counters, self.report = bus, store, stop, counters, report
        self.first_wait = self.wait = wait_s
        self.failing = ""
        self.written: dict[int, str] = {}
        self.passed: dict[int, str] = {}
        """Positions behind beats, not written yet."""
        self.written_at = float("-inf")
        self.ages: defaultdict[int, Ages] = defaultdict(Ages)

    async def run(self, partitions: Sequence[int], hold: Hold | None, hold_s: float) -> None:
        cursors = await self._open()
        if cursors is None:
            return
        at = {partition: cursors.get(partition, START) for partition in partitions}
        self.written = dict(at)
        held = float("-inf")
        count = count_each(BATCH_MOST, len(at), cap=BATCH)
        with contextlib.suppress(BusError):
            self._look(await self.bus.last(partitions))
        while not self.stop.is_set():
            try:
                if hold is not None and time.monotonic() - held >= hold_s:
                    await self._hold(hold, self.written)
                    held = time.monotonic()
                answer = await self.bus.read_events(at, count=count, block_ms=BLOCK_MS)
            except BusError as error:
                self.counters.bus_failures += 1
                await self._pause(f"events can't be read: {error}")
                continue
            self._well("bus")
            self._look({partition: records[-1].position for partition, records in answer})
            if not answer:
                await asyncio.sleep(0)
            elif not await self._write(answer):
                return
            at |= {partition: records[-1].position for partition, records in answer}
            if may_be_more(answer, count):
                continue
            # A few entries of each partition in one go cost hardly more than one.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), GATHER_S)

    async def _hold(self, hold: Hold, at: Mapping[int, str]) -> None:
        lost = await hold(at)
        if lost:
            self.counters.lost += lost
            self.counters.last_error = "events were dropped by the bus before they were written"
            self.report(self.counters.last_error)

    async def _open(self) -> dict[int, str] | None:
        while not self.stop.is_set():
            try:
                await asyncio.to_thread(self.store.upgrade)
                cursors = await asyncio.to_thread(self.store.cursors)
            except (SQLAlchemyError, OSError) as error:
                self.counters.database_failures += 1
                await self._pause(f"history can't be opened: {_first_line(error)}")
            else:
                self._well("history")
                return cursors
        return None

    async def _write(self, answer: Sequence[tuple[int, Sequence[Record]]]) -> bool:
        """Write what was read; False if told to stop before the database took it."""
        batches: list[Batch] = []
        beats = 0
        for partition, records in answer:
            events: list[tuple[str, Event]] = []
            for record in records:
                if is_beat(record.data):
                    beats += 1
                    continue
                try:
                    events.append((record.position, unpack_event(record.data)))
                except (msgspec.DecodeError, msgspec.ValidationError):
                    self.counters.unreadable += 1
            batches.append(Batch(partition, events, records[-1].position))
        # Beats are not kept here, so that a position behind them needn't be either, but now and then.
        if not any(batch.records for batch in batches) and time.monotonic() - self.written_at < CURSOR_S:
            self.passed |= {batch.partition: batch.position for batch in batches}
            self.counters.beats += beats
            return True
        named = {batch.partition for batch in batches}
        behind = [Batch(partition, (), position) for partition, position in self.passed.items()]
        batches += [batch for batch in behind if batch.partition not in named]
        self.counters.waiting = sum(len(records) for _, records in answer)
        while True:
            try:
                await asyncio.to_thread(self.store.write_all, batches)
            except (DataError, IntegrityError, OverflowError) as error:
                parts = [(partition, [record]) for partition, records in answer for record in records]
                if len(parts) == 1:
                    self.counters.refused += 1
                    self.counters.last_error = f"event refused by the history: {_first_line(error)}"
                    self.report(f"{self.counters.last_error}; it is left out")
                    batches = [Batch(batch.partition, (), batch.position) for batch in batches]
                    continue
                for part in answer if len(answer) > 1 else parts:
                    # After one that is not written none may be: the cursor would pass over it.
                    if not await self._write([part]):
                        return False
                return True
            except (SQLAlchemyError, OSError) as error:
                self.counters.database_failures += 1
                await self._measure({partition: records[0].position for partition, records in answer})
                await self._pause(f"history can't be written: {_first_line(error)}")
                if self.stop.is_set():
                    # They stay on the bus after the cursor, so the next historian writes them.
                    return False
            else:
                self.written |= {batch.partition: batch.position for batch in batches}
                self.written_at, self.passed = time.monotonic(), {}
                self.counters.waiting = self.counters.behind_ms = 0
                self.counters.beats += beats
                self.counters.count(event for batch in batches for _, event in batch.records)
                self._well("history")
                return True

    def _look(self, newest: Mapping[int, str]) -> None:
        now_ms = 1000 * time.monotonic()
        for partition, position in newest.items():
            self.ages[partition].add(now_ms, position)

    async def _measure(self, oldest: Mapping[int, str]) -> None:
        with contextlib.suppress(BusError):
            self._look(await self.bus.last(list(oldest)))
        now_ms = 1000 * time.monotonic()
        ages = [self.ages[partition].age_ms(now_ms, position) for partition, position in oldest.items()]
        self.counters.behind_ms = round(max(ages, default=0))

    async def _pause(self, problem: str) -> None:
        self.counters.last_error = problem
        if problem != self.failing:
            self.failing = problem
            self.report(f"{problem}; tried again until it works")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), self.wait)
        self.wait = min(2 * self.wait, MAX_WAIT_S)

    def _well(self, side: str) -> None:
        self.wait = self.first_wait
        if self.failing:
            self.failing = ""
            self.report(f"{side} works again")


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
