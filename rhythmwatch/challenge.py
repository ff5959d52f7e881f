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
    said : str
        Verdict on the whole: N, A, O or ~ (`inference.recording`).
    hours : float
        Length.
    """

    name: str
    label: str
    af_share: float
    af_record: bool
    said: str
    hours: float


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
    return Judged(
        name=analysis.name,
        label=label,
        af_share=float((said[known] == "AFIB").mean()) if known.size else 0.0,
        af_record=rhythm.record_verdict(verdicts) == "AFIB",
        said=heard.whole.label,
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
    """F1 of the three labels by the verdict on the whole with its table, and of AF by the verdicts of its seconds.

    ``f1_af_half``, ``af_se`` and ``af_ppv`` take A where AF was in force for over half of the time.
    """
    said = [item.said for item in judged]
    counts = f1(judged, said)
    record = f1(judged, ["A" if item.af_record else "" for item in judged])["A"]
    half = f1(judged, ["A" if item.af_share > 0.5 else "" for item in judged])["A"]
    table = {
        label: [sum(item.label == label and word == other for item, word in zip(judged, said, strict=True))
                for other in (*LABELS, "~")]
        for label in (*LABELS, "~")
    }  # fmt: skip
    return {
        "recordings": len(judged),
        "hours": round(sum(item.hours for item in judged), 2),
        "f1": {label: round(value.f1, 4) for label, value in counts.items()},
        "mean_f1": round(float(np.mean([value.f1 for value in counts.values()])), 4),
        "af_se": round(percent(half.tp, half.tp + half.fn), 2),
        "af_ppv": round(percent(half.tp, half.tp + half.fp), 2),
        "f1_af_half": round(half.f1, 4),
        "f1_af_record_score": round(record.f1, 4),
        "table": table,
    }
