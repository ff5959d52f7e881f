"""A copy of a live frame that is stored is dropped before the bus; all else passes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import waiting
from hypothesis import given
from hypothesis import strategies as st
from test_device import Line, address, until

from bus.errors import BusUnavailableError
from bus.messages import Entry, partition_of, unpack_inbound
from bus.server import embedded
from bus.streams import START, Bus
from bus.tasks import end
from ingest.broker import embedded_broker
from ingest.codecs import decode_frame, encode_frame, encode_json
from ingest.connection import Connection, Received
from ingest.device import DeviceClient, DeviceMeta
from ingest.frame import Frame
from ingest.known import FRAMES, KEPT_S, MOST_DEVICES, KnownFrames
from ingest.subscriber import Subscriber, SubscriberOptions

WHERE = SubscriberOptions("127.0.0.1", 1)


def frame(seq: int, device: str = "bed-7", epoch: int = 1, unit: int = 0) -> Frame:
    """Make a frame of one second."""
    return Frame(device, epoch, seq, 250 * seq, 1000 * seq, 250.0, ("MLII",), 200.0, np.full((250, 1), unit, np.int16))


@given(
    st.lists(
        st.builds(
            frame,
            st.integers(0, 3 * FRAMES),
            st.sampled_from(["bed-7", "bed-8"]),
            st.integers(1, 2),
            st.integers(0, 2),
        ),
        max_size=200,
    )
)
def test_nothing_but_a_copy_is_known(frames: list[Frame]):
    """In any order, of devices that use an epoch or a number twice for something else, only what was noted is known."""
    known = KnownFrames()
    noted: set[tuple[str, bytes]] = set()
    for item in frames:
        key = item.device, encode_frame(item)
        if known.has(*key):
            assert key in noted
        known.note(*key, 0.0)
        noted.add(key)
        assert known.has(*key)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 2},
        {"seq": 6},
        {"sample": 1},
        {"device_ms": 1},
        {"samples": np.ones((250, 1), np.int16)},
        {"gain": 100.0},
        {"leads": ("V5",)},
    ],
)
def test_a_frame_that_differs_in_anything_is_new(change: dict[str, object]):
    """A device that starts again in the same epoch, or whose clock jumps, is taken at its word."""
    known = KnownFrames()
    known.note("bed-7", encode_frame(frame(5)), 0.0)
    assert known.has("bed-7", encode_frame(frame(5)))
    assert not known.has("bed-7", encode_frame(replace(frame(5), **change)))
    assert not known.has("bed-8", encode_frame(frame(5)))


def test_the_newest_frames_are_known():
    """As many as are kept, whatever came before them."""
    known = KnownFrames()
    for seq in range(10 * FRAMES):
        known.note("bed-7", encode_frame(frame(seq)), float(seq))
    assert all(known.has("bed-7", encode_frame(frame(seq))) for seq in range(9 * FRAMES, 10 * FRAMES))
    assert not known.has("bed-7", encode_frame(frame(9 * FRAMES - 1)))
    known.forget()
    assert not known.has("bed-7", encode_frame(frame(10 * FRAMES - 1)))


def test_whoever_is_silent_is_forgotten():
    """Devices that come and go leave nothing behind; one that goes on is kept, with its older frames."""
    known = KnownFrames()
    for second in range(0, round(3 * KEPT_S), 10):
        known.note("bed-7", encode_frame(frame(second // 10)), float(second))
        known.note(f"bed-{100 + second}", encode_frame(frame(0, f"bed-{100 + second}")), float(second))
    assert all(known.has("bed-7", encode_frame(frame(seq))) for seq in range(18))
    assert not known.has("bed-100", encode_frame(frame(0, "bed-100")))
    assert known.has("bed-270", encode_frame(frame(0, "bed-270")))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """However many devices come at once."""
    assert MOST_DEVICES > 10_000
    monkeypatch.setattr("ingest.known.MOST_DEVICES", 10)
    known = KnownFrames()
    for number in range(100):
        known.note(f"bed-{number}", encode_frame(frame(0, f"bed-{number}")), 0.0)
        assert len(known) <= 20
    assert known.has("bed-99", encode_frame(frame(0, "bed-99")))


@pytest.mark.parametrize("payload", [b"", b"RW", b"RW" + bytes(60), b"{}"])
def test_what_is_no_frame_is_not_known(payload: bytes):
    """Whatever its length."""
    known = KnownFrames()
    known.note("bed-7", encode_frame(frame(0)), 0.0)
    assert not known.has("bed-7", payload)


async def stored(bus: Bus, kind: Entry = Entry.FRAME) -> list[int]:
    """Numbers of the frames on the bus, in order."""
    got = await bus.read({partition_of("bed-7", bus.partitions): START}, count=1000)
    entries = [unpack_inbound(record.data) for _, records in got for record in records]
    return [decode_frame(entry.payload).seq for entry in entries if entry.kind is kind]


class Doubtful(Bus):
    """A bus that fails once, or has no replica, when it is told to."""

    fails = lonely = False

    async def append_in(self, items):
        """Store, or fail once."""
        if self.fails:
            self.fails = False
            raise BusUnavailableError("gone for a moment")
        return await super().append_in(items)

    async def until_replicated(self, partitions, within_ms=0):
        """Say whether there is a replica."""
        return not self.lonely


class Desk:
    """A subscriber without a broker."""

    def __init__(self, bus: Doubtful) -> None:
        self.bus = bus
        self.subscriber = Subscriber(WHERE, bus, clock=lambda: 77)
        self.connection = Connection(WHERE, mqtt5=True, receive_maximum=1, take=self.subscriber._take)

    async def send(self, *payloads: bytes, kind: str = "ecg") -> None:
        """Let messages come, and wait until they are dealt with."""
        counts = self.subscriber.counts

        def done() -> int:
            return counts["stored"] + counts["known"] + counts["drop_checksum"]

        before = done()
        for payload in payloads:
            self.subscriber._take(Received(self.connection, f"rw/v1/bed-7/{kind}", payload, 0, 0))
        await waiting.until(lambda: done() >= before + len(payloads), seconds=20.0)

    async def seqs(self, kind: Entry = Entry.FRAME) -> list[int]:
        """Numbers of the frames on the bus."""
        return await stored(self.bus, kind)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """Give a subscriber that stores."""
    async with embedded(tmp_path / "bus") as url, Doubtful(url) as bus:
        desk = Desk(bus)
        storing = asyncio.create_task(desk.subscriber._store_forever())
        try:
            yield desk
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await end([storing])


async def test_copies_cost_the_bus_nothing(desk: Desk):
    """What comes again is counted and dropped; what is new among it is stored, also of the same epoch and number."""
    sent = [encode_frame(frame(seq)) for seq in range(5)]
    await desk.send(*sent[:4])
    await desk.send(*sent, sent[1], encode_frame(frame(2, unit=9)))
    assert await desk.seqs() == [0, 1, 2, 3, 4, 2]
    assert desk.subscriber.counts == {"received": 11, "stored": 6, "known": 5}


async def test_stored_data_is_answered_each_time(desk: Desk):
    """A frame on ``backfill`` that came before goes on: the device waits for its answer."""
    sent = encode_frame(frame(0))
    await desk.send(sent)
    await desk.send(sent, kind="backfill")
    await desk.send(sent, kind="backfill")
    assert (await desk.seqs(), await desk.seqs(Entry.BACKFILL)) == ([0], [0, 0])


async def test_a_frame_in_json_is_known_in_binary(desk: Desk):
    """A frame for people is stored as the other, so that a copy is known by that."""
    await desk.send(encode_json(frame(0)))
    await desk.send(encode_frame(frame(0)))
    assert desk.subscriber.counts["known"] == 1


async def test_after_the_bus_failed_nothing_is_known(desk: Desk):
    """It may have come back without the last that it had taken."""
    sent = [encode_frame(frame(seq)) for seq in range(3)]
    await desk.send(*sent[:2])
    desk.bus.fails = True
    await desk.send(sent[2])
    assert not desk.bus.fails
    await desk.send(*sent)
    assert await desk.seqs() == [0, 1, 2, 0, 1, 2]
    await desk.send(*sent)
    assert desk.subscriber.counts["known"] == 3


async def test_what_no_replica_has_is_not_known(desk: Desk):
    """Where replicas are asked for and one is missing, what was taken may be lost."""
    sent = [encode_frame(frame(seq)) for seq in range(3)]
    desk.bus.lonely = True
    await desk.send(*sent)
    await desk.send(*sent)
    assert await desk.seqs() == [0, 1, 2, 0, 1, 2]
    desk.bus.lonely = False
    await desk.send(*sent)
    await desk.send(*sent)
    assert desk.subscriber.counts["known"] == 3


@pytest.mark.services
async def test_what_a_device_sends_again_is_stored_once(tmp_path: Path):
    """A line that breaks makes a device send its last frames again; the bus has each once, and none is missing."""
    async with (
        embedded(tmp_path / "bus") as url,
        Bus(url) as bus,
        embedded_broker(tmp_path / "broker", engine="mosquitto") as broker,
        Line(broker).open() as line,
    ):
        here = SubscriberOptions(broker.host, broker.port, broker.username, broker.password, "one", mqtt5=True)
        subscriber = Subscriber(here, bus, clock=lambda: 77)
        task = asyncio.create_task(subscriber.run())
        try:
            await until(lambda: subscriber.connected)
            meta = DeviceMeta("bed-7", 1, 250.0, ("MLII",), 200.0)
            async with DeviceClient(address(broker, line.port), meta, jitter=lambda: 0.0) as bed:
                for seq in range(20):
                    if seq == 10:
                        await bed.drain()
                        line.cut()
                        line.mend()
                    bed.offer(frame(seq))
                await until(lambda: bed.stats.connects == 2 and not bed.waiting)
                assert bed.stats.resent >= 10
            seqs: list[int] = []
            async with asyncio.timeout(20.0):
                while 19 not in seqs:
                    seqs = await stored(bus)
            assert subscriber.counts["known"] >= 10
            assert seqs == list(range(20))
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await end([task])


async def test_a_damaged_copy_is_not_taken_for_new(desk: Desk):
    """What a copy would be but for its samples is dropped, one way or the other."""
    sent = encode_frame(frame(0))
    await desk.send(sent)
    damaged = bytearray(sent)
    damaged[100] ^= 1
    await desk.send(bytes(damaged))
    assert await desk.seqs() == [0]
