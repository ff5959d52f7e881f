"""What goes to the page: binary websocket frames, each a msgpack array of messages ``[tag, field, ...]``.

`web/ui/wire.js` names the same fields in the same order; a test compares the two. Views are split: the waveform for
everybody who has the bed in sight, spectrogram columns only for an open patient page.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from bus.messages import AlarmEvent, BeatEvent, RhythmEvent, SettingsEvent, StatusEvent, View, read

WIRE_VERSION = 1


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """First message: who is logged in, where, and the server's clock."""

    version: int
    user: str
    ward: str
    server_ms: int


class Clock(msgspec.Struct, frozen=True, array_like=True, tag="clock"):
    """The pulse of the connection."""

    server_ms: int
    feed_age_ms: int
    """Since the bus last answered."""
    bus_lag_ms: int
    """Age of the newest entry when it was read."""
    dropped: int
    """Waveform messages this client was too slow for."""


class Reset(msgspec.Struct, frozen=True, array_like=True, tag="reset"):
    """A snapshot follows: forget alarms and beds that it doesn't name."""

    patients: tuple[str, ...]


class Beds(msgspec.Struct, frozen=True, array_like=True, tag="beds"):
    """All beds that exist; a new one is among them."""

    patients: tuple[str, ...]


class Synced(msgspec.Struct, frozen=True, array_like=True, tag="synced"):
    """The snapshot is complete."""

    server_ms: int


class Wave(msgspec.Struct, frozen=True, array_like=True, tag="wave"):
    """A stretch of waveform and the figures of the tile."""

    patient: str
    epoch: int
    index: int
    ms: int
    rate: int
    lead: str
    hr: float
    hr_ms: int
    rhythm: str
    pvc_min: int
    quality: str
    samples: bytes


class Columns(msgspec.Struct, frozen=True, array_like=True, tag="cols"):
    """Spectrogram columns of a stretch."""

    patient: str
    epoch: int
    column0: int
    hop: int
    bins: int
    top_hz: float
    data: bytes


class Beat(msgspec.Struct, frozen=True, array_like=True, tag="beat"):
    """A classified beat."""

    patient: str
    epoch: int
    sample: int
    ms: int
    code: str
    p: float
    second: str
    second_p: float
    rr_ms: int
    map: bytes
    """Where in the spectral image the verdict came from; see `bus.messages.BeatEvent`."""


class Rhythm(msgspec.Struct, frozen=True, array_like=True, tag="rhythm"):
    """The rhythm changed."""

    patient: str
    ms: int
    code: str
    p: float


class Status(msgspec.Struct, frozen=True, array_like=True, tag="status"):
    """Signal and device state."""

    patient: str
    device: str
    ms: int
    lead: str
    leads: tuple[str, ...]
    quality: str
    note: str
    battery: int


class Alarm(msgspec.Struct, frozen=True, array_like=True, tag="alarm"):
    """An alarm came into being or changed."""

    id: str
    patient: str
    kind: str
    priority: int
    presence: str
    revision: int
    onset_ms: int
    raised_ms: int
    changed_ms: int
    cleared_ms: int | None
    acked_by: str | None
    acked_ms: int | None
    value: float | None
    limit: float | None
    detail: str
    technical: bool
    lethal: bool
    announced_ms: int
    escalation: int
    silent_until_ms: int
    reason: str
    retrospective: bool


class Settings(msgspec.Struct, frozen=True, array_like=True, tag="settings"):
    """What is in force for a patient's alarms, or why a change was refused; see `bus.messages.SettingsEvent`."""

    patient: str
    ms: int
    reason: str
    user: str
    profile: str
    off: tuple[str, ...]
    lethal_off: tuple[str, ...]
    pause_until_ms: int
    pause_by: str
    vacant: bool
    note: str


Message = Hello | Clock | Reset | Beds | Synced | Wave | Columns | Beat | Rhythm | Status | Alarm | Settings
ALL: tuple[type[msgspec.Struct], ...] = (
    *(Hello, Clock, Reset, Beds, Synced, Wave, Columns, Beat, Rhythm, Status, Alarm, Settings),
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Message])


def encode(message: Message) -> bytes:
    """Msgpack of one message."""
    return _encoder.encode(message)


def frame(messages: Sequence[bytes]) -> bytes:
    """Join encoded messages to one websocket frame."""
    return struct.pack(">BI", 0xDD, len(messages)) + b"".join(messages)


def read_frame(data: bytes) -> list[Message]:
    """Read a websocket frame, as a client in Python does.

    Raises
    ------
    msgspec.DecodeError, msgspec.ValidationError
        If `data` is no frame of ours.
    """
    return read(_decoder.decode, data)


def wave(view: View) -> bytes:
    """Encode the waveform part of a view."""
    return encode(
        Wave(
            view.patient,
            view.epoch,
            view.index,
            view.ms,
            view.rate,
            view.lead,
            view.hr,
            view.hr_ms,
            view.rhythm,
            view.pvc_min,
            view.quality,
            view.wave,
        )
    )


def columns(view: View) -> bytes:
    """Encode the spectrogram part of a view."""
    return encode(
        Columns(view.patient, view.epoch, view.column0, view.column_hop, view.bins, view.top_hz, view.columns)
    )


def beat(event: BeatEvent) -> bytes:
    """Encode a beat."""
    return encode(
        Beat(
            event.patient,
            event.epoch,
            event.sample,
            event.ms,
            event.code,
            event.p,
            event.second,
            event.second_p,
            event.rr_ms,
            event.map,
        )
    )


def rhythm(event: RhythmEvent) -> bytes:
    """Encode a change of rhythm."""
    return encode(Rhythm(event.patient, event.ms, event.code, event.p))


def status(event: StatusEvent) -> bytes:
    """Encode a change of the signal or device."""
    return encode(
        Status(event.patient, event.device, event.ms, event.lead, event.leads, event.quality, event.note, event.battery)
    )


def alarm(event: AlarmEvent) -> bytes:
    """Encode an alarm."""
    return encode(
        Alarm(
            event.id,
            event.patient,
            event.kind,
            event.priority,
            event.presence,
            event.revision,
            event.onset_ms,
            event.raised_ms,
            event.changed_ms,
            event.cleared_ms,
            event.acked_by,
            event.acked_ms,
            event.value,
            event.limit,
            event.detail,
            event.technical,
            event.lethal,
            event.announced_ms,
            event.escalation,
            event.silent_until_ms,
            event.reason,
            event.retrospective,
        )
    )


def settings(event: SettingsEvent) -> bytes:
    """Encode what is in force for a patient's alarms; the limits themselves are asked for by HTTP."""
    return encode(
        Settings(
            event.patient,
            event.ms,
            event.reason,
            event.user,
            event.profile,
            event.off,
            event.lethal_off,
            event.pause_until_ms,
            event.pause_by,
            event.vacant,
            event.note,
        )
    )


class Watch(msgspec.Struct, frozen=True):
    """What a page has in sight; the only message that a page sends over the socket."""

    beds: frozenset[str] | None = None
    """Beds whose waveform is drawn; None for all of them."""
    detail: str | None = None
    """Patient whose page is open."""


_watch_decoder = msgspec.json.Decoder(Watch)


def read_watch(text: str) -> Watch:
    """Read what a page sent; `msgspec.DecodeError` or `msgspec.ValidationError` if it is none."""
    return read(_watch_decoder.decode, text)
