"""One record's analysis against its reference, and sums over records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from inference.training import records as labelled
from inference.training import scoring, splits
from inference.training.records import CLASSES, GROUP_OF_CLASS
from inference.training.scoring import Counts
from rhythmwatch.analyze import Analysis

_GROUPS: Final = np.array(GROUP_OF_CLASS, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One record against its reference.

    Attributes
    ----------
    qrs, qrs_50 : Counts
        From the first second, match windows of 150 and 50 ms.
    qrs_bxb : Counts
        Without the learning period of 5 min.
    matrix : ndarray of int64, shape (6, 6)
        AAMI groups, `bxb` conventions.
    classes : ndarray of int64, shape (9, 9)
        The eight classes (the ninth: missed or invented), over the whole record.
    alarms : dict of str to int
        Alarms by kind.
    """

    name: str
    qrs: Counts
    qrs_50: Counts
    qrs_bxb: Counts
    matrix: NDArray[np.int64]
    classes: NDArray[np.int64]
    alarms: dict[str, int]
    hours: float


def score(analysis: Analysis, record: labelled.Record) -> Scored:
    """Score what the pipeline said of a record.

    Parameters
    ----------
    analysis : Analysis
        From `rhythmwatch.analyze`.
    record : Record
        The same recording with its reference annotations.
    """
    found = np.array([beat.sample for beat in analysis.beats], np.float64) / analysis.rate
    classes = np.array([CLASSES.index(beat.code) for beat in analysis.beats], np.int64)
    reference, excluded = record.beat_times, record.excluded
    alarms: dict[str, int] = {}
    for alarm in analysis.alarms:
        alarms[alarm.kind] = alarms.get(alarm.kind, 0) + 1
    return Scored(
        name=record.name,
        qrs=scoring.detection(reference, found, excluded=excluded),
        qrs_50=scoring.detection(reference, found, window=0.05, excluded=excluded),
        qrs_bxb=scoring.detection(reference, found, start=scoring.LEARNING, excluded=excluded),
        matrix=scoring.confusion(reference, record.groups, found, _GROUPS[classes], excluded=excluded),
        classes=_class_matrix(reference, record.classes, found, classes),
        alarms=alarms,
        hours=analysis.length / analysis.rate / 3600,
    )


def _class_matrix(
    reference: NDArray[np.float64], wanted: NDArray[np.int64], found: NDArray[np.float64], got: NDArray[np.int64]
) -> NDArray[np.int64]:
    other = len(CLASSES)
    matrix = np.zeros((other + 1, other + 1), np.int64)
    partner = scoring.match(reference, found)
    paired = partner >= 0
    np.add.at(matrix, (wanted[paired], got[partner[paired]]), 1)
    np.add.at(matrix, (wanted[~paired], np.full(int((~paired).sum()), other)), 1)
    invented = np.ones(len(found), bool)
    invented[partner[paired]] = False
    np.add.at(matrix, (np.full(int(invented.sum()), other), got[invented]), 1)
    return matrix


def figures_of(scored: Sequence[Scored]) -> dict[str, Any]:
    """Gross figures of a set of records, in percent."""
    matrix = np.sum([item.matrix for item in scored], axis=0)

    def row(counts: Counts) -> dict[str, float | int]:
        return {
            "se": round(100 * counts.sensitivity, 3),
            "ppv": round(100 * counts.precision, 3),
            "f1": round(counts.f1, 4),
            "missed": counts.fn,
            "false": counts.fp,
        }

    return {
        "records": [item.name for item in scored],
        "qrs": row(scoring.gross([item.qrs for item in scored])),
        "qrs_50ms": row(scoring.gross([item.qrs_50 for item in scored])),
        "qrs_bxb": row(scoring.gross([item.qrs_bxb for item in scored])),
        "veb": row(scoring.veb(matrix)),
        "sveb": row(scoring.sveb(matrix)),
    }


def of_split(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Sort records by split; ``DS2`` tests, the others train or stay out."""
    sets = {"DS1": splits.DS1, "DS2": splits.DS2, "paced": splits.PACED}
    return {name: [item for item in scored if item.name in wanted] for name, wanted in sets.items()}
