"""The two codecs of a frame: ``frame`` (binary, checksummed, for devices) and ``json`` (for people).

The binary layout is little-endian and has no optional parts:

====== ======= =================================================================
offset type    field
====== ======= =================================================================
0      2 bytes magic ``RW``
2      u8      version, 1
3      u8      bytes a sample: 2 (int16) or 4 (int32)
4      u32     length of the whole frame in bytes
8      u64     stream epoch
16     u64     sequence number
24     u64     index in the epoch of the first sample
32     u64     device clock at the first sample, ms since the Unix epoch
40     f64     rate, Hz
48     f64     gain, units per mV
56     u32     samples a lead, n
60     u8      leads
61     u8      length of the device id
62     u16     length of the lead names
64     text    device id, lead names joined by NUL, zeros up to a multiple of 4
...    n rows  samples, one row of all leads after the other
end-4  u32     CRC-32C of all bytes before it
====== ======= =================================================================

The JSON codec is one object (`JsonFrame`); `null` stands for a sample that the device does not have::

    {"device": "bed-7", "epoch": 1, "seq": 0, "sample": 0, "device_ms": 1700000000000, "rate": 250, "gain": 200,
     "samples": {"MLII": [3, 5, null], "V5": [0, 1, 1]}}
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from crc32c import crc32c

from ingest.frame import DEVICE_ID, MAX_LEADS, MAX_SAMPLES, RATE_MAX_HZ, RATE_MIN_HZ, Frame, FrameError, Samples

MAGIC: Final = b"RW"
VERSION: Final = 1
MAX_BYTES: Final = 1 << 20
"""A payload above this is refused unread; the largest valid frame has 0.96 MB."""

_HEAD: Final = struct.Struct("<2sBBIQQQQddIBBH")
_NUMBER: Final = struct.Struct("<8xQQ")
_CRC: Final = struct.Struct("<I")
UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What `msgspec` raises for bytes that are no message of a type."""
_TYPES: Final[dict[int, np.dtype[Any]]] = {2: np.dtype("<i2"), 4: np.dtype("<i4")}


class JsonFrame(msgspec.Struct, forbid_unknown_fields=True):
    """Schema of the ``json`` codec; the order of the leads in `samples` is the order of the columns."""

    device: str
    epoch: int
    seq: int
    sample: int
    device_ms: int
    rate: float
    gain: float
    samples: dict[str, list[int | None]]


_json_decoder = msgspec.json.Decoder(JsonFrame)
_json_encoder = msgspec.json.Encoder()


def encode_frame(frame: Frame) -> bytes:
    """Lay a frame out in the binary codec."""
    device, leads = frame.device.encode(), "\0".join(frame.leads).encode()
    width = frame.samples.dtype.itemsize
    body = np.ascontiguousarray(frame.samples, dtype=_TYPES[width]).tobytes()
    text = device + leads
    text += bytes(-len(text) % 4)
    length = _HEAD.size + len(text) + len(body) + _CRC.size
    head = _HEAD.pack(
        MAGIC,
        VERSION,
        width,
        length,
        frame.epoch,
        frame.seq,
        frame.sample,
        frame.device_ms,
        frame.rate,
        frame.gain,
        len(frame.samples),
        len(frame.leads),
        len(device),
        len(leads),
    )
    data = head + text + body
    return data + _CRC.pack(crc32c(data))


def decode_frame(payload: bytes) -> Frame:
    """Read a frame in the binary codec; its samples are a read-only view of `payload`, not a copy.

    Raises
    ------
    FrameError
        With its counted reason, for every payload that is no valid frame.
    """
    size = len(payload)
    if size > MAX_BYTES:
        raise FrameError("oversize", f"payload of {size} bytes, at most {MAX_BYTES} are taken")
    if payload[:2] != MAGIC:
        raise FrameError("magic", "payload does not begin as a frame")
    if size < _HEAD.size + _CRC.size:
        raise FrameError("length", f"payload of {size} bytes is shorter than the head of a frame")
    (
        _,
        version,
        width,
        length,
        epoch,
        seq,
        sample,
        device_ms,
        rate,
        gain,
        rows,
        columns,
        device_size,
        leads_size,
    ) = _HEAD.unpack_from(payload)
    if version != VERSION:
        raise FrameError("version", f"frame version {version} is unknown, {VERSION} is spoken")
    if length != size:
        raise FrameError("length", f"frame says {length} bytes, payload has {size}")
    end = size - _CRC.size
    if crc32c(memoryview(payload)[:end]) != _CRC.unpack_from(payload, end)[0]:
        raise FrameError("checksum", "CRC-32C differs, the frame was damaged on its way")
    dtype = _TYPES.get(width)
    if dtype is None or not 1 <= rows <= MAX_SAMPLES:
        raise FrameError("samples", f"{rows} samples of {width} bytes; 1 to {MAX_SAMPLES} of 2 or 4 are taken")
    if not 1 <= columns <= MAX_LEADS:
        raise FrameError("leads", f"{columns} leads; 1 to {MAX_LEADS} are taken")
    leads_at = _HEAD.size + device_size
    text_end = leads_at + leads_size
    body = text_end + -text_end % 4
    if body + rows * columns * width != end:
        raise FrameError("length", f"{rows} samples of {columns} leads do not fill the frame")
    try:
        device = payload[_HEAD.size : leads_at].decode()
        leads = tuple(payload[leads_at:text_end].decode().split("\0"))
    except UnicodeDecodeError as error:
        raise FrameError("device", "device id or lead names are not UTF-8") from error
    samples: Samples = np.frombuffer(payload, dtype, rows * columns, body).reshape(rows, columns)
    return Frame(device, epoch, seq, sample, device_ms, rate, leads, gain, samples)


def frame_number(payload: bytes) -> tuple[int, int]:
    """Epoch and sequence number of a frame in the binary codec that has been checked before."""
    epoch, seq = _NUMBER.unpack_from(payload)
    return epoch, seq


class FrameFacts(NamedTuple):
    """What ingest needs to know of a frame."""

    rate: float
    rows: int
    device_ms: int


def check_frame(payload: bytes, device: str) -> FrameFacts:
    """Check a binary frame of a device as `decode` does, without making a `Frame`; raises the same errors."""
    size = len(payload)
    try:
        (magic, version, width, length, epoch, seq, sample, device_ms, rate, gain, rows, columns, named, listed) = (
            _HEAD.unpack_from(payload)
        )
    except struct.error:
        magic = b""
    end = size - _CRC.size
    if (
        magic == MAGIC
        and version == VERSION
        and length == size <= MAX_BYTES
        and (width == 2 or width == 4)
        and RATE_MIN_HZ <= rate <= RATE_MAX_HZ
        and 0 < gain < 1e9
        and (epoch | seq | sample | device_ms) < 2**63
        and 1 <= rows <= MAX_SAMPLES
        and _text_is_valid(payload[_HEAD.size : _HEAD.size + named + listed], named, columns, device)
        and _HEAD.size + named + listed + -(named + listed) % 4 + rows * columns * width == end
        and crc32c(memoryview(payload)[:end]) == _CRC.unpack_from(payload, end)[0]
    ):
        return FrameFacts(rate, rows, device_ms)
    # Something is wrong: the full reading says what.
    frame = decode(payload, device)
    return FrameFacts(frame.rate, len(frame.samples), frame.device_ms)


@lru_cache(maxsize=65_536)
def _text_is_valid(text: bytes, named: int, columns: int, device: str) -> bool:
    """Whether device id and lead names are right; a device says the same in all its frames."""
    try:
        leads = text[named:].decode().split("\0")
        said = text[:named].decode()
    except UnicodeDecodeError:
        return False
    return (
        said == device
        and DEVICE_ID.fullmatch(said) is not None
        and 1 <= columns <= MAX_LEADS
        and columns == len(leads) == len(set(leads))
        and all(1 <= len(lead) <= 16 and lead.isprintable() for lead in leads)
    )


def encode_json(frame: Frame) -> bytes:
    """Write a frame in the JSON codec."""
    missing = frame.missing
    columns = {
        lead: [None if unit == missing else unit for unit in frame.samples[:, column].tolist()]
        for column, lead in enumerate(frame.leads)
    }
    return _json_encoder.encode(
        JsonFrame(frame.device, frame.epoch, frame.seq, frame.sample, frame.device_ms, frame.rate, frame.gain, columns)
    )


def decode_json(payload: bytes) -> Frame:
    """Read a frame in the JSON codec; int16 where every sample fits it, else int32.

    Raises
    ------
    FrameError
        With its counted reason, for every payload that is no valid frame.
    """
    if len(payload) > MAX_BYTES:
        raise FrameError("oversize", f"payload of {len(payload)} bytes, at most {MAX_BYTES} are taken")
    try:
        fields = _json_decoder.decode(payload)
    except UNREADABLE as error:
        raise FrameError("json", f"not a frame in JSON: {error}") from error
    columns = list(fields.samples.values())
    if not 1 <= len(columns) <= MAX_LEADS:
        raise FrameError("leads", f"{len(columns)} leads; 1 to {MAX_LEADS} are taken")
    if len({len(column) for column in columns}) != 1:
        raise FrameError("samples", "all leads must have equally many samples")
    present = [unit for column in columns for unit in column if unit is not None]
    low, high = min(present, default=0), max(present, default=0)
    dtype = np.dtype(np.int16) if low > -(2**15) and high < 2**15 else np.dtype(np.int32)
    missing = int(np.iinfo(dtype).min)
    if low <= -(2**31) or high >= 2**31:
        raise FrameError("samples", f"samples from {low} to {high} do not fit 32 bits")
    samples = np.array([[missing if unit is None else unit for unit in column] for column in columns], dtype).T
    return Frame(
        fields.device,
        fields.epoch,
        fields.seq,
        fields.sample,
        fields.device_ms,
        fields.rate,
        tuple(fields.samples),
        fields.gain,
        np.ascontiguousarray(samples),
    )


def decode(payload: bytes, device: str | None = None) -> Frame:
    """Read a frame in whichever codec it came, told apart by the first bytes.

    Parameters
    ----------
    payload : bytes
        What the device published.
    device : str, optional
        The device id of the topic; a frame of another device is refused.

    Raises
    ------
    FrameError
        With its counted reason; ``magic`` for what is neither codec, ``topic`` for a frame of another device.
    """
    frame = decode_json(payload) if payload.lstrip()[:1] == b"{" else decode_frame(payload)
    if device is not None and frame.device != device:
        raise FrameError("topic", f"frame of {frame.device!r} came on the topic of {device!r}")
    return frame
