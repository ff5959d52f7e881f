"""Patient-wise cross-validation of beat models: folds, verdicts on whole recordings, EC57 figures, what they tune."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsp.layout import FS
from dsp.qrs import QrsWeights
from inference.beats import CLASSES, probabilities
from inference.training.beat_data import SHIPPED_IMAGE, Strip, Table, annotated, detected, load, rows
from inference.training.beat_fit import groups
from inference.training.beat_rows import Name
from inference.training.records import GROUP_OF_CLASS
from inference.training.scoring import Counts, confusion, gross, interval, sveb, veb

_GROUP = np.array(GROUP_OF_CLASS)

Whole = tuple[Strip, Table]
"""A recording and the rows of all beats that were found in it."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a model says on one whole recording.

    Attributes
    ----------
    source : Strip
    r : ndarray of int64, shape (m,)
    allowed : ndarray of uint8, shape (m,)
    logits : ndarray of float64, shape (m, 8)
    """

    source: Strip
    r: NDArray[np.int64]
    allowed: NDArray[np.uint8]
    logits: NDArray[np.float64]


def folds(names: Sequence[Name], count: int) -> list[list[Name]]:
    """Deal patients to folds; each fold is held out once. Recordings of cinc2017 are in none of them."""
    patients = [name for name in names if name[0] != "cinc2017"]
    return [patients[fold::count] for fold in range(count)]


def whole(data_dir: Path, name: Name, weights: QrsWeights | None, image: str = SHIPPED_IMAGE) -> Whole:
    """Rows of a whole recording, with the live detector's R peaks (`weights`) or the annotated ones (None)."""
    source = load(data_dir, *name)
    peaks = annotated(source.beats, source.x.size) if weights is None else detected(source, weights)
    return source, rows(source, peaks, None, image)


def judged(one: Whole, logits: NDArray[Any]) -> Verdicts:
    """Verdicts on a recording by the logits of its rows."""
    source, table = one
    return Verdicts(source, table.r, table.allowed, logits.astype(np.float64))


def score(source: Strip, r: NDArray[np.int64], called: NDArray[np.int64]) -> NDArray[np.int64]:
    """Confusion matrix (EC57) of one recording for classes `called` at `r`."""
    return confusion(source.beats / FS, groups(source.allowed), r / FS, _GROUP[called], excluded=source.excluded)


def figures(matrices: Sequence[NDArray[np.int64]]) -> dict[str, Any]:
    """Gross VEB and SVEB figures with 95 % intervals by record, and the summed confusion matrix."""
    result: dict[str, Any] = {"confusion": np.sum(matrices, axis=0).tolist(), "records": len(matrices)}
    for name, of in (("veb", veb), ("sveb", sveb)):
        counts = [of(matrix) for matrix in matrices]
        total = gross(counts)
        entry: dict[str, Any] = {"tp": total.tp, "fn": total.fn, "fp": total.fp}
        for key in ("sensitivity", "precision", "f1"):
            low, high = interval(counts, attrgetter(key), rounds=500)
            entry[key] = [round(v, 4) for v in (getattr(total, key), low, high)]
        result[name] = entry
    return result


def line(label: str, found: dict[str, Any]) -> str:
    """One line for people: sensitivity / precision / F1 in percent."""
    parts = [
        f"{name.upper()} " + "/".join(f"{100 * found[name][key][0]:.1f}" for key in ("sensitivity", "precision", "f1"))
        for name in ("veb", "sveb")
    ]
    return f"{label}: {', '.join(parts)}"


def choose_bias(verdicts: Sequence[Verdicts], settings: dict[str, Any]) -> NDArray[np.float64]:
    """Find the biases of S and V with the best mean of the VEB and SVEB F1 over held-out recordings."""
    best, result = -1.0, np.zeros(len(CLASSES))
    for s in settings["bias_s"]:
        for v in settings["bias_v"]:
            bias = np.zeros(len(CLASSES))
            bias[3], bias[4] = s, v
            matrices = [score(one.source, one.r, np.argmax(one.logits + bias, axis=1)) for one in verdicts]
            mean = _f1(matrices, veb) + _f1(matrices, sveb)
            if mean > best:
                best, result = mean, bias
    return result


def _f1(matrices: Sequence[NDArray[np.int64]], of: Callable[[NDArray[np.int64]], Counts]) -> float:
    return gross([of(matrix) for matrix in matrices]).f1


def choose_temperature(logits: NDArray[np.float64], allowed: NDArray[np.uint8]) -> float:
    """Find the temperature with the least negative log-likelihood on held-out rows, on a grid of 2 %."""
    known = allowed > 0
    bits = ((allowed[known, None] >> np.arange(len(CLASSES))) & 1).astype(bool)
    best, result = np.inf, 1.0
    for temperature in np.exp(np.arange(-0.7, 1.4, 0.02)):
        p = probabilities(logits[known], float(temperature))
        value = -np.log(np.maximum((p * bits).sum(axis=1), 1e-7)).mean()
        if value < best:
            best, result = float(value), float(temperature)
    return round(result, 4)


def mean_f1(verdicts: Sequence[Verdicts], bias: NDArray[np.float64]) -> float:
    """Mean of the VEB and SVEB F1, gross over the recordings."""
    matrices = [score(one.source, one.r, np.argmax(one.logits + bias, axis=1)) for one in verdicts]
    return 0.5 * (_f1(matrices, veb) + _f1(matrices, sveb))


def cross_report(verdicts: Sequence[Verdicts], bias: NDArray[np.float64]) -> dict[str, dict[str, Any]]:
    """Figures of all held-out recordings, by database, and without svdb/865 (sustained SVT that all models miss)."""
    named = [(v.source.name, score(v.source, v.r, np.argmax(v.logits + bias, axis=1))) for v in verdicts]
    chosen = {
        "all": [matrix for _, matrix in named],
        "mitdb": [matrix for name, matrix in named if name.startswith("mitdb")],
        "svdb": [matrix for name, matrix in named if name.startswith("svdb")],
        "without svdb/865": [matrix for name, matrix in named if name != "svdb/865"],
    }
    return {label: figures(matrices) for label, matrices in chosen.items() if matrices}
