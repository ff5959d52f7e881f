"""Runs the QRS detector on whole recordings and counts what it found, missed and invented."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsp.layout import FS, Signal
from dsp.qrs import QrsWeights, new_states, reset, step
from inference.training import qrs_data
from inference.training.qrs_data import Piece
from inference.training.records import read
from inference.training.scoring import WINDOW, Counts, detection, gross, interval
from inference.training.splits import DS1, DS2, PACED

Layers = tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Pieces of one rate and one fold, framed."""

    pieces: list[Piece]
    signal: Signal
    fold: int


def frame(sources: list[tuple[int, Piece]], folds: int) -> list[Batch]:
    """Run pieces through the live front end, a batch for each rate and fold."""
    batches = []
    for rate in sorted({piece.rate for _, piece in sources}):
        for fold in range(folds):
            pieces = [piece for own, piece in sources if own == fold and piece.rate == rate]
            if pieces:
                batches.append(Batch(pieces, qrs_data.through_frontend(pieces), fold))
    return batches


def detect(signal: Signal, weights: QrsWeights) -> list[NDArray[np.float64]]:
    """Find the times (s from its first sample) of the beats of each patient of a batch."""
    n = signal.offsets.size - 1
    states = new_states(n)
    slots = np.arange(n)
    reset(states, slots, signal.start)
    peaks = step(states, slots, signal, weights)
    return [peaks.r[a:b] / FS for a, b in itertools.pairwise(peaks.offsets)]


def score(batches: list[Batch], weights: Callable[[int], QrsWeights], window: float = WINDOW) -> dict[str, Counts]:
    """Count found, missed and invented beats of the main leads, from the first second, by patient."""
    counts: dict[str, Counts] = {}
    for batch in batches:
        for piece, found in zip(batch.pieces, detect(batch.signal, weights(batch.fold)), strict=True):
            if not piece.main:
                continue
            own = detection(piece.beats, found, window=window, excluded=[(a, b) for a, b in piece.unsure])
            counts[piece.patient] = counts.get(piece.patient, Counts(0, 0, 0)) + own
    return counts


def figures(counts: Sequence[Counts]) -> dict[str, Any]:
    """Gross figures in percent with their 95 % intervals by record, and the counts."""
    total = gross(counts)
    return {
        "sensitivity": round(100 * total.sensitivity, 3),
        "sensitivity_95": [round(100 * v, 3) for v in interval(counts, lambda c: c.sensitivity)],
        "precision": round(100 * total.precision, 3),
        "precision_95": [round(100 * v, 3) for v in interval(counts, lambda c: c.precision)],
        "beats": total.tp + total.fn,
        "missed": total.fn,
        "invented": total.fp,
    }


def validate(batches: list[Batch], first: list[Layers], second: list[Layers], threshold: float) -> dict[str, Any]:
    """Figures of each database, each patient by networks that never saw it."""
    own = score(batches, lambda fold: QrsWeights(first[fold], second[fold], threshold))
    return {
        database: figures([counts for name, counts in own.items() if name.startswith(database)])
        for database in ("mitdb", "svdb")
    }


def main_leads(data_dir: Path, names: Sequence[str], weights: QrsWeights) -> dict[str, Counts]:
    """Count on the main leads of records of mitdb, from the first second, by ``database/name``."""
    records = [read(data_dir, "mitdb", name) for name in names]
    batches = frame([(0, qrs_data.whole(record, record.lead(), 1.0)) for record in records], 1)
    return score(batches, lambda _: weights)


def evaluate(data_dir: Path, weights: QrsWeights) -> dict[str, Any]:
    """Figures of the live detector on all 48 records of mitdb, by part and window, and in electrode motion.

    Parameters
    ----------
    data_dir : Path
        Folder with ``mitdb`` and ``nstdb``.
    weights : QrsWeights

    Returns
    -------
    dict
        From the first second; lead MLII, else the first; ``DS1`` has trained, ``DS2`` and the paced ones have not.
    """
    parts = {"DS1": DS1, "DS2": DS2, "all": (*DS1, *DS2, *PACED)}
    records = [read(data_dir, "mitdb", name) for name in parts["all"]]
    batches = frame([(0, qrs_data.whole(record, record.lead(), 1.0)) for record in records], 1)
    report: dict[str, Any] = {}
    for window in (WINDOW, 0.05):
        counts = score(batches, lambda _: weights, window)
        for part, chosen in parts.items():
            report[f"{part} {1000 * window:.0f} ms"] = figures([counts[f"mitdb/{name}"] for name in chosen])
    for name in ("118e12", "118e00"):
        piece = qrs_data.whole(read(data_dir, "nstdb", name), 0, 1.0)
        (found,) = detect(qrs_data.through_frontend([piece]), weights)
        stretches = [detection(piece.beats, found, start=a, end=b) for a, b in qrs_data.MOTION_TEST]
        report[f"{name} in noise before 900 s"] = figures(stretches)
    return report
