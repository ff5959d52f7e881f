"""What the pipeline knows of one patient beside the signal records: order, clock, rules, alarms, vitals."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec

from alerts.book import AlarmBook
from alerts.limits import Limits
from alerts.rules import RuleState
from dsp.layout import FS
from ingest.clock import StreamClock
from ingest.sequencer import Sequencer
from rhythmwatch.record_place import Timeline

RATE_BEATS: Final = 4
"""RR intervals that the shown heart rate is the mean of."""
MINUTE: Final = 60 * FS


@dataclass(slots=True)
class Vitals:
    """The figures of a bed: heart rate, PVC in the last minute, rhythm and signal quality.

    Attributes
    ----------
    recent : deque of (int, int)
        R peaks (index at `FS`) and RR intervals (ms, 0 unknown) of the last beats.
    ectopic : deque of int
        R peaks of the ventricular beats of the last minute.
    """

    recent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=RATE_BEATS))
    ectopic: deque[int] = field(default_factory=deque)
    rhythm: str = "N"
    quality: str = "good"
    lead: str = ""

    def beat(self, r: int, rr_ms: int, code: str) -> None:
        """Take a classified beat."""
        if rr_ms == 0:
            self.recent.clear()
        self.recent.append((r, rr_ms))
        if code == "V":
            self.ectopic.append(r)

    def rate(self) -> float:
        """Heart rate, 1/min: 60 over the mean of the last RR intervals; 0 when unknown."""
        intervals = [rr for _, rr in self.recent if rr]
        return 60_000 * len(intervals) / sum(intervals) if intervals else 0.0

    def pvc_a_minute(self, now: int) -> int:
        """Ventricular beats in the minute before index `now`."""
        while self.ectopic and self.ectopic[0] < now - MINUTE:
            self.ectopic.popleft()
        return len(self.ectopic)


@dataclass(slots=True)
class Patient:
    """All state of one patient that is no numpy record.

    Attributes
    ----------
    slot : int
        Row in the signal stages; -1 before the first epoch and between stretches.
    seen : int
        Index at `FS` after the last sample that passed the stages.
    next_sample : int
        Device sample that comes next.
    skip_to : int
        Device samples before this one are left out, so that the first block is whole.
    last_frame_ms : int
        Server time of the last frame; 0 before the first.
    battery : int
        Charge of the device, percent; -1 before it said any.
    profile : str
        Profile that `limits` began from (`alerts.limits.PROFILES`).
    vacant : bool
        Discharged, and nobody admitted since: technical alarms have nobody to protect.
    told_pause_ms : int
        End of the audio pause as it was published last.
    timeline : Timeline
        Where frames belong in time as the recordings have it, for those that come late.
    late : Patient or None
        What of the patient came after its time, as a patient beside it (`rhythmwatch.ordering`).
    channel : str
        Of such a one: whose data it is; empty for a live patient.
    queued_rate, queued_leads : float, int
        Rate and number of leads of what was put in order last, which may not have been worked off yet.
    queued_origin_ms, queued_ms : float, int
        Of late data: wall time of sample 0, and server time of the newest frame, of what was put in order last.
    broken : bool
        The stretch was ended, as late data does not go on or a device is silent for long; the next frame begins one.
    """

    id: str
    book: AlarmBook
    slot: int = -1
    device: str = ""
    epoch: int = -1
    rate: float = 0.0
    leads: tuple[str, ...] = ()
    seen: int = 0
    next_sample: int = 0
    skip_to: int = 0
    last_frame_ms: int = 0
    silent: bool = False
    battery: int = -1
    queued_rate: float = 0.0
    queued_leads: int = 0
    now_ms: int = 0
    clock: StreamClock = field(default_factory=StreamClock)
    sequencer: Sequencer = field(default_factory=Sequencer)
    rules: RuleState | None = None
    limits: Limits = field(default_factory=Limits)
    profile: str = "adult"
    vacant: bool = False
    told_pause_ms: int = 0
    timeline: Timeline = field(default_factory=Timeline)
    late: Patient | None = None
    channel: str = ""
    queued_origin_ms: float = 0.0
    queued_ms: int = 0
    broken: bool = False
    vitals: Vitals = field(default_factory=Vitals)

    def ms(self, index: int) -> int:
        """Server wall time of an index at `FS`, ms."""
        return self.clock.ms(round(index * self.rate / FS)) if self.rate else self.now_ms


def new_patient(name: str) -> Patient:
    """Make a patient that nothing is known of, with what may come late of it."""
    return Patient(name, AlarmBook(name), late=Patient(f"{name}#late", AlarmBook(name), channel=name))


class PatientRecord(msgspec.Struct, array_like=True):
    """A patient as a checkpoint holds it."""

    id: str
    device: str
    epoch: int
    rate: float
    leads: tuple[str, ...]
    seen: int
    next_sample: int
    skip_to: int
    last_frame_ms: int
    silent: bool
    now_ms: int
    clock: StreamClock
    sequencer: bytes
    rules: bytes
    book: bytes
    limits: bytes
    recent: list[tuple[int, int]]
    ectopic: list[int]
    rhythm: str
    quality: str
    lead: str
    records: dict[str, bytes]
    profile: str
    vacant: bool
    told_pause_ms: int
    timeline: Timeline
    channel: str
    queued_origin_ms: float
    queued_ms: int
    broken: bool
    late: PatientRecord | None
    battery: int = -1
