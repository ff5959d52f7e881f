"""Recordings as files: where a segment lies, how its samples, beats and header are laid out.

A segment is a WFDB record ``{patient}/{epoch}/{number}``: ``.dat`` (format 16, or 32 for samples that need it, leads
interleaved, the least value is "no sample"), ``.hea``, ``.atr`` (beats, written when the segment is complete), and
``.beats``: the verdicts as records of `BEAT`. Sample `s` of the epoch lies at row ``s - first``, so that writing the
same samples again changes nothing. A suffix ``w`` marks the segments of format 32.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MISSING: Final = -(2**31)
"""No sample, in what readers get."""
SEGMENT_S: Final = 3600
BEAT: Final = np.dtype(
    [
        ("sample", "<i8"),
        ("p", "<f4"),
        ("second_p", "<f4"),
        ("rr_ms", "<u4"),
        ("code", "S2"),
        ("second", "S2"),
        ("mapped", "u1"),
        ("map", "u1", 19),
        ("spare", "u1", 4),
    ]
)
"""A beat on disk, 48 bytes; an empty code is a record that was erased."""
_DTYPES: Final[dict[int, np.dtype[Any]]] = {16: np.dtype("<i2"), 32: np.dtype("<i4")}
_CODES: Final = {
    **{"N": 1, "L": 2, "R": 3, "a": 4, "V": 5, "F": 6, "J": 7, "A": 8, "S": 9, "E": 10, "j": 11, "/": 12, "Q": 13},
    **{"+": 28, '"': 22},
}
_SKIP: Final = 59 << 10
_AUX: Final = 63 << 10


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as the index knows it.

    Attributes
    ----------
    path : str
        Below the folder of recordings, without an ending.
    first, length : int
        Index in the epoch of the first sample that it can hold, and how many it can hold.
    from_ms, to_ms : int
        Wall time that it may touch.
    fs, gain : float
        Hz; units per mV.
    bits : int
        16 or 32.
    anchors : tuple of (int, float)
        Sample and its wall time in ms; from each to the next time goes at `fs`.
    """

    path: str
    patient: str
    device: str
    epoch: int
    first: int
    length: int
    from_ms: int
    to_ms: int
    fs: float
    gain: float
    leads: tuple[str, ...]
    bits: int
    anchors: tuple[tuple[int, float], ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a sample on disk."""
        return _DTYPES[self.bits]

    @property
    def missing(self) -> int:
        """The value on disk that says "no sample"."""
        return int(np.iinfo(self.dtype).min)

    def ms(self, sample: int) -> float:
        """Wall time of a sample."""
        at, ms = self.anchors[0]
        for anchor in self.anchors:
            if anchor[0] > sample:
                break
            at, ms = anchor
        return ms + (sample - at) * 1000 / self.fs


def segment_length(fs: float) -> int:
    """Give the samples of a segment at a rate."""
    return round(SEGMENT_S * fs)


def segment_path(patient: str, epoch: int, number: int, bits: int) -> str:
    """Where a segment lies below the folder of recordings."""
    return f"{patient}/{epoch}/{number:06d}{'w' if bits == 32 else ''}"


def read_units(root: Path, segment: Segment, begin: int, end: int) -> NDArray[Any]:
    """Read samples `begin` to `end` (indices in the epoch).

    Returns
    -------
    ndarray of int16 or int32, shape (n, leads)
        As on disk; shorter where the file ends before, empty where it is gone.
    """
    leads = len(segment.leads)
    row = leads * segment.dtype.itemsize
    try:
        flat = np.fromfile(
            root / f"{segment.path}.dat",
            segment.dtype,
            count=(end - begin) * leads,
            offset=(begin - segment.first) * row,
        )
    except FileNotFoundError:
        flat = np.empty(0, segment.dtype)
    return flat[: flat.size // leads * leads].reshape(-1, leads)


def read_beats(path: Path) -> NDArray[Any]:
    """Read the beats of a segment, ascending, each once; none where there is no file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    beats = np.frombuffer(data, BEAT, len(data) // BEAT.itemsize)
    beats = beats[beats["code"] != b""]
    _, order = np.unique(beats["sample"], return_index=True)
    kept: NDArray[Any] = beats[order]
    return kept


def header(
    name: str, fs: float, gain: float, leads: Sequence[str], bits: int, length: int, start_ms: float, note: str = ""
) -> str:
    """Write the text of a WFDB header.

    Parameters
    ----------
    name : str
        Of the record and its ``.dat``.
    length : int
        Samples a lead; 0: not known yet.
    start_ms : float
        Wall time of the first sample; written in UTC.
    note : str
        A line of comment.
    """
    start = datetime.fromtimestamp(start_ms / 1000, UTC)
    clock = f"{start:%H:%M:%S}.{start.microsecond // 1000:03d} {start:%d/%m/%Y}"
    when = f" {length} {clock}" if length else ""
    lines = [f"{name} {len(leads)} {fs:.12g}{when}"]
    lines += [f"{name}.dat {bits} {gain:.12g}(0)/mV {bits} 0 0 0 0 {lead}" for lead in leads]
    lines.append(f"# begins {clock} UTC")
    if note:
        lines.append(f"# {note}")
    return "\n".join(lines) + "\n"


def mit_annotations(marks: Sequence[tuple[int, str, str]]) -> bytes:
    """Lay annotations out in the MIT format.

    Parameters
    ----------
    marks : sequence of (sample, code, text)
        Ascending from 0 on; codes of beats, ``+`` for rhythm changes and ``"`` for notes, which take a text.

    Returns
    -------
    bytes
        Content of an ``.atr`` file.

    References
    ----------
    WFDB Applications Guide, annot(5).
    """
    out = bytearray()
    before = 0
    for sample, code, text in marks:
        step, before = sample - before, sample
        if step >= 1024:
            out += _SKIP.to_bytes(2, "little")
            # The interval comes high half first, each half with its low byte first.
            out += (step >> 16).to_bytes(2, "little") + (step & 0xFFFF).to_bytes(2, "little")
            step = 0
        out += (_CODES.get(code, 13) << 10 | step).to_bytes(2, "little")
        if text:
            data = text.encode()[:254]
            out += (_AUX | len(data)).to_bytes(2, "little") + data + bytes(len(data) % 2)
    return bytes(out) + b"\0\0"


def beat_marks(beats: NDArray[Any], first: int) -> list[tuple[int, str, str]]:
    """Beats of a segment as marks for `mit_annotations`, counted from sample `first` of the epoch."""
    codes = np.char.decode(beats["code"]).tolist() if beats.size else []
    return [(sample - first, code, "") for sample, code in zip(beats["sample"].tolist(), codes, strict=True)]


def anchors_text(segment: Segment) -> str:
    """Anchors as the index keeps them."""
    return json.dumps([[sample, round(ms, 3)] for sample, ms in segment.anchors])
