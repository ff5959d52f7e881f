"""What the wall knows: the latest state of every patient, and the last seconds of its waveform.

A plain fold over events and views without input, output or clock; the hub keeps one and snapshots it for each page that
opens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from bus.messages import AlarmEvent, BeatEvent, Event, RhythmEvent, SettingsEvent, StatusEvent, View

BEATS_KEPT: Final = 60
CLOSED_KEPT: Final = 200
"""Alarms that are over and still listed; all of them are in the alarm store."""
STILL_MS: Final = 3_600_000
"""Of a bed of which nothing has come for so long, the waveform goes."""
FORGET_MS: Final = 7 * 86_400_000
"""A bed of which nothing has come for so long goes, unless a patient was put there or an alarm stands."""


@dataclass(slots=True)
class Bed:
    """The latest of one patient.

    Attributes
    ----------
    heard_ms : int
        Server time at which something of it came last.
    """

    views: deque[View] = field(default_factory=deque)
    beats: deque[BeatEvent] = field(default_factory=lambda: deque(maxlen=BEATS_KEPT))
    rhythm: RhythmEvent | None = None
    status: StatusEvent | None = None
    settings: SettingsEvent | None = None
    heard_ms: int = 0


class Board:
    """State of all beds and alarms.

    Parameters
    ----------
    backlog_s : float
        Waveform kept for each bed, seconds.

    Attributes
    ----------
    now_ms : int
        Server time as whoever feeds the board last told it; 0 where nobody does.
    """

    def __init__(self, backlog_s: float) -> None:
        self._backlog_s = backlog_s
        self.beds: dict[str, Bed] = {}
        self.alarms: dict[str, AlarmEvent] = {}
        self._closed: deque[str] = deque()
        self.now_ms = 0

    def bed(self, patient: str) -> Bed:
        """Give the bed of a patient, made when it is new."""
        bed = self.beds.get(patient)
        if bed is None:
            bed = self.beds[patient] = Bed()
        return bed

    def _heard(self, patient: str) -> Bed:
        bed = self.bed(patient)
        bed.heard_ms = self.now_ms
        return bed

    def apply(self, event: Event) -> bool:
        """Take an event in; False when it is old news and nothing changed."""
        match event:
            case AlarmEvent():
                return self._alarm(event)
            case BeatEvent():
                beats = self._heard(event.patient).beats
                if beats and (event.epoch, event.sample) <= (beats[-1].epoch, beats[-1].sample):
                    return False
                beats.append(event)
            case RhythmEvent():
                bed = self._heard(event.patient)
                if bed.rhythm and (event.epoch, event.sample) <= (bed.rhythm.epoch, bed.rhythm.sample):
                    return False
                bed.rhythm = event
            case StatusEvent():
                bed = self._heard(event.patient)
                if bed.status and event.ms < bed.status.ms:
                    return False
                bed.status = event
            case SettingsEvent():
                bed = self._heard(event.patient)
                if bed.settings and event.ms < bed.settings.ms:
                    return False
                bed.settings = event
        return True

    def _alarm(self, event: AlarmEvent) -> bool:
        known = self.alarms.get(event.id)
        if known is not None and event.revision <= known.revision:
            return False
        self._heard(event.patient)
        self.alarms[event.id] = event
        if event.presence == "off":
            self._closed.append(event.id)
            # What is over makes room first; an open alarm is never forgotten.
            while len(self._closed) > CLOSED_KEPT:
                oldest = self.alarms.get(self._closed.popleft())
                if oldest is not None and oldest.presence == "off":
                    del self.alarms[oldest.id]
        return True

    def view(self, view: View) -> bool:
        """Take a view in; False when its samples are known already."""
        views = self._heard(view.patient).views
        if views:
            last = views[-1]
            if view.epoch < last.epoch or (view.epoch == last.epoch and view.index <= last.index):
                return False
            if view.epoch > last.epoch:
                views.clear()
        views.append(view)
        while views and (view.index - views[0].index) > self._backlog_s * view.rate:
            views.popleft()
        return True

    def open_alarms(self) -> Iterator[AlarmEvent]:
        """Alarms that are not over."""
        return (alarm for alarm in self.alarms.values() if alarm.presence != "off")

    def load(self, events: Iterable[Event]) -> None:
        """Take what the store knows in, at start."""
        for event in events:
            self.apply(event)

    def tidy(self) -> bool:
        """Let go of what is of no use any more where nothing comes; True where beds went."""
        standing = {alarm.patient for alarm in self.open_alarms()}
        gone: set[str] = set()
        for patient, bed in self.beds.items():
            silent_ms = self.now_ms - bed.heard_ms
            if silent_ms >= STILL_MS:
                bed.views.clear()
                bed.beats.clear()
            taken = bed.settings is not None and not bed.settings.vacant
            if silent_ms >= FORGET_MS and patient not in standing and not taken:
                gone.add(patient)
        for patient in gone:
            del self.beds[patient]
        for alarm in [alarm for alarm in self.alarms.values() if alarm.patient in gone]:
            del self.alarms[alarm.id]
        return bool(gone)
