"""What the topic of a message says: device, kind, patient, and partition of the bus."""

from __future__ import annotations

from typing import Final, NamedTuple

from bus.messages import Entry, partition_of
from bus.streams import Bus
from ingest.frame import DEVICE_ID, FrameError

LIVE: Final = ("ecg", "meta", "status", "events")
STORED: Final = "backfill"
STRAPS: Final = ("polar", "movesense")
"""Packets without a count: numbering them needs all of a device in one process (`ingest.strap_session`)."""
KINDS: Final = (*LIVE, STORED)
_MOST: Final = 65_536
_ENTRIES: Final = {
    "ecg": Entry.FRAME, "backfill": Entry.BACKFILL, "polar": Entry.FRAME, "movesense": Entry.FRAME,
    "status": Entry.DEVICE, "events": Entry.DEVICE, "meta": Entry.DEVICE,
}  # fmt: skip


class Route(NamedTuple):
    """What a topic says."""

    device: str
    kind: str
    entry: Entry
    patient: bytes
    partition: int
    share: str


def patient_of(device: str) -> str:
    """Patient whom a device measures: a device is a patient until they are paired."""
    return device


class Routes:
    """The routes of topics that came."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._known: dict[str, Route] = {}

    def of(self, topic: str) -> Route:
        """Read a topic; `FrameError` with reason ``topic`` for one that is none of ours."""
        route = self._known.get(topic)
        if route is not None:
            return route
        device, kind = _device_and_kind(topic)
        if len(self._known) >= _MOST:
            self._known.clear()
        patient = patient_of(device)
        route = self._known[topic] = Route(
            device, kind, _ENTRIES[kind], patient.encode(), partition_of(patient, self._bus.partitions),
            f"{device}/{STORED}" if kind == STORED else device,
        )  # fmt: skip
        return route


def _device_and_kind(topic: str) -> tuple[str, str]:
    """Split ``rw/v1/{device}/{kind}``; `FrameError` with reason ``topic`` for any other."""
    parts = topic.split("/")
    if len(parts) != 4 or parts[3] not in _ENTRIES or DEVICE_ID.fullmatch(parts[2]) is None:
        raise FrameError("topic", "topics are rw/v1/{device}/" + "|".join((*KINDS, *STRAPS)))
    return parts[2], parts[3]
