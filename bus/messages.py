"""What travels on the bus: entries of ``rw:{p}:in``, events of ``rw:{p}:events``, views of ``rw:{p}:view``.

Each stream entry has one binary field ``d``. Entries into a partition (`Inbound`) have a fixed head and an opaque
payload, so that ingest and worker never parse more than they need; events and views are msgpack of tagged structs.
Wall-clock times are ms since the Unix epoch by the *server*; a message never holds a device clock.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from enum import IntEnum
from typing import Final, TypeAlias, TypeVar

import msgspec

DEFAULT_PARTITIONS: Final = 64
_HEAD: Final = struct.Struct("<BQB")  # kind, server_ms, length of the patient id


class Entry(IntEnum):
    """Kind of an entry of ``rw:{p}:in``."""

    FRAME = 1
    """Payload: a frame in the binary codec of `ingest`."""
    ACTION = 2
    """Payload: msgpack of an `Action`."""
    TICK = 3
    """No patient, no payload: the stream clock goes on for the whole partition."""
    DEVICE = 4
    """Payload: msgpack of a `DeviceNote` (status, battery, button)."""
    BACKFILL = 5
    """Payload: a frame in the binary codec that the device had stored; for the history alone."""


class Inbound(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of a partition, in the order that the stream gave it."""

    kind: Entry
    server_ms: int
    patient: str
    payload: bytes


class Action(msgspec.Struct, frozen=True, tag="action"):
    """What a member of staff does to a patient's alarms; `rhythmwatch.acting` says what each name does."""

    name: str
    user: str
    alarm: str | None = None
    values: dict[str, float | str | bool] = {}


class DeviceNote(msgspec.Struct, frozen=True, tag="device"):
    """What a device says of itself beside frames: ``online``, ``offline``, ``battery``, ``button``."""

    name: str
    value: float = 0.0


class BeatEvent(msgspec.Struct, frozen=True, tag="beat", gc=False):
    """A classified beat. Identity: (device, epoch, sample)."""

    patient: str
    device: str
    epoch: int
    sample: int
    """R peak at the device's rate."""
    ms: int
    code: str
    p: float
    second: str
    second_p: float
    rr_ms: int
    """To the beat before; 0 when unknown."""
    map: bytes = b""
    """What in the spectral image made the verdict (19 bytes, `inference.explain.pack`); empty for normal beats."""


class RhythmEvent(msgspec.Struct, frozen=True, tag="rhythm", gc=False):
    """The rhythm changed. Identity: (device, epoch, sample)."""

    patient: str
    device: str
    epoch: int
    sample: int
    ms: int
    code: str
    p: float


class AlarmEvent(msgspec.Struct, frozen=True, tag="alarm", gc=False):
    """An alarm came into being or changed.

    Identity `id`: ``patient/kind/epoch/onset_sample``; of the events with one id the last (highest `revision`) counts.
    """

    id: str
    patient: str
    device: str
    kind: str
    priority: int
    presence: str
    """on, latched, ack or off."""
    revision: int
    """Counts the changes of this alarm from 0."""
    epoch: int
    onset_sample: int
    onset_ms: int
    raised_ms: int
    changed_ms: int
    cleared_ms: int | None = None
    acked_by: str | None = None
    acked_ms: int | None = None
    value: float | None = None
    limit: float | None = None
    detail: str = ""
    technical: bool = False
    lethal: bool = False
    reason: str = ""
    """Why it changed: raised, value, worse, ended, latched, acknowledged, escalated, reminded, paused, ..."""
    announced_ms: int = 0
    """When it last asked for attention: a later time than before means light, sound and message afresh."""
    escalation: int = 0
    silent_until_ms: int = 0
    """End of the audio pause that covers it; 0 = none."""
    retrospective: bool = False
    """Found in data that came after its time: listed, never announced."""


class StatusEvent(msgspec.Struct, frozen=True, tag="status", gc=False):
    """Signal and device state of a patient changed."""

    patient: str
    device: str
    ms: int
    lead: str
    leads: tuple[str, ...]
    quality: str
    """good, noisy, lead_off, missing or no_data."""
    note: str = ""
    battery: int = -1
    """Charge of the device as it said last, percent; -1 before it said any."""


class SettingsEvent(msgspec.Struct, frozen=True, tag="settings"):
    """What staff set for a patient's alarms changed, or a change was refused; it says all that is in force now."""

    patient: str
    device: str
    ms: int
    reason: str
    """limits, profile, admit, discharge, pause, resume, pause_ended or refused."""
    user: str
    """Who asked for it; empty where the clock or a new alarm did it."""
    profile: str
    values: dict[str, float | bool]
    """Every limit by its name (`alerts.limits.Limits`)."""
    off: tuple[str, ...]
    """Kinds of alarms that are switched off."""
    lethal_off: tuple[str, ...] = ()
    """Those of them that are lethal: to be seen on the wall."""
    pause_until_ms: int = 0
    """End of the audio pause; 0 = none."""
    pause_by: str = ""
    vacant: bool = False
    """Discharged, and nobody admitted since."""
    note: str = ""


Event: TypeAlias = BeatEvent | RhythmEvent | AlarmEvent | StatusEvent | SettingsEvent


class View(msgspec.Struct, frozen=True, tag="view", gc=False):
    """A stretch of one patient for the wall and the patient page: lossy, never evidence."""

    patient: str
    device: str
    epoch: int
    ms: int
    """Server wall time of the first sample (stream clock)."""
    index: int
    """Index of the first sample at the analysis rate, so that stretches join without a seam."""
    rate: int
    lead: str
    wave: bytes
    """int16, little-endian, 1 unit = 5 uV; -32768 = no valid sample."""
    columns: bytes
    """Spectrogram columns of `bins` uint8 each, 0 to 255 = quiet to loud, lowest frequency first."""
    column0: int
    """Number of the first column in the epoch."""
    column_hop: int
    """Samples at `rate` from column to column."""
    bins: int
    top_hz: float
    """Frequency of the upper edge of the last bin."""
    hr: float
    """Beats a minute; 0 when unknown."""
    hr_ms: int
    """Wall time of the beat that gave `hr`."""
    rhythm: str
    pvc_min: int
    quality: str


def partition_of(patient: str, partitions: int = DEFAULT_PARTITIONS) -> int:
    """Partition of a patient: CRC-32 of its id, modulo the number of partitions."""
    return zlib.crc32(patient.encode()) % partitions


def pack_inbound(entry: Inbound) -> bytes:
    """Lay an entry out as bytes: kind u8, server_ms u64, length u8, patient, payload (little-endian)."""
    patient = entry.patient.encode()
    return _HEAD.pack(entry.kind, entry.server_ms, len(patient)) + patient + entry.payload


def pack_inbound_parts(kind: Entry, server_ms: int, patient: bytes, payload: bytes) -> bytes:
    """Do as `pack_inbound` for a patient id that is encoded already: ingest does so for every message."""
    return _HEAD.pack(kind, server_ms, len(patient)) + patient + payload


def unpack_inbound(data: bytes) -> Inbound:
    """Read what `pack_inbound` wrote.

    Raises
    ------
    ValueError
        If `data` is no entry.
    """
    try:
        kind, server_ms, size = _HEAD.unpack_from(data)
        body = _HEAD.size + size
        if len(data) < body:
            raise ValueError(f"entry of {len(data)} bytes ends before its patient id")
        return Inbound(Entry(kind), server_ms, data[_HEAD.size : body].decode(), data[body:])
    except struct.error as error:
        raise ValueError(f"entry of {len(data)} bytes is shorter than its head") from error


def age_ms(data: bytes, now_ms: int) -> int:
    """Age of an entry by its server time, ms; 0 of what is none."""
    try:
        return max(0, now_ms - unpack_inbound(data).server_ms)
    except ValueError:
        return 0


_Data = TypeVar("_Data")
_Message = TypeVar("_Message")
_encoder = msgspec.msgpack.Encoder()
_event_decoder: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)
_view_decoder = msgspec.msgpack.Decoder(View)
_action_decoder = msgspec.msgpack.Decoder(Action)
_note_decoder = msgspec.msgpack.Decoder(DeviceNote)


def pack(message: Event | View | Action | DeviceNote) -> bytes:
    """Msgpack of a message."""
    return _encoder.encode(message)


_BEAT: Final = pack(BeatEvent("", "", 0, 0, 0, "", 0.0, "", 0.0, 0))[:11]


def is_beat(data: bytes) -> bool:
    """Whether an event is a beat, by its first bytes; most are, and who has no use for beats need not decode them."""
    return data.startswith(_BEAT)


def unpack_event(data: bytes) -> Event:
    """Read an event; `msgspec.DecodeError` or `msgspec.ValidationError` if it is none."""
    return read(_event_decoder.decode, data)


def unpack_view(data: bytes) -> View:
    """Read a view; errors as in `unpack_event`."""
    return read(_view_decoder.decode, data)


def unpack_action(data: bytes) -> Action:
    """Read an action; errors as in `unpack_event`."""
    return read(_action_decoder.decode, data)


def unpack_note(data: bytes) -> DeviceNote:
    """Read a device note; errors as in `unpack_event`."""
    return read(_note_decoder.decode, data)


def read(decode: Callable[[_Data], _Message], data: _Data) -> _Message:
    """Decode with msgspec; `msgspec.DecodeError` (a `msgspec.ValidationError` is one) whatever is wrong with it."""
    try:
        return decode(data)
    except (UnicodeError, RecursionError) as error:
        raise msgspec.DecodeError(f"message can't be read: {error}") from error
