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


@dataclass(slots=True)
class Bed:
    """The latest of one patient."""

    views: deque[View] = field(default_factory=deque)
    beats: deque[BeatEvent] = field(default_factory=lambda: deque(maxlen=BEATS_KEPT))
    rhythm: RhythmEvent | None = None
    status: StatusEvent | None = None
    settings: SettingsEvent | None = None


class Board:
    """State of all beds and alarms.

    Parameters
    ----------
    backlog_s : float
        Waveform kept for each bed, seconds.
    """

    def __init__(self, backlog_s: float) -> None:
        self._backlog_s = backlog_s
        self.beds: dict[str, Bed] = {}
        self.alarms: dict[str, AlarmEvent] = {}
        self._closed: deque[str] = deque()

    def bed(self, patient: str) -> Bed:
        """Give the bed of a patient, made when it is new."""
        return self.beds.setdefault(patient, Bed())

    def apply(self, event: Event) -> bool:
        """Take an event in; False when it is old news and nothing changed."""
        match event:
            case AlarmEvent():
                return self._alarm(event)
            case BeatEvent():
                beats = self.bed(event.patient).beats
                if beats and (event.epoch, event.sample) <= (beats[-1].epoch, beats[-1].sample):
                    return False
                beats.append(event)
            case RhythmEvent():
                bed = self.bed(event.patient)
                if bed.rhythm and (event.epoch, event.sample) <= (bed.rhythm.epoch, bed.rhythm.sample):
                    return False
                bed.rhythm = event
            case StatusEvent():
                bed = self.bed(event.patient)
                if bed.status and event.ms < bed.status.ms:
                    return False
                bed.status = event
            case SettingsEvent():
                bed = self.bed(event.patient)
                if bed.settings and event.ms < bed.settings.ms:
                    return False
                bed.settings = event
        return True

    def _alarm(self, event: AlarmEvent) -> bool:
        known = self.alarms.get(event.id)
        if known is not None and event.revision <= known.revision:
            return False
        self.bed(event.patient)
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
        views = self.bed(view.patient).views
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
