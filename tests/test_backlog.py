"""Stored data never stands before live data, and none of it is lost or doubled: real broker, real bus."""

import asyncio
import contextlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import aiomqtt
import numpy as np
import pytest
import waiting
from ingests import running

from bus.clock import now_ms
from bus.messages import Entry, Inbound, pack_inbound, partition_of, unpack_inbound
from bus.pressure import Pressure
from bus.server import embedded
from bus.streams import START, Bus, Commit, milliseconds
from ingest.broker import Broker, embedded_broker
from ingest.codecs import decode_frame, encode_frame
from ingest.frame import Frame
from ingest.pacing import LATE_MS, Pace
from ingest.subscriber import Subscriber, SubscriberOptions

DEADLINE_S = 120.0
WINDOW = 200
FAST = Pace(device=2_000.0, whole=4_000.0, least=100.0)
pytestmark = pytest.mark.services


def frame(device: str, seq: int) -> bytes:
    """Make a frame of one second."""
    now_ms = time.time_ns() // 1_000_000
    return encode_frame(Frame(device, 1, seq, 250 * seq, now_ms, 250.0, ("I",), 200.0, np.full((250, 1), 7, np.int16)))


def device(broker: Broker) -> aiomqtt.Client:
    """Make a client with the account of devices."""
    name, password = broker.device_username, broker.device_password
    client = aiomqtt.Client(
        broker.host, broker.port, username=name, password=password, protocol=aiomqtt.ProtocolVersion.V5, timeout=60.0
    )
    client.pending_calls_threshold = 1_000_000
    return client


def subscriber(broker: Broker, bus: Bus, pace: Pace = FAST, pressure: Pressure | None = None) -> Subscriber:
    """Make the subscriber of a service that is started again and again."""
    options = SubscriberOptions(broker.host, broker.port, broker.username, broker.password, "one", mqtt5=broker.mqtt5)
    return Subscriber(options, bus, pace=pace, pressure=pressure)


until = partial(waiting.until, seconds=DEADLINE_S)


@contextlib.asynccontextmanager
async def service(folder: Path) -> AsyncIterator[tuple[Bus, Broker]]:
    """Run bus and broker, on which ingest has been before."""
    async with (
        embedded(folder / "bus") as url,
        Bus(url) as bus,
        embedded_broker(folder / "broker", engine="mosquitto") as broker,
    ):
        async with running(subscriber(broker, bus)):
            pass
        yield bus, broker


async def publish(client: aiomqtt.Client, leaf: str, name: str, numbers: range) -> None:
    """Publish frames as fast as that goes."""
    for first in range(numbers.start, numbers.stop, 500):
        part = range(first, min(first + 500, numbers.stop))
        await asyncio.gather(*(client.publish(f"rw/v1/{name}/{leaf}", frame(name, seq), qos=1) for seq in part))


async def on_bus(bus: Bus) -> dict[tuple[str, Entry], Counter[int]]:
    """Count the frames on the bus."""
    found: dict[tuple[str, Entry], Counter[int]] = defaultdict(Counter)
    for _, records in await bus.read(dict.fromkeys(range(bus.partitions), START), count=100_000):
        for record in records:
            entry = unpack_inbound(record.data)
            if entry.kind in (Entry.FRAME, Entry.BACKFILL):
                found[entry.patient, entry.kind][decode_frame(entry.payload).seq] += 1
    return found


async def test_a_full_window_of_stored_data_holds_no_live_frame_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ten windows of stored frames wait, one device's, while another's live frames are on the bus at once."""
    monkeypatch.setattr("ingest.backlog.WINDOW", WINDOW)
    many = 10 * WINDOW
    async with service(tmp_path) as (bus, broker), device(broker) as bed:
        await publish(bed, "backfill", "old", range(many))
        slow = subscriber(broker, bus, Pace(device=20.0, whole=20.0, least=1.0))
        async with running(slow):
            await until(lambda: slow.backlog.waiting >= WINDOW - 20)
            for seq in range(20):
                began = time.monotonic()
                stored = slow.counts["stored"]
                await bed.publish("rw/v1/live/ecg", frame("live", seq), qos=1)
                await until(lambda stored=stored: slow.counts["stored"] > stored)
                assert time.monotonic() - began < 5.0
            await until_on_bus(bus, ("live", Entry.FRAME), 20)
            assert slow.backlog.waiting
            assert slow.counts["received"] < many
        async with running(subscriber(broker, bus)):
            found = await until_on_bus(bus, ("old", Entry.BACKFILL), many)
    assert found["live", Entry.FRAME] == Counter(range(20))
    assert found["old", Entry.BACKFILL] == Counter(range(many))


async def until_on_bus(bus: Bus, which: tuple[str, Entry], count: int) -> dict[tuple[str, Entry], Counter[int]]:
    """Wait until so many different frames are on the bus."""
    async with asyncio.timeout(DEADLINE_S):
        while len((found := await on_bus(bus))[which]) < count:
            await asyncio.sleep(0.1)
    return found


async def test_nothing_goes_while_workers_are_late(tmp_path: Path):
    """A worker that stands still on one partition stops stored data, not live data; once it has caught up all goes."""
    async with service(tmp_path) as (bus, broker), device(broker) as bed, running(subscriber(broker, bus)) as ingest:
        epoch = await bus.claim(3)

        async def tick() -> str:
            (position,) = await bus.append_in([(3, pack_inbound(Inbound(Entry.TICK, now_ms(), "", b"")))])
            return position

        first = await tick()
        await bus.commit_all([Commit(3, epoch, first, [], [], None, START)])
        last = first
        while (await bus.stats([3]))[0].lag_ms < 2 * LATE_MS[1]:
            last = await tick()
            await asyncio.sleep(0.05)
        await publish(bed, "backfill", "old", range(200))
        await until(lambda: ingest.backlog.waiting == 200)
        await publish(bed, "ecg", "live", range(20))
        found = await until_on_bus(bus, ("live", Entry.FRAME), 20)
        assert not found["old", Entry.BACKFILL]
        assert ingest.backlog.rate == 0
        await bus.commit_all([Commit(3, epoch, last, [], [], None, first)])
        found = await until_on_bus(bus, ("old", Entry.BACKFILL), 200)
    assert found["old", Entry.BACKFILL] == Counter(range(200))


async def test_a_pressed_bus_gets_the_least(tmp_path: Path):
    """While the memory of the bus runs short stored data goes at the least rate, while it holds frames not at all."""
    pressure = Pressure()
    pressure.note(80, 100)
    pace = Pace(device=2_000.0, whole=4_000.0, least=10.0)
    async with (
        service(tmp_path) as (bus, broker),
        device(broker) as bed,
        running(subscriber(broker, bus, pace, pressure)) as ingest,
    ):
        await publish(bed, "backfill", "old", range(1_000))
        await until(lambda: ingest.backlog.rate > 0)
        assert ingest.backlog.rate == 10.0
        pressure.note(90, 100)
        await until(lambda: ingest.backlog.rate == 0)
        assert ingest.backlog.waiting
        pressure.note(10, 100)
        found = await until_on_bus(bus, ("old", Entry.BACKFILL), 1_000)
    assert found["old", Entry.BACKFILL] == Counter(range(1_000))


async def test_a_service_that_ends_midway_loses_nothing(tmp_path: Path):
    """What was not let through is with the broker, which sends it to the next one."""
    async with service(tmp_path) as (bus, broker), device(broker) as bed:
        await publish(bed, "backfill", "old", range(1_000))
        for count in (100, 400):
            async with running(subscriber(broker, bus, Pace(device=400.0, whole=400.0, least=10.0))):
                await until_on_bus(bus, ("old", Entry.BACKFILL), count)
        async with running(subscriber(broker, bus)):
            found = await until_on_bus(bus, ("old", Entry.BACKFILL), 1_000)
    # A batch that was on the bus and not acknowledged comes twice; readers drop it.
    assert set(found["old", Entry.BACKFILL]) == set(range(1_000))
    assert max(found["old", Entry.BACKFILL].values()) <= 2


async def live_waits(bus: Bus) -> list[float]:
    """Give how long each live frame was on its way to the bus, s."""
    waits: list[float] = []
    for _, records in await bus.read({partition_of("live", bus.partitions): START}, count=100_000):
        for record in records:
            entry = unpack_inbound(record.data)
            if entry.kind is Entry.FRAME and entry.patient == "live":
                waits.append((milliseconds(record.position) - decode_frame(entry.payload).device_ms) / 1000)
    return waits


async def test_fifty_return_at_once(tmp_path: Path):
    """All get on together, live frames beside them are as quick as before, and all come once."""
    old = [f"old-{number}" for number in range(50)]
    each = 80
    async with (
        service(tmp_path) as (bus, broker),
        device(broker) as live,
        device(broker) as others,
        running(subscriber(broker, bus, Pace(device=120.0, whole=480.0, least=4.0))) as ingest,
    ):
        for seq in range(40):
            await publish(live, "ecg", "live", range(seq, seq + 1))
        await until_on_bus(bus, ("live", Entry.FRAME), 40)
        before = await live_waits(bus)
        await asyncio.gather(*(publish(others, "backfill", name, range(each)) for name in old))
        for seq in range(40, 120):
            await publish(live, "ecg", "live", range(seq, seq + 1))
            await asyncio.sleep(0.05)  # the pace of the device
        found = await until_on_bus(bus, ("live", Entry.FRAME), 120)
        assert ingest.backlog.waiting
        during = (await live_waits(bus))[40:]
        begun = [name for name in old if found[name, Entry.BACKFILL]]
        await until(lambda: ingest.counts["stored"] >= 120 + len(old) * each)
        found = await on_bus(bus)
    assert len(begun) > 10
    assert max(during) < 2 * max(before) + 2.0
    assert found["live", Entry.FRAME] == Counter(range(120))
    assert [found[name, Entry.BACKFILL] for name in old] == [Counter(range(each))] * len(old)


async def test_the_session_of_before_gives_stored_data_up(tmp_path: Path):
    """A session of live data that still subscribes to stored data, as those of earlier services, gets it no more."""
    async with (
        embedded(tmp_path / "bus") as url,
        Bus(url) as bus,
        embedded_broker(tmp_path / "broker", engine="mosquitto") as broker,
        device(broker) as bed,
    ):
        earlier = aiomqtt.Client(
            broker.host, broker.port, username=broker.username, password=broker.password, identifier="one",
            clean_session=False,
        )  # fmt: skip
        async with earlier:
            await earlier.subscribe("rw/v1/+/backfill", qos=1)
        await publish(bed, "backfill", "old", range(5))
        async with running(subscriber(broker, bus)):
            await until_on_bus(bus, ("old", Entry.BACKFILL), 5)
            await publish(bed, "backfill", "old", range(5, 10))
            await publish(bed, "ecg", "live", range(1))
            await until_on_bus(bus, ("live", Entry.FRAME), 1)
            found = await until_on_bus(bus, ("old", Entry.BACKFILL), 10)
    assert found["old", Entry.BACKFILL] == Counter(range(10))


async def test_a_device_is_told_what_is_stored(tmp_path: Path):
    """Each frame on the bus is answered, by epoch and number; one that comes twice while it waits is stored once."""
    told: list[tuple[int, int]] = []
    async with service(tmp_path) as (bus, broker), device(broker) as bed:
        await bed.subscribe("rw/v1/old/commands", qos=1)
        frames = [frame("old", seq) for seq in range(100)]
        for payload in (*frames, *frames, b"no frame"):
            await bed.publish("rw/v1/old/backfill", payload, qos=1)
        async with running(subscriber(broker, bus)) as ingest, asyncio.timeout(DEADLINE_S):
            async for message in bed.messages:
                answer = json.loads(bytes(message.payload))
                assert answer["name"] == "stored"
                told += [(epoch, seq) for epoch, seq in answer["frames"]]
                if len(set(told)) == 100:
                    break
            await until(lambda: ingest.counts["drop_magic"] + ingest.counts["drop_json"] == 1)
            found = await on_bus(bus)
    assert set(told) == {(1, seq) for seq in range(100)}
    assert found["old", Entry.BACKFILL] == Counter(range(100))
