"""Trainer of the model of whole recordings, on the training part of the AF challenge 2017.

Beats and rows come from the live stages. The AF model has learnt from the same recordings, so that its scores of them
are too good: each recording is scored by an AF model of a fold that has not seen it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from dsp import frontend, qrs, spectrogram
from dsp.layout import BLOCK, FS
from dsp.qrs import QrsWeights
from inference import features, qrs_model, rhythm
from inference.beats import BeatModel
from inference.contract import Contract
from inference.recording import FEATURES, LABELS, MODEL, recording_features
from inference.rhythm import RhythmModel, Rows
from inference.training import splits
from inference.training.beat_data import pieces
from inference.training.records import Record, names, read_challenge
from inference.training.rhythm import af_table
from inference.training.rhythm_data import AF, NOISE, OTHER, SVDB_AF, Example, Progress, recordings
from inference.training.rhythm_scores import scores_of
from inference.training.trees import fit, predict, save

TAIL_S = 2.0
"""Missing samples after the end that let the last beats be decided, s."""


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """A recording behind the live stages.

    Attributes
    ----------
    example : Example
        Rows and labels for the AF model.
    r : ndarray of int64, shape (b,)
        R peaks, index at 250 Hz.
    probabilities : ndarray of float32, shape (b, 8)
    shock : ndarray of float32, shape (m,)
        Shockable scores of the rows.
    seconds : float
    """

    example: Example
    r: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    shock: NDArray[np.float32]
    seconds: float


def hear(record: Record, weights: QrsWeights, beats: BeatModel, model: RhythmModel) -> Heard:
    """Run a recording through all stages.

    Parameters
    ----------
    record : Record
        Of one lead.
    weights : QrsWeights
    beats : BeatModel
    model : RhythmModel

    Returns
    -------
    Heard
    """
    slots, start = np.zeros(1, np.int64), np.zeros(1, np.int64)
    front, detector, windows = frontend.new_states(1), qrs.new_states(1), rhythm.new_states(1)
    spectra, states = spectrogram.new_states(1), features.new_states(1)
    frontend.reset(front, slots, np.ones(1, np.int64), start)
    qrs.reset(detector, slots, start)
    tail = np.full(round(TAIL_S * record.rate), np.nan, np.float32)
    raw = np.concatenate([record.mv[:, 0].astype(np.float32), tail])[:, None]
    whole = frontend.step(front, slots, raw, np.array([0, len(raw)]), record.rate).signal
    found: list[features.Rows] = []
    seen: list[Rows] = []
    for signal in pieces(whole.x, whole.flags[: whole.x.size // BLOCK]):
        peaks = qrs.step(detector, slots, signal, weights)
        spectrogram.step(spectra, slots, signal)
        found.append(features.step(states, slots, spectra, signal, peaks))
        seen.append(rhythm.step(windows, slots, signal, peaks))
    seconds = len(record.mv) / record.rate
    r = np.concatenate([part.r for part in found])
    p = np.concatenate([beats.classify(part) for part in found if len(part.r)]) if r.size else np.zeros((0, 8))
    rows = Rows(
        np.array([0, sum(len(part.end) for part in seen)], np.int64),
        *(np.concatenate([getattr(part, field.name) for part in seen]) for field in fields(Rows)[1:]),
    )
    meaning = {"A": AF, "~": NOISE}.get(record.label, OTHER)
    label = np.full(len(rows.end), meaning, np.int8)
    inside = r < seconds * FS
    return Heard(
        Example("cinc2017", record.name, "clean", rows, label, record.label),
        r[inside],
        np.asarray(p[inside], np.float32),
        model.classify(rows).shock,
        seconds,
    )


def held_out_table(
    heard: Sequence[Heard], others: Sequence[Example], rhythm_config: dict[str, Any], folds: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Rows of recordings, with AF scores of models that were fitted without them.

    Parameters
    ----------
    heard : sequence of Heard
    others : sequence of Example
        What else trains the AF model.
    rhythm_config : dict
        Configuration of the rhythm trainer.
    folds : ndarray of int64, shape (len(heard),)

    Returns
    -------
    ndarray of float32, shape (len(heard), len(FEATURES))
    """
    settings, seed = rhythm_config["af"], rhythm_config["seed"]
    table = np.zeros((len(heard), len(FEATURES)), np.float32)
    for number in range(int(folds.max()) + 1):
        rest = [item.example for item, fold in zip(heard, folds, strict=True) if fold != number]
        booster = fit(*af_table([*others, *rest], settings["weight"]), settings, seed)
        for k in np.flatnonzero(folds == number).tolist():
            rows = heard[k].example.rows
            scores = scores_of(
                rows, heard[k].shock[rows.shock_due].astype(np.float64), predict([booster], rows.af[rows.af_due])
            )
            table[k] = recording_features(heard[k].r, heard[k].probabilities, rows, scores, heard[k].seconds)
    return table


def fit_recording(table: NDArray[np.float32], labels: NDArray[np.int64], config: dict[str, Any]) -> lgb.Booster:
    """Fit the model on rows of recordings and their numbers of `LABELS`."""
    weight = np.array([config["weight"][name] for name in LABELS])
    return fit(table, labels, weight[labels], config["trees"], config["seed"])


def figures(labels: NDArray[np.int64], said: NDArray[np.int64]) -> dict[str, Any]:
    """F1 of each label, their mean over N, A and O, and the table of labels against verdicts."""
    table = np.zeros((len(LABELS), len(LABELS)), np.int64)
    np.add.at(table, (labels, said), 1)
    f1 = 2 * np.diag(table) / np.maximum(table.sum(axis=0) + table.sum(axis=1), 1)
    return {
        "f1": {name: round(float(value), 4) for name, value in zip(LABELS, f1, strict=True)},
        "mean_f1": round(float(f1[:3].mean()), 4),
        "table": {name: row.tolist() for name, row in zip(LABELS, table, strict=True)},
    }


def cross_validate(
    table: NDArray[np.float32], labels: NDArray[np.int64], config: dict[str, Any], folds: NDArray[np.int64]
) -> dict[str, Any]:
    """`figures` of recordings that were held out."""
    said = np.zeros(len(labels), np.int64)
    for number in range(int(folds.max()) + 1):
        out = folds == number
        booster = fit_recording(table[~out], labels[~out], config)
        said[out] = np.asarray(booster.predict(table[out], num_threads=1)).argmax(axis=1)
    return figures(labels, said)


def train(config_path: Path, data_dir: Path, out_dir: Path, progress: Progress) -> dict[str, Any]:
    """Train the model of whole recordings and write it with its report.

    Parameters
    ----------
    config_path : Path
        TOML, see ``configs/recording.toml``.
    data_dir : Path
        Folder with ``mitdb``, ``svdb`` and ``cinc2017.tar``.
    out_dir : Path
        Gets ``recording.onnx`` and ``recording.json``.
    progress : callable
        Takes lines for people.

    Returns
    -------
    dict
        The report, without figures on test records.

    Raises
    ------
    FileNotFoundError
        If recordings or the models of the other stages are missing.
    """
    config = tomllib.loads(config_path.read_text("utf-8"))
    rhythm_config = tomllib.loads((config_path.parent / config["rhythm"]).read_text("utf-8"))
    weights, beats, model = qrs_model.load(), BeatModel.load(), RhythmModel.load()
    heard = [
        hear(record, weights, beats, model)
        for record in read_challenge(data_dir / "cinc2017.tar")
        if not splits.challenge_test(record.name)
    ]
    progress(f"cinc2017: {len(heard)} recordings run")
    plain = {"seed": float(config["seed"])}
    ectopic = [name for name in names(data_dir, "svdb") if name not in SVDB_AF]
    others = [
        *recordings(data_dir, "mitdb", list(splits.DS1), weights, 0, plain),
        *recordings(data_dir, "svdb", ectopic, weights, 0, plain),
    ]
    labels = np.array([LABELS.index(item.example.whole) for item in heard], np.int64)
    folds = np.random.default_rng(config["seed"]).permutation(len(heard)) % config["folds"]
    table = held_out_table(heard, others, rhythm_config, folds)
    progress("AF scores of held-out recordings made")
    keys = sorted(item.example.key for item in heard)
    digest = splits.training_hash(keys)
    report: dict[str, Any] = {
        "config": config,
        "cross_validation": cross_validate(table, labels, config, folds),
        "training": digest,
        "training_records": keys,
    }
    contract = Contract(
        model=MODEL, version=config["version"], rate=FS, classes=LABELS, features=FEATURES, training=digest
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    save(out_dir / f"{MODEL}.onnx", [fit_recording(table, labels, config)], contract)
    (out_dir / f"{MODEL}.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", "utf-8")
    progress("model and report written")
    return report
