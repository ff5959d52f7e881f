"""A station under faults: a ward played through it at speed, and what it gives against an undisturbed fold."""

from __future__ import annotations

import asyncio
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
from typing import Final

import numpy as np

from bus.errors import BusError
from bus.messages import AlarmEvent, BeatEvent, Entry, Event, Inbound, partition_of, unpack_event
from bus.streams import START, Bus, Position
from ingest.codecs import encode_frame
from ingest.device import Connection, DeviceMeta, FleetClient
from ingest.frame import Frame
from ingest.replay import Source, play
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.load import load_sources
from rhythmwatch.measuring import bus_pid
from rhythmwatch.models import load_models
from rhythmwatch.pipeline import Pipeline
from rhythmwatch.station import Running, Station, running_station, until_ready

PATIENTS: Final = 200
SECONDS: Final = 160
"""Signal of each patient."""
SPEED: Final = 4.0
EPOCH: Final = 1
CLIENTS: Final = 4
LAG_MS: Final = 500
"""Behind by less than this counts as recovered."""
DRAIN_S: Final = 90.0

BeatKey = tuple[str, int, str]


@dataclass
class Findings:
    """What a storm cost.

    Attributes
    ----------
    lost_alarms, doubled_alarms, lost_beats, doubled_beats, strange : int
        Against the undisturbed fold; strange: given here and not there.
    recoveries : list of float
        Seconds from each fault until the worker was no more than `LAG_MS` behind.
    """

    alarms: int
    beats: int
    lost_alarms: int
    doubled_alarms: int
    lost_beats: int
    doubled_beats: int
    strange: int
    recoveries: list[float] = field(default_factory=list)

    def line(self, name: str) -> str:
        """Row of the table."""
        p99 = f"{np.percentile(self.recoveries, 99):.1f}" if self.recoveries else "-"
        return (
            f"| {name} | {len(self.recoveries)} | {self.lost_alarms} / {self.doubled_alarms} of {self.alarms} | "
            f"{self.lost_beats} / {self.doubled_beats} of {self.beats} | {self.strange} | {p99} |"
        )


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
def undisturbed(data: Path | None) -> tuple[frozenset[BeatKey], frozenset[str]]:
    """Beats and clinical alarms of the pure fold over the same frames."""
    pipeline = Pipeline(load_models(), 64, views=False)
    beats: set[BeatKey] = set()
    alarms: set[str] = set()
    rounds = zip(*(source.frames(EPOCH, 0) for source in ward(data)), strict=True)
    for second, frames in enumerate(rounds):
        entries = [
            (partition_of(frame.device), Inbound(Entry.FRAME, second * 1000, frame.device, encode_frame(frame)))
            for frame in frames
        ]
        for _, event in pipeline.step(entries).events:
            if isinstance(event, BeatEvent):
                beats.add((event.device, event.sample, event.code))
            elif isinstance(event, AlarmEvent) and not event.technical:
                alarms.add(event.id)
    return frozenset(beats), frozenset(alarms)


@dataclass
class Storm:
    """A running station with its faults."""

    running: Running
    bus: Bus
    rng: random.Random
    faults: list[float] = field(default_factory=list)
    healed: list[float] = field(default_factory=list)

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    async def pid(self, part: str) -> int | None:
        """Process id of a part; ``bus`` and ``broker`` are the embedded servers."""
        if part == "bus":
            try:
                return await bus_pid(self.running.bus)
            except (OSError, BusError):
                return None
        if part == "broker":
            return next(iter(children("mosquitto")), None)
        return self.running.supervisor.pid(part)

    async def kill(self, part: str, signum: signal.Signals = signal.SIGKILL) -> None:
        """Signal a part as soon as it runs."""
        async with asyncio.timeout(30):
            while (pid := await self.pid(part)) is None:
                await asyncio.sleep(0.05)
        self.faults.append(self.now())
        os.kill(pid, signum)

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a process of ours beside the supervisor's."""
        environment = {**os.environ, "RHYTHMWATCH_BUS": self.running.bus, "RHYTHMWATCH_SUPERVISED": "1"}
        return await asyncio.create_subprocess_exec(sys.executable, "-m", "rhythmwatch", *arguments, env=environment)

    async def watch(self) -> None:
        """Note after each fault when the workers have caught up again."""
        while True:
            await asyncio.sleep(0.05)
            if len(self.healed) == len(self.faults):
                continue
            began = self.faults[len(self.healed)]
            # At least one frame of each patient must have come since, or nobody can be behind.
            if self.now() - began < 1.5 / SPEED:
                continue
            try:
                stats = await self.bus.stats(range(self.bus.partitions))
            except BusError:
                continue
            newest = max(int(item.last.partition("-")[0]) for item in stats)
            if max(item.lag_ms for item in stats) <= LAG_MS and time.time() * 1000 - newest <= LAG_MS:
                self.healed.append(self.now())


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
    folder: Path, data: Path | None, faults: Callable[[Storm], Awaitable[None]], seed: int = 1
) -> Findings:
    """Play the ward through a station while `faults` happen; returns what they cost."""
    beats, alarms = undisturbed(data)
    station = Station(state=folder, host="127.0.0.1", port=0)
    async with running_station(station, asyncio.Event()) as running, Bus(running.bus, timeout_s=2.0) as bus:
        assert await until_ready(running.url)
        storm = Storm(running, bus, random.Random(seed))
        watcher = asyncio.create_task(storm.watch())
        troubles = asyncio.ensure_future(faults(storm))
        try:
            await publish(running, ward(data))
            await troubles
            got_beats, got_alarms = await drained(bus, beats, alarms)
        finally:
            watcher.cancel()
            troubles.cancel()
    recoveries = [healed - fault for fault, healed in zip(storm.faults, storm.healed, strict=False)]
    return Findings(
        len(alarms), len(beats),
        len(alarms - got_alarms.keys()), sum(count - 1 for count in got_alarms.values()),
        len(beats - got_beats.keys()), sum(count - 1 for count in got_beats.values()),
        len(got_beats.keys() - beats) + len(got_alarms.keys() - alarms),
        recoveries,
    )  # fmt: skip


async def publish(running: Running, sources: Sequence[Finite]) -> None:
    """Publish all frames at speed, and wait until the broker has acknowledged the last."""
    address = BrokerAddress.parse(running.devices)
    connection = Connection(address.host, address.port, address.username, address.password)

    async def part(number: int) -> None:
        mine = sources[number::CLIENTS]
        metas = [DeviceMeta(item.device, EPOCH, item.rate, item.leads, item.gain) for item in mine]
        async with FleetClient(connection, metas) as client:
            await client.connected()
            await play(mine, client, epoch=EPOCH, start_ms=0, speed=SPEED)
            async with asyncio.timeout(DRAIN_S):
                await client.drain()

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(part(number))


async def drained(bus: Bus, beats: frozenset[BeatKey], alarms: frozenset[str]) -> tuple[Counter[BeatKey], Counter[str]]:
    """Read the events until all that is awaited is there, or for `DRAIN_S`."""
    got_beats: Counter[BeatKey] = Counter()
    got_alarms: Counter[str] = Counter()
    cursors: dict[int, Position] = dict.fromkeys(range(bus.partitions), START)
    until = time.monotonic() + DRAIN_S
    while time.monotonic() < until:
        batches = await bus.read_events(cursors, count=1000, block_ms=200)
        for partition, records in batches:
            cursors[partition] = records[-1].position
            for record in records:
                _count(unpack_event(record.data), got_beats, got_alarms)
        if not batches and beats <= got_beats.keys() and alarms <= got_alarms.keys():
            break
    return got_beats, got_alarms


def _count(event: Event, beats: Counter[BeatKey], alarms: Counter[str]) -> None:
    if isinstance(event, BeatEvent):
        beats[event.device, event.sample, event.code] += 1
    elif isinstance(event, AlarmEvent) and event.revision == 0 and not event.technical:
        alarms[event.id] += 1
