"""A bus whose memory runs short: waveforms go first, frames wait with the broker, alarms are never left out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import aiomqtt
import numpy as np
import pytest
import stories
import waiting

from bus.messages import pack_inbound, partition_of
from bus.pressure import Pressure
from bus.server import embedded
from bus.streams import START, Bus
from bus.tasks import end
from ingest.broker import embedded_broker
from ingest.codecs import encode_frame
from ingest.frame import Frame
from ingest.subscriber import Subscriber, SubscriberOptions
from rhythmwatch import trimming
from rhythmwatch import worker as working
from rhythmwatch.worker import Worker

DEADLINE_S = 60.0
PARTITIONS = 4


until = partial(waiting.until, seconds=DEADLINE_S)


@contextlib.asynccontextmanager
async def watched(bus: Bus) -> AsyncIterator[Pressure]:
    """Watch the memory of a bus."""
    pressure = Pressure()
    watching = asyncio.create_task(pressure.watch(bus))
    try:
        yield pressure
    finally:
        await end([watching])


@pytest.mark.parametrize(
    ("looks", "shedding", "holding"),
    [
        ([70], False, False), ([76], True, False), ([76, 72], True, False), ([76, 72, 69], False, False),
        ([86], True, True), ([86, 82], True, True), ([86, 79], True, False), ([99, 10], False, False),
    ],
)  # fmt: skip
async def test_what_gives_way_and_when_it_comes_back(looks: list[int], shedding: bool, holding: bool):
    """Waveforms above three quarters, frames above 85 %, each until a little below."""
    pressure = Pressure()
    for used in looks:
        pressure.note(used, 100)
    assert (pressure.shedding, pressure.holding) == (shedding, holding)
    pressure.note(10**12, 0)
    assert (pressure.share, pressure.shedding, pressure.holding) == (0.0, False, False)


@pytest.mark.services
async def test_frames_wait_with_the_broker_until_there_is_room(tmp_path: Path):
    """Near the limit of a real server nothing is stored and nothing lost; what waited is stored once there is room."""
    async with (
        embedded(tmp_path / "bus", memory_mb=16) as url,
        Bus(url) as bus,
        embedded_broker(tmp_path / "broker", engine="mosquitto") as broker,
        watched(bus) as pressure,
    ):
        filled = [(0, bytes(10_000)) for _ in range(100)]
        last = START
        while not pressure.holding:
            used, limit = await bus.memory()
            if used < 0.88 * limit:
                last = (await bus.append_in(filled))[-1]
            await asyncio.sleep(0.02)
        options = SubscriberOptions(broker.host, broker.port, broker.username, broker.password, mqtt5=True)
        subscriber = Subscriber(options, bus, clock=lambda: 0, pressure=pressure)
        running = asyncio.create_task(subscriber.run())
        name, password = broker.device_username, broker.device_password
        patient = partition_of("bed-7")
        try:
            async with aiomqtt.Client(broker.host, broker.port, username=name, password=password) as bed:
                await until(lambda: subscriber.connected)
                for seq in range(20):
                    frame = Frame("bed-7", 1, seq, 250 * seq, 0, 250.0, ("II",), 200.0, np.zeros((250, 1), np.int16))
                    await bed.publish("rw/v1/bed-7/ecg", encode_frame(frame), qos=1)
            await until(lambda: subscriber.counts["received"] == 20)
            assert subscriber.counts["stored"] == 0
            assert pressure.holding
            await bus.trim(0, last)
            await until(lambda: subscriber.counts["stored"] == 20)
            assert not pressure.shedding
            found = await bus.read({patient: START})
            assert sum(len(records) for _, records in found) == 20
        finally:
            await end([running])


@pytest.mark.services
@pytest.mark.parametrize("used", [10, 80])
async def test_waveforms_are_left_out_and_all_else_is_stored(tmp_path: Path, used: int):
    """Under pressure the wall gets no waveforms; beats and alarms are those of a bus with room."""
    entries = [stories.frame_entry(frame) for frame in stories.frames(stories.recording("sinus:60,hr=80", 20), "a")]
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=PARTITIONS) as bus:
        pressure = Pressure()
        pressure.note(used, 100)
        worker, stop = Worker(bus, stories.models(), range(PARTITIONS), PARTITIONS, pressure=pressure), asyncio.Event()
        await worker.take_over()
        running = asyncio.create_task(worker.run(stop))
        partition = partition_of("a", PARTITIONS)
        await bus.append_in([(partition, pack_inbound(entry)) for entry in entries])
        async with asyncio.timeout(DEADLINE_S):
            while (stats := (await bus.stats([partition]))[0]).last != stats.position:
                await asyncio.sleep(0.02)
        stop.set()
        await running
        events = [record.data for _, records in await bus.read_events({partition: START}) for record in records]
        assert events == stories.by_patient(stories.run(entries))["a"]
        assert bool(await bus.read_view({partition: START})) is (used < 75)


@pytest.mark.services
@pytest.mark.parametrize("used", [10, 90])
async def test_a_reader_far_behind_does_not_fill_the_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: int):
    """Entries are kept for a recorder that stands still, but not where that would end the watch over patients."""
    for name in ("CHECKPOINT_S", "TRIM_S"):
        monkeypatch.setattr(working, name, 0)
    monkeypatch.setattr(trimming, "PRESSED_MS", 0)
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=PARTITIONS) as bus:
        await bus.hold("recorder", {0: {"in": START}})
        await bus.append_in([(0, bytes(1000)) for _ in range(2000)])
        pressure = Pressure()
        pressure.note(used, 100)
        worker, stop = Worker(bus, stories.models(), range(PARTITIONS), PARTITIONS, pressure=pressure), asyncio.Event()
        await worker.take_over()
        running = asyncio.create_task(worker.run(stop))
        async with asyncio.timeout(DEADLINE_S):
            while (stats := (await bus.stats([0]))[0]).last != stats.position:
                await asyncio.sleep(0.02)
        stop.set()
        await running
        kept = (await bus.stats([0]))[0].entries
        assert kept == 2000 if used < 75 else kept < 1500
