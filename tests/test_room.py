"""A device that sends far more than is taken, live or stored, costs its neighbours no frame: real broker, real bus."""

import asyncio
import contextlib
import multiprocessing
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingests import running

from bus.messages import Entry, unpack_inbound, unpack_note
from bus.passwords import hash_secret
from bus.server import embedded
from bus.streams import START, Bus
from bus.tasks import end
from ingest import room
from ingest.broker import embedded_broker
from ingest.codecs import decode_frame, encode_frame
from ingest.device import Connection, DeviceMeta, FleetClient
from ingest.frame import Frame
from ingest.gatekeeper import Gatekeeper
from ingest.limits import DeviceLimits
from ingest.pacing import Pace
from ingest.packets import publish_packet
from ingest.room import ANSWERED, Room
from ingest.subscriber import Subscriber, SubscriberOptions

DEADLINE_S = 120.0
FLOOD_S = 10.0
LIMITS = DeviceLimits(message_burst=2_000, byte_burst=6.4e6, shut_after=500)
FAST = Pace(device=2_000.0, whole=4_000.0, least=100.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-20, 1_000)), max_size=300))
def test_it_knows_what_each_has_there(steps: list[tuple[str, int]]):
    """Whatever is sent and answered, it knows the messages of each, and tells of whoever has too many, now and then."""
    it, has, told = Room(10, 1e9), Counter[str](), dict.fromkeys("abc", -9.0)
    for step, (device, size) in enumerate(steps):
        if size < 0:
            it.stored(device, -size)
            has[device] = max(0, has[device] + size)
            told[device] = told[device] if has[device] else -9.0
        else:
            has[device] += 1
            due = has[device] > 10 and step - told[device] >= room.AGAIN_S
            assert it.sent(device, size, float(step)) is due
            told[device] = float(step) if due else told[device]
        assert it.messages == has.total()
        assert it.bytes >= -1e-6
    it.clear()
    assert (it.messages, it.bytes) == (0, 0.0)


def test_each_keeps_to_the_answers_while_room_runs_out():
    """Nobody has too much for itself; once all together have half the room, whoever looks for no answers is told of."""
    it = Room(20_000, 64e6, whole_messages=10_000)
    for number in range(ANSWERED + 100):
        assert not it.sent("careless", 600, 0.0)
        if number < ANSWERED:
            assert not it.sent("careful", 600, 0.0)
    for number in range(5_000 - it.messages):
        assert not it.sent(f"other-{number % 100}", 600, 0.0)
    assert not it.sent("careful", 600, 1.0) or it.messages > 5_000
    it.stored("careful", 1)
    assert not it.sent("careful", 600, 1.0)
    assert it.sent("careless", 600, 1.0)
    assert not it.sent("careless", 600, 1.5)
    assert it.sent("careless", 600, 1.0 + room.AGAIN_S)
    large = Room(20_000, 64e6, whole_bytes=1e9)
    assert [large.sent("a", 1_000_000, 0.0) for _ in range(65)].index(True) == 64


def frame(device: str, seq: int, rows: int = 25, leads: int = 1) -> bytes:
    """Make a frame of that many samples."""
    now_ms = time.time_ns() // 1_000_000
    names = tuple(f"L{number}" for number in range(leads))
    return encode_frame(
        Frame(device, 1, seq, rows * seq, now_ms, 250.0, names, 1.0, np.full((rows, leads), 7, np.int32))
    )


def flood(host: str, port: int, leaf: str, rows: int, leads: int) -> None:
    """Publish at QoS 1 as fast as a process can, without a look at any answer, again whenever it is thrown out."""

    def text(said: str) -> bytes:
        return struct.pack(">H", len(said)) + said.encode()

    body = text("MQTT") + bytes((5, 0xC2, 0, 60, 0)) + text("loud") * 3
    frames = [frame("loud", seq, rows, leads) for seq in range(2_000 if leads == 1 else 20)]
    until_s, number = time.monotonic() + FLOOD_S, 0
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError), socket.create_connection((host, port)) as channel:
            channel.sendall(bytes((0x10, len(body))) + body)
            channel.setblocking(False)
            left = b""
            while time.monotonic() < until_s:
                if not left:
                    number += 1
                    left = publish_packet(
                        f"rw/v1/loud/{leaf}", frames[number % len(frames)], mid=number % 65_535 + 1, mqtt5=True
                    )
                heard, may, _ = select.select([channel], [channel], [], 0.5)
                if heard and not channel.recv(1 << 16):
                    break
                if may:
                    left = left[channel.send(left) :]


@contextlib.asynccontextmanager
async def ending(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let something run for the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await end([task])


@contextlib.contextmanager
def flooding(*arguments: str | int) -> Iterator[multiprocessing.process.BaseProcess]:
    """Flood from a process of its own, which ends with the block."""
    process = multiprocessing.get_context("spawn").Process(target=flood, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


@pytest.mark.services
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("leaf", "rows", "leads", "flag"),
    [("backfill", 250, 1, "backlog"), ("backfill", 18_000, 12, "backlog"), ("ecg", 18_000, 12, "flood")],
    ids=["stored", "large stored", "large live"],
)
async def test_neighbours_of_a_flood_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaf: str, rows: int, leads: int, flag: str
):
    """For ten seconds one device sends as fast as it can; every frame of the others, live and stored, is on the bus."""
    monkeypatch.setattr(room, "MESSAGES", 20_000)
    monkeypatch.setattr(room, "BYTES", 128 << 20)
    beds = [f"bed-{number}" for number in range(5)]
    devices = {name: hash_secret(name, rounds=10) for name in ("loud", *beds)}
    async with (
        embedded(tmp_path / "bus") as url,
        Bus(url) as bus,
        embedded_broker(tmp_path / "broker", engine="mosquitto", devices=devices) as broker,
    ):
        options = SubscriberOptions(broker.host, broker.port, broker.username, broker.password, mqtt5=True)
        subscriber = Subscriber(options, bus, limits=LIMITS, pace=FAST)
        keeper = Gatekeeper(broker, devices)

        async def registry() -> dict[str, str]:
            return devices

        async with running(subscriber), ending(keeper.run(registry)):
            metas = [DeviceMeta(name, 1, 250.0, ("L0",), 1.0) for name in beds]
            sent: set[tuple[Entry, str, int]] = set()
            async with FleetClient(Connection.of(broker), metas) as client:
                await client.connected()
                with flooding(broker.door_host, broker.door_port, leaf, rows, leads) as process:
                    seq = 0
                    while process.is_alive():
                        for name in beds:
                            for kind, entry in (("ecg", Entry.FRAME), ("backfill", Entry.BACKFILL)):
                                client.hand(name, kind, frame(name, seq), lambda: None)
                                sent.add((entry, name, seq))
                        seq += 1
                        await asyncio.sleep(0.1)  # the pace of the devices
                await client.drain()
            assert "loud" in (keeper.held if flag == "backlog" else keeper.shut)
            stored: set[tuple[Entry, str, int]] = set()
            flags: set[str] = set()
            at = dict.fromkeys(range(bus.partitions), START)
            async with asyncio.timeout(DEADLINE_S):
                while not sent <= stored:
                    for partition, records in await bus.read(at, count=1_000):
                        at[partition] = records[-1].position
                        for item in (unpack_inbound(record.data) for record in records):
                            if item.kind in (Entry.FRAME, Entry.BACKFILL):
                                stored.add((item.kind, item.patient, decode_frame(item.payload).seq))
                            elif item.patient == "loud":
                                flags.add(unpack_note(item.payload).name)
            assert flag in flags
