"""What comes out of the fold: a patient's stretches of signal and evidence become events, conditions and views.

Evidence goes into the rules, their conditions into the life of the alarms, its changes into events. All of it is a step
of the fold: the state of the patient changes, and what is to be said is added to an `Output`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from alerts import rules, state
from alerts.book import AlarmChange
from alerts.events import settings_event, to_event
from alerts.model import TECHNICAL, Beat, Condition, Evidence, Horizon, Quality, Rhythm
from bus.messages import BeatEvent, Event, RhythmEvent, StatusEvent, View
from dsp.layout import BLIND, BLOCK, FS, Flag
from inference.beats import CLASSES
from rhythmwatch.patient import Patient
from rhythmwatch.stages import DELAY, ClassifiedBeat, Stretch
from rhythmwatch.views import view_of

_MISSING: Final = int(Flag.MISSING)
_NOISY: Final = int(Flag.NOISY)


@dataclass(slots=True)
class Output:
    """What a call gave, in the order of each patient's entries.

    Attributes
    ----------
    events : list of (patient, Event)
        To be stored.
    views : list of (patient, View)
        To be shown, may be lost.
    conditions : list of (patient, Condition)
        What the rules said, for analysis; the alarms in `events` say what staff see.
    refused : dict of str to int
        Entries that could not be used, by reason.
    """

    events: list[tuple[str, Event]] = field(default_factory=list)
    views: list[tuple[str, View]] = field(default_factory=list)
    conditions: list[tuple[str, Condition]] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)

    def refuse(self, reason: str) -> None:
        """Count an entry that could not be used."""
        self.refused[reason] = self.refused.get(reason, 0) + 1


def fold_stretch(patient: Patient, stretch: Stretch, out: Output, *, views: bool) -> None:
    """Fold one stretch of signal: quality, beats and rhythm into the rules, all of it into events and a view."""
    patient.seen = end = stretch.end
    evidence: list[Evidence] = []
    _take_quality(patient, stretch, evidence, out)
    evidence += stretch.rhythms
    evidence += stretch.peaks
    if not patient.channel:
        # Late data tells no changes of rhythm: between its stretches nobody knows what went on.
        for verdict in stretch.rhythms:
            if verdict.code != patient.vitals.rhythm:
                patient.vitals.rhythm = verdict.code
                out.events.append((patient.id, _rhythm_event(patient, verdict)))
    for beat in stretch.beats:
        evidence.append(_take_beat(patient, beat, out))
    evidence.append(Horizon(end - DELAY, end))
    judge(patient, evidence, out)
    if views and not patient.channel:
        out.views.append((patient.id, view_of(patient, stretch)))


def judge(patient: Patient, evidence: Sequence[Evidence], out: Output) -> None:
    """Put evidence before the rules."""
    if patient.rules is not None:
        conditions = rules.fold(patient.rules, evidence, patient.limits)
        if conditions:
            take_conditions(patient, conditions, out)


def take_conditions(patient: Patient, conditions: Sequence[Condition], out: Output) -> None:
    """Let the alarms live on by what the rules found."""
    for condition in conditions:
        if condition.kind in TECHNICAL and (patient.vacant or patient.channel):
            # Nobody lies there; or what is missing between late stretches is no fault of today.
            continue
        onset_ms = patient.ms(condition.onset)
        if patient.channel:
            at_ms = patient.ms(condition.at)
            changes = state.on_late_condition(patient.book, condition, patient.now_ms, onset_ms=onset_ms, at_ms=at_ms)
        else:
            out.conditions.append((patient.id, condition))
            changes = state.on_condition(patient.book, condition, patient.now_ms, onset_ms=onset_ms)
        tell_alarms(patient, changes, out)


def tell_alarms(patient: Patient, changes: Sequence[AlarmChange], out: Output) -> None:
    """Say what became of alarms, and of an audio pause that ended with them."""
    for change in changes:
        event = to_event(change, patient.book.patient, patient.device, patient.rate or float(FS))
        out.events.append((event.patient, event))
    if patient.book.pause_until_ms != patient.told_pause_ms:
        patient.told_pause_ms = patient.book.pause_until_ms
        tell_settings(patient, "pause_ended", out)


def tell_status(patient: Patient, out: Output, note: str = "") -> None:
    """Say what state signal and device are in."""
    quality = "no_data" if patient.silent else patient.vitals.quality
    event = StatusEvent(
        patient.id, patient.device, patient.now_ms, patient.vitals.lead, patient.leads, quality, note, patient.battery
    )
    out.events.append((patient.id, event))


def tell_settings(patient: Patient, reason: str, out: Output, user: str = "", note: str = "") -> None:
    """Say what is in force for the alarms."""
    event = settings_event(
        patient.book,
        patient.limits,
        patient.profile,
        patient.device,
        reason,
        user,
        vacant=patient.vacant,
        note=note,
    )
    out.events.append((patient.id, event))


def quality_of(flags: int) -> str:
    """Name the state of a block for people: good, noisy, lead_off or missing."""
    if flags & _MISSING:
        return "missing"
    if flags & BLIND:
        return "lead_off"
    return "noisy" if flags & _NOISY else "good"


def _take_quality(patient: Patient, stretch: Stretch, evidence: list[Evidence], out: Output) -> None:
    vitals = patient.vitals
    before = (-1, -1)
    for number, block in enumerate(zip(stretch.flags, stretch.lead, strict=True), 1):
        if block == before:
            continue
        before = block
        quality, name = quality_of(block[0]), patient.leads[block[1]]
        if quality == vitals.quality and name == vitals.lead:
            continue
        end = stretch.start + number * BLOCK
        note = f"analysed lead is {name} now" if vitals.lead not in ("", name) else ""
        vitals.quality, vitals.lead = quality, name
        evidence.append(Quality(end, name, quality == "lead_off", quality == "missing", quality == "noisy"))
        if not patient.channel:
            tell_status(patient, out, note)


def _take_beat(patient: Patient, beat: ClassifiedBeat, out: Output) -> Beat:
    code, rr_ms, r = CLASSES[beat.best], beat.rr_ms, beat.r
    sample = round(r * patient.rate / FS)
    patient.vitals.beat(r, rr_ms, code)
    name = patient.book.patient
    event = BeatEvent(
        name, patient.device, patient.epoch, sample, patient.clock.ms(sample),
        code, beat.shown_p, CLASSES[beat.second], beat.shown_second_p, rr_ms,
        beat.map,
    )  # fmt: skip
    out.events.append((name, event))
    return Beat(r, beat.decided, code, beat.p, beat.shape)


def _rhythm_event(patient: Patient, verdict: Rhythm) -> RhythmEvent:
    sample = round(verdict.end * patient.rate / FS)
    ms = patient.clock.ms(sample)
    return RhythmEvent(
        patient.id, patient.device, patient.epoch, sample, ms, verdict.code, round(verdict.probability, 4)
    )
