"""Figures of rhythm verdicts against labels: windows, false alarms, delays, AF by second and by recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from inference import rhythm
from inference.rhythm import CODES, Rows, Scores, Verdicts
from inference.rhythm_state import SPAN
from inference.training.rhythm_data import AF, DOUBT, NOISE, OTHER, VF, VT, Example

ALARM: Final = 4
"""Seconds in a row that make an alarm."""

EPISODE: Final = 8
"""Labelled seconds in a row from which an episode counts for the delay."""

_VT: Final = CODES.index("VT")
_VFL: Final = CODES.index("VFL")
_AFIB: Final = CODES.index("AFIB")
_ASYS: Final = CODES.index("ASYS")
_NOISE: Final = CODES.index("NOISE")


@dataclass(frozen=True, slots=True)
class Judged:
    """An example with its verdicts."""

    example: Example
    verdicts: Verdicts

    @property
    def on(self) -> NDArray[np.bool_]:
        """Seconds with a shockable verdict."""
        return np.isin(self.verdicts.code, (_VT, _VFL))


def judge(example: Example, scores: Scores) -> Judged:
    """Decide the rows of an example as the live stage does."""
    states = rhythm.new_states(1)
    return Judged(example, rhythm.decide(states, np.zeros(1, np.int64), example.rows, scores))


def runs(mask: NDArray[np.bool_], least: int) -> list[tuple[int, int]]:
    """First and end index of every run of true values of at least `least`."""
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    pairs = zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)
    return [(int(first), int(end)) for first, end in pairs if end - first >= least]


def shock_figures(judged: Sequence[Judged]) -> dict[str, Any]:
    """Windows by class, false alarms and delays.

    Parameters
    ----------
    judged : sequence of Judged

    Returns
    -------
    dict
        Percentages of seconds with a shockable verdict by label (``vf``, ``vt``: sensitivity; ``noise``),
        ``specificity`` (seconds of other rhythms without one), ``false_alarms`` and ``hours`` (runs of `ALARM` seconds
        in recordings without VT, VF or flutter), ``delay`` (median and 90 %, s, of episodes found), ``missed`` of
        ``episodes``, ``named`` (share of found VF seconds called flutter or fibrillation, of VT called tachycardia),
        and ``records``.
    """
    hits = {VF: [0, 0], VT: [0, 0], OTHER: [0, 0], NOISE: [0, 0]}
    named = {VF: [0, 0], VT: [0, 0]}
    alarms, hours, missed = 0, 0.0, 0
    delays: list[float] = []
    records: dict[str, Any] = {}
    for item in judged:
        label = np.where(item.example.label == AF, OTHER, item.example.label)
        on = item.on
        settled = np.arange(len(on)) >= SPAN
        positive = (label == VT) | (label == VF)
        own = {}
        for meaning, name in ((VF, "vf"), (VT, "vt"), (OTHER, "other"), (NOISE, "noise")):
            rows = settled & (label == meaning)
            hits[meaning][0] += int(on[rows].sum())
            hits[meaning][1] += int(rows.sum())
            if rows.any():
                own[name] = [int(on[rows].sum()), int(rows.sum())]
        records[item.example.key] = own
        for meaning, code in ((VF, _VFL), (VT, _VT)):
            rows = on & (label == meaning)
            named[meaning][0] += int((item.verdicts.code[rows] == code).sum())
            named[meaning][1] += int(rows.sum())
        if not positive.any():
            hours += len(on) / 3600
            alarms += len(runs(on & (label != DOUBT), ALARM))
        for first, end in runs(positive, EPISODE):
            # The label of a second needs three of the rhythm: the onset lies about 2.5 s before it.
            early = max(first - 3, 0)
            found = np.flatnonzero(on[early:end])
            if found.size:
                delays.append(float(early + found[0] + 1 - (first - 2.5)))
            else:
                missed += 1
    return {
        "vf": _percent(*hits[VF]),
        "vt": _percent(*hits[VT]),
        "specificity": _percent(hits[OTHER][1] - hits[OTHER][0], hits[OTHER][1]),
        "noise": _percent(*hits[NOISE]),
        "false_alarms": alarms,
        "hours": round(hours, 2),
        "delay": [round(float(v), 1) for v in np.percentile(delays, [50, 90])] if delays else [],
        "missed": missed,
        "episodes": len(delays) + missed,
        "named": {"vf": _percent(*named[VF]), "vt": _percent(*named[VT])},
        "records": records,
    }


def af_figures(judged: Sequence[Judged]) -> dict[str, Any]:
    """AF by second, from the first AF score on, where a verdict was given.

    Returns
    -------
    dict
        ``sensitivity``, ``specificity`` in percent, and ``records`` with the counts of each.
    """
    total = np.zeros(4, np.int64)
    records: dict[str, Any] = {}
    for item in judged:
        label = item.example.label
        known = np.cumsum(item.example.rows.af_due) > 0
        rows = known & np.isin(label, (AF, OTHER)) & (item.verdicts.code != _NOISE)
        said = item.verdicts.code == _AFIB
        real = label == AF
        counts = np.array(
            [(rows & a & b).sum() for a, b in ((real, said), (real, ~said), (~real, said), (~real, ~said))]
        )
        total += counts
        records[item.example.key] = counts.tolist()
    return {
        "sensitivity": _percent(total[0], total[0] + total[1]),
        "specificity": _percent(total[3], total[2] + total[3]),
        "records": records,
    }


def challenge_figures(judged: Sequence[Judged]) -> dict[str, Any]:
    """AF by recording of the AF challenge 2017.

    Returns
    -------
    dict
        ``f1`` of class A, ``found``, ``missed``, and ``false`` by true label.
    """
    found = missed = 0
    false: dict[str, int] = {}
    for item in judged:
        said = rhythm.record_verdict(item.verdicts) == "AFIB"
        whole = item.example.whole
        if whole == "A":
            found += said
            missed += not said
        elif said:
            false[whole] = false.get(whole, 0) + 1
    wrong = sum(false.values())
    f1 = 2 * found / max(2 * found + missed + wrong, 1)
    return {"f1": round(f1, 4), "found": found, "missed": missed, "false": dict(sorted(false.items()))}


def asystole_figures(judged: Sequence[Judged]) -> dict[str, int]:
    """Seconds called asystole, of all."""
    said = sum(int((item.verdicts.code == _ASYS).sum()) for item in judged)
    return {"seconds": said, "of": sum(len(item.verdicts.code) for item in judged)}


def scores_of(rows: Rows, shock: NDArray[np.float64], af: NDArray[np.float64]) -> Scores:
    """Scores of all rows from those of the due ones."""
    scores = Scores(np.zeros(len(rows.end), np.float32), np.zeros(len(rows.end), np.float32))
    scores.shock[rows.shock_due] = shock
    scores.af[rows.af_due] = af
    return scores


def _percent(part: int, whole: int) -> float | None:
    return round(100.0 * int(part) / int(whole), 2) if whole else None
