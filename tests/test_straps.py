"""Chest straps: published layouts, a real capture, and all that goes wrong with such straps."""

import asyncio
import io
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_device import until

from bus.messages import Entry, unpack_inbound, unpack_note
from bus.server import embedded
from bus.streams import START, Bus
from bus.tasks import end
from ingest.broker import embedded_broker
from ingest.codecs import decode_frame
from ingest.device import Connection, DeviceMeta, FleetClient
from ingest.frame import Frame, FrameError
from ingest.sequencer import Gap, Run, Sequencer
from ingest.straps import (
    MAX_PACKET,
    StrapPacket,
    StrapStream,
    decode_movesense,
    decode_polar,
    encode_polar,
)
from ingest.subscriber import Subscriber, SubscriberOptions
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.gateway import Gateway, PeerError
from rhythmwatch.publishing import own_connection, publish_numbers

NOW = 1_700_000_000_000
PACKET = 73
"""Samples of a Polar H10's notification."""


def capture(data_dir: Path) -> np.ndarray:
    """Read the real capture, uV at 130 Hz."""
    return np.loadtxt(data_dir / "wearables" / "polar_h10_uV_130Hz.txt", dtype=np.int32)


def packets(samples: np.ndarray, start_ms: float = 5_000.0, rate: float = 130.0) -> list[StrapPacket]:
    """Cut samples into notifications as the strap sends them, through its own layout; `rate` is its crystal's."""
    out = []
    for first in range(0, len(samples) - PACKET + 1, PACKET):
        last_ns = round((start_ms + (first + PACKET - 1) * 1000 / rate) * 1e6)
        out.append(decode_polar(encode_polar(last_ns, samples[first : first + PACKET])))
    return out


def joined(frames: Sequence[Frame | None]) -> np.ndarray:
    return np.concatenate([frame.samples for frame in frames if frame is not None])[:, 0]


def push_all(stream: StrapStream, chosen: Sequence[StrapPacket], late_ms: float = 0.0) -> list[Frame | None]:
    """Push packets at the times at which they would come."""
    return [stream.push(packet, NOW + round(packet.clock_ms + late_ms + 1000 * PACKET / 130)) for packet in chosen]


def assert_contiguous(frames: Sequence[Frame | None]) -> None:
    got = [frame for frame in frames if frame is not None]
    for before, after in itertools.pairwise(got):
        assert after.sample == before.sample + len(before.samples)
        assert (after.epoch, after.seq) == (before.epoch, before.seq + 1)


RAMP = np.arange(PACKET * 40, dtype=np.int32)


def test_the_published_layout_of_polar_is_read():
    """Type, time of the last sample in ns, frame type, 24-bit samples of both signs."""
    payload = bytes([0]) + (1_000_000_000).to_bytes(8, "little") + bytes([0])
    payload += bytes.fromhex("010000 ffffff 000080 ffff7f".replace(" ", ""))
    packet = decode_polar(payload)
    assert packet.samples[:, 0].tolist() == [1, -1, -(2**23), 2**23 - 1]
    assert packet.clock_ms == pytest.approx(1000 - 3 * 1000 / 130)
    assert (packet.rate, packet.gain) == (130.0, 1000.0)


def test_the_layouts_of_movesense_are_read():
    """Binary is ms and int16; JSON says its rate in the URI."""
    packet = decode_movesense((777).to_bytes(4, "little") + np.array([5, -6], "<i2").tobytes(), 200.0)
    assert (packet.clock_ms, packet.rate, packet.samples[:, 0].tolist()) == (777.0, 200.0, [5, -6])
    text = {"Uri": "174630000192/Meas/ECG/250", "Body": {"Timestamp": 123, "Samples": [1, -70000]}}
    packet = decode_movesense(json.dumps(text).encode())
    assert (packet.clock_ms, packet.rate, packet.samples[:, 0].tolist()) == (123.0, 250.0, [1, -70000])


@pytest.mark.parametrize(
    ("decode", "payload", "reason"),
    [
        (decode_polar, b"", "length"),
        (decode_polar, bytes(12), "length"),
        (decode_polar, b"\1" + bytes(12), "samples"),
        (decode_polar, bytes(9) + b"\x80" + bytes(3), "samples"),
        (decode_polar, bytes(MAX_PACKET + 1), "oversize"),
        (decode_movesense, bytes(4), "length"),
        (decode_movesense, bytes(7), "length"),
        (decode_movesense, b"{", "json"),
        (decode_movesense, b'{"Body":{"Timestamp":1,"Samples":[]}}', "samples"),
        (decode_movesense, b'{"Body":{"Timestamp":-1,"Samples":[1]}}', "clock"),
        (decode_movesense, b'{"Uri":"/Meas/ECG/9999","Body":{"Timestamp":1,"Samples":[1]}}', "rate"),
        (decode_movesense, b'{"Body":{"Timestamp":1,"Samples":[99999999999]}}', "samples"),
        (decode_movesense, bytes(MAX_PACKET + 1), "oversize"),
    ],
)
def test_what_is_no_packet_is_refused_by_name(decode: Callable[[bytes], StrapPacket], payload: bytes, reason: str):
    """Each fault has its counted reason."""
    with pytest.raises(FrameError) as caught:
        decode(payload)
    assert caught.value.reason == reason


@given(st.lists(st.integers(-(2**23), 2**23 - 1), min_size=1, max_size=300), st.integers(0, 2**63))
def test_polar_packets_come_back(samples: list[int], last_ns: int):
    """What is laid out is read back."""
    assert decode_polar(encode_polar(last_ns, np.array(samples, np.int32))).samples[:, 0].tolist() == samples


@settings(max_examples=300)
@given(st.binary(max_size=600))
def test_any_payload_is_a_packet_or_a_counted_reason(payload: bytes):
    """Nothing else comes out of a codec than a packet or a `FrameError`."""
    for decode in (decode_polar, decode_movesense):
        try:
            packet = decode(payload)
        except FrameError:
            continue
        assert packet.samples.shape[1] == 1


@pytest.mark.data
@pytest.mark.parametrize("rate", [129.4, 130.0, 130.6])
def test_a_real_capture_comes_through_whole(data_dir: Path, rate: float):
    """Every sample of a minute of a real strap comes once and in order, whatever its crystal's true rate."""
    samples = capture(data_dir)
    chosen = packets(samples, rate=rate)
    stream = StrapStream("strap")
    frames = push_all(stream, chosen)
    assert_contiguous(frames)
    np.testing.assert_array_equal(joined(frames), samples[: PACKET * len(chosen)])
    assert set(stream.counts) == {"epochs"}


def test_a_delay_that_grows_to_minutes_loses_nothing():
    """Packets that come later and later are still numbered by their own time, and the delay is known."""
    stream = StrapStream("strap")
    frames = [
        stream.push(packet, NOW + round(packet.clock_ms) + 4_000 * number)
        for number, packet in enumerate(packets(RAMP))
    ]
    assert_contiguous(frames)
    assert stream.late_ms == pytest.approx(4_000 * (len(frames) - 1), abs=2)


@pytest.mark.parametrize("back_ms", [1_000.0, 60_000.0, 9e11])
def test_a_clock_that_jumps_back_loses_nothing(back_ms: float):
    """Samples go on without a gap or a new epoch when the strap's clock is set back."""
    before = packets(RAMP[: PACKET * 20], 1e12)
    after = packets(RAMP[PACKET * 20 :], 1e12 + 20 * PACKET * 1000 / 130 - back_ms)
    stream = StrapStream("strap")
    frames = push_all(stream, before + after)
    assert_contiguous(frames)
    np.testing.assert_array_equal(joined(frames), RAMP)
    assert stream.counts["jump_back"] == 1


def test_two_packets_at_one_time():
    """Two packets with one time are both taken when they differ, and once when they are the same."""
    chosen = packets(RAMP)
    chosen[6] = StrapPacket(chosen[5].clock_ms, 130.0, 1000.0, chosen[6].samples)
    stream = StrapStream("strap")
    frames = push_all(stream, [*chosen[:10], chosen[9], *chosen[10:]])
    np.testing.assert_array_equal(joined(frames), RAMP)
    assert_contiguous(frames)
    assert (stream.counts["same_time"], stream.counts["duplicate"]) == (1, 1)


@pytest.mark.parametrize("missing", [1, 3, 30])
def test_a_drop_out_is_a_gap_of_its_length(missing: int):
    """Packets that never came leave a gap of as many samples."""
    chosen = packets(RAMP)
    stream = StrapStream("strap")
    frames = push_all(stream, chosen[:5] + chosen[5 + missing :])
    sequencer, steps = Sequencer(), []
    for frame in frames:
        assert frame is not None
        steps += sequencer.push(frame, NOW)
    steps += sequencer.flush()
    (gap,) = [step for step in steps if isinstance(step, Gap)]
    assert abs(gap.count - missing * PACKET) <= 1
    runs = [step.frame.samples for step in steps if isinstance(step, Run)]
    assert sum(map(len, runs)) == (len(chosen) - missing) * PACKET


def test_an_overtaken_packet_finds_its_place():
    """A packet that comes after later ones fills the gap that they left."""
    chosen = packets(RAMP)
    chosen[7], chosen[8] = chosen[8], chosen[7]
    stream = StrapStream("strap")
    frames = push_all(stream, chosen)
    order = sorted((frame for frame in frames if frame is not None), key=lambda frame: frame.sample)
    np.testing.assert_array_equal(joined(order), RAMP)
    assert stream.counts["overtaken"] == 1
    for before, after in itertools.pairwise(order):
        assert after.sample == before.sample + len(before.samples)


def test_a_long_drop_out_begins_anew():
    """After a night without the strap, or a clock that was set forward, an epoch begins."""
    stream = StrapStream("strap")
    first = push_all(stream, packets(RAMP[: PACKET * 5]))
    second = push_all(stream, packets(RAMP[PACKET * 5 :], 8 * 3_600_000.0 + 5_000))
    assert stream.counts["epochs"] == 2
    assert first[-1] is not None
    assert second[0] is not None
    assert second[0].epoch > first[-1].epoch
    assert (second[0].seq, second[0].sample) == (0, 0)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_the_strap_does_every_new_packet_comes_once(data: st.DataObject):
    """With any mixture of jitter, jumps, copies and stops, no sample comes twice and no index is used twice."""
    chosen = packets(RAMP[: PACKET * 20])
    stream, shift, frames, sent = StrapStream("strap"), 0.0, [], 0
    for packet in chosen:
        fault = data.draw(st.sampled_from(["none"] * 6 + ["jitter", "back", "forward", "copy", "stop"]))
        if fault == "stop":
            continue
        shift += {"back": -5_000.0, "forward": 3_000.0}.get(fault, 0.0)
        jitter = data.draw(st.floats(-50, 50)) if fault == "jitter" else 0.0
        moved = StrapPacket(max(0.0, packet.clock_ms + shift + jitter), 130.0, 1000.0, packet.samples)
        copies = 2 if fault == "copy" else 1
        frames += [stream.push(moved, NOW + round(packet.clock_ms)) for _ in range(copies)]
        sent += 1
    got = [frame for frame in frames if frame is not None]
    assert len(got) == sent
    assert sum(len(frame.samples) for frame in got) >= sent * PACKET - 16 * stream.counts["overtaken"]
    used: set[tuple[int, int]] = set()
    for frame in got:
        indices = {(frame.epoch, frame.sample + number) for number in range(len(frame.samples))}
        assert not used & indices
        used |= indices


class FakeStrap:
    """A strap at the other end of a radio, driven by a script of sessions."""

    def __init__(self, sessions: list[list[bytes]], refuse: int = 0) -> None:
        self.sessions, self.refuse = sessions, refuse
        self.closed = 0

    async def open(self, on_packet: Callable[[bytes], None]) -> None:
        """Refuse first, then say what the script says and fall silent."""
        if self.refuse:
            self.refuse -= 1
            raise PeerError("not in sight")
        for payload in self.sessions.pop(0) if self.sessions else ():
            on_packet(payload)

    async def battery(self) -> float:
        """Half full."""
        return 0.5

    async def close(self) -> None:
        """Count it."""
        self.closed += 1


class Kept:
    """What the gateway hands on."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.notes: list[tuple[str, float]] = []

    def offer(self, frame: Frame) -> bool:
        """Keep it."""
        self.frames.append(frame)
        return True

    def note(self, name: str, value: float = 0.0) -> None:
        """Keep it."""
        self.notes.append((name, value))


async def test_the_gateway_comes_back_to_a_strap_that_falls_silent(monkeypatch: pytest.MonkeyPatch):
    """A strap that is not there at first, then stops without a word, is asked again; its samples go on as a gap."""
    monkeypatch.setattr("rhythmwatch.gateway.BACKOFF_S", (0.001, 0.01))
    raw = [encode_polar(round((5_000 + (n + 1) * 561.54) * 1e6), RAMP[n * 73 : (n + 1) * 73]) for n in range(20)]
    strap, kept = FakeStrap([raw[:5], [b"nonsense", *raw[8:]]], refuse=2), Kept()
    gateway = Gateway("strap", strap, kept, silent_s=0.05, clock=lambda: NOW, jitter=lambda: 0.0)
    task = asyncio.create_task(gateway.run())
    await until(lambda: len(kept.frames) == 17)
    await until(lambda: gateway.counts["silent"] >= 2)
    await end([task])
    assert gateway.counts["failures"] >= 4
    assert gateway.counts["drop_length"] == 1
    assert gateway.stream.counts["gap"] == 1
    assert kept.notes[0] == ("battery", 0.5)
    assert strap.closed >= 4


@pytest.mark.services
async def test_packets_of_straps_become_frames_on_the_bus(tmp_path: Path):
    """What a phone forwards as it came is on the bus as frames with counts; what came late is told to staff."""
    async with (
        embedded(tmp_path / "bus") as url,
        Bus(url) as bus,
        embedded_broker(tmp_path / "broker", engine="mosquitto") as broker,
    ):
        late = iter([*range(0, 40_000, 4_000), *[40_000] * 100])
        options = SubscriberOptions(broker.host, broker.port, broker.username, broker.password, mqtt5=True)
        subscriber = Subscriber(options, bus, clock=lambda: NOW + next(late))
        task = asyncio.create_task(subscriber.run())
        await until(lambda: subscriber.connected and subscriber.straps.connected)
        meta = DeviceMeta("strap", 1, 130.0, ("ECG",), 1000.0)
        async with FleetClient(Connection.of(broker), [meta]) as client:
            done: list[int] = []
            for number in range(8):
                payload = encode_polar(round((number + 1) * 561.54e6), RAMP[number * 73 : (number + 1) * 73])
                client.hand("strap", "polar", payload, lambda: done.append(1))
            client.hand("strap", "polar", b"nonsense", lambda: done.append(1))
            client.hand("strap", "movesense", bytes(8), lambda: done.append(1))
            await until(lambda: len(done) == 10)
        await until(lambda: subscriber.counts["drop_length"] == 1 and subscriber.counts["strap_epochs"] == 2)
        await until(lambda: subscriber.counts["stored"] >= 11)
        got = await bus.read(dict.fromkeys(range(bus.partitions), START), count=1000)
        entries = [unpack_inbound(record.data) for _, records in got for record in records]
        frames = [decode_frame(entry.payload) for entry in entries if entry.kind is Entry.FRAME]
        assert_contiguous(frames[:8])
        np.testing.assert_array_equal(joined(frames[:8]), RAMP[: 8 * 73])
        notes = [unpack_note(entry.payload) for entry in entries if entry.kind is Entry.DEVICE]
        assert [note.name for note in notes if note.name == "late"] == ["late"]
        await end([task])


@pytest.mark.services
async def test_numbers_on_standard_input_are_published(tmp_path: Path):
    """One number a line becomes frames of the device in the address; a line that is none is a missing sample."""
    async with (
        embedded(tmp_path / "bus") as url,
        Bus(url) as bus,
        embedded_broker(tmp_path / "broker", engine="mosquitto") as broker,
    ):
        options = SubscriberOptions(broker.host, broker.port, broker.username, broker.password, mqtt5=True)
        subscriber = Subscriber(options, bus)
        task = asyncio.create_task(subscriber.run())
        await until(lambda: subscriber.connected)
        address = BrokerAddress(broker.host, broker.port, broker.device_username, broker.device_password).url()
        with pytest.raises(ValueError, match="account"):
            own_connection(address, None)
        from bus.passwords import hash_secret
        from ingest.gatekeeper import Gatekeeper

        await Gatekeeper(broker).apply({"bed-7": hash_secret("secret")})
        address = BrokerAddress(broker.door_host, broker.door_port, "bed-7", "secret").url()
        lines = io.StringIO("\n".join(["1"] * 100 + ["x"] + ["-2.4"] * 99) + "\n")
        await publish_numbers(address, tmp_path / "store", 100.0, asyncio.Event(), lines=lines)
        await until(lambda: subscriber.counts["stored"] >= 3)
        got = await bus.read(dict.fromkeys(range(bus.partitions), START), count=1000)
        entries = [unpack_inbound(record.data) for _, records in got for record in records]
        frames = [decode_frame(entry.payload) for entry in entries if entry.kind is Entry.FRAME]
        values = joined(frames)
        assert values[:100].tolist() == [1] * 100
        assert values[100] == frames[0].missing
        assert values[101:].tolist() == [-2] * 99
        await end([task])
