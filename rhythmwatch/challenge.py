"""Whole recordings of the AF challenge 2017: normal, AF or another rhythm, from what the live pipeline said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from inference import rhythm
from inference.training.scoring import Counts
from rhythmwatch.episodes import in_force, percent
from rhythmwatch.listening import Heard

LABELS: Final = ("N", "A", "O")


@dataclass(frozen=True, slots=True)
class Judged:
    """A recording and what was said of it.

    Attributes
    ----------
    name : str
    label : str
        Of the reference: N, A, O or ~.
    af_share : float
        Seconds with AF in force over those with a verdict other than noise, since the first one; 0 without any.
    af_record : bool
        `inference.rhythm.record_verdict` says AF.
    early, ventricular : float
        Expected number of premature atrial and of ventricular beats a minute (sums of probabilities).
    rate : float
        Median heart rate, 1/min; 0 without beats.
    spread : float
        Median absolute difference of successive RR intervals over the median RR interval.
    hours : float
        Length.
    """

    name: str
    label: str
    af_share: float
    af_record: bool
    early: float
    ventricular: float
    rate: float
    spread: float
    hours: float

    @property
    def said(self) -> str:
        """A where AF held for over half of the time; else O or N."""
        if self.af_share > 0.5:
            return "A"
        return "O" if self.other else "N"

    @property
    def other(self) -> bool:
        """Whether a recording without AF is not a normal sinus rhythm: ectopy, an odd rate, an uneven one."""
        ectopic = self.early > EARLY or self.ventricular > VENTRICULAR
        return ectopic or not SLOW <= self.rate <= FAST or self.spread > SPREAD


EARLY: Final = 5.0
"""Premature atrial beats a minute from which a recording is no normal one; this limit and those below are the best of
a grid on recordings of the challenge's training part."""

VENTRICULAR: Final = 2.0
"""Ventricular beats a minute."""

SLOW: Final = 55.0
FAST: Final = 95.0
"""Normal heart rates, 1/min."""

SPREAD: Final = 0.08
"""Change from one RR interval to the next, median over the median interval."""


def judge(heard: Heard, label: str) -> Judged:
    """Sum a recording up.

    Parameters
    ----------
    heard : Heard
        Its analysis.
    label : str
        Of the reference.
    """
    analysis, verdicts = heard.analysis, heard.verdicts
    seconds = analysis.length / analysis.rate
    count = int(seconds)
    said = in_force(analysis.marks, np.asarray((np.arange(count) + 0.5) * analysis.rate, np.float64))
    known = np.flatnonzero((said != "") & (said != "NOISE"))
    rr = np.diff([beat.sample for beat in analysis.beats]) / analysis.rate
    typical = float(np.median(rr)) if rr.size else 0.0
    p = heard.probabilities.sum(axis=0) * 60 / max(seconds, 1.0)
    return Judged(
        name=analysis.name,
        label=label,
        af_share=float((said[known] == "AFIB").mean()) if known.size else 0.0,
        af_record=rhythm.record_verdict(verdicts) == "AFIB",
        early=float(p[3]),
        ventricular=float(p[4] + p[5]),
        rate=60 / typical if typical else 0.0,
        spread=float(np.median(np.abs(np.diff(rr))) / typical) if rr.size > 1 else 0.0,
        hours=seconds / 3600,
    )


def f1(judged: Sequence[Judged], said: Sequence[str]) -> dict[str, Counts]:
    """Count each of `LABELS` over recordings (noisy ones count where they were given that label).

    Parameters
    ----------
    judged : sequence of Judged
    said : sequence of str
        One label a recording.
    """
    counts = {}
    for label in LABELS:
        pairs = [(item.label == label, word == label) for item, word in zip(judged, said, strict=True)]
        counts[label] = Counts(
            sum(a and b for a, b in pairs), sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
        )
    return counts


def challenge_figures(judged: Sequence[Judged]) -> dict[str, Any]:
    """F1 of AF and of the three labels, and the table behind them."""
    said = [item.said for item in judged]
    counts = f1(judged, said)
    record = f1(judged, ["A" if item.af_record else "" for item in judged])["A"]
    table = {
        label: [sum(item.label == label and word == other for item, word in zip(judged, said, strict=True))
                for other in LABELS]
        for label in (*LABELS, "~")
    }  # fmt: skip
    return {
        "recordings": len(judged),
        "hours": round(sum(item.hours for item in judged), 2),
        "f1": {label: round(value.f1, 4) for label, value in counts.items()},
        "mean_f1": round(float(np.mean([value.f1 for value in counts.values()])), 4),
        "af_se": round(percent(counts["A"].tp, counts["A"].tp + counts["A"].fn), 2),
        "af_ppv": round(percent(counts["A"].tp, counts["A"].tp + counts["A"].fp), 2),
        "f1_af_record_score": round(record.f1, 4),
        "table": table,
    }
