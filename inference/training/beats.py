"""Train the beat model: patient-wise cross-validation on DS1 and svdb, a final fit, one look at DS2, and the export.

Boosted trees on the features teach the network, and share its verdict. Cross-validation chooses the number of epochs,
the biases of S and V and the temperature; nothing is chosen on DS2. The report says how each figure came about.
`inference.training.beat_random` is another experiment, reported and never shipped.
"""

from __future__ import annotations

import json
import statistics
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import torch
from numpy.typing import NDArray

from dsp.layout import FS
from dsp.qrs import QrsWeights
from inference import features_image, qrs_model
from inference.beats import CLASSES, FILE, BeatModel, mix
from inference.contract import Contract
from inference.features import NAMES
from inference.training.beat_checkpoint import Checkpoints, key
from inference.training.beat_cv import (
    Verdicts,
    Whole,
    choose_bias,
    choose_temperature,
    cross_report,
    figures,
    folds,
    judged,
    line,
    score,
    whole,
)
from inference.training.beat_data import SHIPPED_IMAGE, Table
from inference.training.beat_export import save
from inference.training.beat_fit import (
    TREE_CLASSES,
    Fitted,
    Rows,
    fit_network,
    fit_trees,
    network_logits,
    tree_probabilities,
)
from inference.training.beat_rows import Name, fibrillation_names, gather, merged
from inference.training.records import names
from inference.training.scoring import GROUPS
from inference.training.splits import DS1, DS2, PACED, training_hash

Progress = Callable[[str], None]


def patients(data_dir: Path, every: int = 1) -> list[Name]:
    """List the records that train: DS1 and svdb, or every n-th of them."""
    chosen: list[Name] = [("mitdb", name) for name in DS1] + [("svdb", name) for name in names(data_dir, "svdb")]
    return chosen[::every]


def grow(data: Rows, settings: dict[str, Any], name: str, seed: int, checkpoints: Checkpoints | None) -> lgb.Booster:
    """Fit trees, or take those of a training that was cut off."""
    made_of = key(settings, seed, data.features, data.allowed, data.weight)
    booster = None if checkpoints is None else checkpoints.booster(name, made_of)
    if booster is None:
        booster = fit_trees(data, settings, seed)
        if checkpoints is not None:
            checkpoints.save_booster(name, made_of, booster)
    return booster


def teach(
    parts: dict[Name, Rows], settings: dict[str, Any], name: str, seed: int, checkpoints: Checkpoints | None = None
) -> NDArray[np.float32]:
    """Give each row the probabilities of trees that never saw its patient.

    Trees that saw a row repeat its label, and teach little more than that; what they think of a stranger tells how far
    the features carry. Rows of cinc2017 are in no fold and get the mean of all trees.

    Parameters
    ----------
    parts : dict of (str, str) to Rows
    settings : dict
        Section ``trees``, with ``parts`` (folds of patients).
    name : str
        Of the fit that they teach.
    seed : int
    checkpoints : Checkpoints, optional

    Returns
    -------
    ndarray of float32, shape (m, TREE_CLASSES)
        In the order of the rows; zero for beats that the trees have no class for.
    """
    soft = {one: np.zeros((rows.allowed.size, TREE_CLASSES), np.float32) for one, rows in parts.items()}
    asked = folds(list(parts), settings["parts"])
    for number, strangers in enumerate(asked):
        data = merged([rows for one, rows in parts.items() if one not in strangers], images=False)
        booster = grow(data, settings, f"{name}-teacher{number}", seed, checkpoints)
        for one in parts:
            if one in strangers:
                soft[one] = tree_probabilities(booster, parts[one].features)
            elif one[0] == "cinc2017":
                soft[one] += tree_probabilities(booster, parts[one].features) / len(asked)
    for one, rows in parts.items():
        # The trees know no paced beats, and have nothing to teach of them.
        soft[one][rows.groups == len(GROUPS) - 1] = 0.0
    return np.concatenate([soft[one] for one in parts])


@dataclass(frozen=True, slots=True)
class Trained:
    """Both models.

    Attributes
    ----------
    fitted : Fitted
        The network.
    booster : lightgbm.Booster
        The trees.
    """

    fitted: Fitted
    booster: lgb.Booster

    def logits(self, table: Table) -> NDArray[np.float64]:
        """Verdicts of both on the rows of a recording, as the live pipeline mixes them."""
        scores = np.asarray(self.booster.predict(table.features, raw_score=True, num_threads=1), np.float32)
        network = network_logits(self.fitted.network, table.features, table.images)
        return mix(network, scores.reshape(-1, TREE_CLASSES))


def fit(
    parts: dict[Name, Rows],
    config: dict[str, Any],
    name: str,
    seed: int,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
    *,
    early: bool = False,
) -> Trained:
    """Fit trees, and the network that trees of other patients teach (`teach`).

    Parameters
    ----------
    parts : dict of (str, str) to Rows
        Of the patients that train.
    config : dict
        Sections ``network``, ``trees`` and ``pretrain``.
    name : str
        Of the fit.
    seed : int
    progress : callable, optional
    checkpoints : Checkpoints, optional
    early : bool
        Hold every n-th patient out (``network.held``, 0 for none) and stop when they no longer gain.

    Returns
    -------
    Trained
        The network: with ``pretrain.epochs`` pre-trained on all rows, then fine-tuned on the database
        ``pretrain.then``. The trees: fitted on all rows.
    """
    settings, pretrain = config["network"], config["pretrain"]
    held_names = folds(list(parts), settings["held"])[-1] if early and settings["held"] else []
    held = merged([parts[one] for one in held_names]) if held_names else None
    used = {one: rows for one, rows in parts.items() if one not in held_names}
    data = merged(list(used.values()))
    booster = grow(merged(list(parts.values()), images=False), config["trees"], f"{name}-trees", seed, checkpoints)
    soft = teach(used, config["trees"], name, seed, checkpoints) if settings["soften"] > 0 else None
    begin = None
    if pretrain["epochs"]:
        first = {**settings, "epochs": pretrain["epochs"]}
        begun = fit_network(data, first, seed, progress, name=f"{name}-pretrain", soft=soft, checkpoints=checkpoints)
        begin, settings = begun.network, {**settings, "rate": pretrain["rate"]}
        own = np.concatenate([np.full(rows.allowed.size, one[0] == pretrain["then"]) for one, rows in used.items()])
        data = Rows(data.features[own], data.images[own], data.allowed[own], data.weight[own])
        soft = None if soft is None else soft[own]
    fitted = fit_network(
        data, settings, seed, progress, name=name, soft=soft, held=held, begin=begin, checkpoints=checkpoints
    )
    return Trained(fitted, booster)


def cross_validate(
    gathered: dict[Name, Rows],
    wholes: dict[Name, Whole],
    config: dict[str, Any],
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> tuple[list[Verdicts], list[int]]:
    """Judge each training patient by models that never saw it.

    Parameters
    ----------
    gathered : dict of (str, str) to Rows
        Training rows of each patient.
    wholes : dict of (str, str) to Whole
        The recordings of the same patients.
    config : dict
    progress : callable, optional
    checkpoints : Checkpoints, optional

    Returns
    -------
    (list of Verdicts, list of int)
        On every patient, and the epochs of each fold.
    """
    verdicts, epochs = [], []
    for number, held in enumerate(folds(list(gathered), config["folds"])):
        train = {name: rows for name, rows in gathered.items() if name not in held}
        trained = fit(train, config, f"fold{number}", config["seed"] + number, progress, checkpoints, early=True)
        epochs.append(trained.fitted.epochs)
        verdicts += [judged(wholes[name], trained.logits(wholes[name][1])) for name in held]
        if progress is not None:
            progress(f"cross-validation: fold {number + 1} of {config['folds']} done")
    return verdicts, epochs


def train(
    config_path: Path, data_dir: Path, out_path: Path, progress: Progress, *, resume: bool = False
) -> dict[str, Any]:
    """Train, report and export the beat model.

    Parameters
    ----------
    config_path : Path
        TOML, see ``configs/beat.toml``.
    data_dir : Path
        Folder of the databases (mitdb, svdb, and cinc2017.tar if fibrillation is to train).
    out_path : Path
        ONNX file to write; the report goes beside it with the suffix ``.json``, checkpoints into ``checkpoints``.
    progress : callable
        Told a line now and then.
    resume : bool
        Go on from the checkpoints of a training that was cut off.

    Returns
    -------
    dict
        The report.

    Raises
    ------
    FileNotFoundError
        If recordings are missing.
    ValueError
        If `out_path` is not called `inference.beats.FILE`, images are of a kind that does not ship, or the checkpoints
        are of another training.
    """
    if out_path.name != FILE:
        raise ValueError(f"the beat model is called {FILE}, not {out_path.name}")
    config = tomllib.loads(config_path.read_text("utf-8"))
    if config["rows"]["image"] != SHIPPED_IMAGE:
        raise ValueError(f"images of kind {config['rows']['image']} don't ship: compare them with --search")
    torch.set_num_threads(1)
    weights = qrs_model.load()
    checkpoints = Checkpoints(out_path.parent / "checkpoints", resume=resume)
    every = config.get("every", 1)
    chosen = patients(data_dir, every)
    trained = [f"{database}/{name}" for database, name in chosen]
    count = config["rows"]["fibrillation"]
    trained += [f"cinc2017/{name}" for name in fibrillation_names(data_dir / "cinc2017.tar", count)]
    gathered = gather(data_dir, chosen, weights, config["rows"], config["seed"], progress)
    wholes = {name: whole(data_dir, name, weights) for name in chosen}
    verdicts, epochs = cross_validate(gathered, wholes, config, progress, checkpoints)
    bias = choose_bias(verdicts, config["combine"])
    temperature = choose_temperature(
        np.concatenate([one.logits + bias for one in verdicts]), np.concatenate([one.allowed for one in verdicts])
    )
    report = cross_report(verdicts, bias)
    for label, found in report.items():
        progress(line(f"cross-validation, {label}", found))

    # A schedule of as many epochs as helped strangers: cut short, a longer one would end at a high rate.
    final = {**config, "network": {**config["network"], "epochs": round(statistics.median(epochs))}}
    made = fit(gathered, final, "final", config["seed"], progress, checkpoints)
    network = made.fitted.network
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
    save(out_path, network, made.booster, bias, contract)
    full = {
        "version": config["version"],
        "seed": config["seed"],
        "training_records": trained,
        "rows": sum(rows.allowed.size for rows in gathered.values()),
        "epochs": {"folds": epochs, "final": made.fitted.epochs},
        "losses": list(made.fitted.losses),
        "bias": [float(v) for v in bias],
        "temperature": temperature,
        "cross_validation": report,
        "test": tested(data_dir, out_path, weights, DS2[::every], progress, "DS2"),
        "paced": tested(data_dir, out_path, weights, PACED[::every], progress, "paced"),
    }
    out_path.with_suffix(".json").write_text(json.dumps(full, indent=1) + "\n", "utf-8")
    return full


def tested(
    data_dir: Path, path: Path, weights: QrsWeights, records: Sequence[str], progress: Progress, label: str
) -> dict[str, Any]:
    """Score an exported model on records that trained nothing, with annotated and with the live detector's R peaks."""
    model = BeatModel.load(path.parent)
    result: dict[str, Any] = {}
    for how, some in (("annotated R peaks", None), ("live R peaks", weights)):
        matrices: dict[str, NDArray[np.int64]] = {}
        classes = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
        for name in records:
            source, table = whole(data_dir, ("mitdb", name), some)
            logits, trees = model.model.run(table.features, table.images.astype(np.float32))
            called = np.argmax(mix(logits, trees), axis=1)
            matrices[name] = score(source, table.r, called)
            known = table.allowed > 0
            np.add.at(classes, (np.round(np.log2(table.allowed[known])).astype(np.int64), called[known]), 1)
        result[how] = figures(list(matrices.values()))
        result[how]["by_record"] = {name: matrix.tolist() for name, matrix in matrices.items()}
        result[how]["classes"] = classes.tolist()
        result[f"{how}, without 232"] = figures([m for name, m in matrices.items() if name != "232"])
        progress(line(f"{label}, {how}", result[how]))
    return result
