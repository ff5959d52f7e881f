"""Trainer of the rhythm models: shockable rhythm by window, atrial fibrillation by RR statistics.

Both are boosted trees on what the live kernels gave; figures come from patient-wise cross-validation, where each
patient with all copies is held out once.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from dsp.layout import FS
from dsp.qrs import QrsWeights
from inference import qrs_model
from inference.contract import Contract
from inference.rhythm import AF_FEATURES, AF_MODEL, SHOCK_FEATURES, SHOCK_MODEL, RhythmModel
from inference.training import splits
from inference.training.records import names, read
from inference.training.rhythm_data import (
    AF,
    DOUBT,
    MOTION_TEST,
    NOISE,
    OTHER,
    VF,
    VT,
    Example,
    Progress,
    challenge,
    motion,
    noisy,
    recordings,
    through,
    training_examples,
)
from inference.training.rhythm_scores import (
    Judged,
    af_figures,
    asystole_figures,
    challenge_figures,
    judge,
    scores_of,
    shock_figures,
)
from inference.training.trees import fit, predict, save

MIXED: Final = 20
"""Seconds over which an AF label must hold to teach."""

SURE: Final = 0.6
"""Share of them in AF from which a row is AF."""

FREE: Final = 0.2
"""Share of them in AF up to which a row is not."""

Table = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]


def shock_table(examples: Sequence[Example], weight: dict[str, float], thin: dict[str, int]) -> Table:
    """Rows, labels and weights of a shockable model.

    Parameters
    ----------
    examples : sequence of Example
        Those of the challenge and of svdb, and copies without a weight, are left out.
    weight : dict
        See the configuration.
    thin : dict
        Of rows that are ``shockable`` or ``other``, one in so many is used: windows of neighbouring seconds overlap.

    Returns
    -------
    features, labels, weights
    """
    parts = []
    for example in examples:
        if example.database in ("cinc2017", "svdb") or example.copy not in weight:
            continue
        count = np.arange(len(example.label))
        shockable = np.isin(example.label, (VT, VF))
        kept = np.where(shockable, count % thin["shockable"] == 0, count % thin["other"] == 0)
        due = example.rows.shock_due & (example.label != DOUBT) & kept
        weights = np.zeros(len(due))
        for rows, factor in (
            (due & shockable, 1.0),
            (due & np.isin(example.label, (OTHER, AF)), 1.0),
            (due & (example.label == NOISE), weight["noise"]),
        ):
            if rows.any():
                weights[rows] = max(rows.sum(), 10) ** weight["power"] * factor * weight[example.copy]
        parts.append((example.rows.shock[due], shockable[due], weights[due]))
    return _balanced(parts)


def af_labels(example: Example) -> NDArray[np.int8]:
    """AF label of each row for training: `AF`, `OTHER`, or `DOUBT` where the last 20 s are mixed."""
    if example.database == "cinc2017":
        # Noisy recordings teach as well: they must not look like AF.
        return np.where(example.label == AF, AF, OTHER).astype(np.int8)
    out = np.full(len(example.label), DOUBT, np.int8)
    for k, now in enumerate(example.label):
        share = float((example.label[max(0, k - MIXED + 1) : k + 1] == AF).mean())
        if now == AF and share >= SURE:
            out[k] = AF
        elif now == OTHER and share <= FREE:
            out[k] = OTHER
    return out


def af_table(examples: Sequence[Example], weight: dict[str, float]) -> Table:
    """Rows, labels and weights of the AF model, from mitdb, the challenge, and svdb (ectopy without AF).

    Parameters
    ----------
    examples : sequence of Example
    weight : dict
        See the configuration.

    Returns
    -------
    features, labels, weights
    """
    parts = []
    for example in examples:
        if example.database not in ("mitdb", "cinc2017", "svdb") or example.copy == "noisy":
            continue
        label = af_labels(example)
        due = example.rows.af_due & (label != DOUBT)
        factor = weight[example.copy] if example.database == "mitdb" else weight[example.database]
        weights = np.full(len(due), max(due.sum(), 1) ** weight["power"] * factor)
        parts.append((example.rows.af[due], label[due] == AF, weights[due]))
    return _balanced(parts)


def _balanced(parts: Sequence[Table]) -> Table:
    features, labels, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    for value in (False, True):
        weights[labels == value] /= weights[labels == value].sum()
    return features, labels, weights


Boosters = tuple[list[lgb.Booster], list[lgb.Booster]]


def fit_both(examples: Sequence[Example], config: dict[str, Any]) -> Boosters:
    """Fit the parts of the shockable model and the AF model on `examples`."""
    shock, af, seed = config["shock"], config["af"], config["seed"]
    common = {name: value for name, value in shock.items() if name != "part"}
    return (
        [
            fit(*shock_table(examples, part, shock["thin"]), common, seed + number)
            for number, part in enumerate(shock["part"])
        ],
        [fit(*af_table(examples, af["weight"]), af, seed)],
    )


def judge_boosted(example: Example, boosters: Boosters) -> Judged:
    """Verdicts of an example by boosters that are not yet files."""
    rows = example.rows
    shock = predict(boosters[0], rows.shock[rows.shock_due])
    return judge(example, scores_of(rows, shock, predict(boosters[1], rows.af[rows.af_due])))


def motion_examples(data_dir: Path, weights: QrsWeights) -> list[Example]:
    """Electrode motion that trains nothing: alone for an hour (both leads), and on record 118 at 0 dB for an hour."""
    waves, rate = motion(data_dir, MOTION_TEST)
    made = []
    for lead, mv in enumerate(waves):
        rows = through(np.tile(mv, 5), rate, weights)
        made.append(Example("nstdb", f"motion{lead}", "clean", rows, np.full(len(rows.end), NOISE, np.int8), ""))
    record = read(data_dir, "mitdb", "118")
    rng = np.random.default_rng(0)

    def draw(source: np.random.Generator, n: int, _rate: float) -> NDArray[np.float64]:
        wave = waves[int(source.integers(len(waves)))]
        part = np.take(wave, int(source.integers(len(wave))) + np.arange(n), mode="wrap").astype(np.float64)
        return np.asarray((part - part.mean()) / part.std(), np.float64)

    loud = noisy(np.tile(record.mv[:, record.lead()], 2), record.rate, rng, draw, 1.0, (0.0, 0.0))
    rows = through(loud, record.rate, weights)
    made.append(Example("mitdb", "118", "noisy", rows, np.full(len(rows.end), OTHER, np.int8), ""))
    return made


def folds(examples: Sequence[Example], count: int, seed: int) -> dict[str, int]:
    """Deal patients out to folds, each database by itself; electrode motion is held out of none."""
    rng = np.random.default_rng(seed)
    dealt: dict[str, int] = {}
    for database in ("vfdb", "mitdb", "svdb", "cinc2017"):
        keys = sorted({example.key for example in examples if example.database == database})
        dealt |= {keys[k]: number % count for number, k in enumerate(rng.permutation(len(keys)))}
    return dealt


def cross_validate(
    examples: Sequence[Example], moving: Sequence[Example], config: dict[str, Any], say: Progress
) -> dict[str, Any]:
    """Figures on held-out patients.

    Parameters
    ----------
    examples : sequence of Example
    moving : sequence of Example
        From `motion_examples`; each is scored by models that saw no recording of its patient.
    config : dict
    say : callable

    Returns
    -------
    dict
    """
    fold = folds(examples, config["folds"], config["seed"])
    judged: list[Judged] = []
    shaken: list[Judged] = []
    for number in range(config["folds"]):
        rest = [example for example in examples if fold.get(example.key) != number]
        boosters = fit_both(rest, config)
        judged += [judge_boosted(e, boosters) for e in examples if fold.get(e.key) == number]
        shaken += [judge_boosted(e, boosters) for e in moving if fold.get(e.key, 0) == number]
        say(f"fold {number + 1} of {config['folds']} done")
    return {
        "shock": shock_figures(
            [j for j in judged if j.example.database in ("mitdb", "vfdb") and j.example.copy == "clean"]
        ),
        "shock_noisy": shock_figures([j for j in judged if j.example.copy == "noisy"]),
        "motion": {j.example.name: shock_figures([j]) for j in shaken},
        "af": af_figures([j for j in judged if j.example.database == "mitdb" and j.example.copy == "clean"]),
        "af_svdb": af_figures([j for j in judged if j.example.database == "svdb"]),
        "challenge": challenge_figures([j for j in judged if j.example.database == "cinc2017"]),
        "asystole": asystole_figures([j for j in judged if j.example.database == "mitdb"]),
    }


def evaluate(data_dir: Path, model: RhythmModel, weights: QrsWeights) -> dict[str, Any]:
    """Figures of shipped models on the test records; to be looked at once.

    Parameters
    ----------
    data_dir : Path
    model : RhythmModel
    weights : QrsWeights

    Returns
    -------
    dict
    """

    def judged(examples: Sequence[Example]) -> list[Judged]:
        return [judge(example, model.classify(example.rows)) for example in examples]

    plain = {"seed": 0.0, "share": 0.0, "low": 0.0, "high": 0.0}
    ds2 = judged(list(recordings(data_dir, "mitdb", list(splits.DS2), weights, 0, plain)))
    malignant = judged(list(recordings(data_dir, "vfdb", list(splits.VFDB_TEST), weights, 0, plain)))
    outside = judged(list(recordings(data_dir, "svdb", names(data_dir, "svdb"), weights, 0, plain)))
    return {
        "vfdb": shock_figures(malignant),
        "ds2": shock_figures(ds2),
        "svdb": shock_figures(outside),
        "af_ds2": af_figures(ds2),
        "challenge": challenge_figures(judged(list(challenge(data_dir, weights, test=True)))),
        "motion": {j.example.name: shock_figures([j]) for j in judged(motion_examples(data_dir, weights))},
    }


def write(out_dir: Path, boosters: Boosters, examples: Sequence[Example], version: str) -> str:
    """Write both models.

    Parameters
    ----------
    out_dir : Path
        Made where it is missing.
    boosters : Boosters
    examples : sequence of Example
        What they were fitted on.
    version : str

    Returns
    -------
    str
        Hash of the training records.
    """
    digest = splits.training_hash(example.key for example in examples)
    out_dir.mkdir(parents=True, exist_ok=True)
    models = ((SHOCK_MODEL, SHOCK_FEATURES), (AF_MODEL, AF_FEATURES))
    for (name, features), parts in zip(models, boosters, strict=True):
        contract = Contract(model=name, version=version, rate=FS, classes=(name,), features=features, training=digest)
        save(out_dir / f"{name}.onnx", parts, contract)
    return digest


def train(config_path: Path, data_dir: Path, out_dir: Path, progress: Progress) -> dict[str, Any]:
    """Train both models, write them with their report.

    Parameters
    ----------
    config_path : Path
        TOML, see ``configs/rhythm.toml``.
    data_dir : Path
        Folder with ``vfdb``, ``mitdb``, ``svdb``, ``nstdb`` and ``cinc2017.tar``.
    out_dir : Path
        Gets ``rhythm.onnx``, ``af.onnx`` and ``rhythm.json``.
    progress : callable
        Takes lines for people.

    Returns
    -------
    dict
        The report, without figures on test records.

    Raises
    ------
    FileNotFoundError
        If recordings or the QRS model are missing.
    """
    config = tomllib.loads(config_path.read_text("utf-8"))
    weights = qrs_model.load()
    settings = {"seed": config["seed"], **config["noise"]}
    examples = training_examples(data_dir, weights, settings, progress)
    figures = cross_validate(examples, motion_examples(data_dir, weights), config, progress)
    boosters = fit_both(examples, config)
    digest = write(out_dir, boosters, examples, config["version"])
    report = {
        "config": config,
        "training": digest,
        "training_records": sorted({example.key for example in examples}),
        "cross_validation": figures,
    }
    (out_dir / "rhythm.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", "utf-8")
    progress("models and report written")
    return report
