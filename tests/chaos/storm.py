"""A station under faults: a ward played through it at speed, and what it gives against an undisturbed fold."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from alerts.book import Presence
from alerts.model import Kind
from bus.errors import BusError
from bus.messages import AlarmEvent, BeatEvent, Entry, Event, Inbound, partition_of, unpack_event, unpack_inbound
from bus.streams import START, Bus, Position, milliseconds
from ingest.codecs import check_frame, encode_frame
from ingest.device import Connection, DeviceMeta, FleetClient
from ingest.frame import Frame
from ingest.replay import PlayStats, Source, play
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.load import load_sources
from rhythmwatch.measuring import bus_pid
from rhythmwatch.models import load_models
from rhythmwatch.pipeline import Pipeline
from rhythmwatch.station import Running, Station, running_station, until_ready

PATIENTS: Final = int(os.environ.get("RHYTHMWATCH_CHAOS_PATIENTS", "200"))
"""Fewer make a storm that a busy machine bears while one is written; the table is of the whole ward."""
SECONDS: Final = 160
"""Signal of each patient."""
SPEED: Final = float(os.environ.get("RHYTHMWATCH_CHAOS_SPEED", "3"))
EPOCH: Final = 1
CLIENTS: Final = 4
LAG_MS: Final = 500
"""Behind by less than this counts as recovered."""
DRAIN_S: Final = 90.0
HEALING_S: Final = 60.0
SETTLING_S: Final = 180.0
"""Until all parts run for the first time: all import at once, and nothing is measured meanwhile."""

BeatKey = tuple[str, int, str]
Faults: TypeAlias = Callable[["Storm"], Awaitable[None]]


@dataclass
class Balance:
    """What was given against the undisturbed fold.

    Attributes
    ----------
    alarms, beats : int
        Of the fold.
    lost_alarms, doubled_alarms, lost_beats, doubled_beats : int
        Against it.
    strange : list of str
        Given here and not there.
    """

    alarms: int
    beats: int
    lost_alarms: int
    doubled_alarms: int
    lost_beats: int
    doubled_beats: int
    strange: list[str]

    def cells(self) -> str:
        """Columns of the table."""
        return (
            f"{self.lost_alarms} / {self.doubled_alarms} of {self.alarms} | "
            f"{self.lost_beats} / {self.doubled_beats} of {self.beats} | {len(self.strange)}"
        )

    def check(self) -> None:
        """Hold it against the promise: nothing lost, doubled or strange."""
        assert self.alarms > PATIENTS / 4
        assert self.beats > 100 * PATIENTS
        cost = (self.lost_alarms, self.doubled_alarms, self.lost_beats, self.doubled_beats, self.strange)
        assert cost == (0, 0, 0, 0, [])


@dataclass
class Findings(Balance):
    """What a storm cost.

    Attributes
    ----------
    recoveries : list of float
        Seconds from each fault until the worker was no more than `LAG_MS` behind.
    beside : dict of (kind, str) to str
        Technical alarms that the fold has not, by kind and identity, and how each stood at the end.
    """

    recoveries: list[float] = field(default_factory=list)
    beside: dict[tuple[str, str], str] = field(default_factory=dict)

    def check_silence(self) -> None:
        """Where nothing could come, NO_DATA may have been raised, and nothing else; it ended when data came."""
        assert {kind for kind, _ in self.beside} <= {Kind.NO_DATA}
        assert set(self.beside.values()) <= {Presence.OFF}

    def line(self, name: str) -> str:
        """Row of the table."""
        p99 = f"{np.percentile(self.recoveries, 99):.1f}" if self.recoveries else "-"
        return f"| {name} | {len(self.recoveries)} | {self.cells()} | {p99} |"


class Finite:
    """A source that ends."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.device, self.rate, self.leads, self.gain = source.device, source.rate, source.leads, source.gain

    def frames(self, epoch: int, start_ms: int) -> Iterator[Frame]:
        """Give the first `SECONDS` frames."""
        return itertools.islice(self.source.frames(epoch, start_ms), SECONDS)


@cache
def ward(data: Path | None) -> tuple[Finite, ...]:
    """Open the sources of the ward."""
    return tuple(Finite(source) for source in load_sources(data, 0, PATIENTS))


@cache
def undisturbed(data: Path | None) -> tuple[frozenset[BeatKey], frozenset[str], frozenset[str]]:
    """Beats, clinical alarms and technical alarms of the pure fold over the same frames."""
    pipeline = Pipeline(load_models(), 64, views=False)
    beats: set[BeatKey] = set()
    alarms: set[str] = set()
    technical: set[str] = set()
    rounds = zip(*(source.frames(EPOCH, 0) for source in ward(data)), strict=True)
    for second, frames in enumerate(rounds):
        entries = [
            (partition_of(frame.device), Inbound(Entry.FRAME, second * 1000, frame.device, encode_frame(frame)))
            for frame in frames
        ]
        for _, event in pipeline.step(entries).events:
            if isinstance(event, BeatEvent):
                beats.add((event.device, event.sample, event.code))
            elif isinstance(event, AlarmEvent):
                (technical if event.technical else alarms).add(event.id)
    return frozenset(beats), frozenset(alarms), frozenset(technical)


@dataclass
class Storm:
    """A running station with its faults."""

    bus: Bus
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    running: Running | None = None
    faults: list[float] = field(default_factory=list)
    healed: list[float] = field(default_factory=list)
    clients: list[FleetClient] = field(default_factory=list)
    """Devices that are still playing."""
    played: PlayStats = field(default_factory=PlayStats)

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    async def pid(self, part: str) -> int | None:
        """Process id of a part; ``bus`` and ``broker`` are the embedded servers."""
        if part == "bus":
            try:
                return await bus_pid(self.bus.url)
            except (OSError, BusError):
                return None
        if part == "broker":
            return next(iter(children("mosquitto")), None)
        return self.running.supervisor.pid(part) if self.running is not None else None

    async def kill(self, part: str, signum: signal.Signals = signal.SIGKILL) -> None:
        """Signal a part as soon as it runs."""
        async with asyncio.timeout(30):
            while (pid := await self.pid(part)) is None:
                await asyncio.sleep(0.05)
        self.faults.append(self.now())
        os.kill(pid, signum)

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a process of ours beside the supervisor's."""
        environment = {**os.environ, "RHYTHMWATCH_BUS": self.bus.url, "RHYTHMWATCH_SUPERVISED": "1"}
        return await asyncio.create_subprocess_exec(sys.executable, "-m", "rhythmwatch", *arguments, env=environment)

    async def watch(self) -> None:
        """Note after each fault when devices, ingest and workers have caught up again."""
        while True:
            await asyncio.sleep(0.05)
            if len(self.healed) == len(self.faults):
                continue
            began = self.faults[len(self.healed)]
            # At least one frame of each patient must have come since, or nobody can be behind.
            if self.now() - began < 1.5 / SPEED:
                continue
            with contextlib.suppress(BusError):
                if await self._well():
                    self.healed.append(self.now())

    async def heal(self, seconds: float = HEALING_S) -> None:
        """Wait until all faults so far have been got over."""
        async with asyncio.timeout(seconds):
            while len(self.healed) < len(self.faults):
                await asyncio.sleep(0.05)

    async def _well(self) -> bool:
        if any(not client.is_connected or client.waiting > PATIENTS for client in self.clients):
            return False
        stats = await self.bus.stats(range(self.bus.partitions))
        since = time.time() * 1000 - LAG_MS
        if max(item.lag_ms for item in stats) > LAG_MS or max(milliseconds(item.last) for item in stats) < since:
            return False
        return not self.clients or await self._frames_come(f"{since:.0f}-0")

    async def _frames_come(self, since: Position) -> bool:
        """Whether what devices send now has come: ticks come without any, and ingest may hold older frames back."""
        newest_ms = 1000 * (self.played.frames / PATIENTS - 1) - LAG_MS * SPEED
        ranges = dict.fromkeys(range(self.bus.partitions), (since, "+"))
        for records in (await self.bus.read_ranges(ranges)).values():
            for record in records:
                entry = unpack_inbound(record.data)
                if entry.kind == Entry.FRAME and check_frame(entry.payload, entry.patient).device_ms >= newest_ms:
                    return True
        return False


def children(name: str) -> list[int]:
    """Find the processes below this one whose program has a name."""
    found, parents = [], {os.getpid()}
    for entry in sorted(int(item.name) for item in Path("/proc").iterdir() if item.name.isdigit()):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")
        except OSError:
            continue
        if int(fields[2].split()[1]) in parents:
            parents.add(entry)
            if fields[0].partition("(")[2] == name and fields[2].split()[0] != "Z":
                found.append(entry)
    return found


async def weather(
    folder: Path,
    data: Path | None,
    faults: Faults,
    seed: int = 1,
    *,
    station: Station | None = None,
    after: Faults | None = None,
) -> Findings:
    """Play the ward through a station while `faults` happen; returns what they cost.

    Parameters
    ----------
    folder : Path
        State of the station.
    station : Station, optional
        Else one with everything embedded.
    after : callable, optional
        Called once all that is awaited is there, while the station still runs.
    """
    station = station or Station(state=folder, host="127.0.0.1", port=0)
    async with running_station(station, asyncio.Event()) as running, Bus(running.bus, timeout_s=2.0) as bus:
        await settled(running)
        return await played(Storm(bus, random.Random(seed), running), running.devices, data, faults, after)


async def settled(running: Running) -> None:
    """Wait until every part runs, the one that stands by too: storms come over what has settled."""
    # Twice: a busy machine takes its time.
    assert await until_ready(running.url) or await until_ready(running.url)
    async with asyncio.timeout(SETTLING_S):
        while not all(running.supervisor.heard(part.name) for part in running.supervisor.parts):
            await asyncio.sleep(0.05)


async def played(
    storm: Storm, devices: str, data: Path | None, faults: Faults, after: Faults | None = None
) -> Findings:
    """Play the ward through a chain that runs, whose broker is at `devices`; further as `weather`."""
    beats, alarms, technical = undisturbed(data)
    watcher = asyncio.create_task(storm.watch())
    troubles = asyncio.ensure_future(faults(storm))
    try:
        await publish(storm, devices, ward(data))
        await troubles
        got = await drained(storm.bus, beats, alarms)
        if after is not None:
            await after(storm)
    finally:
        watcher.cancel()
        troubles.cancel()
        await asyncio.gather(watcher, troubles, return_exceptions=True)
    recoveries = [healed - fault for fault, healed in zip(storm.faults, storm.healed, strict=False)]
    got_beats, got_alarms = got.beats, got.alarms
    # Behind the last sample nothing comes any more, and that is told too.
    ends = {source.device: (SECONDS - 1) * source.rate for source in ward(data)}
    return Findings(
        len(alarms), len(beats),
        len(alarms - got_alarms.keys()), sum(count - 1 for count in got_alarms.values()),
        len(beats - got_beats.keys()), sum(count - 1 for count in got_beats.values()),
        sorted(map(str, (got_beats.keys() - beats) | (got_alarms.keys() - alarms))),
        recoveries,
        {
            (event.kind, event.id): event.presence for event in got.technical.values()
            if event.id not in technical and event.onset_sample < ends[event.device]
        },
    )  # fmt: skip


async def publish(storm: Storm, devices: str, sources: Sequence[Finite]) -> None:
    """Publish all frames at speed, and wait until the broker has acknowledged the last."""
    address = BrokerAddress.parse(devices)
    connection = Connection(address.host, address.port, address.username, address.password)

    async def part(number: int) -> None:
        mine = sources[number::CLIENTS]
        metas = [DeviceMeta(item.device, EPOCH, item.rate, item.leads, item.gain) for item in mine]
        async with FleetClient(connection, metas) as client:
            await client.connected()
            storm.clients.append(client)
            try:
                await play(mine, client, epoch=EPOCH, start_ms=0, speed=SPEED, stats=storm.played)
            finally:
                storm.clients.remove(client)
            async with asyncio.timeout(DRAIN_S):
                await client.drain()

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(part(number))


@dataclass
class Given:
    """What the events say: how often each beat and clinical alarm began, and the newest of each technical alarm."""

    beats: Counter[BeatKey] = field(default_factory=Counter)
    alarms: Counter[str] = field(default_factory=Counter)
    technical: dict[str, AlarmEvent] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Count an event."""
        if isinstance(event, BeatEvent):
            self.beats[event.device, event.sample, event.code] += 1
        elif isinstance(event, AlarmEvent) and event.technical:
            self.technical[event.id] = event
        elif isinstance(event, AlarmEvent) and event.revision == 0:
            self.alarms[event.id] += 1


async def drained(bus: Bus, beats: frozenset[BeatKey], alarms: frozenset[str]) -> Given:
    """Read the events until all that is awaited is there, or for `DRAIN_S`."""
    given = Given()
    cursors: dict[int, Position] = dict.fromkeys(range(bus.partitions), START)
    until = time.monotonic() + DRAIN_S
    while time.monotonic() < until:
        try:
            batches = await bus.read_events(cursors, count=1000, block_ms=200)
        except BusError:
            continue
        for partition, records in batches:
            cursors[partition] = records[-1].position
            for record in records:
                given.take(unpack_event(record.data))
        if not batches and beats <= given.beats.keys() and alarms <= given.alarms.keys():
            break
    return given
