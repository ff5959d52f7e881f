"""A ward played live through a station while devices, clocks, the database or contacts misbehave.

Beside what was lost or doubled it measures how long a page waits for an alarm: from the frame that let it be raised,
which the undisturbed fold names, to its message on the websocket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from storm import CLIENTS, DRAIN_S, EPOCH, SPEED, Balance, BeatKey, settled, ward
from websockets.exceptions import WebSocketException

from bus.messages import AlarmEvent, BeatEvent, Entry, Event, Inbound, partition_of, unpack_event
from bus.streams import START, Bus, Position
from bus.tasks import end
from ingest.codecs import encode_frame
from ingest.device import Connection, DeviceMeta, FleetClient
from ingest.frame import Frame
from ingest.replay import Source, play
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.measuring import Receipt, listen
from rhythmwatch.models import load_models
from rhythmwatch.pipeline import Pipeline
from rhythmwatch.station import Running, Station, running_station

READ_COUNT: Final = 1000
DELAY_S: Final = 2.0
"""While something misbehaves live alarms may wait twice as long as before (the machine may be busy) and this more."""
Trouble: TypeAlias = Callable[["Scene"], Awaitable[None]]


@dataclass(frozen=True)
class Expected:
    """What the undisturbed fold gives.

    Attributes
    ----------
    alarms : dict of str to int
        Clinical alarms with the number of the frame that raised each.
    calm : tuple of str
        Patients without any alarm.
    """

    beats: frozenset[BeatKey]
    alarms: dict[str, int]
    calm: tuple[str, ...]


@cache
def expected(data: Path | None) -> Expected:
    """Fold the frames of the ward without any fault."""
    pipeline = Pipeline(load_models(), 64, views=False)
    beats: set[BeatKey] = set()
    alarms: dict[str, int] = {}
    calm = {source.device for source in ward(data)}
    for number, frames in enumerate(zip(*(source.frames(EPOCH, 0) for source in ward(data)), strict=True)):
        entries = [
            (partition_of(frame.device), Inbound(Entry.FRAME, number * 1000, frame.device, encode_frame(frame)))
            for frame in frames
        ]
        for _, event in pipeline.step(entries).events:
            if isinstance(event, BeatEvent):
                beats.add((event.device, event.sample, event.code))
            elif isinstance(event, AlarmEvent):
                calm.discard(event.patient)
                if not event.technical:
                    alarms.setdefault(event.id, number)
    return Expected(frozenset(beats), alarms, tuple(sorted(calm)))


@dataclass
class Scene:
    """A running station, what it is sent and what it gives.

    Attributes
    ----------
    sent : dict of str to list of float
        For each device of the ward the wall time, ms, at which each frame was handed over.
    events : dict of str to list of (float, Event)
        Of each patient, in order, with the monotonic time, s, at which they were seen on the bus.
    receipts : list of Receipt
        Alarms as a page got them.
    playing, played : asyncio.Event
        Set once all devices are connected, and once they have sent everything.
    last_s : float
        Monotonic time at which the bus was read last.
    from_ms, until_ms : float
        Wall time of the trouble.
    """

    running: Running
    bus: Bus
    folder: Path
    sent: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    events: dict[str, list[tuple[float, Event]]] = field(default_factory=lambda: defaultdict(list))
    receipts: list[Receipt] = field(default_factory=list)
    playing: asyncio.Event = field(default_factory=asyncio.Event)
    played: asyncio.Event = field(default_factory=asyncio.Event)
    last_s: float = 0.0
    from_ms: float = float("inf")
    until_ms: float = float("inf")

    def begins(self) -> None:
        """Note that the trouble begins."""
        self.from_ms = time.time() * 1000

    def ends(self) -> None:
        """Note that it is over."""
        self.until_ms = time.time() * 1000

    def seen(self, kind: type[Event]) -> list[Event]:
        """List all events of a kind."""
        return [event for events in list(self.events.values()) for _, event in list(events) if isinstance(event, kind)]

    async def follow(self) -> None:
        """Take the events from the bus as they come: it forgets them when all its readers have them."""
        cursors: dict[int, Position] = dict.fromkeys(range(self.bus.partitions), START)
        while True:
            batches = await self.bus.read_events(cursors, count=READ_COUNT, block_ms=200)
            now = self.last_s = time.monotonic()
            for partition, records in batches:
                cursors[partition] = records[-1].position
                for record in records:
                    event = unpack_event(record.data)
                    self.events[event.patient].append((now, event))

    def publisher(self, client: FleetClient) -> _Noting:
        """Give what notes when each frame is handed over."""
        return _Noting(client, self.sent)

    def delays(self, alarms: dict[str, int]) -> tuple[list[float], list[float]]:
        """Give how long a page waited for alarms, s: of frames sent before the trouble, and during it."""
        before: list[float] = []
        during: list[float] = []
        first = {receipt.alarm.id: receipt for receipt in reversed(self.receipts)}
        for receipt in first.values():
            number = alarms.get(receipt.alarm.id)
            if number is None or number >= len(self.sent[receipt.alarm.patient]):
                continue
            at_ms = self.sent[receipt.alarm.patient][number]
            if at_ms <= self.until_ms:
                (before if at_ms < self.from_ms else during).append((receipt.at_ms - at_ms) / 1000)
        return before, during


class _Noting:
    """A publisher that notes when each frame was handed over."""

    def __init__(self, client: FleetClient, sent: dict[str, list[float]]) -> None:
        self._client, self._sent = client, sent

    def offer(self, frame: Frame) -> bool:
        """Note the time and pass the frame on."""
        self._sent[frame.device].append(time.time() * 1000)
        return self._client.offer(frame)

    async def publish(self, frame: Frame) -> None:
        """Note the time and pass the frame on, waiting for room."""
        self._sent[frame.device].append(time.time() * 1000)
        await self._client.publish(frame)


@dataclass
class Cost(Balance):
    """What a trouble cost.

    Attributes
    ----------
    before, during : list of float
        Delays of live alarms, s.
    """

    before: list[float]
    during: list[float]

    def line(self, name: str, more: str) -> str:
        """Row of the table."""
        return f"| {name} | {self.cells()} | {_p99(self.before):.2f} / {_p99(self.during):.2f} | {more} |"

    def check(self) -> None:
        """Hold it against the promise, and live alarms against their delay."""
        super().check()
        assert self.during
        assert _p99(self.during) <= 2 * _p99(self.before) + DELAY_S


def _p99(values: Sequence[float]) -> float:
    return float(np.percentile(values, 99)) if values else float("nan")


async def live(
    folder: Path,
    data: Path | None,
    trouble: Trouble,
    *,
    sources: Sequence[Source] | None = None,
    history: str = "",
    start_ms: int = 0,
) -> tuple[Scene, Cost]:
    """Play the ward through a station while `trouble` goes on.

    Parameters
    ----------
    folder : Path
        State of the station.
    data : Path, optional
        Folder of recordings.
    trouble : callable
        Called when the first frames go out; the station runs until it has ended, too.
    sources : sequence of Source, optional
        Devices that give the ward's frames otherwise.
    history : str
        Address of the database; empty for one of the station's own.
    start_ms : int
        What the devices' clocks say at the start.
    """
    wanted = expected(data)
    station = Station(state=folder, host="127.0.0.1", port=0, history=history)
    async with running_station(station, asyncio.Event()) as running, Bus(running.bus, timeout_s=5.0) as bus:
        await settled(running)
        scene = Scene(running, bus, folder)
        watching = [asyncio.create_task(scene.follow()), asyncio.create_task(_page(scene))]
        troubles = asyncio.create_task(_once_playing(scene, trouble))
        try:
            assert await until(lambda: watched(running.url))
            await _publish(scene, sources or ward(data), start_ms)
            scene.played.set()
            await troubles
            await _until_given(scene, wanted)
        finally:
            await end([*watching, troubles])
    return scene, _cost(scene, wanted)


async def _page(scene: Scene) -> None:
    """Be a page, however often it takes."""
    while True:
        with contextlib.suppress(OSError, WebSocketException):
            await listen(scene.running, scene.receipts)
        await asyncio.sleep(0.2)


def watched(url: str) -> bool:
    """Whether a page is connected."""
    with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:  # noqa: S310 (an address of our own)
        return bool(json.load(answer)["clients"])


async def _once_playing(scene: Scene, trouble: Trouble) -> None:
    await scene.playing.wait()
    await trouble(scene)


async def _publish(scene: Scene, sources: Sequence[Source], start_ms: int) -> None:
    ready = asyncio.Barrier(CLIENTS)

    async def part(number: int) -> None:
        mine = sources[number::CLIENTS]
        metas = [DeviceMeta(item.device, EPOCH, item.rate, item.leads, item.gain) for item in mine]
        async with FleetClient(connection_of(scene), metas) as client:
            await client.connected()
            await ready.wait()
            scene.playing.set()
            await play(mine, scene.publisher(client), epoch=EPOCH, start_ms=start_ms, speed=SPEED)
            async with asyncio.timeout(DRAIN_S):
                await client.drain()

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(part(number))


def connection_of(scene: Scene) -> Connection:
    """Give the account of devices."""
    address = BrokerAddress.parse(scene.running.devices)
    return Connection(address.host, address.port, address.username, address.password)


async def until(condition: Callable[[], bool], seconds: float = DRAIN_S) -> bool:
    """Wait for a condition, which may block; whether it came true."""
    limit = time.monotonic() + seconds
    while not (true := await asyncio.to_thread(condition)) and time.monotonic() < limit:
        await asyncio.sleep(0.2)
    return true


async def _until_given(scene: Scene, wanted: Expected) -> None:
    """Wait for all that is awaited, on the bus and on the page."""
    await until(
        lambda: (
            wanted.alarms.keys() <= {receipt.alarm.id for receipt in list(scene.receipts)}
            and len(wanted.beats) <= sum(event.device in scene.sent for event in scene.seen(BeatEvent))
        )
    )


def _cost(scene: Scene, wanted: Expected) -> Cost:
    beats: Counter[BeatKey] = Counter()
    alarms: Counter[str] = Counter()
    devices = scene.sent.keys()
    for event in scene.seen(BeatEvent):
        assert isinstance(event, BeatEvent)
        if event.device in devices:
            beats[event.device, event.sample, event.code] += 1
    for event in scene.seen(AlarmEvent):
        assert isinstance(event, AlarmEvent)
        if event.device in devices and event.revision == 0 and not event.technical:
            alarms[event.id] += 1
    page = {receipt.alarm.id for receipt in scene.receipts}
    return Cost(
        len(wanted.alarms), len(wanted.beats),
        len(wanted.alarms.keys() - (alarms.keys() & page)), sum(count - 1 for count in alarms.values()),
        len(wanted.beats - beats.keys()), sum(count - 1 for count in beats.values()),
        [*map(str, beats.keys() - wanted.beats), *(alarms.keys() - wanted.alarms.keys())],
        *scene.delays(wanted.alarms),
    )  # fmt: skip
