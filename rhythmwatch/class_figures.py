"""Figures of a classifier from its confusion matrix and its probabilities, as pure functions of arrays."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from rhythmwatch.episodes import percent

BINS: Final = 15
"""Bins of confidence of the calibration error (Guo et al. 2017)."""


def auc(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve by ranks (Mann and Whitney); NaN where one side is empty.

    Parameters
    ----------
    scores : ndarray of float32, shape (n,)
    positive : ndarray of bool, shape (n,)
    """
    count = int(positive.sum())
    if count in (0, len(positive)):
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def roc(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give false and true positive rates from the highest threshold to the lowest, each beginning at 0."""
    order = np.argsort(-scores, kind="stable")
    hits = positive[order]
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.concatenate([[0], np.cumsum(hits)[ends]]) / max(int(positive.sum()), 1)
    false = np.concatenate([[0], np.cumsum(~hits)[ends]]) / max(int((~positive).sum()), 1)
    return false, true


def reliability(probabilities: NDArray[np.float32], wanted: NDArray[np.int8]) -> dict[str, Any]:
    """Confidence of the likeliest class against how often it is right.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (n, classes)
    wanted : ndarray of int8, shape (n,)
        Class of each.

    Returns
    -------
    dict
        ``ece`` (expected calibration error, 0 to 1), ``confidence``, ``right`` and ``count`` by bin, empty bins left
        out.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == wanted
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    filled = count > 0
    mean = np.bincount(place, confidence, BINS)[filled] / count[filled]
    share = np.bincount(place, right, BINS)[filled] / count[filled]
    return {
        "ece": float((np.abs(mean - share) * count[filled]).sum() / max(len(wanted), 1)),
        "confidence": mean.tolist(),
        "right": share.tolist(),
        "count": count[filled].tolist(),
    }


def by_class(
    matrix: NDArray[np.int64], names: tuple[str, ...], probabilities: NDArray[np.float32], wanted: NDArray[np.int8]
) -> dict[str, dict[str, float | int]]:
    """One class against the rest, for each class.

    Parameters
    ----------
    matrix : ndarray of int64, shape (classes + 1, classes + 1)
        Reference by row; the last row invented beats, the last column missed ones: both count as errors.
    names : tuple of str, length classes
    probabilities : ndarray of float32, shape (n, classes)
        Of the beats that were found, for the AUC.
    wanted : ndarray of int8, shape (n,)
        Their classes.

    Returns
    -------
    dict of str to dict
        ``beats``; ``accuracy``, ``precision``, ``recall``, ``specificity`` in percent; ``f1``, ``auc`` from 0 to 1.
    """
    total = int(matrix.sum())
    figures: dict[str, dict[str, float | int]] = {}
    for number, name in enumerate(names):
        tp = int(matrix[number, number])
        fn, fp = int(matrix[number].sum()) - tp, int(matrix[:, number].sum()) - tp
        tn = total - tp - fn - fp
        figures[name] = {
            "beats": tp + fn,
            "accuracy": percent(tp + tn, total),
            "precision": percent(tp, tp + fp),
            "recall": percent(tp, tp + fn),
            "specificity": percent(tn, tn + fp),
            "f1": percent(2 * tp, 2 * tp + fn + fp) / 100,
            "auc": auc(probabilities[:, number], wanted == number) if len(wanted) else float("nan"),
        }
    return figures
