"""What the recorder must know to go on, as it is stored, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from alerts.archive_index import Place
from bus.streams import START
from rhythmwatch.record_place import Timeline
from rhythmwatch.record_trends import Trend


class PatientState(msgspec.Struct):
    """What must be known of a patient to go on."""

    timeline: Timeline = msgspec.field(default_factory=Timeline)
    trend: Trend = msgspec.field(default_factory=Trend)


class PartitionState(msgspec.Struct):
    """Positions read, and the state of the partition's patients."""

    entries: str = START
    events: str = START
    patients: dict[str, PatientState] = {}


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
