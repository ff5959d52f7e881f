"""Random split of beats, the experiment most papers report: beats of one patient on both sides. Never shipped.

All 48 records of mitdb, annotated R peaks, 80 % of each class train and 20 % test; all eight classes, paced beats among
them. Three models of the training beats speak together: the beat network on the image and features, boosted trees on
the features and on the waves of both leads, and the nearest training beats by wave. A quarter of the
*training* beats is held out of a first fit, to choose what each model's word weighs and how much the rare classes gain
(Menon et al. 2021, "Long-tail learning via logit adjustment"); then all training beats are fitted. The test beats
choose nothing. Nothing here has to run live: it sees both leads and the next beat.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import signal as sps

from dsp.layout import FS
from inference.beats import CLASSES
from inference.training.beat_data import annotated, rows, strip
from inference.training.beat_fit import Rows, fit_network, network_logits
from inference.training.records import names, read

WAVE: Final = np.arange(-80, 116, 2)
"""Samples round R that a wave is made of."""

COMPONENTS: Final = 40

RARE: Final = np.arange(0.0, 1.01, 0.1)
"""Shares of ``-ln(frequency)`` that are tried as an offset of each class."""

WEIGHTS: Final = ((1, 1, 1), (1, 1, 0), (0, 1, 0), (1, 2, 1), (2, 1, 1), (1, 2, 0))
"""What the network, the trees and the neighbours weigh."""


@dataclass(frozen=True, slots=True)
class Beats:
    """Beats of all records.

    Attributes
    ----------
    rows : Rows
        Features and image of the first analysed lead.
    wide : ndarray of float32, shape (m, features)
        Features of the first lead, intervals to the neighbours, waves of both leads.
    waves : ndarray of float32, shape (m, leads * WAVE.size)
        mV, without baseline.
    classes : ndarray of int64, shape (m,)
        Indices into `CLASSES`.
    """

    rows: Rows
    wide: NDArray[np.float32]
    waves: NDArray[np.float32]
    classes: NDArray[np.int64]

    def part(self, index: NDArray[np.int64]) -> Beats:
        """Take some beats."""
        some = Rows(*(getattr(self.rows, name)[index] for name in ("features", "images", "allowed", "weight")))
        return Beats(some, self.wide[index], self.waves[index], self.classes[index])


def halves(
    classes: NDArray[np.int64], held_out: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows at random within each class.

    Parameters
    ----------
    classes : ndarray of int64, shape (m,)
    held_out : float
        Share of each class that tests.
    rng : Generator

    Returns
    -------
    (ndarray of int64, ndarray of int64)
        Indices that train, and that test.
    """
    test = []
    for index in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == index))
        test.append(members[: round(held_out * members.size)])
    held = np.sort(np.concatenate(test))
    return np.setdiff1d(np.arange(classes.size), held), held


def table(true: NDArray[np.int64], called: NDArray[np.int64]) -> dict[str, Any]:
    """Accuracy, and for each class its beats, sensitivity, precision and F1.

    Parameters
    ----------
    true, called : ndarray of int64, shape (m,)
        Indices into `CLASSES`.

    Returns
    -------
    dict
    """
    confusion = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(confusion, (true, called), 1)
    hits = np.diag(confusion)
    of, as_ = confusion.sum(axis=1), confusion.sum(axis=0)
    classes = {
        code: {
            "beats": int(of[i]),
            "sensitivity": round(float(hits[i] / of[i]), 4) if of[i] else None,
            "precision": round(float(hits[i] / as_[i]), 4) if as_[i] else None,
            "f1": round(float(2 * hits[i] / (of[i] + as_[i])), 4) if of[i] else None,
        }
        for i, code in enumerate(CLASSES)
    }
    present = of > 0
    return {
        "accuracy": round(float(hits.sum() / of.sum()), 5),
        "mean_sensitivity": round(float((hits[present] / of[present]).mean()), 4),
        "classes": classes,
        "confusion": confusion.tolist(),
    }


def gather(data_dir: Path, every: int = 1) -> Beats:
    """Read all beats of mitdb.

    Parameters
    ----------
    data_dir : Path
        Folder that holds ``mitdb``.
    every : int
        Take every n-th record (tests).

    Returns
    -------
    Beats
    """
    parts = []
    for name in names(data_dir, "mitdb")[::every]:
        record = read(data_dir, "mitdb", name)
        first = record.lead()
        strips = [strip(record, lead) for lead in (first, 1 - first)]
        made = rows(strips[0], annotated(strips[0].beats, strips[0].x.size))
        r = made.r
        # An interval that is not known counts as a usual one.
        rr = np.diff(r) / FS
        usual = float(np.median(rr))
        gaps = np.concatenate([[usual] * 3, rr, [usual] * 3]).astype(np.float32)
        around = np.stack([gaps[i : i + r.size] for i in range(1, 6)], axis=1)
        waves = np.concatenate([_waves(one.x, r) for one in strips], axis=1)
        wide = np.concatenate([made.features, around, around / usual, waves], axis=1)
        keep = made.allowed > 0
        ones = np.ones(int(keep.sum()), np.float32)
        found = Rows(made.features[keep], made.images[keep], made.allowed[keep], ones)
        parts.append(Beats(found, wide[keep], waves[keep], np.round(np.log2(found.allowed)).astype(np.int64)))
    columns = ("features", "images", "allowed", "weight")
    joined = Rows(*(np.concatenate([getattr(one.rows, name) for one in parts]) for name in columns))
    return Beats(
        joined, *(np.concatenate([getattr(one, name) for one in parts]) for name in ("wide", "waves", "classes"))
    )


def _waves(x: NDArray[np.float32], r: NDArray[np.int64]) -> NDArray[np.float32]:
    flat = sps.sosfiltfilt(sps.butter(2, (0.5, 40.0), "bandpass", fs=FS, output="sos"), x).astype(np.float32)
    return np.asarray(flat[np.clip(r[:, None] + WAVE, 0, x.size - 1)], np.float32)


def fit_trees(data: Beats, settings: dict[str, Any], seed: int) -> lgb.Booster:
    """Fit trees on features, intervals and waves; each class weighs (its beats) to the minus ``balance``."""
    count = np.bincount(data.classes, minlength=len(CLASSES))
    weight = count[data.classes].astype(np.float64) ** -settings["balance"]
    parameters = {
        "objective": "multiclass", "num_class": len(CLASSES), "learning_rate": settings["rate"],
        "num_leaves": settings["leaves"], "feature_fraction": settings["feature_fraction"], "bagging_fraction": 0.5,
        "bagging_freq": 1, "min_data_in_leaf": settings["least"], "lambda_l2": settings["l2"], "num_threads": 1,
        "seed": seed, "deterministic": True, "force_row_wise": True, "verbose": -1,
    }  # fmt: skip
    train = lgb.Dataset(data.wide, data.classes, weight=weight / weight.mean(), params={"max_bin": 63, "verbose": -1})
    return lgb.train(parameters, train, settings["trees"])


def neighbours(
    train: NDArray[np.float32], classes: NDArray[np.int64], asked: NDArray[np.float32], k: int
) -> NDArray[np.float64]:
    """Log-probability of each class by the `k` nearest training waves, closer ones counting more.

    Distances are taken between the first `COMPONENTS` principal components.

    Parameters
    ----------
    train : ndarray of float32, shape (m, points)
    classes : ndarray of int64, shape (m,)
    asked : ndarray of float32, shape (n, points)
    k : int

    Returns
    -------
    ndarray of float64, shape (n, len(CLASSES))
    """
    _, axes = np.linalg.eigh(train.T @ train)
    kept = axes[:, -COMPONENTS:]
    train, asked = train @ kept, asked @ kept
    square = (train**2).sum(axis=1)
    result = np.empty((len(asked), len(CLASSES)))
    for at in range(0, len(asked), 256):
        part = asked[at : at + 256]
        far = square - 2 * (part @ train.T) + (part**2).sum(axis=1)[:, None]
        near = np.argpartition(far, k - 1, axis=1)[:, :k]
        distance = np.maximum(np.take_along_axis(far, near, axis=1), 1e-6)
        weight = 1.0 / (distance / distance.min(axis=1, keepdims=True))
        votes = np.zeros((len(part), len(CLASSES)))
        for column in range(k):
            votes[np.arange(len(part)), classes[near[:, column]]] += weight[:, column]
        result[at : at + 256] = np.log(votes / votes.sum(axis=1, keepdims=True) + 0.02)
    return result


def speak(
    train: Beats, asked: Beats, settings: dict[str, Any], seed: int, progress: Callable[[str], None]
) -> list[NDArray[np.float64]]:
    """Fit the three models and give their log-probabilities of the beats that are asked, each of shape (n, classes)."""
    network = fit_network(train.rows, settings, seed, progress).network
    said = network_logits(network, asked.rows.features, asked.rows.images).astype(np.float64)
    booster = fit_trees(train, settings["trees"], seed)
    scores = np.asarray(booster.predict(asked.wide, raw_score=True, num_threads=1), np.float64)
    near = neighbours(train.waves, train.classes, asked.waves, settings["neighbours"])
    return [_normalised(part) for part in (said, scores, near)]


def _normalised(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def combined(said: Sequence[NDArray[np.float64]], weights: Sequence[float]) -> NDArray[np.float64]:
    """Weighted mean of log-probabilities."""
    mean = sum(weight * part for weight, part in zip(weights, said, strict=True)) / sum(weights)
    return np.asarray(mean)


def choose(
    said: Sequence[NDArray[np.float64]], classes: NDArray[np.int64], frequency: NDArray[np.float64], least: float
) -> tuple[tuple[int, ...], float]:
    """Find the weights and the offset of rare classes with the best mean sensitivity at an accuracy of `least`.

    Parameters
    ----------
    said : sequence of ndarray of float64, shape (m, classes)
        Of beats that no model was fitted on.
    classes : ndarray of int64, shape (m,)
    frequency : ndarray of float64, shape (classes,)
        Of the training beats.
    least : float
        Accuracy; where none reaches it, the most accurate are taken.

    Returns
    -------
    (tuple of int, float)
        One of `WEIGHTS`, one of `RARE`.
    """
    best = (-1.0, -1.0)
    result: tuple[tuple[int, ...], float] = (WEIGHTS[0], 0.0)
    for weights in WEIGHTS:
        mean = combined(said, weights)
        for rare in RARE:
            found = table(classes, np.argmax(mean - rare * np.log(frequency), axis=1))
            reached = found["accuracy"] >= least
            value = (1.0, found["mean_sensitivity"]) if reached else (0.0, found["accuracy"])
            if value > best:
                best, result = value, (weights, float(rare))
    return result


def random_split(
    config_path: Path, data_dir: Path, out_path: Path, progress: Callable[[str], None], every: int = 1
) -> dict[str, Any]:
    """Train on a random 80 % of all beats of mitdb and report on the rest.

    Parameters
    ----------
    config_path : Path
        TOML, section ``random_split``.
    data_dir : Path
        Folder that holds ``mitdb``.
    out_path : Path
        JSON report to write.
    progress : callable
        Told a line now and then.
    every : int
        Take every n-th record (tests).

    Returns
    -------
    dict
        The report.
    """
    config = tomllib.loads(config_path.read_text("utf-8"))
    settings = {**config["random_split"], "shape": config["random_split"].get("shape", config["network"]["shape"])}
    torch.set_num_threads(1)
    data = gather(data_dir, every)
    progress(f"random split: {data.classes.size} beats")
    train, test = halves(data.classes, settings["held_out"], np.random.default_rng(config["seed"]))
    fitted, chosen = halves(data.classes[train], settings["choose"], np.random.default_rng(config["seed"] + 1))
    inner, outer = data.part(train[fitted]), data.part(train[chosen])
    frequency = np.maximum(np.bincount(data.classes[train], minlength=len(CLASSES)), 1) / train.size
    held = speak(inner, outer, settings, config["seed"], progress)
    weights, rare = choose(held, outer.classes, frequency, settings["accuracy"])
    progress(f"random split: network, trees, neighbours weigh {weights}, rare classes {rare:.1f}")
    said = speak(data.part(train), data.part(test), settings, config["seed"], progress)
    true = data.classes[test]
    called = np.argmax(combined(said, weights) - rare * np.log(frequency), axis=1)
    alone = {
        name: {key: table(true, np.argmax(part, axis=1))[key] for key in ("accuracy", "mean_sensitivity")}
        for name, part in zip(("network", "trees", "neighbours"), said, strict=True)
    }
    report = {
        "what": (
            "random 80/20 split of beats within each class, all 48 mitdb records, both leads and the next beat known; "
            "patients lie on both sides"
        ),
        "seed": config["seed"],
        "train_beats": int(train.size),
        "test_beats": int(test.size),
        "weights": list(weights),
        "rare": rare,
        "alone": alone,
        **table(true, called),
    }
    progress(f"random split: accuracy {100 * report['accuracy']:.2f} % of {test.size} beats")
    out_path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return report
