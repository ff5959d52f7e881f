"""Trainer of the QRS detector's two networks (`dsp.qrs`).

The first network learns from labelled candidates. The second learns on decisions of its own, round after round, and on
first networks that saw neither the patient nor the stretch of noise (out of fold): else it trusts them more than
strangers' beats deserve.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dsp.layout import FS, Signal
from dsp.qrs import QrsWeights, Rows, new_states, reset, step, walk
from dsp.qrs_features import FIRST_NAMES, SECOND_NAMES
from inference import qrs_model
from inference.training import qrs_data
from inference.training.qrs_data import Noise, Piece
from inference.training.records import challenge_labels, names, read, read_challenge
from inference.training.scoring import WINDOW, Counts, detection, gross, interval
from inference.training.splits import DS1, DS2, PACED, challenge_test, training_hash

Layers = tuple[NDArray[np.float32], ...]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """Pieces of one rate and one fold, framed."""

    pieces: list[Piece]
    signal: Signal
    fold: int


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of candidates with their truth."""

    x: NDArray[np.float16]
    y: NDArray[np.bool_]
    weight: NDArray[np.float32]
    fold: NDArray[np.int8]


def fit(table: Table, keep: NDArray[np.bool_], config: dict[str, Any], seed: int) -> Layers:
    """Train one network on the rows in `keep`.

    Parameters
    ----------
    table : Table
    keep : ndarray of bool, shape (m,)
    config : dict
        ``hidden``, ``epochs``, ``rate``, ``decay``, ``dropout``, ``batch``.
    seed : int

    Returns
    -------
    tuple of ndarray
        As `dsp.qrs.QrsWeights` holds them, the normalisation of the columns folded in.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    index = np.flatnonzero(keep & (table.weight > 0))
    sample = table.x[rng.choice(index, min(index.size, 100_000), replace=False)].astype(np.float32)
    mean, scale = sample.mean(axis=0), sample.std(axis=0) + 1e-3
    h1, h2 = config["hidden"]
    net = torch.nn.Sequential(
        torch.nn.Linear(mean.size, h1),
        torch.nn.ReLU(),
        torch.nn.Dropout(config["dropout"]),
        torch.nn.Linear(h1, h2),
        torch.nn.ReLU(),
        torch.nn.Linear(h2, 1),
    )
    size = config["batch"]
    steps = config["epochs"] * (index.size // size)
    optimiser = torch.optim.AdamW(net.parameters(), lr=config["rate"], weight_decay=config["decay"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config["rate"], total_steps=steps + 1)
    loss_of = torch.nn.BCEWithLogitsLoss(reduction="none")
    for _ in range(config["epochs"]):
        order = rng.permutation(index)
        for at in range(0, order.size - size + 1, size):
            rows = order[at : at + size]
            x = torch.from_numpy((table.x[rows].astype(np.float32) - mean) / scale)
            y = torch.from_numpy(table.y[rows].astype(np.float32))
            weight = torch.from_numpy(table.weight[rows])
            optimiser.zero_grad()
            loss = (loss_of(net(x)[:, 0], y) * weight).mean()
            loss.backward()
            optimiser.step()
            schedule.step()
    w = [p.detach().numpy().astype(np.float64) for p in net.parameters()]
    w1 = w[0].T / scale[:, None]
    arrays = (w1, w[1] - mean @ w1, w[2].T, w[3], w[4].T, w[5])
    return tuple(np.ascontiguousarray(array, np.float32) for array in arrays)


def passing() -> Layers:
    """Make a second network that says what the first one says."""
    w1 = np.zeros((len(SECOND_NAMES), 2), np.float32)
    w1[0] = 1, -1
    eye = np.eye(2, dtype=np.float32)
    zero = np.zeros(2, np.float32)
    return w1, zero, eye, zero, np.array([[5], [-5]], np.float32), np.zeros(1, np.float32)


def silent() -> Layers:
    """Make a first network that says 0."""
    n = len(FIRST_NAMES)
    return tuple(np.zeros(shape, np.float32) for shape in ((n, 1), 1, (1, 1), 1, (1, 1), 1))


def run(batch: Batch, weights: QrsWeights) -> Rows:
    """Rows of all candidates of a batch, from the live kernel."""
    n = len(batch.pieces)
    states = new_states(n)
    slots = np.arange(n)
    reset(states, slots, batch.signal.start)
    return walk(states, slots, batch.signal, weights, rows=True)[1]


def tabulate(
    batches: list[Batch], weights: Callable[[int], QrsWeights], *, second: bool, easy: float, seed: int
) -> Table:
    """Rows and truth of all candidates of `batches`.

    Parameters
    ----------
    batches : list of Batch
    weights : callable
        Weights for a batch of a fold.
    second : bool
        Rows of the second network instead of the first's.
    easy : float
        Share of the rows to keep that the network already judges well; their weight makes up for it.
    seed : int
        Of that choice.

    Returns
    -------
    Table
    """
    rng = np.random.default_rng(seed)
    xs, ys, ws, folds = [], [], [], []
    height = FIRST_NAMES.index("height")
    for batch in batches:
        rows = run(batch, weights(batch.fold))
        cuts = np.searchsorted(rows.patient, np.arange(len(batch.pieces) + 1))
        labels = [
            qrs_data.label(piece, rows.tick[a:b], rows.first[a:b, height])
            for piece, a, b in zip(batch.pieces, cuts[:-1], cuts[1:], strict=True)
        ]
        y, w = np.concatenate([own[0] for own in labels]), np.concatenate([own[1] for own in labels])
        error = 1 / (1 + np.exp(np.where(y, 1, -1) * rows.logit[:, int(second)].astype(np.float64)))
        share = np.clip(10 * error, easy, 1)
        keep = (w > 0) & (rng.random(y.size) < share)
        xs.append((rows.second if second else rows.first)[keep].astype(np.float16))
        ys.append(y[keep])
        ws.append((w / share)[keep].astype(np.float32))
        folds.append(np.full(int(keep.sum()), batch.fold, np.int8))
    return Table(np.concatenate(xs), np.concatenate(ys), np.concatenate(ws), np.concatenate(folds))


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


def labelled(data_dir: Path, config: dict[str, Any]) -> list[tuple[int, Piece]]:
    """Read DS1 (both leads) and svdb, each with its fold."""
    data, folds = config["data"], config["choice"]["folds"]
    sources: list[tuple[int, Piece]] = []
    chosen = [("mitdb", name) for name in DS1] + [("svdb", name) for name in names(data_dir, "svdb")]
    for i, (database, name) in enumerate(chosen):
        record = read(data_dir, database, name)
        lead = record.lead()
        sources.append((i % folds, qrs_data.whole(record, lead, data["svdb"] if database == "svdb" else 1.0)))
        if database == "mitdb" and data["second_lead"]:
            sources.append((i % folds, qrs_data.whole(record, 1 - lead, data["second_lead"])))
    return sources


def challenge(data_dir: Path, config: dict[str, Any], weights: QrsWeights) -> list[tuple[int, Piece]]:
    """Read cinc2017's training records, labelled where `weights` and a plain threshold agree."""
    archive = data_dir / "cinc2017.tar"
    chosen = [name for name, own in challenge_labels(archive).items() if own != "~" and not challenge_test(name)]
    records = sorted(read_challenge(archive, chosen), key=lambda record: record.name)
    pieces = [qrs_data.whole(record, 0, config["data"]["challenge"]) for record in records]
    signal = qrs_data.through_frontend(pieces)
    sources = []
    for i, (piece, found) in enumerate(zip(pieces, detect(signal, weights), strict=True)):
        x = signal.x[signal.offsets[i] : signal.offsets[i + 1]]
        own = qrs_data.agreed(piece, found, x[: int(piece.mv.size / piece.rate * FS)])
        if own is not None:
            sources.append((i % config["choice"]["folds"], own))
    return sources


def frame(sources: list[tuple[int, Piece]], folds: int) -> list[Batch]:
    """Run pieces through the live front end, a batch for each rate and fold."""
    batches = []
    for rate in sorted({piece.rate for _, piece in sources}):
        for fold in range(folds):
            pieces = [piece for own, piece in sources if own == fold and piece.rate == rate]
            if pieces:
                batches.append(Batch(pieces, qrs_data.through_frontend(pieces), fold))
    return batches


def worse(
    sources: list[tuple[int, Piece]], config: dict[str, Any], noises: Sequence[Noise], rng: np.random.Generator
) -> list[tuple[int, Piece]]:
    """Cut and worsen every source with the noise of its fold, and add noise without a heart."""
    data, folds = config["data"], config["choice"]["folds"]
    pieces = [
        (fold, qrs_data.worsen(part, rng, noises[fold], data))
        for fold, piece in sources
        for part in qrs_data.cut(piece, rng, data["short"])
    ]
    hollow = [(i % folds, qrs_data.empty(rng, noises[i % folds], (128.0, 360.0)[i % 2])) for i in range(data["empty"])]
    return pieces + hollow


def train(config_path: Path, data_dir: Path, out_path: Path, progress: Progress) -> dict[str, Any]:
    """Train both networks, write the model and its report beside it.

    Parameters
    ----------
    config_path : Path
        As ``inference/training/configs/qrs.toml``.
    data_dir : Path
        Folder of recordings.
    out_path : Path
        ONNX file; the report goes to the same name with ``.json``.
    progress : callable
        Told a line at each step.

    Returns
    -------
    dict
        The report.
    """
    config = tomllib.loads(config_path.read_text("utf-8"))
    torch.set_num_threads(1)
    folds = config["choice"]["folds"]
    threshold = config["choice"]["threshold"]
    noises = [Noise(data_dir, fold, folds) for fold in range(folds)]
    rng = np.random.default_rng(config["seed"])
    sources = labelled(data_dir, config)
    clean = config["data"]["clean"]
    copies = [frame([(fold, replace(piece, weight=clean * piece.weight)) for fold, piece in sources], folds)]
    zero = QrsWeights(silent(), passing(), 0.0)
    draft_copies = [*copies[0], *frame(worse(sources, config, noises, rng), folds)]
    table = tabulate(draft_copies, lambda _: zero, second=False, easy=1.0, seed=config["seed"])
    layers = fit(table, np.ones(table.y.size, bool), config["first"] | {"epochs": 3}, config["seed"])
    draft = QrsWeights(layers, passing(), 0.0)
    progress(f"draft trained on {table.y.size} candidates")
    more = challenge(data_dir, config, draft) if config["data"]["challenge"] else []
    progress(f"{len(more)} records of cinc2017 labelled")
    for copy in range(1, config["data"]["copies"]):
        some = [source for source in more if rng.random() < config["data"]["challenge_share"]]
        copies.append(frame(worse(sources + some, config, noises, rng), folds))
        progress(f"copy {copy + 1} of {config['data']['copies']} framed")
    every = [batch for copy in copies for batch in copy]
    easy = config["data"]["easy"]
    table = tabulate(every, lambda _: draft, second=False, easy=easy, seed=config["seed"])
    progress(f"{table.y.size} candidates kept, {table.y.mean():.3f} of them beats")
    outside = [fit(table, table.fold != fold, config["first"], config["seed"] + fold) for fold in range(folds)]
    progress("first networks of the folds trained")
    final = fit(table, np.ones(table.y.size, bool), config["first"], config["seed"])
    progress("first network trained")
    del table
    few = [batch for copy in copies[: config["data"]["stage_two_copies"]] for batch in copy]
    seconds = [passing() for _ in range(folds)]
    second = passing()
    for turn in range(config["second"]["rounds"]):
        nets = [QrsWeights(outside[f], seconds[f], threshold) for f in range(folds)]
        table = tabulate(few, nets.__getitem__, second=True, easy=easy, seed=config["seed"] + turn)
        seconds = [fit(table, table.fold != f, config["second"], config["seed"] + f) for f in range(folds)]
        progress(f"second networks trained, round {turn + 1}")
    second = fit(table, np.ones(table.y.size, bool), config["second"], config["seed"])
    records = sorted({piece.patient for _, piece in sources + more} | {"nstdb/118e_6", "nstdb/bw", "nstdb/ma"})
    weights = QrsWeights(final, second, threshold)
    qrs_model.save(out_path, weights, version=config["version"], training=training_hash(records))
    report: dict[str, Any] = {
        "version": config["version"],
        "threshold": threshold,
        "training_records": records,
        "training_hash": training_hash(records),
        "cross_validation": validate(copies[0], outside, seconds, threshold),
        "cross_validation_by_threshold": {
            f"{threshold + shift:.2f}": validate(copies[0], outside, seconds, threshold + shift)["mitdb"]
            for shift in (-0.8, -0.4, 0.4, 0.8)
        },
    }
    report["test"] = evaluate(data_dir, weights)
    out_path.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return report


def validate(batches: list[Batch], first: list[Layers], second: list[Layers], threshold: float) -> dict[str, Any]:
    """Figures of each database, each patient by networks that never saw it."""
    own = score(batches, lambda fold: QrsWeights(first[fold], second[fold], threshold))
    return {
        database: figures([counts for name, counts in own.items() if name.startswith(database)])
        for database in ("mitdb", "svdb")
    }


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
