"""Packets of straps at ingests that share the load: one of them numbers all, and the next one goes on from there."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from pathlib import Path

import aiomqtt
import numpy as np
import pytest
import waiting
from cluster import running_cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import RedisCluster

from bus.errors import BusUnavailableError
from bus.lease import LeaseLostError
from bus.messages import Entry, partition_of, unpack_inbound
from bus.numbered import Numbered
from bus.pressure import Pressure
from bus.server import embedded
from bus.streams import START, Bus, key
from bus.tasks import end
from ingest.broker import Broker, embedded_broker
from ingest.codecs import decode_frame
from ingest.connection import Connection as ClientConnection
from ingest.connection import Received
from ingest.frame import Frame
from ingest.limits import DeviceLimits, Quotas
from ingest.routes import LIVE, STRAPS, Routes
from ingest.strap_session import WINDOW, StrapSession
from ingest.straps import StrapPacket, StrapStream, decode_polar, encode_polar, mark_of
from ingest.subscriber import Subscriber, SubscriberOptions

NOW = 1_700_000_000_000
PACKET = 73
until = partial(waiting.until, seconds=60.0)


def payload(number: int, device: int = 0) -> bytes:
    """Lay packet `number` of a Polar strap out: a ramp that tells each sample from every other."""
    first = number * PACKET
    samples = np.arange(first, first + PACKET, dtype=np.int32) - device * 1_000_000
    return encode_polar(round((5_000 + (first + PACKET - 1) * 1000 / 130) * 1e6), samples)


def assert_whole(frames: Sequence[Frame], packets: int, device: int = 0) -> None:
    """Every sample is there once and in order, in one epoch, with nothing between frames."""
    assert len({frame.epoch for frame in frames}) == 1
    assert [frame.seq for frame in frames] == list(range(packets))
    for before, after in itertools.pairwise(frames):
        assert after.sample == before.sample + len(before.samples)
    samples = np.concatenate([frame.samples for frame in frames])[:, 0]
    np.testing.assert_array_equal(samples, np.arange(packets * PACKET) - device * 1_000_000)


async def frames_of(bus: Bus, device: str) -> list[Frame]:
    """Frames of a device on the bus, as they lie there."""
    got = await bus.read({partition_of(device, bus.partitions): START}, count=100_000)
    entries = [unpack_inbound(record.data) for _, records in got for record in records]
    frames = [decode_frame(entry.payload) for entry in entries if entry.kind is Entry.FRAME]
    return [frame for frame in frames if frame.device == device]


def session(broker: Broker, bus: Bus, holder: str, *, limits: DeviceLimits | None = None) -> StrapSession:
    """Make the part of an ingest that takes packets of straps."""
    options = SubscriberOptions(broker.host, broker.port, broker.username, broker.password, "straps")
    counts: Counter[str] = Counter()

    def drop(reason: str) -> None:
        counts[f"drop_{reason}"] += 1

    return StrapSession(
        options,
        bus,
        holder=holder,
        routes=Routes(bus),
        quotas=Quotas(limits or DeviceLimits()),
        counts=counts,
        pressure=Pressure(),
        clock=lambda: NOW,
        monotonic=time.monotonic,
        drop=drop,
    )


@contextlib.asynccontextmanager
async def running(*sessions: StrapSession) -> AsyncIterator[None]:
    """Run sessions for the block; it begins once one of them takes packets."""
    tasks = [asyncio.create_task(each.run(lambda: True, lambda: None)) for each in sessions]
    try:
        await until(lambda: any(each.connected for each in sessions) or any(task.done() for task in tasks))
        yield
    finally:
        await end(tasks)


def strap(broker: Broker) -> aiomqtt.Client:
    """Make a client with the account of devices."""
    name, password = broker.device_username, broker.device_password
    version = aiomqtt.ProtocolVersion.V5
    return aiomqtt.Client(broker.host, broker.port, username=name, password=password, protocol=version)


async def publish(client: aiomqtt.Client, numbers: Iterable[int], device: int = 0) -> None:
    """Send packets of a strap as they came."""
    for number in numbers:
        await client.publish(f"rw/v1/strap-{device}/polar", payload(number, device), qos=1)


@contextlib.asynccontextmanager
async def parts(folder: Path) -> AsyncIterator[tuple[Bus, Broker]]:
    """Run a bus and a broker."""
    async with (
        embedded(folder / "bus") as url,
        Bus(url) as bus,
        embedded_broker(folder / "broker", engine="mosquitto") as broker,
    ):
        yield bus, broker


@pytest.mark.services
async def test_one_takes_all_and_the_next_goes_on(tmp_path: Path):
    """Only one of two takes packets; when it ends the other goes on in the same epoch, with what came meanwhile."""
    async with parts(tmp_path) as (bus, broker), strap(broker) as client:
        one, two = session(broker, bus, "one"), session(broker, bus, "two")
        async with running(one):
            await publish(client, range(20))
            await until(lambda: one.counts["stored"] == 20)
        await publish(client, range(20, 40))
        async with running(two, one):
            await publish(client, range(40, 60))
            await until(lambda: one.counts["stored"] + two.counts["stored"] == 60)
            assert one.connected != two.connected
        assert_whole(await frames_of(bus, "strap-0"), 60)
        assert (one.counts + two.counts)["strap_epochs"] == 1


@pytest.mark.services
async def test_what_was_stored_and_not_acknowledged_is_stored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A holder that dies after its bus took a whole window, and before the broker knew, doubles nothing."""
    async with parts(tmp_path) as (bus, broker), strap(broker) as client:
        one, two = session(broker, bus, "one"), session(broker, bus, "two")
        with monkeypatch.context() as patched:
            patched.setattr(Received, "acknowledge", lambda self: None)
            async with running(one):
                await publish(client, range(WINDOW + 40))
                await until(lambda: one.counts["stored"] == WINDOW)
        async with running(two):
            await until(lambda: two.counts["stored"] == 40)
            assert two.counts["strap_duplicate"] == WINDOW
        assert_whole(await frames_of(bus, "strap-0"), WINDOW + 40)


@pytest.mark.services
async def test_a_stalled_holder_that_wakes_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another one takes over from a holder that stands still; what that still has in hand comes to nothing."""
    async with parts(tmp_path) as (bus, broker), strap(broker) as client:
        one, two = session(broker, bus, "one"), session(broker, bus, "two")
        awake, refused, store, renew = asyncio.Event(), [], one._store.store, one._lease.renew

        async def stalled_store(items: Sequence[Numbered]) -> None:
            await awake.wait()
            try:
                await store(items)
            except LeaseLostError:
                refused.append(len(items))
                raise

        async def stalled_renew() -> None:
            await awake.wait()
            await renew()

        async with running(one):
            await publish(client, range(5))
            await until(lambda: one.counts["stored"] == 5)
            monkeypatch.setattr(one._store, "store", stalled_store)
            monkeypatch.setattr(one._lease, "renew", stalled_renew)
            # The broker's word that another came would end what stands still here.
            monkeypatch.setattr(one._connection, "connection_lost", lambda error: None)
            monkeypatch.setattr(one._connection, "_end", lambda error: None)
            await publish(client, range(5, 10))
            await until(lambda: one.counts["received"] > 5)
            async with running(two):
                await until(lambda: two.counts["stored"] == 5)
                monkeypatch.undo()
                awake.set()
                await until(lambda: refused)
                await publish(client, range(10, 20))
                await until(lambda: one.counts["stored"] + two.counts["stored"] == 20)
        assert_whole(await frames_of(bus, "strap-0"), 20)


@pytest.mark.services
async def test_answers_that_are_lost_double_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the bus took without saying so is sent again, and stored once; the packets of several straps keep apart."""
    async with parts(tmp_path) as (bus, broker), strap(broker) as client:
        one = session(broker, bus, "one")
        store, count = one._store.store, itertools.count()

        async def unsure(items: Sequence[Numbered]) -> None:
            await store(items)
            if next(count) % 2 == 0:
                raise BusUnavailableError("no answer")

        monkeypatch.setattr(one._store, "store", unsure)
        async with running(one):
            for number in range(20):
                for device in range(3):
                    await publish(client, [number], device)
            await until(lambda: one.counts["stored"] == 60)
        assert one.counts["bus_retries"] > 0
        for device in range(3):
            assert_whole(await frames_of(bus, f"strap-{device}"), 20, device)


@pytest.mark.services
async def test_a_broker_that_comes_back_has_its_holder_again(tmp_path: Path):
    """While the broker is away the lease is left to whoever reaches it; packets go on in the same epoch."""
    async with embedded(tmp_path / "bus") as url, Bus(url) as bus, contextlib.AsyncExitStack() as stack:
        async with embedded_broker(tmp_path / "broker", engine="mosquitto") as broker:
            one = session(broker, bus, "one")
            await stack.enter_async_context(running(one))
            async with strap(broker) as client:
                await publish(client, range(5))
                await until(lambda: one.counts["stored"] == 5)
        await until(lambda: not one.connected)
        async with embedded_broker(tmp_path / "broker", engine="mosquitto", port=broker.port) as broker:
            await until(lambda: one.connected)
            async with strap(broker) as client:
                await publish(client, range(5, 10))
                await until(lambda: one.counts["stored"] == 10)
        assert_whole(await frames_of(bus, "strap-0"), 10)


@pytest.mark.services
@pytest.mark.timeout(300)
@pytest.mark.parametrize("lost", ["the lease", "the strap"])
async def test_a_primary_that_dies_takes_nothing_with_it(tmp_path: Path, lost: str):
    """Where a replica must have what is acknowledged, no packet is lost or doubled over a failover."""
    async with (
        running_cluster(tmp_path / "bus") as cluster,
        Bus(cluster.url, replicas=1, timeout_s=2.0) as bus,
        embedded_broker(tmp_path / "broker", engine="mosquitto") as broker,
        strap(broker) as client,
    ):
        one, two = session(broker, bus, "one"), session(broker, bus, "two")
        async with running(one, two):
            await publish(client, range(20))
            await until(lambda: one.counts["stored"] + two.counts["stored"] >= 20)
            place = "rw:{straps}:lease" if lost == "the lease" else key(partition_of("strap-0", bus.partitions), "in")
            assert isinstance(bus._redis, RedisCluster)
            node = bus._redis.get_node_from_key(place)
            assert node is not None
            (primary,) = (each for each in cluster.primaries if each.port == node.port)
            killing = asyncio.create_task(cluster.kill(primary))
            await publish(client, range(20, 120))
            await killing
            await publish(client, range(120, 140))
            async with Bus(cluster.url, timeout_s=60.0) as fresh, asyncio.timeout(60):
                while len(await frames_of(fresh, "strap-0")) < 140:
                    await asyncio.sleep(0.05)
                assert_whole(await frames_of(fresh, "strap-0"), 140)


@pytest.mark.services
async def test_a_state_that_cannot_be_read_loses_no_packet(tmp_path: Path):
    """Where the numbering stood is unknown then: an epoch begins."""
    async with parts(tmp_path) as (bus, broker), strap(broker) as client:
        one, two = session(broker, bus, "one"), session(broker, bus, "two")
        async with running(one):
            await publish(client, range(5))
            await until(lambda: one.counts["stored"] == 5)
        place = key(partition_of("strap-0", bus.partitions), "numbered:strap-0")
        await bus._call("HSET", place, "state", b"nonsense")
        async with running(two):
            await publish(client, range(5, 10))
            await until(lambda: two.counts["stored"] == 5)
        frames = await frames_of(bus, "strap-0")
        assert [frame.seq for frame in frames] == [0, 1, 2, 3, 4] * 2


@pytest.mark.services
async def test_what_the_session_of_live_data_still_has_is_taken(tmp_path: Path):
    """A lone ingest's session that once had straps hands their packets over, and its subscription to them ends."""
    async with parts(tmp_path) as (bus, broker), strap(broker) as client:
        options = SubscriberOptions(broker.host, broker.port, broker.username, broker.password, "lone", mqtt5=True)
        got: list[Received] = []
        async with ClientConnection(options, mqtt5=True, receive_maximum=100, take=got.append) as former:
            await former.subscribe_all((*LIVE, *STRAPS))
        await publish(client, range(10))
        lone = Subscriber(options, bus)
        task = asyncio.create_task(lone.run())
        await until(lambda: lone.connected and lone.straps.connected and lone.counts["stored"] == 10)
        await publish(client, range(10, 20))
        await until(lambda: lone.counts["stored"] == 20)
        await end([task])
        async with ClientConnection(options, mqtt5=True, receive_maximum=100, take=got.append) as former:
            await publish(client, range(20, 30))
            await client.publish("rw/v1/strap-0/status", b"online", qos=1)
            await until(lambda: any(message.topic.endswith("/status") for message in got))
            assert [message.topic for message in got] == ["rw/v1/strap-0/status"]
        task = asyncio.create_task(lone.run())
        await until(lambda: lone.counts["strap_epochs"] == 1 and lone.counts["stored"] >= 30)
        await end([task])
        assert_whole(await frames_of(bus, "strap-0"), 30)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_stream_goes_on_from_its_bytes(data: st.DataObject):
    """Whatever a strap does, and wherever it is handed on, the frames are the same as of one that went on."""
    kept, handed, shift, marks = StrapStream("strap"), StrapStream("strap"), 0.0, []
    for number in range(20):
        fault = data.draw(st.sampled_from(["none"] * 5 + ["back", "forward", "night", "copy", "stop", "swap"]))
        packet = decode_polar(payload(number))
        shift += {"back": -5_000.0, "forward": 3_000.0, "night": 9 * 3_600_000.0}.get(fault, 0.0)
        if fault == "stop":
            continue
        moved = StrapPacket(max(0.0, packet.clock_ms + shift - 700 * (fault == "swap")), 130.0, 1000.0, packet.samples)
        for _ in range(2 if fault == "copy" else 1):
            if data.draw(st.booleans()):
                handed = StrapStream.from_bytes("strap", handed.to_bytes(), handed.number, marks)
            one, two = (stream.push(moved, NOW + number * 561) for stream in (kept, handed))
            assert (one is None) == (two is None)
            if one is not None and two is not None:
                marks.append(mark_of(moved))
                assert (one.epoch, one.seq, one.sample) == (two.epoch, two.seq, two.sample)
                np.testing.assert_array_equal(one.samples, two.samples)
    assert kept.number == handed.number == len(marks)


@given(st.binary(max_size=200))
def test_a_damaged_state_is_refused_by_name(data: bytes):
    """Any bytes are a stream's or a `ValueError`."""
    with contextlib.suppress(ValueError):
        StrapStream.from_bytes("strap", data, 1, [])
