"""What the recorder must know to go on, as it is stored, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from alerts.archive_index import Place
from bus.streams import START
from rhythmwatch.record_place import Timeline
from rhythmwatch.record_trends import Trend

FORGET_MS: Final = 7 * 86_400_000
"""A patient of whom nothing has come for so long is forgotten; one who comes back begins as a new one."""


class PatientState(msgspec.Struct):
    """What must be known of a patient to go on.

    Attributes
    ----------
    heard_ms : int
        Time of the partition when something last came of the patient; 0 where it was never noted.
    """

    timeline: Timeline = msgspec.field(default_factory=Timeline)
    trend: Trend = msgspec.field(default_factory=Trend)
    heard_ms: int = 0


class PartitionState(msgspec.Struct):
    """Positions read, and the state of the partition's patients.

    Attributes
    ----------
    now_ms : int
        Newest time that ingest wrote into an entry. Ids hold that of a server whose clock may be set by days.
    """

    entries: str = START
    events: str = START
    patients: dict[str, PatientState] = {}
    now_ms: int = 0

    def hear(self, patient: str) -> PatientState:
        """Give the state of a patient of whom something has come now, made where there is none."""
        known = self.patients.get(patient)
        if known is None:
            known = self.patients[patient] = PatientState()
        known.heard_ms = self.now_ms
        return known

    def forget(self) -> dict[str, PatientState]:
        """Forget the patients who have vanished, and give what was known of them."""
        now = self.now_ms
        gone: dict[str, PatientState] = {}
        for patient, known in self.patients.items():
            known.heard_ms = known.heard_ms or now
            if now - known.heard_ms > FORGET_MS:
                gone[patient] = known
        for patient in gone:
            del self.patients[patient]
        return gone


@dataclass(slots=True)
class Counters:
    """What the recorder did since its start.

    Attributes
    ----------
    frames, late, beats : int
        Stored; `late` came out of order or was kept by the device.
    refused : dict of str to int
        Left out, by reason: ``entry``, ``event``, ``changed``, ``jump``, ``patient``, ``beat`` (no samples to it),
        ``not agreed`` (nobody admitted, or no consent) or why a frame can't be read.
    lost : int
        Times that a stream of the bus had been cut before all of it was recorded.
    failures : int
        Flushes that had to be done again.
    """

    frames: int = 0
    late: int = 0
    beats: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    failures: int = 0
    last_error: str = ""

    def refuse(self, reason: str) -> None:
        """Count something that is left out."""
        self.refused[reason] = self.refused.get(reason, 0) + 1


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[PartitionState] = msgspec.msgpack.Decoder(PartitionState)


def load(place: Place | None) -> PartitionState:
    """Continue from a place; from the begin of the streams where there is none."""
    if place is None:
        return PartitionState()
    state = _decoder.decode(place.state)
    state.entries, state.events = place.entries, place.events
    return state


def dump(state: PartitionState) -> Place:
    """Say where a partition stands."""
    return Place(state.entries, state.events, _encoder.encode(state))
