"""Chest straps: packets as they come over Bluetooth, which have a time but no count, and frames made of them.

``polar`` (Polar H10, PMD service, ECG) is the notification as is: measurement type 0, u64 ns of the *last* sample,
frame type 0, then samples of 3 bytes in uV, 130 a second. ``movesense`` is u32 ms of the *first* sample, then int16
samples, or the sensor's JSON (``{"Uri": ".../Meas/ECG/125", "Body": {"Timestamp": 1, "Samples": []}}``). Little-endian.

`StrapStream` numbers the samples. Times of straps are not to be trusted blindly: they jitter, jump back when the clock
is set, come twice, stand still; and delivery may lag by minutes. The samples themselves are continuous unless the time
says that some are missing. Where its numbering stands can be kept, so that another process goes on from there.
"""

from __future__ import annotations

import re
import struct
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

import msgspec
import numpy as np
from crc32c import crc32c

from ingest.codecs import UNREADABLE
from ingest.frame import MAX_SAMPLES, RATE_MAX_HZ, RATE_MIN_HZ, Frame, FrameError, Samples

POLAR_RATE: Final = 130.0
POLAR_GAIN: Final = 1000.0
"""Units per mV: samples are uV."""
MOVESENSE_RATE: Final = 125.0
MOVESENSE_GAIN: Final = 2621.44
"""Units per mV: one unit is 0.000381469726563 mV."""
LEAD: Final = "ECG"
MAX_PACKET: Final = 4_096
"""Bytes; a notification has at most 512."""
_POLAR_HEAD: Final = 10
_POLAR_ECG: Final = 0
_URI_RATE: Final = re.compile(r"/ECG/(\d{2,4})\b")

JITTER_MS: Final = 120.0
"""An error of the time up to this says nothing."""
FOLLOW: Final = 0.1
"""Share of such an error by which the expected time follows."""
LONGEST_GAP_MS: Final = 6 * 3_600_000.0
"""A larger step forward is a clock that was set, or another recording: a new epoch."""
REORDER_MS: Final = 10_000.0
"""A packet this much too early may be one that was overtaken, if its place is still empty."""
_REMEMBERED: Final = 16
COPIES: Final = 256
"""A packet that is among the last so many came before."""
_VERSION: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class StrapPacket:
    """Consecutive samples of one lead with the strap's own time.

    Attributes
    ----------
    clock_ms : float
        Strap's clock at the first sample, ms from any origin.
    rate : float
        Hz.
    gain : float
        Units per mV.
    samples : ndarray of int16 or int32, shape (n, 1)
    """

    clock_ms: float
    rate: float
    gain: float
    samples: Samples


class _Body(msgspec.Struct):
    timestamp: int = msgspec.field(name="Timestamp")
    samples: list[int] = msgspec.field(name="Samples")


class _Movesense(msgspec.Struct):
    body: _Body = msgspec.field(name="Body")
    uri: str = msgspec.field(name="Uri", default="")


_movesense = msgspec.json.Decoder(_Movesense)


def decode_polar(payload: bytes) -> StrapPacket:
    """Read a notification of the PMD data characteristic.

    Raises
    ------
    FrameError
        ``oversize``, ``length`` or ``samples``.
    """
    if len(payload) > MAX_PACKET:
        raise FrameError("oversize", f"packet of {len(payload)} bytes, at most {MAX_PACKET} are taken")
    body = len(payload) - _POLAR_HEAD
    if body < 3 or body % 3:
        raise FrameError("length", f"packet of {len(payload)} bytes is no head of 10 and samples of 3 bytes")
    if payload[0] != _POLAR_ECG or payload[9] != 0:
        raise FrameError("samples", f"measurement {payload[0]}, frame type {payload[9]}: only 0 and 0 (ECG) are known")
    last_ns = int.from_bytes(payload[1:9], "little")
    raw = np.frombuffer(payload, np.uint8, body, _POLAR_HEAD).reshape(-1, 3).astype(np.int32)
    values = raw[:, 0] | (raw[:, 1] << 8) | (raw[:, 2] << 16)
    samples = ((values ^ 0x800000) - 0x800000).astype(np.int32)[:, None]
    clock_ms = max(0.0, last_ns / 1e6 - (len(samples) - 1) * 1000 / POLAR_RATE)
    return StrapPacket(clock_ms, POLAR_RATE, POLAR_GAIN, samples)


def encode_polar(last_ns: int, microvolts: Samples) -> bytes:
    """Lay samples out as a Polar H10 does; used for tests and simulated straps."""
    units = np.asarray(microvolts, np.int32).reshape(-1) & 0xFFFFFF
    body = np.stack([units & 0xFF, (units >> 8) & 0xFF, units >> 16], axis=1).astype(np.uint8).tobytes()
    return bytes([_POLAR_ECG]) + last_ns.to_bytes(8, "little") + b"\0" + body


def decode_movesense(payload: bytes, rate: float = MOVESENSE_RATE, gain: float = MOVESENSE_GAIN) -> StrapPacket:
    """Read a notification, binary or JSON.

    Parameters
    ----------
    payload : bytes
    rate, gain : float
        Of the binary layout, which does not say them; a URI in JSON says its rate.

    Raises
    ------
    FrameError
        ``oversize``, ``length``, ``json``, ``rate``, ``clock`` or ``samples``.
    """
    if len(payload) > MAX_PACKET:
        raise FrameError("oversize", f"packet of {len(payload)} bytes, at most {MAX_PACKET} are taken")
    if payload.lstrip()[:1] == b"{":
        return _movesense_json(payload, rate, gain)
    body = len(payload) - 4
    if body < 2 or body % 2:
        raise FrameError("length", f"packet of {len(payload)} bytes is no time of 4 and samples of 2 bytes")
    clock_ms = int.from_bytes(payload[:4], "little")
    return StrapPacket(float(clock_ms), rate, gain, np.frombuffer(payload, "<i2", body // 2, 4)[:, None])


def _movesense_json(payload: bytes, rate: float, gain: float) -> StrapPacket:
    try:
        packet = _movesense.decode(payload)
    except UNREADABLE as error:
        raise FrameError("json", f"not a packet of a Movesense in JSON: {error}") from error
    said = _URI_RATE.search(packet.uri)
    rate = float(said[1]) if said else rate
    if not RATE_MIN_HZ <= rate <= RATE_MAX_HZ:
        raise FrameError("rate", f"rate {rate} Hz is outside {RATE_MIN_HZ:g} to {RATE_MAX_HZ:g}")
    if not 0 <= packet.body.timestamp < 2**53:
        raise FrameError("clock", f"time {packet.body.timestamp} ms is outside 0 to 2**53")
    units = packet.body.samples
    if not 1 <= len(units) <= MAX_SAMPLES or not (min(units) > -(2**31) and max(units) < 2**31):
        raise FrameError("samples", f"{len(units)} samples; 1 to {MAX_SAMPLES} of 32 bits are taken")
    return StrapPacket(float(packet.body.timestamp), rate, gain, np.array(units, np.int32)[:, None])


def decode_strap(kind: Literal["polar", "movesense"], payload: bytes, rate: float = 0.0) -> StrapPacket:
    """Read a packet of either kind; `rate` is that of a binary Movesense packet, 0 for its usual one."""
    if kind == "polar":
        return decode_polar(payload)
    return decode_movesense(payload, rate or MOVESENSE_RATE)


class _State(msgspec.Struct, array_like=True):
    """What is kept of a stream; the marks of packets are kept beside it."""

    version: int
    epoch: int
    format: tuple[float, float]
    seq: int
    next: int
    expected_ms: float
    last_ms: float
    quickest_ms: float
    gaps: list[tuple[int, int]]


_state_encoder = msgspec.msgpack.Encoder()
_state_decoder = msgspec.msgpack.Decoder(_State)


def mark_of(packet: StrapPacket) -> bytes:
    """Sum up what tells a packet from others of its strap: its time and its samples."""
    return struct.pack("<dI", packet.clock_ms, crc32c(packet.samples.tobytes()))


class StrapStream:
    """Numbers the samples of one strap.

    Parameters
    ----------
    device : str
        Device id of the frames.

    Attributes
    ----------
    counts : Counter
        ``duplicate`` (dropped), ``same_time`` (another packet with the time of the last), ``jump_back``, ``gap``,
        ``overtaken``, ``epochs``.
    late_ms : float
        How much later the last packet came than the quickest one of the epoch.
    number : int
        Packets that became frames, in all epochs.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.counts: Counter[str] = Counter()
        self.late_ms = 0.0
        self.number = 0
        self._epoch = -1
        self._format = (0.0, 0.0)
        self._seq = 0
        self._next = 0
        self._expected_ms = 0.0
        self._last_ms = -1.0
        self._quickest_ms = 0.0
        self._gaps: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        self._seen: deque[bytes] = deque(maxlen=COPIES)

    def push(self, packet: StrapPacket, now_ms: int) -> Frame | None:
        """Take a packet as it came.

        Parameters
        ----------
        packet : StrapPacket
        now_ms : int
            Our clock, ms since the Unix epoch; it names epochs.

        Returns
        -------
        Frame or None
            None for a packet that came before.
        """
        mark = mark_of(packet)
        if mark in self._seen:
            self.counts["duplicate"] += 1
            return None
        self._seen.append(mark)
        length_ms = len(packet.samples) * 1000 / packet.rate
        error = packet.clock_ms - self._expected_ms
        if self._epoch < 0 or (packet.rate, packet.gain) != self._format or error > LONGEST_GAP_MS:
            self._begin(packet, now_ms)
        elif packet.clock_ms == self._last_ms:
            self.counts["same_time"] += 1
        elif error > max(JITTER_MS, length_ms / 2):
            missing = round(error * packet.rate / 1000)
            self.counts["gap"] += 1
            self._gaps.append((self._next, self._next + missing))
            self._next += missing
            self._expected_ms = packet.clock_ms
        elif error < -max(JITTER_MS, length_ms / 2):
            overtaken = self._overtaken(packet, error)
            if overtaken is not None:
                return overtaken
            self.counts["jump_back"] += 1
            self._expected_ms = packet.clock_ms
            self._quickest_ms = now_ms - packet.clock_ms
        else:
            self._expected_ms += FOLLOW * error
        self._last_ms = packet.clock_ms
        self._quickest_ms = min(self._quickest_ms, now_ms - packet.clock_ms)
        self.late_ms = now_ms - packet.clock_ms - self._quickest_ms
        frame = self._frame(packet, self._next)
        self._next += len(packet.samples)
        self._expected_ms += length_ms
        return frame

    def _begin(self, packet: StrapPacket, now_ms: int) -> None:
        self.counts["epochs"] += 1
        self._epoch = max(self._epoch + 1, now_ms)
        self._format = (packet.rate, packet.gain)
        self._seq = self._next = 0
        self._expected_ms = packet.clock_ms
        self._quickest_ms = now_ms - packet.clock_ms
        self._gaps.clear()

    def _overtaken(self, packet: StrapPacket, error: float) -> Frame | None:
        """Frame of a packet that was overtaken by later ones, if its place is empty."""
        if error < -REORDER_MS:
            return None
        first = self._next + round(error * packet.rate / 1000)
        slack = round(JITTER_MS * packet.rate / 1000)
        for number, (low, high) in enumerate(self._gaps):
            begin = max(first, low)
            fits = min(len(packet.samples), high - begin)
            if first >= low - slack and fits > 0 and fits >= len(packet.samples) - slack:
                self.counts["overtaken"] += 1
                # What is left of the gap behind it may still come.
                self._gaps[number] = (begin + fits, high)
                return self._frame(replace(packet, samples=packet.samples[:fits]), begin)
        return None

    def _frame(self, packet: StrapPacket, sample: int) -> Frame:
        frame = Frame(
            self.device, self._epoch, self._seq, sample, round(packet.clock_ms), packet.rate, (LEAD,), packet.gain,
            packet.samples,
        )  # fmt: skip
        self._seq += 1
        self.number += 1
        return frame

    def rate_at(self, gain: float) -> float:
        """Rate of the last packet, Hz, if it had this gain; 0 if not."""
        return self._format[0] if self._format[1] == gain else 0.0

    def to_bytes(self) -> bytes:
        """Copy where the numbering stands, without the marks of packets and the counts."""
        return _state_encoder.encode(
            _State(
                _VERSION, self._epoch, self._format, self._seq, self._next, self._expected_ms,
                self._last_ms, self._quickest_ms, list(self._gaps),
            )
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, device: str, data: bytes, number: int, marks: Iterable[bytes]) -> StrapStream:
        """Continue from what `to_bytes` wrote.

        Parameters
        ----------
        device : str
        data : bytes
        number : int
            Packets that were numbered.
        marks : iterable of bytes
            `mark_of` the packets that were numbered, the oldest first.

        Raises
        ------
        ValueError
            If it is damaged or of a version that is not spoken.
        """
        try:
            state = _state_decoder.decode(data)
        except UNREADABLE as error:
            raise ValueError(f"state of a strap can't be read: {error}") from error
        if state.version != _VERSION:
            raise ValueError(f"state of a strap of version {state.version}, {_VERSION} is spoken")
        self = cls(device)
        self.number, self._epoch, self._format = number, state.epoch, state.format
        self._seq, self._next, self._expected_ms = state.seq, state.next, state.expected_ms
        self._last_ms, self._quickest_ms = state.last_ms, state.quickest_ms
        self._gaps.extend(state.gaps)
        self._seen.extend(marks)
        return self
