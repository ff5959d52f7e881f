"""The pure fold of patients' entries: frames, staff actions and ticks in, beats, rhythms, alarms and views out.

The live worker and ``rhythmwatch analyze`` run this same object. It knows no clock and no input or output: wall time is
in the entries. A patient's results depend on its own entries in their order and on nothing else, neither on how the
stream was cut into batches nor on who shares a batch: entries are worked off in *rounds*, each with at most one stretch
of samples a patient, and everything a round gives is known before the patient's next entry is looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from alerts import rules, state
from alerts.model import Note, Silence
from bus.messages import Action, Entry, Inbound, partition_of, unpack_action, unpack_note
from dsp.frontend import MAX_ANALYSED
from dsp.resample import first_sample, start_at
from ingest.clock import StreamClock
from ingest.codecs import decode_frame
from ingest.frame import Frame, FrameError
from ingest.limits import FLAGS, flag_text
from ingest.sequencer import Sequencer
from rhythmwatch.acting import ALARM_ACTIONS, act
from rhythmwatch.models import Models
from rhythmwatch.ordering import (
    Begin,
    Rest,
    Samples,
    Told,
    Work,
    end_late,
    end_live,
    enqueue,
    enqueue_late,
    missing,
    silent_ms,
)
from rhythmwatch.outcome import (
    Output,
    fold_stretch,
    judge,
    take_conditions,
    tell_alarms,
    tell_settings,
    tell_status,
)
from rhythmwatch.patient import Patient, Vitals, new_patient
from rhythmwatch.stages import DELAY, PEAK_DELAY, Chunk, Stages

__all__ = ["Output", "Pipeline"]

SILENT_S: Final = 10.0
"""Without a frame for this long a patient's silence is evidence (rule NO_DATA)."""
_FRAMES: Final = frozenset({Entry.FRAME, Entry.BACKFILL})
FORGET_MS: Final = 7 * 86_400_000
"""A patient of whom no frame has come for so long is forgotten, unless something that staff did or must do stands."""
ACTION_AHEAD_MS: Final = 10_000
"""The most by which an action moves a patient's time on; ticks do so each second."""
_NEW: Final = new_patient("")


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
        self._silent: set[str] = set()
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
                    self._tick(patient, entry, queues, out)
            else:
                self._order(self._patient(entry.patient), entry, queues, out)
        self._work_off(queues, out)
        self._forget()
        return out

    def finish(self, patient: str, ms: int) -> Output:
        """End a patient's stream: what waits is released, and beats near the end are decided without their future."""
        known = self.patients[patient]
        queue: deque[Work] = deque()
        enqueue(known, known.sequencer.flush(), ms, queue)
        if known.queued_rate and not known.broken:
            queue.append(Samples(missing(known.queued_rate, known.queued_leads), ms, filled=True))
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

    def _forget(self) -> None:
        """Let patients go who have vanished and of whom nothing would be lost."""
        for name in self._silent:
            patient = self.patients[name]
            if not patient.broken or not _leaves_nothing(patient):
                continue
            for one in (patient, patient.late):
                if one is not None:
                    self._rest(one)
                    self._late_data.pop(one.id, None)
            del self.patients[name]
            mine = self._by_partition[self.partition(name)]
            mine[:] = [one for one in mine if one is not patient]
        self._silent.clear()

    def _order(self, patient: Patient, entry: Inbound, queues: dict[str, deque[Work]], out: Output) -> None:
        queue = queues.get(patient.id)
        if queue is None:
            queue = queues[patient.id] = deque()
        if entry.kind in _FRAMES:
            try:
                frame = decode_frame(entry.payload)
            except FrameError as error:
                out.refuse(error.reason)
                return
            patient.timeline.place(frame, entry.kind, entry.server_ms)
            stored = entry.kind is Entry.BACKFILL
            if not stored:
                queue.append(Told(entry))
            elif not _is_behind(frame, patient.sequencer):
                # Ahead of the live signal or of another epoch: never put in its place.
                self._late(patient, frame, entry.server_ms, queues)
                return
            for late in enqueue(patient, patient.sequencer.push(frame, entry.server_ms), entry.server_ms, queue):
                self._late(patient, late, entry.server_ms, queues)
            return
        if entry.kind is Entry.ACTION and patient.late is not None:
            # Limits and admissions hold for what comes late too.
            queues.setdefault(patient.late.id, deque()).append(Told(entry))
        queue.append(Told(entry))

    def _tick(self, patient: Patient, entry: Inbound, queues: dict[str, deque[Work]], out: Output) -> None:
        """Let time pass for a patient: mostly nothing waits, and the entry is looked at without a queue."""
        ms = entry.server_ms
        queue = queues.get(patient.id, deque())
        for late in enqueue(patient, patient.sequencer.tick(ms), ms, queue):
            self._late(patient, late, ms, queues)
        end_live(patient, ms, queue)
        if patient.broken and silent_ms(patient, ms) >= FORGET_MS:
            self._silent.add(patient.id)
        late_data = patient.late
        if late_data is not None and late_data.queued_ms:
            self.unjudged_frames += end_late(late_data, ms, queues.setdefault(late_data.id, deque()))
        if queue:
            queue.append(Told(entry))
            queues[patient.id] = queue
        else:
            self._entry(patient, entry, out)

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
                    fold_stretch(patient, stretch, out, views=self._views)

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
            elif isinstance(work, Rest):
                self._rest(patient)
            else:
                self._entry(patient, work.entry, out)
        return None

    def _chunk(self, patient: Patient, work: Samples) -> Chunk | None:
        mv = work.mv
        if work.ms > patient.now_ms:
            patient.now_ms = work.ms
        skip = patient.skip_to - patient.next_sample
        patient.next_sample += len(mv)
        if work.origin_ms is not None:
            patient.clock.origin_ms = work.origin_ms
        elif not work.filled:
            patient.clock.observe(patient.next_sample, work.ms)
        if skip > 0:
            mv = mv[skip:]
        return Chunk(patient.slot, patient.rate, mv) if len(mv) else None

    def _begin(self, patient: Patient, work: Begin, out: Output) -> None:
        step = work.step
        if patient.slot < 0:
            patient.slot = self.stages.admit()
        if step is not None:
            patient.device, patient.epoch = step.device, step.epoch
            patient.rate, patient.leads = step.rate, step.leads
            if work.origin_ms is None:
                patient.clock.start(step.rate, step.sample, patient.now_ms)
            else:
                patient.clock = StreamClock(step.rate, work.origin_ms, step.sample)
            tell_alarms(patient, state.on_epoch(patient.book, step.epoch, patient.now_ms), out)
        start = start_at(work.sample, patient.rate)
        if step is not None or patient.rules is None or patient.channel:
            self._anew(patient, work.sample)
        else:
            take_conditions(patient, rules.jump(patient.rules, patient.seen, start, patient.limits), out)
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
        if patient.slot >= 0:
            self.stages.reset(patient.slot, min(len(patient.leads), MAX_ANALYSED), start)
        patient.seen = start

    def _rest(self, patient: Patient) -> None:
        """Give the row of a patient back whose stretch is over."""
        if patient.slot >= 0:
            self.stages.release(patient.slot)
            patient.slot = -1

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
                judge(patient, [Silence(patient.seen, 0.0)], out)
                tell_status(patient, out)
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
                tell_status(patient, out, flag_text(note.name, note.value))
                return
            # Devices say a share, staff read percent.
            value = 100.0 * note.value if note.name == "battery" else note.value
            if note.name == "battery" and 0 <= value <= 100 and round(value) != patient.battery:
                patient.battery = round(value)
                tell_status(patient, out)
            judge(patient, [Note(patient.seen, note.name, value)], out)
        elif entry.kind is Entry.TICK:
            silence = (now - patient.last_frame_ms) / 1000 if patient.last_frame_ms else 0.0
            if silence >= SILENT_S:
                first = not patient.silent
                patient.silent = True
                judge(patient, [Silence(patient.seen, silence)], out)
                if first:
                    tell_status(patient, out)
            tell_alarms(patient, state.on_clock(patient.book, now), out)

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
        tell_alarms(patient, acted.changes, out)
        if acted.reason:
            tell_settings(patient, acted.reason, out, action.user, acted.note)


def _is_behind(frame: Frame, sequencer: Sequencer) -> bool:
    """Whether a frame lies where the live signal has been: it fills a gap there, or was seen."""
    same = (frame.device, frame.epoch) == (sequencer.device, sequencer.epoch)
    return same and frame.sample + len(frame.samples) <= sequencer.next_sample


def _leaves_nothing(patient: Patient) -> bool:
    """Whether nothing stands or waits, and staff discharged the patient or had set nothing."""
    late = patient.late
    waits = late is not None and late.queued_rate and not late.broken
    plain = (patient.profile, patient.limits) == (_NEW.profile, _NEW.limits)
    return not patient.book.alarms and not waits and (patient.vacant or plain)
