"""The recorder process: entries and events from the bus onto disk, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from alerts.archive_index import Index, OvertakenError
from alerts.care import Care
from alerts.database import open_engine
from bus.child import hold, make_folder
from bus.clock import keeping_time, now_ms
from bus.errors import BusError, ServerError
from bus.messages import age_ms
from bus.reading import count_each, may_be_more
from bus.streams import Bus, Record, order
from rhythmwatch.metrics import Figure, by_reason, exposing
from rhythmwatch.record import Recording
from rhythmwatch.record_gate import Gate
from rhythmwatch.record_state import Counters

log = structlog.get_logger()

READER: Final = "recorder"
"""Of all recorders: what the bus holds is how far a partition is recorded, whoever does it."""
POLL_S: Final = 2.0
"""The bus is asked this often, so that one answer holds two seconds of all patients."""
WRITE_S: Final = 4.0
"""Readers see what is this old."""
FLUSH_S: Final = 60.0
"""Files are synced and positions moved this often; a recorder that is killed repeats so much."""
FLUSH_BYTES: Final = 8 << 20
"""More is not kept waiting for the next write: a recorder that catches up is as small as one that is up to date."""
READ_COUNT: Final = 1_000
READ_MOST: Final = 500
"""Entries of all partitions in one answer, some 6 MB: four times what 500 patients send from one look to the next."""
EVENTS_MOST: Final = 8_000
"""The same of events, 2 MB."""
IDLE_MS: Final = 3_600_000
"""Files of a patient that has been silent for so long are closed; others may delete them then."""
WAIT_S: Final = 0.5
MAX_WAIT_S: Final = 30.0


class Recorder:
    """Carries what some partitions hold onto disk.

    Parameters
    ----------
    bus : Bus
        Open connection.
    index : Index
        Of the history database.
    folder : Path
        Of the recordings.
    partitions : sequence of int
    stop : asyncio.Event
        Set to end; what was read is stored before it ends.
    may_keep : callable
        Whether what a channel gave at a wall time (ms) may be kept.
    """

    def __init__(
        self,
        bus: Bus,
        index: Index,
        folder: Path,
        partitions: Sequence[int],
        stop: asyncio.Event,
        *,
        may_keep: Callable[[str, int], bool],
        poll_s: float = POLL_S,
        write_s: float = WRITE_S,
        flush_s: float = FLUSH_S,
        wait_s: float = WAIT_S,
    ) -> None:
        self.counters = Counters()
        self.behind_s = 0.0
        """Age of the newest entry of the partition that is furthest behind, when it was read."""
        self._bus, self._index, self._folder = bus, index, folder
        self._partitions, self._stop, self._may_keep = partitions, stop, may_keep
        self._poll_s, self._write_s, self._flush_s = poll_s, write_s, flush_s
        self._gates = {partition: Gate() for partition in partitions}
        self._first_wait = self._wait = wait_s
        self._failing = ""

    async def run(self) -> None:
        """Record until told to stop; every failure of bus, disk or database is waited out."""
        while not self._stop.is_set():
            recording: Recording | None = None
            try:
                recording = await asyncio.to_thread(self._open)
                await self._hold(recording)
                await self._keep(recording)
            except BusError as error:
                await self._pause(f"bus can't be read: {error}")
            except (OSError, SQLAlchemyError) as error:
                await self._pause(f"recordings can't be indexed: {_first_line(error)}")
            except OvertakenError as error:
                await self._pause(str(error))
            finally:
                if recording is not None:
                    with contextlib.suppress(OSError):
                        recording.close()

    def _open(self) -> Recording:
        self._index.upgrade()
        return Recording(self._folder, self._index, self._partitions, self.counters, self._may_keep)

    async def _keep(self, recording: Recording) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._write_s
        flushed = loop.time()
        try:
            while not self._stop.is_set():
                began = loop.time()
                full = await self._round(recording)
                is_due = began >= due
                if is_due or recording.pending_bytes > FLUSH_BYTES:
                    for_good = began - flushed >= self._flush_s or (is_due and recording.news)
                    if for_good:
                        flushed = began
                    storing = loop.time()
                    if not await self._store(recording, for_good=for_good):
                        return
                    if is_due:
                        # Where disks are slow it still reads for half of its time, not to fall behind for ever.
                        due = loop.time() + max(self._write_s, loop.time() - storing)
                if not full:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stop.wait(), max(0.0, began + self._poll_s - loop.time()))
        except BusError:
            await self._store(recording)
            raise
        # After any other failure it may be half-way through a batch: that one is read again instead.
        await self._store(recording)

    async def _round(self, recording: Recording) -> bool:
        """Read once; whether more is waiting."""
        newest_events = await self._bus.last(self._partitions, "events")
        for partition, newest in (await self._bus.last(self._partitions, "in")).items():
            self._gates[partition].note(newest, newest_events[partition])
        count = count_each(READ_MOST, len(self._partitions), cap=READ_COUNT)
        entries = await self._bus.read(recording.entries(), count=count)
        if entries:
            read_ms = now_ms()
            self.behind_s = max(age_ms(records[-1].data, read_ms) for _, records in entries) / 1000
        await asyncio.to_thread(_take_entries, recording, entries)
        # An event is taken once the entries before it are: its beat lies in samples that must be known.
        until = {partition: self._gates[partition].until(taken) for partition, taken in recording.entries().items()}
        open_ = {partition: at for partition, at in recording.events().items() if order(at) < order(until[partition])}
        count_events = count_each(EVENTS_MOST, len(self._partitions), cap=READ_COUNT)
        ready = [
            (partition, records[: bisect_right(records, order(until[partition]), key=_order_of)])
            for partition, records in await self._bus.read_events(open_, count=count_events)
        ]
        await asyncio.to_thread(_take_events, recording, ready)
        self._well("bus")
        return may_be_more(entries, count) or may_be_more(ready, count_events)

    async def _store(self, recording: Recording, *, for_good: bool = True) -> bool:
        """Write or flush, again and again while disk or database refuse; False if told to stop before it worked."""
        while True:
            try:
                await asyncio.to_thread(recording.flush if for_good else recording.write)
            except (OSError, SQLAlchemyError) as error:
                self.counters.failures += 1
                await self._pause(f"recordings can't be written to {self._folder}: {_first_line(error)}")
                if self._stop.is_set():
                    # The bus keeps them behind the stored position, so the next recorder writes them.
                    return False
                continue
            self._well("disk")
            if not for_good:
                return True
            await asyncio.to_thread(recording.leave, now_ms() - IDLE_MS)
            with contextlib.suppress(BusError):
                await self._hold(recording)
            return True

    async def _hold(self, recording: Recording) -> None:
        """Keep the bus from forgetting what is not stored yet, and say where it did all the same."""
        events = recording.events()
        lost = await self._bus.hold(
            READER,
            {
                partition: {"in": position, "events": events[partition]}
                for partition, position in recording.entries().items()
            },
        )
        for partition, name, position in lost:
            self.counters.lost += 1
            log.error("dropped by the bus before it was recorded", partition=partition, stream=name, until=position)

    async def _pause(self, problem: str) -> None:
        self.counters.last_error = problem
        if problem != self._failing:
            self._failing = problem
            log.warning(f"{problem}; tried again until it works")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), self._wait)
        self._wait = min(2 * self._wait, MAX_WAIT_S)

    def _well(self, side: str) -> None:
        self._wait = self._first_wait
        if self._failing:
            self._failing = ""
            log.info(f"{side} works again")


def _take_entries(recording: Recording, batches: Sequence[tuple[int, list[Record]]]) -> None:
    for partition, records in batches:
        recording.take_entries(partition, records)


def _take_events(recording: Recording, batches: Sequence[tuple[int, list[Record]]]) -> None:
    for partition, records in batches:
        if records:
            recording.take_events(partition, records)


def _order_of(record: Record) -> tuple[int, int]:
    return order(record.position)


def _always(patient: str, ms: int) -> bool:
    return True


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def figures(recorder: Recorder) -> Iterator[Figure]:
    """Figures of a recorder for Prometheus."""
    counters = recorder.counters
    yield Figure("frames", counters.frames, "Frames recorded in order.")
    yield Figure("late", counters.late, "Frames recorded that came late.")
    yield Figure("beats", counters.beats, "Beats recorded.")
    yield from by_reason("refused", counters.refused, "What was not recorded.")
    yield Figure("lost", counters.lost, "Times that the bus had dropped what was not recorded yet.")
    yield Figure("failures", counters.failures, "Writes that had to be done again.")
    yield Figure("behind_seconds", recorder.behind_s, "Age of the newest entry that was read last.", counts=False)


@contextlib.contextmanager
def hold_partitions(folder: Path, partitions: Sequence[int]) -> Iterator[None]:
    """Keep every other recorder of the folder from these partitions for the block; the locks fall with the process.

    Raises
    ------
    bus.errors.ServerError
        If another one has one of them.
    """
    with contextlib.ExitStack() as stack:
        for partition in partitions:
            try:
                stack.enter_context(hold(folder / f"recorder-{partition}.lock"))
            except ServerError as error:
                raise ServerError(f"partition {partition} is recorded in {folder} by another process") from error
        yield


async def record(
    bus_url: str,
    history: str,
    folder: Path,
    partitions: Sequence[int],
    stop: asyncio.Event,
    *,
    consented: bool = True,
    metrics: str = "",
) -> None:
    """Record until `stop` is set.

    Parameters
    ----------
    bus_url, history : str
        Addresses of the bus and the history database.
    folder : Path
        Of the recordings, the same for all recorders.
    partitions : sequence of int
    stop : asyncio.Event
        Set to end it.
    consented : bool
        Keep only what was recorded while a person was admitted who agreed to monitoring; else everything.
    metrics : str
        ``host:port`` for Prometheus; empty for none.

    Raises
    ------
    bus.errors.ServerError
        If the folder can't be made, or another recorder has one of the partitions.
    """
    folder = make_folder(folder)
    engine = open_engine(history)
    may_keep = Care(engine).may_keep if consented else _always
    try:
        with hold_partitions(folder, partitions), Index(history) as index:
            async with Bus(bus_url) as bus, keeping_time(bus):
                recorder = Recorder(bus, index, folder, partitions, stop, may_keep=may_keep)
                with exposing(metrics, "recorder", lambda: figures(recorder)):
                    await recorder.run()
    finally:
        engine.dispose()
    counters = recorder.counters
    log.info(
        "recorder ended", frames=counters.frames, late=counters.late, beats=counters.beats, refused=counters.refused
    )
