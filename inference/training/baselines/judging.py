"""Score baselines: accuracy by class on a random split, EC57 counts by record on patients never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.training.scoring import Counts, confusion, gross, interval, sveb, veb


@dataclass(frozen=True, slots=True)
class Truth:
    """What scoring needs of a record.

    Attributes
    ----------
    name : str
    times : ndarray of float64, shape (b,)
        Beats, s.
    classes, groups : ndarray of int64, shape (b,)
    excluded : tuple of (float, float)
        Episodes of ventricular flutter, s.
    """

    name: str
    times: NDArray[np.float64]
    classes: NDArray[np.int64]
    groups: NDArray[np.int64]
    excluded: tuple[tuple[float, float], ...]


def by_class(truth: NDArray[np.int64], found: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Accuracy, mean sensitivity over the classes that occur, F1 of each class, and the confusion matrix."""
    matrix = np.zeros((len(names), len(names)), np.int64)
    np.add.at(matrix, (truth, found), 1)
    hits, real, told = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return {
        "beats": int(real.sum()),
        "accuracy": round(100 * float(hits.sum() / real.sum()), 2),
        "mean_sensitivity": round(100 * float(np.mean(hits[real > 0] / real[real > 0])), 2),
        "f1": {
            name: round(float(2 * h / max(1, r + t)), 3) for name, h, r, t in zip(names, hits, real, told, strict=True)
        },
        "confusion": matrix.tolist(),
    }


def by_record(truths: Sequence[Truth], found: Sequence[NDArray[np.int64]]) -> dict[str, Any]:
    """EC57 figures of groups found at the reference's own beats: VEB, SVEB, accuracy over the five groups.

    Parameters
    ----------
    truths : sequence of Truth
    found : sequence of ndarray of int64
        AAMI group given to each beat of each record.
    """
    matrices = [
        confusion(t.times, t.groups, t.times, own, excluded=t.excluded) for t, own in zip(truths, found, strict=True)
    ]
    total = sum(matrices, np.zeros((6, 6), np.int64))
    others = [sveb(m) for t, m in zip(truths, matrices, strict=True) if t.name != "232"]
    return {
        "accuracy": round(100 * float(np.trace(total[:5, :5]) / total[:5].sum()), 2),
        "veb": _counts([veb(matrix) for matrix in matrices]),
        "sveb": _counts([sveb(matrix) for matrix in matrices]),
        "sveb_without_232": _counts(others),
        "confusion": total[:5, :5].tolist(),
    }


def bundle_branch(truths: Sequence[Truth], found: Sequence[NDArray[np.int64]]) -> dict[str, float]:
    """F1 of L and of R over beats that are N, L or R; classes in the order of ``records.CLASSES``."""
    truth = np.concatenate([t.classes for t in truths])
    told = np.concatenate(found)[truth < 3]
    truth = truth[truth < 3]
    pairs = ((name, truth == c, told == c) for c, name in ((1, "L"), (2, "R")))
    return {name: round(float(2 * (a & b).sum() / max(1, a.sum() + b.sum())), 3) for name, a, b in pairs}


def _counts(counts: Sequence[Counts]) -> dict[str, Any]:
    total = gross(counts)
    return {
        "se": round(total.sensitivity, 3),
        "ppv": round(total.precision, 3),
        "f1": round(total.f1, 3),
        "f1_95": [round(bound, 3) for bound in interval(counts, lambda c: c.f1)],
        "beats": total.tp + total.fn,
    }
