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


LOOKBACK_S: Final = 2.0
"""A verdict rests on the 4 s before it: its change lies about the middle of them before its own second."""

AF_LOOKBACK_S: Final = 8.0
"""Fibrillation is told from 20 s of beats, so its begin and end lie further back. Both are the best of 0 to 15 s on
training records (duration precision and sensitivity of episodes, EC57)."""

_ATRIAL: Final = frozenset(("AFIB", "N"))


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


def rhythm_marks(changes: Sequence[tuple[int, str]], rate: float) -> list[tuple[int, str]]:
    """Move changes of the verdict back to where the rhythm itself changed.

    The live verdict can't know this; a file is read afterwards. A change that would come before an earlier one takes
    its place.

    Parameters
    ----------
    changes : sequence of (sample, code)
        Ascending; the sample is the end of the evidence.
    rate : float
        Hz.

    Returns
    -------
    list of (sample, code)
        Strictly ascending, no code twice in a row.
    """
    marks: list[tuple[int, str]] = []
    before = ""
    for sample, code in changes:
        # Every other rhythm is told from 4 s alone, also where it ends fibrillation.
        atrial = "AFIB" in (before, code) and {before, code} - {""} <= _ATRIAL
        moved = max(sample - round((AF_LOOKBACK_S if atrial else LOOKBACK_S) * rate), 0)
        while marks and marks[-1][0] >= moved:
            marks.pop()
        if not marks or marks[-1][1] != code:
            marks.append((moved, code))
        before = code
    return marks


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
