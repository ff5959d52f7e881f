"""A recorder's core over files and a database of its own, and what to feed it with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from alerts.archive import Archive
from alerts.archive_index import Index
from bus.messages import BeatEvent, Entry, Event, Inbound, pack, pack_inbound
from bus.streams import Record
from ingest.codecs import encode_frame
from ingest.frame import Frame
from rhythmwatch.record import Recording

T0 = 1_760_000_040_000
"""Begin of a minute."""
GAIN = 200.0


class Desk:
    """A recorder's core over files and a database of its own, and a reader beside it."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'history.db'}"
        self.root = folder / "recordings"
        self.index = Index(self.url)
        self.index.upgrade()
        self.archive = Archive(self.url, self.root)
        self.number = 0
        self.start()

    def start(self) -> None:
        """Begin as a new process would."""
        self.recording = Recording(self.root, self.index, [0])

    def put(self, entries: Sequence[Inbound | Event]) -> None:
        """Let entries and events come, in this order."""
        for item in entries:
            self.number += 1
            if isinstance(item, Inbound):
                self.recording.take_entries(0, [Record(f"{self.number}-0", pack_inbound(item))])
            else:
                self.recording.take_events(0, [Record(f"{self.number}-0", pack(item))])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def samples(count: int, leads: int = 2, seed: int = 1) -> np.ndarray:
    """Draw samples of which none is missing."""
    return np.random.default_rng(seed).integers(-3000, 3000, (count, leads)).astype(np.int16)


def frames(
    units: np.ndarray, device: str = "bed-1", epoch: int = 1, first: int = 0, rate: float = 250.0, gain: float = GAIN
) -> list[Frame]:
    """Cut samples into frames of a second."""
    step = round(rate)
    names = ("MLII", "V1", "V5")[: units.shape[1]]
    return [
        Frame(device, epoch, at // step, first + at, T0 + round((first + at) * 1000 / rate), rate, names, gain, part)
        for at in range(0, len(units), step)
        for part in (units[at : at + step],)
    ]


def entry(frame: Frame, kind: Entry = Entry.FRAME, delay: int = 0) -> Inbound:
    """Make the entry of a frame that arrives as its last sample is taken, or later."""
    end = T0 + round((frame.sample + len(frame.samples)) * 1000 / frame.rate)
    return Inbound(kind, end + delay, frame.device, encode_frame(frame))


def beat(sample: int, code: str = "N", rr_ms: int = 800, epoch: int = 1, mapped: bool = False) -> BeatEvent:
    """Make a beat at 250 Hz."""
    mark = bytes(range(19)) if mapped else b""
    return BeatEvent("bed-1", "bed-1", epoch, sample, T0 + sample * 4, code, 0.9, "V", 0.05, rr_ms, mark)


def read_all(desk: Desk, seconds: float) -> np.ndarray:
    """Read what was recorded since the begin."""
    return desk.archive.read("bed-1", T0, T0 + round(seconds * 1000)).units
