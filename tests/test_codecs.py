"""A payload is either a valid frame or an error with a counted reason, in both codecs."""

import struct

import msgspec
import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ingest.codecs import MAX_BYTES, decode, decode_frame, decode_json, encode_frame, encode_json
from ingest.frame import Frame, FrameError

REASONS = {
    "magic",
    "version",
    "length",
    "checksum",
    "device",
    "rate",
    "leads",
    "gain",
    "samples",
    "clock",
    "json",
    "oversize",
    "topic",
}


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Any valid frame of up to 40 samples and 4 leads."""
    leads = draw(st.lists(st.sampled_from(["MLII", "V1", "V5", "aVR", "é"]), min_size=1, max_size=4, unique=True))
    dtype = draw(st.sampled_from([np.int16, np.int32]))
    rows = draw(st.integers(1, 40))
    return Frame(
        draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)),
        draw(st.integers(0, 2**63 - 1)),
        draw(st.integers(0, 2**40)),
        draw(st.integers(0, 2**63 - 1)),
        draw(st.integers(0, 2**50)),
        draw(st.floats(50, 2000)),
        tuple(leads),
        draw(st.floats(1e-3, 1e6)),
        draw(npst.arrays(dtype, (rows, len(leads)))),
    )


def plain(count: int = 250) -> Frame:
    """Make a frame as a bedside device sends it each second."""
    samples = np.arange(2 * count, dtype=np.int16).reshape(count, 2)
    return Frame("bed-7", 1, 2, 500, 1_700_000_000_000, 250.0, ("MLII", "V5"), 200.0, samples)


def same(a: Frame, b: Frame) -> bool:
    """Whether two frames agree in every field and every sample."""
    names = ("device", "epoch", "seq", "sample", "device_ms", "rate", "leads", "gain")
    return all(getattr(a, name) == getattr(b, name) for name in names) and np.array_equal(a.samples, b.samples)


def reason_of(payload: bytes, device: str | None = None) -> str | None:
    """Reason for which a payload is refused; None when it is a frame."""
    try:
        decode(payload, device)
    except FrameError as error:
        reason = error.reason
    else:
        return None
    assert reason in REASONS
    return reason


def resealed(payload: bytearray) -> bytes:
    """Put the checksum of a tampered frame right."""
    struct.pack_into("<I", payload, len(payload) - 4, crc32c(bytes(payload[:-4])))
    return bytes(payload)


@given(frames())
def test_a_frame_survives_the_binary_codec(frame: Frame):
    """Every field and sample comes back, the sample type too."""
    back = decode_frame(encode_frame(frame))
    assert same(frame, back)
    assert back.samples.dtype == frame.samples.dtype


@given(frames())
def test_a_frame_survives_the_json_codec(frame: Frame):
    """Every field and sample in mV comes back; missing samples stay missing."""
    back = decode_json(encode_json(frame))
    assert np.array_equal(frame.millivolts(), back.millivolts(), equal_nan=True)
    assert (back.device, back.epoch, back.leads, back.rate) == (frame.device, frame.epoch, frame.leads, frame.rate)


def test_samples_are_not_copied():
    """The samples of a decoded frame are a view of the payload."""
    frame = decode_frame(encode_frame(plain()))
    assert not frame.samples.flags.owndata
    assert not frame.samples.flags.writeable
    assert frame.samples.flags.aligned


@given(st.binary(max_size=300))
def test_random_bytes_never_raise_anything_else(payload: bytes):
    """Random bytes, with and without the magic, end in a reason from the closed list."""
    assert reason_of(payload) is not None
    assert reason_of(b"RW\x01\x02" + payload) is not None
    assert reason_of(b"{" + payload) is not None


@given(frames(), st.data())
def test_a_flipped_bit_is_always_seen(frame: Frame, data: st.DataObject):
    """CRC-32C and the checks before it find each single flipped bit."""
    payload = bytearray(encode_frame(frame))
    bit = data.draw(st.integers(0, 8 * len(payload) - 1))
    payload[bit // 8] ^= 1 << bit % 8
    assert reason_of(bytes(payload)) is not None


@given(frames(), st.data())
def test_a_truncated_frame_is_refused(frame: Frame, data: st.DataObject):
    """A frame cut anywhere is refused by its length (or by its first bytes, when less than two are left)."""
    payload = encode_frame(frame)
    cut = data.draw(st.integers(0, len(payload) - 1))
    assert reason_of(payload[:cut]) == ("magic" if cut < 2 else "length")


@given(frames(), st.data())
def test_forged_fields_with_a_right_checksum_give_a_frame_or_a_reason(frame: Frame, data: st.DataObject):
    """Whoever computes the checksum over nonsense still meets the checks of the values."""
    payload = bytearray(encode_frame(frame))
    at = data.draw(st.integers(2, min(len(payload) - 5, 90)))
    payload[at] = data.draw(st.integers(0, 255))
    reason_of(resealed(payload))


def test_more_than_a_megabyte_is_refused_unread():
    """Both codecs refuse an oversized payload by its size alone."""
    assert reason_of(b"RW" + bytes(MAX_BYTES)) == "oversize"
    assert reason_of(b"{" + b" " * MAX_BYTES) == "oversize"


@pytest.mark.parametrize(
    ("offset", "layout", "value", "reason"),
    [
        (2, "B", 9, "version"),
        (3, "B", 3, "samples"),
        (40, "d", float("nan"), "rate"),
        (40, "d", 1e9, "rate"),
        (48, "d", float("nan"), "gain"),
        (48, "d", -1.0, "gain"),
        (56, "I", 2**31, "samples"),
        (60, "B", 0, "leads"),
        (61, "B", 200, "length"),
        (8, "Q", 2**64 - 1, "clock"),
        (64, "B", 0x2F, "device"),
        (64, "B", 0xFF, "device"),
    ],
)
def test_a_wrong_field_names_its_reason(offset: int, layout: str, value: float, reason: str):
    """A well-formed frame with one impossible field is refused for that field."""
    payload = bytearray(encode_frame(plain()))
    struct.pack_into("<" + layout, payload, offset, value)
    assert reason_of(resealed(payload)) == reason


def test_a_frame_of_another_device_is_refused():
    """A device can publish for itself alone."""
    assert reason_of(encode_frame(plain()), "bed-7") is None
    assert reason_of(encode_frame(plain()), "bed-8") == "topic"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"samples": {}}, "leads"),
        ({"samples": {"V1": [1], "V2": [1, 2]}}, "samples"),
        ({"samples": {"V1": []}}, "samples"),
        ({"samples": {"V1": [2**40]}}, "samples"),
        ({"samples": {"V1": [1.5]}}, "json"),
        ({"samples": {"V1": [2**70]}}, "samples"),
        ({"samples": {"V1": [0] * 20_001}}, "samples"),
        ({"epoch": -1}, "clock"),
        ({"seq": 2**63}, "clock"),
        ({"rate": "fast"}, "json"),
        ({"rate": 1}, "rate"),
        ({"gain": 0}, "gain"),
        ({"device": "a/b"}, "device"),
        ({"colour": "red"}, "json"),
    ],
)
def test_a_wrong_json_field_names_its_reason(change: dict[str, object], reason: str):
    """A JSON frame with one impossible field is refused for that field."""
    fields = msgspec.json.decode(encode_json(plain(3))) | change
    assert reason_of(msgspec.json.encode(fields)) == reason


def test_deeply_nested_json_is_refused():
    """Brackets without end exhaust no stack."""
    assert reason_of(b'{"samples":' + b"[" * 100_000) == "json"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_json_gives_a_frame_or_a_reason(value: object):
    """Whatever people send as JSON ends in a reason from the closed list."""
    try:
        text = msgspec.json.encode({"samples": value, "device": "a"})
    except OverflowError:
        return
    assert reason_of(text) == "json"
