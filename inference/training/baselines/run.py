"""Train and score the baselines: ``python -m inference.training.baselines.run --data DIR``.

Two tasks: the random 80/20 split over beats of all 48 mitdb records, and DS1 with svdb against DS2. Reference R peaks.
DS2 is scored once by each network and chooses nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from inference.training.baselines import classical, study_cnn
from inference.training.baselines.beats import RHYTHMS, Beats, beats_of, challenge_windows, draw, join
from inference.training.baselines.cnn1d import Cnn1d, normalised
from inference.training.baselines.fitting import fit, predict
from inference.training.baselines.judging import Truth, bundle_branch, by_class, by_record
from inference.training.baselines.resnet import ResNet, transferred
from inference.training.records import CLASSES, GROUP_OF_CLASS, names, read
from inference.training.splits import DS1, DS2, training_hash

CONFIG: Final = Path(__file__).parents[1] / "configs" / "baselines.toml"
RESULTS: Final = Path(__file__).parents[2] / "models" / "baselines.json"

Predictor = Callable[[Beats], NDArray[np.float64] | NDArray[np.float32]]
"""Scores of classes, shape (m, classes)."""

GROUPS: Final = np.array(GROUP_OF_CLASS)
STUDY_GROUPS: Final = np.array(study_cnn.STUDY_GROUPS)


@dataclass(frozen=True, slots=True)
class Split:
    """Beats of a task.

    Attributes
    ----------
    train, pretrain : Beats
        What trains; the part of it (DS1 with svdb only) that a transferred network sees in pre-training instead.
    test : Beats
        Scored whole.
    truths : tuple of Truth
        Of each test record, in the order of `test`; empty for the random split.
    """

    train: Beats
    test: Beats
    truths: tuple[Truth, ...] = ()


class Data:
    """The recordings, read when they are first asked for.

    Parameters
    ----------
    data_dir : Path
    config : dict
        Of ``baselines.toml``.
    """

    def __init__(self, data_dir: Path, config: dict[str, Any]) -> None:
        self._dir, self._config = data_dir, config

    @cached_property
    def random(self) -> Split:
        """80 % and 20 % of the beats of all 48 records; the training part is drawn from."""
        rng = np.random.default_rng(self._config["seed"])
        beats = join([beats_of(read(self._dir, "mitdb", name)) for name in names(self._dir, "mitdb")])
        order = rng.permutation(beats.time.size)
        test, rest = np.split(order, [round(self._config["data"]["test_share"] * order.size)])
        train = rest[draw(beats.classes[rest], self._config["data"]["random_limits"], rng)]
        return Split(beats.take(train), beats.take(np.sort(test)))

    @cached_property
    def independent(self) -> Split:
        """DS1 with svdb, drawn from, and DS2 whole."""
        chosen = [("mitdb", name) for name in DS1] + [("svdb", name) for name in names(self._dir, "svdb")]
        parts, truths = [], []
        for name in DS2:
            record = read(self._dir, "mitdb", name)
            parts.append(beats_of(record))
            truths.append(Truth(name, record.beat_times, record.classes, record.groups, record.excluded))
        return Split(join([self._drawn(*pair) for pair in chosen]), join(parts), tuple(truths))

    def _drawn(self, database: str, name: str) -> Beats:
        record = read(self._dir, database, name)
        rng = np.random.default_rng([self._config["seed"], int(name)])
        return beats_of(record, draw(record.classes, self._config["data"]["independent_limits"], rng))

    @cached_property
    def pretext(self) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Windows for pre-training with two tasks: groups N, S, V, F of svdb's beats, labels of cinc2017's records."""
        data = self._config["data"]
        rng = np.random.default_rng(self._config["seed"])
        train = self.independent.train
        beats = train.take(train.of("svdb"))
        other, rhythm, _ = challenge_windows(self._dir, data["challenge_records"], data["challenge_windows"], rng)
        code = np.concatenate([GROUPS[beats.classes], 4 + rhythm])
        allowed = np.eye(4 + len(RHYTHMS), dtype=bool)[code]
        asked = np.repeat(np.eye(2, dtype=bool)[(code >= 4).astype(int)], 4, axis=1)
        return np.concatenate([beats.windows, other]), allowed, asked

    @cached_property
    def pretrained(self) -> ResNet:
        """The residual network after pre-training on `pretext`."""
        windows, allowed, asked = self.pretext
        seed = self._config["seed"]
        drawn = study_cnn.pictures(windows)
        torch.manual_seed(seed)
        network = ResNet(allowed.shape[1])
        fit(network, lambda i: study_cnn.coloured(drawn[i]), allowed, self._config["resnet"]["pretrain"], seed, asked)
        return network


def study(split: Split, config: dict[str, Any], *_: Any) -> Predictor:
    """Train the study's network on its six classes."""
    allowed = study_cnn.labels(split.train)
    rows = np.any(allowed, axis=1)
    drawn = study_cnn.pictures(split.train.windows[rows])
    network, _history = fit(
        study_cnn.StudyCnn(), lambda i: study_cnn.coloured(drawn[i]), allowed[rows], config["study"], config["seed"]
    )
    return _on_pictures(network)


def resnet(split: Split, config: dict[str, Any], data: Data) -> Predictor:
    """Pre-train on svdb and cinc2017, fine-tune on mitdb's part of the training beats."""
    seed, settings = config["seed"], config["resnet"]
    own = split.train.take(split.train.of("mitdb"))
    drawn = study_cnn.pictures(own.windows)
    network = transferred(data.pretrained, len(CLASSES))
    fit(network, lambda i: study_cnn.coloured(drawn[i]), own.open_labels, settings["tune"], seed)
    return _on_pictures(network)


def cnn1d(split: Split, config: dict[str, Any], *_: Any) -> Predictor:
    """Train the 1-D network."""
    torch.manual_seed(config["seed"])
    x = normalised(split.train.windows)
    network, _history = fit(
        Cnn1d(len(CLASSES)), lambda i: x[i], split.train.open_labels, config["cnn1d"], config["seed"]
    )

    def predictor(beats: Beats) -> NDArray[np.float32]:
        own = normalised(beats.windows)
        return predict(network, lambda i: own[i], len(own))

    return predictor


def trees(split: Split, config: dict[str, Any], *_: Any) -> Predictor:
    """Fit the classical one: eight classes on the random split, else N, S, V, F (svdb tells no L and R)."""
    target = GROUPS[split.train.classes] if split.truths else split.train.classes
    classes = 4 if split.truths else len(CLASSES)
    model = classical.fit(classical.features(split.train), target, classes, config["classical"], config["seed"])
    return lambda beats: np.asarray(model.predict(classical.features(beats), num_threads=1))


def _on_pictures(network: torch.nn.Module) -> Predictor:
    def predictor(beats: Beats) -> NDArray[np.float32]:
        drawn = study_cnn.pictures(beats.windows)
        return predict(network, lambda i: study_cnn.coloured(drawn[i]), len(drawn))

    return predictor


TRAINERS: Final[dict[str, Callable[[Split, dict[str, Any], Data], Predictor]]] = {
    "study": study,
    "resnet": resnet,
    "cnn1d": cnn1d,
    "classical": trees,
}


def score_random(name: str, predictor: Predictor, test: Beats) -> dict[str, Any]:
    """Score the test beats of the random split; the study's network on beats of its six classes only."""
    if name != "study":
        return by_class(test.classes, predictor(test).argmax(axis=1), CLASSES)
    allowed = study_cnn.labels(test)
    test = test.take(np.any(allowed, axis=1))
    return by_class(study_cnn.labels(test).argmax(axis=1), predictor(test).argmax(axis=1), study_cnn.STUDY_CLASSES)


def score_independent(name: str, predictor: Predictor, split: Split) -> dict[str, Any]:
    """Score DS2 by EC57."""
    label = predictor(split.test).argmax(axis=1)
    cuts = np.cumsum([truth.times.size for truth in split.truths])[:-1]
    group = {"study": STUDY_GROUPS, "classical": np.arange(4)}.get(name, GROUPS)[label]
    result = by_record(split.truths, np.split(group, cuts))
    if name != "classical":
        result["bundle_branch_f1"] = bundle_branch(split.truths, np.split(label, cuts))
    return result


def run(data: Data, config: dict[str, Any], model: str, task: str) -> dict[str, Any]:
    """Train one baseline for one task (``random`` or ``independent``) and score it.

    Returns
    -------
    dict
        Figures, beats that trained by class, hash of the training records, CPU seconds of training.
    """
    split: Split = getattr(data, task)
    extra = data.pretext[1].shape[0] if model == "resnet" else 0
    used = split.train
    if model == "resnet":
        used = used.take(used.of("mitdb"))
    elif model == "study":
        used = used.take(np.any(study_cnn.labels(used), axis=1))
    began = time.process_time()
    predictor = TRAINERS[model](split, config, data)
    spent = time.process_time() - began
    score = score_independent(model, predictor, split) if split.truths else score_random(model, predictor, split.test)
    return {
        **score,
        "trained_on": dict(zip(CLASSES, np.bincount(used.classes, minlength=len(CLASSES)).tolist(), strict=True)),
        "pretrained_on": extra,
        "records": len(set(used.record.tolist())),
        "training": training_hash(used.record.tolist()),
        "cpu_s": round(spent, 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the baselines asked for and write their figures, one after another, into the results file."""
    parser = argparse.ArgumentParser(description="Train and score the baselines.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--models", nargs="*", choices=list(TRAINERS), default=list(TRAINERS))
    parser.add_argument("--tasks", nargs="*", choices=["independent", "random"], default=["independent", "random"])
    options = parser.parse_args(arguments)
    config = tomllib.loads(options.config.read_text("utf-8"))
    torch.set_num_threads(1)
    data = Data(options.data, config)
    for task in options.tasks:
        for model in options.models:
            result = run(data, config, model, task)
            content = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
            content.setdefault("beats", {}).setdefault(task, {})[model] = result
            options.out.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
            line = {key: value for key, value in result.items() if key not in ("confusion", "training")}
            sys.stdout.write(f"{task} {model}: {json.dumps(line)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
