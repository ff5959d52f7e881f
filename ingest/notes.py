"""What a device says beside its frames: ``status``, ``events`` and ``meta``, small JSON objects or one word.

========== ================================================================ =====================================
topic      payload                                                          becomes
========== ================================================================ =====================================
``status`` ``online`` or ``offline``, or ``{"name": "online"}``             `DeviceNote` of that name
``events`` ``{"name": "button"}``, ``{"name": "battery", "value": 0.83}``   `DeviceNote`; battery 0 to 1
``events`` ``{"name": "clock", "value": 1700000000000}``                    answered on ``commands`` (`clock_answer`)
``meta``   ``{"leads": ["MLII"], "rate": 250, "gain": 200, "firmware": ""}`` checked; every frame holds it anyway
========== ================================================================ =====================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from bus.messages import DeviceNote
from ingest.codecs import UNREADABLE
from ingest.frame import MAX_LEADS, RATE_MAX_HZ, RATE_MIN_HZ, FrameError

MAX_NOTE_BYTES: Final = 4_096


class StatusNote(msgspec.Struct):
    """Payload of ``status``; also the last will."""

    name: Literal["online", "offline"]


class EventNote(msgspec.Struct):
    """Payload of ``events``."""

    name: Literal["button", "battery", "clock"]
    value: float = 0.0


class MetaNote(msgspec.Struct):
    """Payload of ``meta``, retained."""

    leads: tuple[str, ...]
    rate: float
    gain: float
    firmware: str = ""


_status = msgspec.json.Decoder(StatusNote)
_event = msgspec.json.Decoder(EventNote)
_meta = msgspec.json.Decoder(MetaNote)


def _checked(payload: bytes) -> bytes:
    if len(payload) > MAX_NOTE_BYTES:
        raise FrameError("oversize", f"note of {len(payload)} bytes, at most {MAX_NOTE_BYTES} are taken")
    return payload


def decode_status(payload: bytes) -> DeviceNote:
    """Read ``status``; `FrameError` with reason ``oversize`` or ``note``."""
    word = _checked(payload).strip()
    if word in (b"online", b"offline"):
        return DeviceNote(word.decode())
    try:
        return DeviceNote(_status.decode(payload).name)
    except UNREADABLE as error:
        raise FrameError("note", f"status is online or offline: {error}") from error


def decode_event(payload: bytes) -> DeviceNote:
    """Read ``events``; `FrameError` with reason ``oversize`` or ``note``."""
    try:
        note = _event.decode(_checked(payload))
    except UNREADABLE as error:
        raise FrameError("note", f"no event of a device: {error}") from error
    if note.name == "battery" and not 0 <= note.value <= 1:
        raise FrameError("note", f"battery {note.value} is outside 0 to 1")
    if note.name == "clock" and not 0 <= note.value < 2**53:
        raise FrameError("clock", f"clock {note.value} ms is outside 0 to 2**53")
    return DeviceNote(note.name, note.value)


def clock_answer(asked_ms: float, server_ms: int) -> bytes:
    """Answer to a device that told its clock: both clocks, from which it knows how far its own is off.

    It says as well that stored frames are answered (`stored_answer`).
    """
    return msgspec.json.encode({"name": "clock", "asked_ms": asked_ms, "server_ms": server_ms, "stored": True})


def stored_answer(frames: Iterable[tuple[int, int]]) -> bytes:
    """Answer to ``backfill``: frames, by epoch and sequence number, that are stored and need not be kept any more."""
    return msgspec.json.encode({"name": "stored", "frames": list(frames)})


def decode_meta(payload: bytes) -> MetaNote:
    """Read ``meta``; `FrameError` with reason ``oversize``, ``note``, ``leads``, ``rate`` or ``gain``."""
    try:
        note = _meta.decode(_checked(payload))
    except UNREADABLE as error:
        raise FrameError("note", f"no description of a device: {error}") from error
    if not 1 <= len(note.leads) <= MAX_LEADS:
        raise FrameError("leads", f"{len(note.leads)} leads; 1 to {MAX_LEADS} are taken")
    if not RATE_MIN_HZ <= note.rate <= RATE_MAX_HZ:
        raise FrameError("rate", f"rate {note.rate} Hz is outside {RATE_MIN_HZ:g} to {RATE_MAX_HZ:g}")
    if not (note.gain > 0 and math.isfinite(note.gain)):
        raise FrameError("gain", f"gain {note.gain} units per mV must be positive")
    return note
