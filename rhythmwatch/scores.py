"""One record's analysis against its reference, and sums over records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inference.training import records as labelled
from inference.training import scoring
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
    classes_known : ndarray of int8, shape (k,)
        Class of each reference beat that was found, over the whole record.
    probabilities : ndarray of float32, shape (k, 8)
        What the beat network gave it.
    hours : float
        Length of the record.
    """

    name: str
    qrs: Counts
    qrs_50: Counts
    qrs_bxb: Counts
    matrix: NDArray[np.int64]
    classes: NDArray[np.int64]
    classes_known: NDArray[np.int8]
    probabilities: NDArray[np.float32]
    hours: float


def score(analysis: Analysis, record: labelled.Record, probabilities: NDArray[np.float32]) -> Scored:
    """Score what the pipeline said of a record.

    Parameters
    ----------
    analysis : Analysis
        From `rhythmwatch.analyze`.
    record : Record
        The same recording with its reference annotations.
    probabilities : ndarray of float32, shape (b, 8)
        Of all classes, one row a beat of `analysis`.
    """
    found = np.array([beat.sample for beat in analysis.beats], np.float64) / analysis.rate
    classes = np.array([CLASSES.index(beat.code) for beat in analysis.beats], np.int64)
    reference, excluded = record.beat_times, record.excluded
    partner = scoring.match(reference, found)
    paired = partner >= 0
    return Scored(
        name=record.name,
        qrs=scoring.detection(reference, found, excluded=excluded),
        qrs_50=scoring.detection(reference, found, window=0.05, excluded=excluded),
        qrs_bxb=scoring.detection(reference, found, start=scoring.LEARNING, excluded=excluded),
        matrix=scoring.confusion(reference, record.groups, found, _GROUPS[classes], excluded=excluded),
        classes=_class_matrix(reference, record.classes, found, classes),
        classes_known=record.classes[paired].astype(np.int8),
        probabilities=probabilities[partner[paired]],
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
