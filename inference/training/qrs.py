"""Trainer of the QRS detector's two networks (`dsp.qrs`).

The first network learns from labelled candidates. The second learns on decisions of its own, round after round, and on
first networks that saw neither the patient nor the stretch of noise (out of fold): else it trusts them more than
strangers' beats deserve.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dsp.layout import FS
from dsp.qrs import QrsWeights, Rows, new_states, reset, walk
from dsp.qrs_features import FIRST_NAMES, SECOND_NAMES
from inference import qrs_model
from inference.training import qrs_data
from inference.training.qrs_data import Noise, Piece
from inference.training.qrs_scores import Batch, Layers, detect, evaluate, figures, frame, main_leads, validate
from inference.training.records import challenge_labels, names, read, read_challenge
from inference.training.splits import DS1, DS2, challenge_test, training_hash

Progress = Callable[[str], None]


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


def labelled(data_dir: Path, config: dict[str, Any], patients: Sequence[str]) -> list[tuple[int, Piece]]:
    """Read records of mitdb (both leads) and svdb, each with its fold."""
    data, folds = config["data"], config["choice"]["folds"]
    sources: list[tuple[int, Piece]] = []
    chosen = [("mitdb", name) for name in patients] + [("svdb", name) for name in names(data_dir, "svdb")]
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


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a training gave.

    Attributes
    ----------
    weights : QrsWeights
    outside, seconds : list of tuple of ndarray
        Networks of each fold, which saw none of its patients.
    clean : list of Batch
        The labelled recordings as they are, by fold.
    records : list of str
        ``database/name`` of all that trained.
    """

    weights: QrsWeights
    outside: list[Layers]
    seconds: list[Layers]
    clean: list[Batch]
    records: list[str]


def learn(config: dict[str, Any], data_dir: Path, patients: Sequence[str], progress: Progress) -> Learnt:
    """Train both networks on records of mitdb, on svdb and on the training part of cinc2017.

    Parameters
    ----------
    config : dict
        As ``inference/training/configs/qrs.toml``.
    data_dir : Path
        Folder of recordings.
    patients : sequence of str
        Records of mitdb.
    progress : callable
        Told a line at each step.

    Returns
    -------
    Learnt
    """
    torch.set_num_threads(1)
    folds, threshold = config["choice"]["folds"], config["choice"]["threshold"]
    noises = [Noise(data_dir, fold, folds) for fold in range(folds)]
    rng = np.random.default_rng(config["seed"])
    sources = labelled(data_dir, config, patients)
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
    for turn in range(config["second"]["rounds"]):
        nets = [QrsWeights(outside[f], seconds[f], threshold) for f in range(folds)]
        table = tabulate(few, nets.__getitem__, second=True, easy=easy, seed=config["seed"] + turn)
        seconds = [fit(table, table.fold != f, config["second"], config["seed"] + f) for f in range(folds)]
        progress(f"second networks trained, round {turn + 1}")
    second = fit(table, np.ones(table.y.size, bool), config["second"], config["seed"])
    records = sorted({piece.patient for _, piece in sources + more} | {"nstdb/118e_6", "nstdb/bw", "nstdb/ma"})
    return Learnt(QrsWeights(final, second, threshold), outside, seconds, copies[0], records)


def train(config_path: Path, data_dir: Path, out_path: Path, progress: Progress) -> dict[str, Any]:
    """Train both networks, write the model and its report beside it.

    Parameters
    ----------
    config_path : Path
        As ``inference/training/configs/qrs.toml``; one that names another in ``strangers_of`` makes the report of
        `strangers` by that one instead.
    data_dir : Path
        Folder of recordings.
    out_path : Path
        ONNX file; the report goes to the same name with ``.json``, that of `strangers` to ``qrs_strangers.json``.
    progress : callable
        Told a line at each step.

    Returns
    -------
    dict
        The report.
    """
    config = tomllib.loads(config_path.read_text("utf-8"))
    if "strangers_of" in config:
        named = config_path.with_name(config["strangers_of"])
        return strangers(named, data_dir, out_path.with_name("qrs_strangers.json"), progress)
    learnt = learn(config, data_dir, DS1, progress)
    threshold, digest = learnt.weights.threshold, training_hash(learnt.records)
    qrs_model.save(out_path, learnt.weights, version=config["version"], training=digest)
    nets = (learnt.clean, learnt.outside, learnt.seconds)
    report: dict[str, Any] = {
        "version": config["version"],
        "threshold": threshold,
        "training_records": learnt.records,
        "training_hash": digest,
        "cross_validation": validate(*nets, threshold),
        "cross_validation_by_threshold": {
            f"{threshold + shift:.2f}": validate(*nets, threshold + shift)["mitdb"] for shift in (-0.8, -0.4, 0.4, 0.8)
        },
        "test": evaluate(data_dir, learnt.weights),
    }
    out_path.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return report


def strangers(config_path: Path, data_dir: Path, out_path: Path, progress: Progress) -> dict[str, Any]:
    """Report on patients that never trained: the shipped model on DS2, and one trained on DS2 instead on DS1.

    Parameters
    ----------
    config_path : Path
        As for `train`.
    data_dir : Path
        Folder of recordings.
    out_path : Path
        JSON report to write; the model trained on DS2 is never shipped.
    progress : callable
        Told a line at each step.

    Returns
    -------
    dict
        Figures of each half and of both pooled, from the first second, main leads.
    """
    config = tomllib.loads(config_path.read_text("utf-8"))
    learnt = learn(config, data_dir, DS2, progress)
    counts = {
        part: list(main_leads(data_dir, chosen, weights).values())
        for part, chosen, weights in (
            ("DS2 by the model trained on DS1", DS2, qrs_model.load()),
            ("DS1 by a model trained on DS2", DS1, learnt.weights),
        )
    }
    report: dict[str, Any] = {"what": "QRS of patients that never trained, 150 ms, from the first second"}
    report |= {part: figures(own) for part, own in counts.items()}
    report["pooled"] = figures([one for own in counts.values() for one in own])
    out_path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    progress(f"pooled: {report['pooled']}")
    return report
