"""The pure fold of patients' entries: frames, staff actions and ticks in, beats, rhythms, alarms and views out.

The live worker and ``rhythmwatch analyze`` run this same object. It knows no clock and no input or output: wall time is
in the entries. A patient's results depend on its own entries in their order and on nothing else, neither on how the
stream was cut into batches nor on who shares a batch: entries are worked off in *rounds*, each with at most one stretch
of samples a patient, and everything a round gives is known before the patient's next entry is looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from alerts import rules, state
from alerts.book import AlarmChange
from alerts.events import settings_event, to_event
from alerts.model import TECHNICAL, Beat, Condition, Evidence, Horizon, Note, Peak, Quality, Rhythm, Silence
from bus.messages import (
    Action,
    BeatEvent,
    Entry,
    Event,
    Inbound,
    RhythmEvent,
    StatusEvent,
    View,
    partition_of,
    unpack_action,
    unpack_note,
)
from dsp.frontend import MAX_ANALYSED
from dsp.layout import BLIND, BLOCK, FS, Flag
from dsp.resample import first_sample, start_at
from inference.beats import CLASSES
from ingest.clock import StreamClock
from ingest.codecs import decode_frame
from ingest.frame import Frame, FrameError
from ingest.limits import FLAGS, flag_text
from ingest.sequencer import Sequencer
from rhythmwatch.acting import ALARM_ACTIONS, act
from rhythmwatch.models import Models
from rhythmwatch.ordering import Begin, Samples, Told, Work, end_late, enqueue, enqueue_late, missing
from rhythmwatch.patient import Patient, Vitals, new_patient
from rhythmwatch.stages import DELAY, PEAK_DELAY, Chunk, RhythmVerdict, Stages, Stretch
from rhythmwatch.views import view_of

SILENT_S: Final = 10.0
"""Without a frame for this long a patient's silence is evidence (rule NO_DATA)."""
ACTION_AHEAD_MS: Final = 10_000
"""The most by which an action moves a patient's time on; ticks do so each second."""
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


class Pipeline:
    """Fold over the entries of any number of patients.

    Parameters
    ----------
    models : Models
        The networks.
    partitions : int
        Number of partitions of the bus, to know whom a tick is for.
    views : bool
        Whether stretches for the wall are made.
    """

    def __init__(self, models: Models, partitions: int, *, views: bool = True) -> None:
        self.stages = Stages(models, views=views)
        self.patients: dict[str, Patient] = {}
        self._partitions = partitions
        self._views = views
        self._by_partition: dict[int, list[Patient]] = {}
        self._late_data: dict[str, Patient] = {}
        self.late_frames = 0
        self.unjudged_frames = 0

    def step(self, entries: Iterable[tuple[int, Inbound]]) -> Output:
        """Fold entries.

        Parameters
        ----------
        entries : iterable of (partition, Inbound)
            Of any partitions, in stream order within each.

        Returns
        -------
        Output
        """
        out = Output()
        queues: dict[str, deque[Work]] = {}
        for partition, entry in entries:
            if entry.kind is Entry.TICK:
                for patient in self._by_partition.get(partition, ()):
                    self._order(patient, entry, queues, out)
            else:
                self._order(self._patient(entry.patient), entry, queues, out)
        self._work_off(queues, out)
        return out

    def finish(self, patient: str, ms: int) -> Output:
        """End a patient's stream: what waits is released, and beats near the end are decided without their future."""
        known = self.patients[patient]
        queue: deque[Work] = deque()
        enqueue(known, known.sequencer.flush(), ms, queue)
        if known.queued_rate:
            queue.append(Samples(missing(known.queued_rate, known.queued_leads), ms))
        out = Output()
        self._work_off({patient: queue}, out)
        return out

    def partition(self, patient: str) -> int:
        """Partition of a patient."""
        return partition_of(patient, self._partitions)

    def of_partition(self, partition: int) -> tuple[Patient, ...]:
        """Patients of a partition."""
        return tuple(self._by_partition.get(partition, ()))

    # --- entries to work -----------------------------------------------------------------------------------------

    def _patient(self, name: str) -> Patient:
        patient = self.patients.get(name)
        if patient is None:
            patient = new_patient(name)
            self.add(patient)
        return patient

    def add(self, patient: Patient) -> None:
        """Put a patient in that a checkpoint held."""
        self.patients[patient.id] = patient
        if patient.late is not None:
            self._late_data[patient.late.id] = patient.late
        self._by_partition.setdefault(self.partition(patient.id), []).append(patient)

    def _order(self, patient: Patient, entry: Inbound, queues: dict[str, deque[Work]], out: Output) -> None:
        queue = queues.get(patient.id)
        if queue is None:
            queue = queues[patient.id] = deque()
        if entry.kind in (Entry.FRAME, Entry.BACKFILL):
            try:
                frame = decode_frame(entry.payload)
            except FrameError as error:
                out.refuse(error.reason)
                return
            patient.timeline.place(frame, entry.kind, entry.server_ms)
            stored = entry.kind is Entry.BACKFILL
            if not stored:
                queue.append(Told(Inbound(Entry.FRAME, entry.server_ms, entry.patient, b"")))
            elif not _is_behind(frame, patient.sequencer):
                # Ahead of the live signal or of another epoch: never put in its place.
                self._late(patient, frame, entry.server_ms, queues)
                return
            for late in enqueue(patient, patient.sequencer.push(frame, entry.server_ms), entry.server_ms, queue):
                self._late(patient, late, entry.server_ms, queues)
            return
        late_data = patient.late
        if entry.kind is Entry.TICK:
            for late in enqueue(patient, patient.sequencer.tick(entry.server_ms), entry.server_ms, queue):
                self._late(patient, late, entry.server_ms, queues)
            if late_data is not None and late_data.queued_ms:
                self.unjudged_frames += end_late(late_data, entry.server_ms, queues.setdefault(late_data.id, deque()))
        elif entry.kind is Entry.ACTION and late_data is not None:
            # Limits and admissions hold for what comes late too.
            queues.setdefault(late_data.id, deque()).append(Told(entry))
        queue.append(Told(entry))

    def _late(self, patient: Patient, frame: Frame, ms: int, queues: dict[str, deque[Work]]) -> None:
        """Judge a frame apart that came after its time."""
        assert patient.late is not None  # noqa: S101
        self.late_frames += 1
        queue = queues.setdefault(patient.late.id, deque())
        self.unjudged_frames += enqueue_late(patient, frame, ms, queue)

    # --- rounds --------------------------------------------------------------------------------------------------

    def _work_off(self, queues: dict[str, deque[Work]], out: Output) -> None:
        while queues:
            patients: list[Patient] = []
            chunks: list[Chunk] = []
            for name in list(queues):
                patient, queue = self.patients.get(name) or self._late_data[name], queues[name]
                chunk = self._until_samples(patient, queue, out)
                if not queue:
                    del queues[name]
                if chunk is not None:
                    patients.append(patient)
                    chunks.append(chunk)
            if not chunks:
                continue
            for patient, stretches in zip(patients, self.stages.run(chunks), strict=True):
                for stretch in stretches:
                    self._fold(patient, stretch, out)

    def _until_samples(self, patient: Patient, queue: deque[Work], out: Output) -> Chunk | None:
        """Work off a patient's queue up to and with its next stretch of samples."""
        while queue:
            work = queue.popleft()
            if isinstance(work, Samples):
                chunk = self._chunk(patient, work)
                if chunk is not None:
                    return chunk
            elif isinstance(work, Begin):
                self._begin(patient, work, out)
            else:
                self._entry(patient, work.entry, out)
        return None

    def _chunk(self, patient: Patient, work: Samples) -> Chunk | None:
        patient.now_ms = max(patient.now_ms, work.ms)
        patient.next_sample += len(work.mv)
        if work.origin_ms is None:
            patient.clock.observe(patient.next_sample, work.ms)
        else:
            patient.clock.origin_ms = work.origin_ms
        skip = max(0, patient.skip_to - (patient.next_sample - len(work.mv)))
        if skip >= len(work.mv):
            return None
        return Chunk(patient.slot, patient.rate, work.mv[skip:])

    def _begin(self, patient: Patient, work: Begin, out: Output) -> None:
        step = work.step
        if step is not None:
            if patient.slot < 0:
                patient.slot = self.stages.admit()
            patient.device, patient.epoch = step.device, step.epoch
            patient.rate, patient.leads = step.rate, step.leads
            if work.origin_ms is None:
                patient.clock.start(step.rate, step.sample, patient.now_ms)
            else:
                patient.clock = StreamClock(step.rate, work.origin_ms, step.sample)
            self._alarms(patient, state.on_epoch(patient.book, step.epoch, patient.now_ms), out)
        start = start_at(work.sample, patient.rate)
        if step is not None or patient.rules is None or patient.channel:
            self._anew(patient, work.sample)
        else:
            self._conditions(patient, rules.jump(patient.rules, patient.seen, start, patient.limits), out)
            patient.vitals.quality = "good"
            self._restart(patient, work.sample)

    def _anew(self, patient: Patient, sample: int) -> None:
        """Forget what was learnt of the patient; the signal goes on at a device sample."""
        patient.rules = rules.new_state(DELAY, patient.limits, start_at(sample, patient.rate), PEAK_DELAY)
        patient.vitals = Vitals()
        self._restart(patient, sample)

    def _restart(self, patient: Patient, sample: int) -> None:
        start = start_at(sample, patient.rate)
        patient.next_sample, patient.skip_to = sample, first_sample(start, patient.rate)
        self.stages.reset(patient.slot, min(len(patient.leads), MAX_ANALYSED), start)
        patient.seen = start

    def _entry(self, patient: Patient, entry: Inbound, out: Output) -> None:
        came_ms = entry.server_ms
        if entry.kind is Entry.ACTION and patient.now_ms:
            # A machine of the pages whose clock is ahead must not hold the time of the ward still.
            came_ms = min(came_ms, patient.now_ms + ACTION_AHEAD_MS)
        now = patient.now_ms = max(patient.now_ms, came_ms)
        if entry.kind is Entry.FRAME:
            patient.last_frame_ms = now
            if patient.silent:
                patient.silent = False
                self._evidence(patient, [Silence(patient.seen, 0.0)], out)
                self._status(patient, out)
        elif entry.kind is Entry.ACTION:
            try:
                action = unpack_action(entry.payload)
            except (msgspec.DecodeError, msgspec.ValidationError):
                if not patient.channel:
                    out.refuse("action")
                return
            self._act(patient, action, now, out)
        elif entry.kind is Entry.DEVICE:
            try:
                note = unpack_note(entry.payload)
            except (msgspec.DecodeError, msgspec.ValidationError):
                out.refuse("note")
                return
            if note.name in FLAGS:
                self._status(patient, out, flag_text(note.name, note.value))
                return
            # Devices say a share, staff read percent.
            value = 100.0 * note.value if note.name == "battery" else note.value
            if note.name == "battery" and 0 <= value <= 100 and round(value) != patient.battery:
                patient.battery = round(value)
                self._status(patient, out)
            self._evidence(patient, [Note(patient.seen, note.name, value)], out)
        elif entry.kind is Entry.TICK:
            silence = (now - patient.last_frame_ms) / 1000 if patient.last_frame_ms else 0.0
            if silence >= SILENT_S:
                first = not patient.silent
                patient.silent = True
                self._evidence(patient, [Silence(patient.seen, silence)], out)
                if first:
                    self._status(patient, out)
            self._alarms(patient, state.on_clock(patient.book, now), out)

    def _act(self, patient: Patient, action: Action, now: int, out: Output) -> None:
        if patient.channel and action.name in ALARM_ACTIONS:
            return
        acted = act(patient, action, now)
        if acted.anew and patient.rules is not None:
            self._anew(patient, patient.next_sample)
        if patient.channel:
            return
        if acted.refused:
            out.refuse(acted.refused)
        if acted.reason:
            # The end of a pause that this action brought is told by its own event.
            patient.told_pause_ms = patient.book.pause_until_ms
        self._alarms(patient, acted.changes, out)
        if acted.reason:
            self._settings(patient, acted.reason, out, action.user, acted.note)

    # --- results -------------------------------------------------------------------------------------------------

    def _fold(self, patient: Patient, stretch: Stretch, out: Output) -> None:
        """Fold one stretch of signal: quality, beats and rhythm into the rules, all of it into events and a view."""
        evidence: list[Evidence] = []
        name = patient.book.patient
        patient.seen = stretch.end
        self._quality(patient, stretch, evidence, out)
        for verdict in stretch.rhythms:
            evidence.append(Rhythm(verdict.end, verdict.code, verdict.probability, verdict.activity))
            if verdict.code != patient.vitals.rhythm and not patient.channel:
                # Late data tells no changes of rhythm: between its stretches nobody knows what went on.
                patient.vitals.rhythm = verdict.code
                out.events.append((patient.id, _rhythm_event(patient, verdict)))
        evidence += [Peak(peak.r, peak.decided, peak.beside) for peak in stretch.peaks]
        for beat in stretch.beats:
            code, second = CLASSES[beat.best], CLASSES[beat.second]
            evidence.append(Beat(beat.r, beat.decided, code, beat.p, beat.shape))
            rr_ms = round(beat.rr_ms)
            patient.vitals.beat(beat.r, rr_ms, code)
            event = BeatEvent(
                name, patient.device, patient.epoch, round(beat.r * patient.rate / FS), patient.ms(beat.r),
                code, round(beat.p, 4), second, round(beat.second_p, 4), rr_ms,
                beat.map,
            )  # fmt: skip
            out.events.append((name, event))
        evidence.append(Horizon(stretch.end - DELAY, stretch.end))
        self._evidence(patient, evidence, out)
        if self._views and not patient.channel:
            out.views.append((patient.id, view_of(patient, stretch)))

    def _quality(self, patient: Patient, stretch: Stretch, evidence: list[Evidence], out: Output) -> None:
        vitals = patient.vitals
        before = (-1, -1)
        for number, block in enumerate(zip(stretch.flags.tolist(), stretch.lead.tolist(), strict=True)):
            if block == before:
                continue
            before = block
            quality, name = quality_of(block[0]), patient.leads[block[1]]
            if quality == vitals.quality and name == vitals.lead:
                continue
            end = stretch.start + (number + 1) * BLOCK
            note = f"analysed lead is {name} now" if vitals.lead not in ("", name) else ""
            vitals.quality, vitals.lead = quality, name
            evidence.append(Quality(end, name, quality == "lead_off", quality == "missing", quality == "noisy"))
            if not patient.channel:
                self._status(patient, out, note)

    def _status(self, patient: Patient, out: Output, note: str = "") -> None:
        quality = "no_data" if patient.silent else patient.vitals.quality
        event = StatusEvent(
            patient.id, patient.device, patient.now_ms, patient.vitals.lead, patient.leads, quality, note,
            patient.battery,
        )  # fmt: skip
        out.events.append((patient.id, event))

    def _evidence(self, patient: Patient, evidence: Sequence[Evidence], out: Output) -> None:
        if patient.rules is not None:
            self._conditions(patient, rules.fold(patient.rules, evidence, patient.limits), out)

    def _conditions(self, patient: Patient, conditions: Sequence[Condition], out: Output) -> None:
        for condition in conditions:
            if condition.kind in TECHNICAL and (patient.vacant or patient.channel):
                # Nobody lies there; or what is missing between late stretches is no fault of today.
                continue
            if patient.channel:
                self._find_late(patient, condition, out)
                continue
            out.conditions.append((patient.id, condition))
            changes = state.on_condition(patient.book, condition, patient.now_ms, onset_ms=patient.ms(condition.onset))
            self._alarms(patient, changes, out)

    def _find_late(self, patient: Patient, condition: Condition, out: Output) -> None:
        onset_ms, at_ms = patient.ms(condition.onset), patient.ms(condition.at)
        changes = state.on_late_condition(patient.book, condition, patient.now_ms, onset_ms=onset_ms, at_ms=at_ms)
        self._alarms(patient, changes, out)

    def _alarms(self, patient: Patient, changes: Sequence[AlarmChange], out: Output) -> None:
        for change in changes:
            event = to_event(change, patient.book.patient, patient.device, patient.rate or float(FS))
            out.events.append((event.patient, event))
        if patient.book.pause_until_ms != patient.told_pause_ms:
            patient.told_pause_ms = patient.book.pause_until_ms
            self._settings(patient, "pause_ended", out)

    def _settings(self, patient: Patient, reason: str, out: Output, user: str = "", note: str = "") -> None:
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


def _is_behind(frame: Frame, sequencer: Sequencer) -> bool:
    """Whether a frame lies where the live signal has been: it fills a gap there, or was seen."""
    same = (frame.device, frame.epoch) == (sequencer.device, sequencer.epoch)
    return same and frame.sample + len(frame.samples) <= sequencer.next_sample


def quality_of(flags: int) -> str:
    """Name the state of a block for people: good, noisy, lead_off or missing."""
    if flags & _MISSING:
        return "missing"
    if flags & BLIND:
        return "lead_off"
    return "noisy" if flags & _NOISY else "good"


def _rhythm_event(patient: Patient, verdict: RhythmVerdict) -> RhythmEvent:
    sample = round(verdict.end * patient.rate / FS)
    ms = patient.ms(verdict.end)
    return RhythmEvent(
        patient.id, patient.device, patient.epoch, sample, ms, verdict.code, round(verdict.probability, 4)
    )
