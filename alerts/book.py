"""An alarm and the book of a patient's alarms, as values; what changes them is `alerts.state`."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from alerts.model import Kind, Priority


class Presence(StrEnum):
    """Where an alarm is in its life."""

    ON = "on"
    LATCHED = "latched"
    ACK = "ack"
    OFF = "off"


class Reason(StrEnum):
    """Why an alarm changed."""

    RAISED = "raised"
    VALUE = "value"
    WORSE = "worse"
    ENDED = "ended"
    LATCHED = "latched"
    REPLACED = "replaced"
    """Ended because a higher condition of its family stands for it."""
    SUPERSEDED = "superseded"
    """A latched message gave way to a newer alarm of its kind."""
    ACKNOWLEDGED = "acknowledged"
    ESCALATED = "escalated"
    REMINDED = "reminded"
    PAUSED = "paused"
    RESUMED = "resumed"
    RETROSPECTIVE = "retrospective"
    """Found in data that came after its time."""
    SWITCHED_OFF = "switched_off"
    DISCHARGED = "discharged"


class Alarm(msgspec.Struct, frozen=True):
    """One alarm as it stands after `revision` changes; times are server ms."""

    id: str
    """``patient/kind/epoch/onset``, onset in samples at 250 Hz."""
    kind: Kind
    priority: Priority
    presence: Presence
    revision: int
    epoch: int
    onset: int
    onset_ms: int
    raised_ms: int
    changed_ms: int
    announced_ms: int
    """When it last asked for attention; escalation counts from here."""
    cleared_ms: int | None = None
    acked_by: str | None = None
    acked_ms: int | None = None
    reminded_ms: int = 0
    value: float | None = None
    limit: float | None = None
    detail: str = ""
    escalation: int = 0
    silent_until_ms: int = 0
    """End of the audio pause that covers it; 0 = none."""
    retrospective: bool = False
    """Found in data that came after its time; always off, never announced."""


class AlarmChange(msgspec.Struct, frozen=True):
    """An alarm after a change."""

    alarm: Alarm
    reason: Reason
    announce: bool = False
    """It asks for attention now: sound, light, message."""


class Outcome(msgspec.Struct, frozen=True):
    """What a staff action did."""

    changes: list[AlarmChange]
    accepted: bool
    message: str
    """One sentence for the person who acted."""


class AlarmBook(msgspec.Struct):
    """All alarms of one patient that are not off. Serialise with msgspec; changed in place."""

    patient: str
    epoch: int = 0
    now_ms: int = 0
    alarms: dict[str, Alarm] = {}
    active: dict[Kind, str] = {}
    """Alarm of each condition that stands."""
    last: dict[Kind, Alarm] = {}
    """Newest alarm of each kind in this epoch, off or not: an identity is never used for two."""
    pause_until_ms: int = 0
    """End of the audio pause; 0 = none."""
    pause_by: str = ""
    pause_priority: int = 0
    strays: int = 0
    """Ends of conditions that did not stand."""


def is_sounding(alarm: Alarm, now_ms: int) -> bool:
    """Whether an alarm is to be heard at `now_ms`."""
    calls = alarm.presence is Presence.ON or (alarm.presence is Presence.LATCHED and alarm.priority is Priority.HIGH)
    return calls and now_ms >= alarm.silent_until_ms
