"""Train the beat model: patient-wise cross-validation on DS1 and svdb, a final fit, one look at DS2, and the export.

Cross-validation chooses the biases of S and V and the temperature; nothing is chosen on DS2. The report says how each
figure came about. `random_split` is another experiment, reported and never shipped.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dsp.layout import FS
from dsp.qrs import QrsWeights
from inference import features_image, qrs_model
from inference.beats import CLASSES, FILE, BeatModel, mix, probabilities
from inference.contract import Contract
from inference.features import NAMES
from inference.training.beat_data import Strip, annotated, detected, load, rows
from inference.training.beat_export import save
from inference.training.beat_fit import fit_network, fit_trees, groups, network_logits
from inference.training.beat_rows import Name, fibrillation_names, gather, merged
from inference.training.records import GROUP_OF_CLASS, names
from inference.training.scoring import Counts, confusion, gross, interval, sveb, veb
from inference.training.splits import DS1, DS2, training_hash

Progress = Callable[[str], None]

_GROUP = np.array(GROUP_OF_CLASS)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the two models say on one whole recording.

    Attributes
    ----------
    source : Strip
    r : ndarray of int64, shape (m,)
    allowed : ndarray of uint8, shape (m,)
    logits : ndarray of float32, shape (m, 8)
        The network's.
    trees : ndarray of float32, shape (m, 3)
        The trees' raw scores.
    """

    source: Strip
    r: NDArray[np.int64]
    allowed: NDArray[np.uint8]
    logits: NDArray[np.float32]
    trees: NDArray[np.float32]


def judge(source: Strip, weights: QrsWeights | None, network: Any, booster: Any) -> Verdicts:
    """Run both models over a recording, with the live detector's R peaks (`weights`) or the annotated ones (None)."""
    peaks = annotated(source.beats, source.x.size) if weights is None else detected(source, weights)
    table = rows(source, peaks)
    scores = booster.predict(table.features, raw_score=True).astype(np.float32)
    logits = network_logits(network, table.features, table.images)
    return Verdicts(source, table.r, table.allowed, logits, scores)


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
    plain = [mix(one.logits, one.trees) for one in verdicts]
    for s in settings["bias_s"]:
        for v in settings["bias_v"]:
            bias = np.zeros(len(CLASSES))
            bias[3], bias[4] = s, v
            matrices = [
                score(one.source, one.r, np.argmax(logits + bias, axis=1))
                for one, logits in zip(verdicts, plain, strict=True)
            ]
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


def cross_validate(
    data_dir: Path, gathered: dict[Name, Any], weights: QrsWeights, config: dict[str, Any], progress: Progress
) -> list[Verdicts]:
    """Judge each training patient by models that never saw it, with the live detector's R peaks."""
    patients = [name for name in gathered if name[0] != "cinc2017"]
    others = [data for name, data in gathered.items() if name[0] == "cinc2017"]
    verdicts = []
    for fold in range(config["folds"]):
        held = patients[fold :: config["folds"]]
        train = merged([gathered[name] for name in patients if name not in held] + others)
        network = fit_network(train, config["network"], config["seed"] + fold)
        booster = fit_trees(train, config["trees"], config["seed"] + fold)
        verdicts += [judge(load(data_dir, *name), weights, network, booster) for name in held]
        progress(f"cross-validation: fold {fold + 1} of {config['folds']} done")
    return verdicts


def train(config_path: Path, data_dir: Path, out_path: Path, progress: Progress) -> dict[str, Any]:
    """Train, report and export the beat model.

    Parameters
    ----------
    config_path : Path
        TOML, see ``configs/beat.toml``.
    data_dir : Path
        Folder of the databases (mitdb, svdb, and cinc2017.tar if fibrillation is to train).
    out_path : Path
        ONNX file to write; the report goes beside it with the suffix ``.json``.
    progress : callable
        Told a line now and then.

    Returns
    -------
    dict
        The report.

    Raises
    ------
    FileNotFoundError
        If recordings are missing.
    ValueError
        If `out_path` is not called `inference.beats.FILE`.
    """
    if out_path.name != FILE:
        raise ValueError(f"the beat model is called {FILE}, not {out_path.name}")
    config = tomllib.loads(config_path.read_text("utf-8"))
    torch.set_num_threads(1)
    weights = qrs_model.load()
    chosen: list[Name] = [("mitdb", name) for name in DS1] + [("svdb", name) for name in names(data_dir, "svdb")]
    chosen = chosen[:: config.get("every", 1)]
    trained = [f"{database}/{name}" for database, name in chosen]
    count = config["rows"]["fibrillation"]
    trained += [f"cinc2017/{name}" for name in fibrillation_names(data_dir / "cinc2017.tar", count)]
    gathered = gather(data_dir, chosen, weights, config["rows"], config["seed"], progress)
    verdicts = cross_validate(data_dir, gathered, weights, config, progress)
    bias = choose_bias(verdicts, config["combine"])
    held = [mix(one.logits, one.trees) + bias for one in verdicts]
    temperature = choose_temperature(np.concatenate(held), np.concatenate([one.allowed for one in verdicts]))
    report = _cross_report(verdicts, held)
    for label, found in report.items():
        progress(line(f"cross-validation, {label}", found))

    data = merged(list(gathered.values()))
    network = fit_network(data, config["network"], config["seed"], progress)
    booster = fit_trees(data, config["trees"], config["seed"])
    contract = Contract(
        model="beat",
        version=config["version"],
        rate=FS,
        classes=CLASSES,
        features=NAMES,
        mean=tuple(network.get_buffer("mean").tolist()),
        scale=tuple(network.get_buffer("scale").tolist()),
        temperature=temperature,
        training=training_hash(trained),
        image=features_image.CONTRACT,
    )
    save(out_path, network, booster, bias, contract)
    full = {
        "version": config["version"],
        "training_records": trained,
        "rows": int(data.allowed.size),
        "bias": [float(v) for v in bias],
        "temperature": temperature,
        "cross_validation": report,
        "test": test_report(data_dir, out_path, weights, DS2[:: config.get("every", 1)], progress),
    }
    out_path.with_suffix(".json").write_text(json.dumps(full, indent=1) + "\n", "utf-8")
    return full


def _cross_report(verdicts: Sequence[Verdicts], held: Sequence[NDArray[np.float64]]) -> dict[str, dict[str, Any]]:
    combined = [score(v.source, v.r, np.argmax(logits, axis=1)) for v, logits in zip(verdicts, held, strict=True)]
    alone = [score(v.source, v.r, np.argmax(v.logits, axis=1)) for v in verdicts]
    trees = [score(v.source, v.r, np.array([0, 3, 4])[np.argmax(v.trees, axis=1)]) for v in verdicts]
    is_mitdb = [v.source.name.startswith("mitdb") for v in verdicts]
    result = {
        "combined": figures(combined),
        "network alone, no bias": figures(alone),
        "trees alone, no bias": figures(trees),
    }
    for label, wanted in (("combined, mitdb", True), ("combined, svdb", False)):
        some = [matrix for matrix, flag in zip(combined, is_mitdb, strict=True) if flag is wanted]
        if some:
            result[label] = figures(some)
    without = [m for v, m in zip(verdicts, combined, strict=True) if v.source.name != "svdb/865"]
    result["combined, without svdb/865"] = figures(without)
    return result


def test_report(
    data_dir: Path, path: Path, weights: QrsWeights, records: Sequence[str], progress: Progress
) -> dict[str, Any]:
    """Score an exported model on test records, with annotated and with the live detector's R peaks."""
    model = BeatModel.load(path.parent)
    result: dict[str, Any] = {}
    for label, some in (("annotated R peaks", None), ("live R peaks", weights)):
        matrices: dict[str, NDArray[np.int64]] = {}
        for name in records:
            source = load(data_dir, "mitdb", name)
            peaks = annotated(source.beats, source.x.size) if some is None else detected(source, some)
            table = rows(source, peaks)
            logits, trees = model.model.run(table.features, table.images.astype(np.float32))
            matrices[name] = score(source, table.r, np.argmax(mix(logits, trees), axis=1))
        result[label] = figures(list(matrices.values()))
        result[label]["by_record"] = {name: matrix.tolist() for name, matrix in matrices.items()}
        result[f"{label}, without 232"] = figures([m for name, m in matrices.items() if name != "232"])
        progress(line(f"DS2, {label}", result[label]))
    return result
