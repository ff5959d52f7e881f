"""A device that floods or lies is throttled, flagged and shut out; its neighbours notice nothing."""

import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_device import DEADLINE_S, until

from bus.messages import DeviceNote, Entry, Inbound, StatusEvent, pack, unpack_inbound, unpack_note
from bus.server import embedded
from bus.streams import START, Bus
from bus.tasks import end
from ingest.broker import Broker, embedded_broker
from ingest.codecs import decode_frame, encode_frame
from ingest.device import Connection, DeviceMeta, FleetClient
from ingest.frame import Frame
from ingest.gatekeeper import Gatekeeper
from ingest.limits import FLAGS, SIGNAL_BURST_S, DeviceLimits, Quotas, flag_text
from ingest.subscriber import Subscriber, SubscriberOptions

NOW = 1_700_000_000_000
LONGEST_S = 300.0


def frame(device: str, seq: int, device_ms: int = NOW, rate: float = 250.0) -> Frame:
    """Make a frame of 25 samples."""
    return Frame(device, 1, seq, 25 * seq, device_ms, rate, ("I",), 200.0, np.full((25, 1), seq % 99, np.int16))


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 3_000)), max_size=300))
def test_no_more_passes_than_burst_and_rate(messages: list[tuple[float, int]]):
    """Over any time, messages and bytes taken are within burst plus rate times time."""
    limits = DeviceLimits(messages=2, message_burst=10, bytes=1_000, byte_burst=5_000)
    quotas, now, taken, size_taken = Quotas(limits), 0.0, 0, 0
    for pause, size in messages:
        now += pause
        if quotas.take("a", size, now):
            taken, size_taken = taken + 1, size_taken + size
        assert taken <= 10 + 2 * now + 1e-6
        assert size_taken <= 5_000 + 1_000 * now + 1e-6


def test_a_device_within_its_rate_is_never_refused():
    """A frame a second, for a day, beside one that floods."""
    quotas = Quotas(DeviceLimits())
    for second in range(86_400):
        assert quotas.take("quiet", 600, float(second))
        if second % 100 == 0:
            for _ in range(300):
                quotas.take("loud", 600, float(second))
        assert quotas.take_signal("quiet", 1.0, float(second))


def test_the_share_of_a_silent_device_is_not_kept():
    """A share that is whole again goes as others come; one that is not, or is in use, stays."""
    quotas = Quotas(DeviceLimits())
    whole_s = quotas.full_after_s
    for number in range(1_000):
        quotas.take(f"gone-{number}", 600, float(number))
    assert quotas.take_signal("spent", SIGNAL_BURST_S, 1_000.0)
    quotas.take("used", 600, 1_000.0 + whole_s)
    quotas.take("new", 600, 1_001.0 + whole_s)
    assert len(quotas) == 3
    assert not quotas.take_signal("spent", SIGNAL_BURST_S, 999.0 + whole_s)
    quotas.take("newest", 600, 1_000.0 + 3 * whole_s)
    assert len(quotas) == 1
    assert quotas.take_signal("spent", SIGNAL_BURST_S, 1_000.0 + 3 * whole_s)


def test_flags_come_now_and_then_and_shutting_out_after_many():
    """A flag is repeated after a while only; a device must go once it was refused so often, and counts anew."""
    quotas = Quotas(DeviceLimits(messages=1, message_burst=1, shut_after=5))
    assert [quotas.flag("a", "flood", t) for t in (0.0, 1.0, 59.0, 61.0)] == [True, False, False, True]
    assert quotas.flag("a", "wrong_id", 0.0)
    assert quotas.take("a", 1, 0.0)
    assert not any(quotas.take("a", 1, 0.0) for _ in range(5))
    assert [quotas.must_go("a", 0.0), quotas.must_go("a", 0.0)] == [True, False]
    large = Quotas(DeviceLimits(messages=10, bytes=1_000, byte_burst=0, shut_after=5))
    assert [(large.take("a", 250, 0.0), large.must_go("a", 0.0)) for _ in range(2)] == [(False, False), (False, True)]
    assert all(Quotas(DeviceLimits.of(0)).take("a", 10**9, 0.0) for _ in range(10))
    signal = Quotas(DeviceLimits())
    assert signal.take_signal("a", SIGNAL_BURST_S, 0.0)
    assert not signal.take_signal("a", 1.0, 0.0)
    assert "late (41 s)" in flag_text("late", 41.0)


async def entries_of(bus: Bus) -> list[Inbound]:
    """All that is on the bus."""
    got = await bus.read(dict.fromkeys(range(bus.partitions), START), count=100_000)
    return [unpack_inbound(record.data) for _, records in got for record in records]


def flags_in(entries: list[Inbound]) -> set[str]:
    """Names of all notes that are flags."""
    return {unpack_note(entry.payload).name for entry in entries if entry.kind is Entry.DEVICE} & FLAGS.keys()


@pytest.mark.services
async def test_each_lie_is_flagged(tmp_path: Path):
    """Another device's id, a clock of another year, and more signal than time passes are told to staff."""
    async with (
        embedded(tmp_path / "bus") as url,
        Bus(url) as bus,
        embedded_broker(tmp_path / "broker", engine="mosquitto") as broker,
    ):
        options = SubscriberOptions(broker.host, broker.port, broker.username, broker.password, mqtt5=True)
        subscriber = Subscriber(options, bus, clock=lambda: NOW)
        task = asyncio.create_task(subscriber.run())
        await until(lambda: subscriber.connected)
        metas = [DeviceMeta(name, 1, 250.0, ("I",), 200.0) for name in ("liar", "old", "fast")]
        async with FleetClient(Connection.of(broker), metas) as client:
            client.hand("liar", "ecg", encode_frame(frame("victim", 0)), lambda: None)
            client.offer(frame("old", 0, device_ms=1))
            long = np.zeros((20_000, 1), np.int16)
            for seq in range(20):
                client.offer(Frame("fast", 1, seq, 20_000 * seq, NOW, 50.0, ("I",), 1.0, long))
            await client.drain()
            # Counted first, on the bus a moment later.
            async with asyncio.timeout(DEADLINE_S):
                while flags_in(await entries_of(bus)) != {"wrong_id", "bad_clock", "bad_rate"}:
                    await asyncio.sleep(0.01)
        assert subscriber.counts["flags"] == 3
        assert subscriber.counts["drop_topic"] == 1
        await end([task])


def flood(host: str, port: int) -> None:
    """Publish as fast as a process can, reconnecting whenever it is thrown out, until it is ended."""

    async def run() -> None:
        until_s = time.monotonic() + LONGEST_S
        while time.monotonic() < until_s:
            with contextlib.suppress(aiomqtt.MqttError, OSError):
                async with aiomqtt.Client(
                    host, port, username="loud", password="loud", protocol=aiomqtt.ProtocolVersion.V5, timeout=2.0
                ) as client:
                    client.pending_calls_threshold = 100_000
                    while time.monotonic() < until_s:
                        payload = encode_frame(frame("loud", 0, time.time_ns() // 1_000_000))
                        for _ in range(50):
                            await client.publish("rw/v1/loud/ecg", payload, qos=0)
            await asyncio.sleep(0.01)

    asyncio.run(run())


@contextlib.contextmanager
def flooding(broker: Broker) -> Iterator[None]:
    """Flood the door of devices for the block."""
    process = multiprocessing.get_context("spawn").Process(
        target=flood, args=(broker.door_host, broker.door_port), daemon=True
    )
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


@pytest.mark.services
async def test_neighbours_of_a_flood_are_unharmed(tmp_path: Path):
    """While one device floods a real broker, all frames of ten others are stored in time; the one is shut out."""
    from bus.passwords import hash_secret

    devices = {name: hash_secret(name) for name in ("loud", *(f"bed-{n}" for n in range(10)))}
    async with (
        embedded(tmp_path / "bus") as url,
        Bus(url) as bus,
        embedded_broker(tmp_path / "broker", engine="mosquitto", devices=devices) as broker,
    ):
        options = SubscriberOptions(broker.host, broker.port, broker.username, broker.password, mqtt5=True)
        subscriber = Subscriber(options, bus, limits=DeviceLimits.of(20))
        keeper = Gatekeeper(broker, devices)

        async def registry() -> dict[str, str]:
            return devices

        tasks = [asyncio.create_task(subscriber.run()), asyncio.create_task(keeper.run(registry))]
        await until(lambda: subscriber.connected)
        metas = [DeviceMeta(f"bed-{n}", 1, 250.0, ("I",), 200.0) for n in range(10)]
        begin = time.monotonic()
        async with FleetClient(Connection.of(broker), metas) as client:
            await client.connected()
            with flooding(broker):
                await until(lambda: subscriber.counts["drop_flood"] > 0)
                sent: dict[tuple[str, int], float] = {}
                for seq in range(30):
                    for meta in metas:
                        sent[meta.device, seq] = time.time() * 1000
                        client.offer(frame(meta.device, seq, time.time_ns() // 1_000_000))
                    await asyncio.sleep(0.1)  # the pace of the devices
                await client.drain()
                await until(lambda: "loud" in keeper.shut)
        stored: dict[tuple[str, int], int] = {}
        # The broker has them; the bus gets them a moment later.
        async with asyncio.timeout(DEADLINE_S):
            while stored.keys() != sent.keys():
                entries = await entries_of(bus)
                for entry in entries:
                    if entry.kind is Entry.FRAME and entry.patient != "loud":
                        stored.setdefault((entry.patient, decode_frame(entry.payload).seq), entry.server_ms)
        loud = sum(entry.kind is Entry.FRAME and entry.patient == "loud" for entry in entries)
        assert max(stored[key] - at for key, at in sent.items()) < 2_000
        assert loud <= 2_000 + 20 * (time.monotonic() - begin)
        assert flags_in(entries) == {"flood"}
        assert client.stats.dropped == 0
        await end(tasks)


def test_staff_read_what_is_wrong_with_a_device():
    """A flag of ingest becomes a note in the status of the patient, in words."""
    from rhythmwatch.models import load_models
    from rhythmwatch.pipeline import Pipeline

    pipeline = Pipeline(load_models(None), 1)
    entries = [Inbound(Entry.FRAME, NOW, "bed-1", encode_frame(frame("bed-1", 0)))]
    entries.append(Inbound(Entry.DEVICE, NOW + 1, "bed-1", pack(DeviceNote("flood"))))
    out = pipeline.step((0, entry) for entry in entries)
    notes = [event.note for _, event in out.events if isinstance(event, StatusEvent)]
    assert FLAGS["flood"] in notes
