"""Messages are stored, then acknowledged; broker and bus may come and go, and nothing sent at QoS 1 is lost."""

import asyncio
import contextlib
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import aiomqtt
import numpy as np
import pytest
import waiting
from ingests import running

from bus.errors import BusUnavailableError
from bus.messages import DeviceNote, Entry, Inbound, partition_of, unpack_inbound, unpack_note
from bus.server import embedded
from bus.streams import START, Bus
from bus.tasks import end
from ingest.broker import Broker, embedded_broker
from ingest.codecs import decode_frame, encode_frame, encode_json
from ingest.connection import Connection, Received
from ingest.frame import Frame
from ingest.subscriber import Subscriber, SubscriberOptions
from ingest.ticker import tick_forever

ENGINES = [pytest.param("mosquitto", marks=pytest.mark.services), "amqtt"]


def frame(seq: int, device: str = "bed-7") -> Frame:
    """Make a frame of one second."""
    return Frame(device, 1, seq, 250 * seq, 1000, 250.0, ("MLII",), 200.0, np.full((250, 1), seq, np.int16))


def options(broker: Broker, name: str = "one", *, shared: bool = False) -> SubscriberOptions:
    """Make the options for a subscriber to the embedded broker."""
    return SubscriberOptions(
        broker.host, broker.port, broker.username, broker.password, name, mqtt5=broker.mqtt5, shared=shared
    )


def device(broker: Broker) -> aiomqtt.Client:
    """Make a client with the account of devices."""
    version = aiomqtt.ProtocolVersion.V5 if broker.mqtt5 else aiomqtt.ProtocolVersion.V311
    name, password = broker.device_username, broker.device_password
    return aiomqtt.Client(broker.host, broker.port, username=name, password=password, protocol=version)


until = partial(waiting.until, seconds=20.0)


async def entries(bus: Bus, patient: str = "bed-7") -> list[Inbound]:
    """All entries of a patient's partition."""
    got = await bus.read({partition_of(patient, bus.partitions): START}, count=100_000)
    return [unpack_inbound(record.data) for _, records in got for record in records]


class GatedBus(Bus):
    """A bus that is away until the gate opens."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.gate = asyncio.Event()

    async def append_in(self, items):
        """Refuse while the gate is shut."""
        if not self.gate.is_set():
            raise BusUnavailableError("shut")
        return await super().append_in(items)


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_devices_say_is_on_the_bus(tmp_path: Path, engine: str):
    """Frames in both codecs, backfill, status and events become entries of the patient's partition, live in order."""
    async with (
        embedded(tmp_path / "bus") as url,
        Bus(url) as bus,
        embedded_broker(tmp_path / "broker", engine=engine) as broker,
        running(subscriber := Subscriber(options(broker), bus, clock=lambda: 77)),
        device(broker) as bed,
    ):
        said = [
            ("status", b'{"name":"online"}'),
            ("meta", b'{"leads":["MLII"],"rate":250,"gain":200}'),
            ("ecg", encode_frame(frame(0))),
            ("ecg", encode_json(frame(1))),
            ("backfill", encode_frame(frame(2))),
            ("events", b'{"name":"battery","value":0.5}'),
        ]
        for kind, payload in said:
            await bed.publish(f"rw/v1/bed-7/{kind}", payload, qos=1)
        await until(lambda: subscriber.counts["stored"] == 5)
        got = await entries(bus)
    live = [entry for entry in got if entry.kind is not Entry.BACKFILL]
    (stored,) = (entry for entry in got if entry.kind is Entry.BACKFILL)
    assert [entry.kind for entry in live] == [Entry.DEVICE, Entry.FRAME, Entry.FRAME, Entry.DEVICE]
    assert {(entry.patient, entry.server_ms) for entry in got} == {("bed-7", 77)}
    assert [decode_frame(entry.payload).seq for entry in (*live[1:3], stored)] == [0, 1, 2]
    assert unpack_note(live[0].payload) == DeviceNote("online")
    assert unpack_note(live[3].payload) == DeviceNote("battery", 0.5)
    assert subscriber.counts == {"received": 6, "stored": 5, "meta": 1}


@pytest.mark.parametrize(
    ("engine", "in_hand"),
    [
        pytest.param("mosquitto", 4, marks=pytest.mark.services),
        pytest.param("mosquitto", 2_000, marks=pytest.mark.services),
        ("amqtt", 2_000),
    ],
)
async def test_what_is_not_stored_is_sent_again(tmp_path: Path, engine: str, in_hand: int):
    """A subscriber that ends before the bus took its frames has acknowledged none: the next one gets them all."""
    async with (
        embedded(tmp_path / "bus") as url,
        GatedBus(url) as shut,
        Bus(url) as bus,
        embedded_broker(tmp_path / "broker", engine=engine) as broker,
        device(broker) as bed,
    ):
        first = Subscriber(options(broker), shut, clock=lambda: 77, in_hand=in_hand)
        async with running(first):
            for seq in range(10):
                await bed.publish("rw/v1/bed-7/ecg", encode_frame(frame(seq)), qos=1)
            await until(lambda: first.counts["received"] == min(10, in_hand) and first.counts["bus_retries"] > 0)
        assert first.counts["stored"] == 0
        async with running(second := Subscriber(options(broker), bus, clock=lambda: 77, in_hand=in_hand)):
            await until(lambda: second.counts["stored"] >= 10)
            got = await entries(bus)
    assert {decode_frame(entry.payload).seq for entry in got} == set(range(10))


@pytest.mark.services
async def test_a_bus_that_comes_back_gets_everything(tmp_path: Path):
    """While the bus is away the broker holds what is beyond the receive maximum; afterwards all is stored once."""
    async with (
        embedded(tmp_path / "bus") as url,
        GatedBus(url) as bus,
        embedded_broker(tmp_path / "broker", engine="mosquitto") as broker,
        running(subscriber := Subscriber(options(broker), bus, clock=lambda: 77, in_hand=20)),
        device(broker) as bed,
    ):
        for seq in range(100):
            await bed.publish("rw/v1/bed-7/ecg", encode_frame(frame(seq)), qos=1)
        await until(lambda: subscriber.counts["bus_retries"] > 2)
        assert subscriber.counts["received"] == 20
        bus.gate.set()
        await until(lambda: subscriber.counts["stored"] == 100)
        got = await entries(bus)
    assert [decode_frame(entry.payload).seq for entry in got] == list(range(100))


class CountedBus(Bus):
    """A bus that notes how many entries each batch had."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.batches: list[int] = []

    async def append_in(self, items):
        """Store and note."""
        self.batches.append(len(items))
        return await super().append_in(items)


async def test_a_lone_frame_goes_at_once_and_many_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """After a pause nothing is waited for; what comes soon after a batch waits for the next one."""
    monkeypatch.setattr("ingest.subscriber.PACE_S", (0.5, 0.5))
    async with embedded(tmp_path / "bus") as url, CountedBus(url) as bus:
        subscriber = Subscriber(SubscriberOptions("127.0.0.1", 1), bus, clock=lambda: 77)
        storing = asyncio.create_task(subscriber._store_forever())
        connection = Connection(SubscriberOptions("127.0.0.1", 1), mqtt5=True, receive_maximum=1, take=subscriber._take)
        subscriber._connection = connection
        loop = asyncio.get_running_loop()
        for seq in range(21):
            subscriber._take(Received(connection, "rw/v1/bed-7/ecg", encode_frame(frame(seq)), 0, 0))
            if not seq:
                began = loop.time()
                await until(lambda: subscriber.counts["stored"] == 1)
                assert loop.time() - began < 0.5
            await asyncio.sleep(0.005)
        await until(lambda: subscriber.counts["stored"] == 21)
        await end([storing])
    assert len(bus.batches) <= 5


@pytest.mark.services
async def test_overflow_is_left_with_the_broker(tmp_path: Path):
    """MQTT 3.1.1 can't slow the broker down: what exceeds the bound stays unacknowledged and comes again."""
    async with (
        embedded(tmp_path / "bus") as url,
        GatedBus(url) as bus,
        embedded_broker(tmp_path / "broker", engine="mosquitto") as broker,
        device(broker) as bed,
    ):
        old = SubscriberOptions(broker.host, broker.port, broker.username, broker.password, mqtt5=False)
        async with running(subscriber := Subscriber(old, bus, clock=lambda: 77, in_hand_bytes=5_000)):
            for seq in range(30):
                await bed.publish("rw/v1/bed-7/ecg", encode_frame(frame(seq)), qos=1)
            await until(lambda: subscriber.counts["resend"] > 0)
            bus.gate.set()
            seen: set[int] = set()
            async with asyncio.timeout(20):
                while seen != set(range(30)):
                    seen = {decode_frame(entry.payload).seq for entry in await entries(bus)}
                    await asyncio.sleep(0.02)


@pytest.mark.services
async def test_overflow_overtakes_nothing(tmp_path: Path):
    """A short frame that would still fit is left with the broker too, behind the long one that did not."""
    sizes = [2_000, 50] * 10
    sent = [replace(frame(seq), samples=np.zeros((size, 1), np.int16)) for seq, size in enumerate(sizes)]
    async with (
        embedded(tmp_path / "bus") as url,
        GatedBus(url) as bus,
        embedded_broker(tmp_path / "broker", engine="mosquitto") as broker,
        device(broker) as bed,
    ):
        async with running(Subscriber(options(broker), bus)):
            pass
        # All of it waits with the broker, and so comes in few pieces.
        for item in sent:
            await bed.publish("rw/v1/bed-7/ecg", encode_frame(item), qos=1)
        subscriber = Subscriber(options(broker), bus, clock=lambda: 77, in_hand_bytes=6_000)
        task = asyncio.create_task(subscriber.run())
        try:
            await until(lambda: subscriber.counts["resend"] > 0)
            bus.gate.set()
            came: list[int] = []
            async with asyncio.timeout(20):
                while set(came) != set(range(len(sent))):
                    came = [decode_frame(entry.payload).seq for entry in await entries(bus)]
                    await asyncio.sleep(0.02)
        finally:
            await end([task])
    assert list(dict.fromkeys(came)) == sorted(set(came))


@pytest.mark.services
async def test_the_subscriber_comes_back_after_the_broker_does(tmp_path: Path):
    """A broker that is restarted on its port is found again, and the frames of after are stored."""
    async with embedded(tmp_path / "bus") as url, Bus(url) as bus, contextlib.AsyncExitStack() as stack:
        async with embedded_broker(tmp_path / "broker", engine="mosquitto") as broker:
            subscriber = Subscriber(options(broker), bus, clock=lambda: 77)
            await stack.enter_async_context(running(subscriber))
        await until(lambda: not subscriber.connected)
        async with embedded_broker(tmp_path / "broker", engine="mosquitto", port=broker.port) as broker:
            await until(lambda: subscriber.connected)
            async with device(broker) as bed:
                await bed.publish("rw/v1/bed-7/ecg", encode_frame(frame(0)), qos=1)
            await until(lambda: subscriber.counts["stored"] == 1)
        assert subscriber.counts["reconnects"] > 0


@pytest.mark.services
async def test_two_subscribers_share_the_load(tmp_path: Path):
    """With shared subscriptions each frame is stored once, and both take part."""
    async with (
        embedded(tmp_path / "bus") as url,
        Bus(url) as bus,
        embedded_broker(tmp_path / "broker", engine="mosquitto") as broker,
        running(one := Subscriber(options(broker, "one", shared=True), bus, clock=lambda: 77)),
        running(two := Subscriber(options(broker, "two", shared=True), bus, clock=lambda: 77)),
        device(broker) as bed,
    ):
        for seq in range(40):
            await bed.publish("rw/v1/bed-7/ecg", encode_frame(frame(seq)), qos=1)
        await until(lambda: one.counts["stored"] + two.counts["stored"] == 40)
        got = await entries(bus)
    assert sorted(decode_frame(entry.payload).seq for entry in got) == list(range(40))
    assert min(one.counts["stored"], two.counts["stored"]) > 0


async def test_the_protocol_is_found_out(tmp_path: Path):
    """Without being told, a subscriber ends up with MQTT 3.1.1 where 5 is not spoken."""
    async with (
        embedded(tmp_path / "bus") as url,
        Bus(url) as bus,
        embedded_broker(tmp_path / "broker", engine="amqtt") as broker,
    ):
        unknown = SubscriberOptions(broker.host, broker.port, broker.username, broker.password)
        async with running(subscriber := Subscriber(unknown, bus, clock=lambda: 77)):
            assert subscriber.connected


async def test_ticks_reach_every_partition(tmp_path: Path):
    """Each period every partition gets a tick with the server's clock; a bus that is away costs ticks, counted."""
    async with embedded(tmp_path) as url, Bus(url, partitions=3) as bus:
        counts: Counter[str] = Counter()
        task = asyncio.create_task(tick_forever(bus, clock=lambda: 5, period_s=0.01, counts=counts))
        await until(lambda: counts["ticks"] >= 3)
        task.cancel()
        got = await bus.read({0: START, 1: START, 2: START})
        assert [partition for partition, _ in got] == [0, 1, 2]
        assert unpack_inbound(got[0][1][0].data) == Inbound(Entry.TICK, 5, "", b"")
    async with Bus(f"unix://{tmp_path}/absent") as bus:
        task = asyncio.create_task(tick_forever(bus, period_s=0.01, counts=counts))
        await until(lambda: counts["drop_tick"] >= 2)
        task.cancel()
