"""Alarm changes as events of the bus."""

from __future__ import annotations

from alerts.book import AlarmBook, AlarmChange
from alerts.limits import Limits, values_of
from alerts.model import LETHAL, TECHNICAL
from bus.messages import AlarmEvent, SettingsEvent


def to_event(change: AlarmChange, patient: str, device: str, rate: float = 250.0) -> AlarmEvent:
    """Turn a change into the event that is published.

    Parameters
    ----------
    change : AlarmChange
        From `alerts.book`.
    patient, device : str
        Whose and from what.
    rate : float
        Rate of the device, Hz: `onset_sample` counts at it.
    """
    alarm = change.alarm
    return AlarmEvent(
        id=alarm.id,
        patient=patient,
        device=device,
        kind=str(alarm.kind),
        priority=int(alarm.priority),
        presence=str(alarm.presence),
        revision=alarm.revision,
        epoch=alarm.epoch,
        onset_sample=round(alarm.onset * rate / 250),
        onset_ms=alarm.onset_ms,
        raised_ms=alarm.raised_ms,
        changed_ms=alarm.changed_ms,
        cleared_ms=alarm.cleared_ms,
        acked_by=alarm.acked_by,
        acked_ms=alarm.acked_ms,
        value=alarm.value,
        limit=alarm.limit,
        detail=alarm.detail,
        technical=alarm.kind in TECHNICAL,
        lethal=alarm.kind in LETHAL,
        reason=str(change.reason),
        announced_ms=alarm.changed_ms if change.announce else alarm.announced_ms,
        escalation=alarm.escalation,
        silent_until_ms=alarm.silent_until_ms,
        retrospective=alarm.retrospective,
    )


def settings_event(
    book: AlarmBook,
    limits: Limits,
    profile: str,
    device: str,
    reason: str,
    user: str,
    *,
    vacant: bool = False,
    note: str = "",
) -> SettingsEvent:
    """Say what is in force for a patient's alarms.

    Parameters
    ----------
    book : AlarmBook
        Of the patient, at the time of the event.
    limits, profile
        In force now.
    device : str
        Device of the patient.
    reason, user, vacant, note
        See `bus.messages.SettingsEvent`.
    """
    return SettingsEvent(
        patient=book.patient,
        device=device,
        ms=book.now_ms,
        reason=reason,
        user=user,
        profile=profile,
        values=values_of(limits),
        off=tuple(sorted(limits.off)),
        lethal_off=tuple(sorted(limits.off & LETHAL)),
        pause_until_ms=book.pause_until_ms,
        pause_by=book.pause_by,
        vacant=vacant,
        note=note,
    )
