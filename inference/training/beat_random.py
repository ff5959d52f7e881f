"""Random split of beats, the experiment most papers report: beats of one patient on both sides. Never shipped.

All 48 records of mitdb, annotated R peaks, 80 % of each class train and 20 % test; the same features, image and network
as the shipped model, with all eight classes, paced beats among them.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.beats import CLASSES
from inference.training.beat_data import annotated, load, rows
from inference.training.beat_fit import Rows, fit_network, network_logits
from inference.training.records import names


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
    settings = config["random_split"]
    torch.set_num_threads(1)
    tables = []
    for name in names(data_dir, "mitdb")[::every]:
        source = load(data_dir, "mitdb", name)
        tables.append(rows(source, annotated(source.beats, source.x.size)))
    progress(f"random split: rows of {len(tables)} records")
    kept = [one.allowed > 0 for one in tables]
    data = Rows(
        np.concatenate([one.features[mask] for one, mask in zip(tables, kept, strict=True)]),
        np.concatenate([one.images[mask] for one, mask in zip(tables, kept, strict=True)]),
        np.concatenate([one.allowed[mask] for one, mask in zip(tables, kept, strict=True)]),
        np.ones(sum(int(mask.sum()) for mask in kept), np.float32),
    )
    true = np.round(np.log2(data.allowed)).astype(np.int64)
    train, test = halves(true, settings["held_out"], np.random.default_rng(config["seed"]))
    part = Rows(data.features[train], data.images[train], data.allowed[train], data.weight[train])
    network = fit_network(part, settings, config["seed"], progress)
    logits = network_logits(network, data.features[test], data.images[test])
    report = {
        "what": "random 80/20 split of beats within each class, all 48 mitdb records; patients lie on both sides",
        "seed": config["seed"],
        "train_beats": int(train.size),
        "test_beats": int(test.size),
        **table(true[test], np.argmax(logits, axis=1)),
    }
    progress(f"random split: accuracy {100 * report['accuracy']:.2f} % of {test.size} beats")
    out_path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return report
