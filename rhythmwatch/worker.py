"""The worker: takes partitions over, folds their entries through the pipeline, stores what comes out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import structlog

from bus.clock import keeping_time, now_ms
from bus.errors import BusError, FencedError, RewoundError
from bus.messages import DEFAULT_PARTITIONS, Inbound, age_ms, pack, unpack_inbound
from bus.pace import rest_s
from bus.pressure import Pressure
from bus.streams import START, Bus, Commit, Position, Record
from bus.tasks import end
from rhythmwatch.checkpoint import CheckpointError, dump, restore, salvage
from rhythmwatch.metrics import Figure, by_reason, exposing
from rhythmwatch.models import Models
from rhythmwatch.pipeline import Output, Pipeline
from rhythmwatch.portions import Portions
from rhythmwatch.trimming import Trimming

log = structlog.get_logger()

LOADED: Final = 8
"""Checkpoints that are loaded at once: few answers to wait for, and no more in memory than is needed."""
BLOCK_MS: Final = 500
PACE_S: Final = (0.02, 0.15)
"""Least and most from one read to the next, so that a read serves many patients at once; an entry that comes after a
pause is worked off at once."""
PACE_SHARE: Final = 4.0
"""The pace as a multiple of the time that a batch took: the more there is to do, the larger are the batches."""
CHECKPOINT_S: Final = 5.0
"""A takeover folds half of this again; the copy of a patient costs a tenth of what its signal does in the meantime."""
TRIM_S: Final = 30.0
"""From one trim of a partition to the next, as each asks the server a few times over; where the memory of the bus runs
short, at each checkpoint."""
RETRY_S: Final = 0.5


@dataclass(slots=True)
class Counters:
    """What a worker has done.

    Attributes
    ----------
    late : int
        Frames that came after their window, or were stored by the device: for the history alone.
    refused : dict of str to int
        Entries that could not be used, by reason.
    """

    entries: int = 0
    late: int = 0
    events: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class Worker:
    """Owner of some partitions.

    Parameters
    ----------
    bus : Bus
        Open connection.
    models : Models
        The networks.
    partitions : iterable of int
        To take over.
    counters : Counters, optional
        Of a former worker of this process, to go on counting.
    pressure : Pressure, optional
        How the memory of the bus stands; waveforms are left out where it runs short.
    """

    def __init__(
        self,
        bus: Bus,
        models: Models,
        partitions: Iterable[int],
        total: int = DEFAULT_PARTITIONS,
        counters: Counters | None = None,
        pressure: Pressure | None = None,
    ) -> None:
        self.bus = bus
        self.pressure = pressure or Pressure()
        self.pipeline = Pipeline(models, total)
        self.counters = counters or Counters()
        self._wanted = tuple(partitions)
        self._epochs: dict[int, int] = {}
        self._cursors: dict[int, Position] = {}
        self._checkpointed: dict[int, float] = {}
        self._trimmed: dict[int, float] = {}
        self._trimming = Trimming(bus, self.pressure)
        self._portions = Portions()
        self.lag_s = 0.0
        """Age of the newest entry of the batch last worked off."""

    @property
    def owned(self) -> int:
        """Partitions that nobody else has taken."""
        return len(self._cursors)

    @property
    def partitions(self) -> tuple[int, ...]:
        """Give those."""
        return tuple(self._cursors)

    async def take_over(self) -> None:
        """Fence whoever had the partitions, load their checkpoints, and replay to where outputs are complete."""
        now = asyncio.get_running_loop().time()
        behind: dict[int, Position] = {}
        self._epochs = await self.bus.claim_all(self._wanted)
        for number, partition in enumerate(self._wanted):
            if number % LOADED == 0:
                checkpoints = await self.bus.load_checkpoints(self._wanted[number : number + LOADED])
            checkpoint = checkpoints[partition]
            after = checkpoint.state_position
            if checkpoint.state is not None:
                try:
                    restore(self.pipeline, checkpoint.state)
                except CheckpointError as error:
                    kept = salvage(self.pipeline, checkpoint.state)
                    log.warning(
                        "checkpoint not used, replaying from further back",
                        partition=partition,
                        why=str(error),
                        limits_and_alarms_kept=len(kept),
                    )
                    after = START
            if after != checkpoint.position:
                behind[partition] = after
            self._cursors[partition] = checkpoint.position
            # Spread, so that no commit carries the state of all partitions.
            self._checkpointed[partition] = now - CHECKPOINT_S * number / len(self._wanted)
        await self._replay(behind)

    async def _replay(self, behind: dict[int, Position]) -> None:
        """Fold again what lies between state and cursor; all partitions at once, as large batches cost less."""
        while behind:
            ranges = {partition: (after, self._cursors[partition]) for partition, after in behind.items()}
            count = self._portions.count(len(ranges))
            batches, _ = self._portions.cut(await self.bus.read_ranges(ranges, count=count), count, len(ranges))
            self._fold(batches)
            for partition, records in batches.items():
                if records:
                    behind[partition] = records[-1].position
                if not records or records[-1].position == self._cursors[partition]:
                    del behind[partition]

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set or every partition has been taken by another worker.

        Raises
        ------
        RewoundError
            If the bus has forgotten outputs: a new worker must take over from where it stands.
        """
        loop = asyncio.get_running_loop()
        while not stop.is_set() and self._cursors:
            asked = len(self._cursors)
            count = self._portions.count(asked)
            try:
                answer = await self.bus.read(self._cursors, count=count, block_ms=BLOCK_MS)
            except BusError as error:
                log.warning("bus can't be read, trying again", why=str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), RETRY_S)
                continue
            if not answer:
                continue
            batches, more = self._portions.cut(dict(answer), count, asked)
            began = loop.time()
            await self._store(batches, stop)
            if not more:
                await asyncio.sleep(rest_s(loop.time() - began, PACE_SHARE, PACE_S))

    async def _store(self, batches: dict[int, list[Record]], stop: asyncio.Event) -> None:
        output = self._fold(batches)
        now = asyncio.get_running_loop().time()
        commits: dict[int, Commit] = {}
        events: dict[int, list[bytes]] = {partition: [] for partition in batches}
        views: dict[int, list[bytes]] = {partition: [] for partition in batches}
        for patient, event in output.events:
            events[self.pipeline.partition(patient)].append(pack(event))
        for patient, view in () if self.pressure.shedding else output.views:
            views[self.pipeline.partition(patient)].append(pack(view))
        trims: list[int] = []
        for partition, records in batches.items():
            state = None
            if now - self._checkpointed[partition] >= CHECKPOINT_S:
                state = dump(self.pipeline, partition)
                self._checkpointed[partition] = now
                if self.pressure.holding or now - self._trimmed.get(partition, -TRIM_S) >= TRIM_S:
                    self._trimmed[partition] = now
                    trims.append(partition)
            position = records[-1].position
            commits[partition] = Commit(
                partition,
                self._epochs[partition],
                position,
                events[partition],
                views[partition],
                state,
                self._cursors[partition],
            )
        if not await self._commit(commits, stop):
            return
        done_ms = now_ms()
        self.lag_s = max(age_ms(records[-1].data, done_ms) for records in batches.values()) / 1000
        for partition, records in batches.items():
            if partition in self._cursors:
                self._cursors[partition] = records[-1].position
        with contextlib.suppress(BusError):
            for partition in trims:
                if partition in self._cursors:
                    await self._trimming.trim(partition, self._cursors[partition])

    def _fold(self, batches: dict[int, list[Record]]) -> Output:
        entries: list[tuple[int, Inbound]] = []
        refused = self.counters.refused
        for partition, records in batches.items():
            for record in records:
                try:
                    entries.append((partition, unpack_inbound(record.data)))
                except ValueError:
                    refused["entry"] = refused.get("entry", 0) + 1
        output = self.pipeline.step(entries)
        self.counters.entries += len(entries)
        self.counters.events += len(output.events)
        self.counters.late = self.pipeline.late_frames
        for reason, count in output.refused.items():
            refused[reason] = refused.get(reason, 0) + count
        if output.refused:
            log.warning("entries refused", reasons=output.refused)
        return output

    async def _commit(self, commits: dict[int, Commit], stop: asyncio.Event) -> bool:
        """Store outputs, again and again while the bus is away; False if told to stop before it came back."""
        while True:
            try:
                answers = await self.bus.commit_all(list(commits.values()))
            except BusError as error:
                # Sending again is safe: outputs up to a position that is stored are not stored twice.
                log.warning("outputs can't be stored, trying again", why=str(error))
                if stop.is_set():
                    return False
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), RETRY_S)
                continue
            for partition, answer in zip(commits, answers, strict=True):
                if isinstance(answer, RewoundError):
                    raise answer
                if isinstance(answer, FencedError):
                    log.warning("partition taken over by another worker", partition=partition)
                    del self._cursors[partition]
            return True


def figures(worker: Worker) -> Iterator[Figure]:
    """Figures of a worker for Prometheus."""
    counters = worker.counters
    yield Figure("entries", counters.entries, "Entries of the bus worked off.")
    yield Figure("events", counters.events, "Beats, rhythms, alarms and states given out.")
    yield Figure("late", counters.late, "Frames that came after their window.")
    yield from by_reason("refused", counters.refused, "Entries that could not be used.")
    yield Figure("patients", len(worker.pipeline.patients), "Patients in memory.", counts=False)
    yield Figure("partitions", worker.owned, "Partitions owned.", counts=False)
    yield Figure("shedding", float(worker.pressure.shedding), "Whether waveforms are left out.", counts=False)
    yield Figure("lag_seconds", worker.lag_s, "Age of the entries last worked off.", counts=False)


async def work(url: str, partitions: Iterable[int], models: Models, stop: asyncio.Event, *, metrics: str = "") -> None:
    """Run a worker as a process.

    Parameters
    ----------
    url : str
        Address of the bus.
    partitions : iterable of int
        To work on.
    models : Models
        The networks.
    stop : asyncio.Event
        Set to end it.
    metrics : str
        ``host:port`` for Prometheus; empty for none.
    """
    wanted, counters = tuple(partitions), Counters()
    async with Bus(url) as bus, contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(keeping_time(bus))
        pressure = Pressure()
        watching = asyncio.create_task(pressure.watch(bus), name="pressure")
        stack.push_async_callback(end, [watching])
        worker = Worker(bus, models, wanted, counters=counters, pressure=pressure)
        with exposing(metrics, "worker", lambda: figures(worker)):
            while not stop.is_set():
                try:
                    await worker.take_over()
                    log.info("worker ready", partitions=len(wanted), patients=len(worker.pipeline.patients))
                    await worker.run(stop)
                    break
                except RewoundError as error:
                    log.warning("a replica took over that had not got all, going on from there", why=str(error))
                    wanted = worker.partitions
                except BusError as error:
                    log.warning("bus can't be reached, trying again", why=str(error))
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), RETRY_S)
                worker = Worker(bus, models, wanted, counters=counters, pressure=pressure)
        log.info("worker ended", entries=counters.entries, events=counters.events, late=counters.late)
