"""Writing one segment: samples at their index, beats once each, so that doing it again changes nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alerts.archive_files import BEAT, Segment, beat_marks, header, mit_annotations, read_beats

NOTE: Final = "Not a medical device: not for diagnosis or treatment."


class SegmentFiles:
    """The open files of a segment.

    Parameters
    ----------
    root : Path
        Folder of recordings.
    segment : Segment

    Raises
    ------
    OSError
        Where a file can't be made, here and in all methods that write; what was written before stays, and writing the
        same again is safe.
    """

    def __init__(self, root: Path, segment: Segment) -> None:
        self.segment = segment
        self._base = root / segment.path
        self._row = len(segment.leads) * segment.dtype.itemsize
        self._base.parent.mkdir(parents=True, exist_ok=True)
        if not self._base.with_suffix(".hea").exists():
            self._header(0)
        self._samples = os.open(self._base.with_suffix(".dat"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._beats = -1
        self._last_beat = -1
        self._beat_bytes = 0
        self._rows = os.fstat(self._samples).st_size // self._row
        self._changed = self._beats_changed = False

    def write(self, sample: int, rows: NDArray[Any]) -> None:
        """Write rows at a sample; what lies between the end of the file and them becomes "no sample"."""
        at = sample - self.segment.first
        if at > self._rows:
            gap = np.full((at - self._rows) * len(self.segment.leads), self.segment.missing, self.segment.dtype)
            _write(self._samples, gap.tobytes(), self._rows * self._row)
            self._rows = at
        _write(self._samples, np.ascontiguousarray(rows, self.segment.dtype).tobytes(), at * self._row)
        self._rows = max(self._rows, at + len(rows))
        self._changed = True

    def fill(self, sample: int, rows: NDArray[Any]) -> None:
        """Write rows where nothing was recorded yet, and leave the rest as it is."""
        at = sample - self.segment.first
        held = os.pread(self._samples, len(rows) * self._row, at * self._row) if at < self._rows else b""
        held = held[: len(held) // self._row * self._row]
        there = np.frombuffer(held, self.segment.dtype).reshape(-1, len(self.segment.leads))
        merged = np.array(rows, self.segment.dtype)
        known = (there != self.segment.missing).any(axis=1)
        merged[: len(there)][known] = there[known]
        self.write(sample, merged)

    def append_beats(self, beats: NDArray[Any]) -> None:
        """Append beats (`BEAT`, ascending) that come after those which are there; others are there already."""
        if self._beats < 0:
            self._open_beats()
        new = beats[beats["sample"] > self._last_beat]
        if new.size:
            _write(self._beats, new.tobytes(), self._beat_bytes)
            self._beat_bytes += new.nbytes
            self._last_beat = int(new["sample"][-1])
            self._beats_changed = True

    def sync(self) -> None:
        """Return once the machine may lose power."""
        if self._changed:
            os.fdatasync(self._samples)
            self._changed = False
        if self._beats_changed:
            os.fdatasync(self._beats)
            self._beats_changed = False

    def complete(self) -> None:
        """Write the header with the length and the annotations, for other programs."""
        self._header(self._rows)
        marks = beat_marks(read_beats(self._base.with_suffix(".beats")), self.segment.first)
        _replace(self._base.with_suffix(".atr"), mit_annotations(marks))

    def close(self) -> None:
        """Close the files."""
        for file in (self._samples, self._beats):
            if file >= 0:
                os.close(file)
        self._samples = self._beats = -1

    def _open_beats(self) -> None:
        self._beats = os.open(self._base.with_suffix(".beats"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        count = os.fstat(self._beats).st_size // BEAT.itemsize
        self._beat_bytes = count * BEAT.itemsize
        data = os.pread(self._beats, self._beat_bytes, 0)
        self._last_beat = int(np.frombuffer(data, BEAT)["sample"].max(initial=-1))

    def _header(self, length: int) -> None:
        segment = self.segment
        text = header(
            self._base.name,
            segment.fs,
            segment.gain,
            segment.leads,
            segment.bits,
            length,
            segment.ms(segment.first),
            NOTE,
        )
        _replace(self._base.with_suffix(".hea"), text.encode())


def _write(file: int, data: bytes, at: int) -> None:
    """Write all of it, or raise."""
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, at)
        view, at = view[done:], at + done


def _replace(path: Path, data: bytes) -> None:
    """Put a file in place whole."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    new.replace(path)
