"""Results of `analyze` on disk: WFDB annotations of beats and rhythms, and alarms as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ingest.recordings import RecordingError

FLUTTER: Final = "VFL"
"""Rhythm code that stands between ``[`` and ``]``."""


@dataclass(frozen=True, slots=True)
class AlarmLine:
    """One alarm of a record.

    Attributes
    ----------
    onset_s : float
        First sample of the evidence.
    raised_s : float
        Stream time of the last sample that was needed to raise it.
    cleared_s : float or None
        When the condition ended; None if it stood at the end of the record.
    """

    kind: str
    priority: str
    onset_s: float
    raised_s: float
    cleared_s: float | None
    detail: str


def write_annotations(
    path: Path,
    rate: float,
    beats: Sequence[tuple[int, str]],
    rhythms: Sequence[tuple[int, str]],
    length: int,
) -> None:
    """Write beats and rhythm changes as a WFDB annotation file.

    Parameters
    ----------
    path : Path
        Folder, record and annotator: ``OUT/RECORD.rw``.
    rate : float
        Sampling rate of the record, Hz.
    beats : sequence of (sample, MIT code)
        Ascending.
    rhythms : sequence of (sample, code)
        Changes of the rhythm, ascending, as in ``N``, ``AFIB``, ``VT``, ``VFL``.
    length : int
        Samples in the record; a flutter that lasts to the end is closed there.

    Raises
    ------
    RecordingError
        If the file can't be written.
    """
    import wfdb

    marks: list[tuple[int, int, str, str]] = [(sample, 1, code, "") for sample, code in beats]
    fluttering = False
    for sample, code in rhythms:
        if fluttering and code != FLUTTER:
            marks.append((sample, 0, "]", ""))
        if code == FLUTTER and not fluttering:
            marks.append((sample, 2, "[", ""))
        fluttering = code == FLUTTER
        marks.append((sample, 3, "+", f"({code}"))
    if fluttering:
        marks.append((length - 1, 4, "]", ""))
    marks = sorted(mark for mark in marks if 0 <= mark[0] < length)
    target = path.with_suffix("")
    if not marks:
        # The annotation format has no empty file but its end mark.
        path.write_bytes(b"\0\0")
        return
    try:
        wfdb.wrann(
            target.name,
            path.suffix[1:],
            np.array([mark[0] for mark in marks], np.int64),
            symbol=[mark[2] for mark in marks],
            aux_note=[mark[3] for mark in marks],
            fs=rate,
            write_dir=str(target.parent),
        )
    except (OSError, ValueError) as error:
        raise RecordingError(f"annotations can't be written to {path}: {error}") from error


def write_alarms(path: Path, alarms: Sequence[AlarmLine]) -> None:
    """Write alarms, one JSON object a line, in the order in which they were raised."""
    lines = (json.dumps(asdict(alarm)) for alarm in sorted(alarms, key=lambda alarm: (alarm.raised_s, alarm.kind)))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
