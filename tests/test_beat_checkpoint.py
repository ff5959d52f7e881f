"""Training that is cut off and resumed, stopped early, taught by trees, pre-trained, and searched over."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightgbm")
optuna = pytest.importorskip("optuna")

from dsp.spectrogram import BINS  # noqa: E402
from inference import features_image  # noqa: E402
from inference.beats import CLASSES  # noqa: E402
from inference.contract import Contract  # noqa: E402
from inference.features import NAMES  # noqa: E402
from inference.features_image import CHANNELS, COLUMNS  # noqa: E402
from inference.runtime import Model  # noqa: E402
from inference.training import beat_search  # noqa: E402
from inference.training.beat_checkpoint import CheckpointError, Checkpoints, key  # noqa: E402
from inference.training.beat_export import save  # noqa: E402
from inference.training.beat_fit import (  # noqa: E402
    Rows,
    fit_network,
    fit_trees,
    network_logits,
    taught,
    tree_probabilities,
)
from inference.training.beat_rows import merged  # noqa: E402
from inference.training.beats import fit, teach  # noqa: E402

CONFIG = tomllib.loads(
    (Path(str(resources.files("inference.training"))) / "configs" / "beat_taught.toml").read_text("utf-8")
)
SETTINGS = {**CONFIG["network"], "epochs": 3, "draws": 384, "batch": 64}
TREES = {**CONFIG["trees"], "trees": 4, "parts": 2}


def made_rows(m: int = 240, seed: int = 0) -> Rows:
    """Make rows in which one feature tells the class."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((m, len(NAMES))).astype(np.float32)
    images = rng.standard_normal((m, CHANNELS, COLUMNS, BINS)).astype(np.float16)
    allowed = np.array([7, 8, 16], np.uint8)[np.digitize(features[:, 3], (-0.4, 0.4))]
    return Rows(features, images, allowed, np.ones(m, np.float32))


class CutOffError(Exception):
    """The training is cut off here."""


def cut_off(epoch: int) -> Any:
    """Raise after an epoch."""

    def progress(text: str) -> None:
        if f"epoch {epoch} " in text:
            raise CutOffError

    return progress


def same(one: Any, other: Any) -> bool:
    """Whether two networks have the same bits."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("epoch", [1, 2])
def test_resumed_training_gives_the_same_bits(tmp_path: Path, epoch: int) -> None:
    """A training cut off after an epoch and resumed ends in the network of one that ran through."""
    data, held = made_rows(), made_rows(90, 1)
    through = fit_network(data, SETTINGS, 5, held=held)
    with pytest.raises(CutOffError):
        fit_network(data, SETTINGS, 5, cut_off(epoch), held=held, checkpoints=Checkpoints(tmp_path, resume=False))
    seen: list[str] = []
    resumed = fit_network(data, SETTINGS, 5, seen.append, held=held, checkpoints=Checkpoints(tmp_path, resume=True))
    assert len(seen) == 3 - epoch
    assert same(through.network, resumed.network)
    assert (through.losses, through.held, through.epochs) == (resumed.losses, resumed.held, resumed.epochs)
    again = fit_network(data, SETTINGS, 5, cut_off(3), held=held, checkpoints=Checkpoints(tmp_path, resume=True))
    assert same(through.network, again.network)


def test_checkpoints_of_another_training_are_refused(tmp_path: Path) -> None:
    """Other rows or settings are named, a damaged file too; without resuming the fit begins anew."""
    data = made_rows()
    short = {**SETTINGS, "epochs": 1}
    fit_network(data, short, 5, checkpoints=Checkpoints(tmp_path, resume=False))
    with pytest.raises(CheckpointError, match="another configuration"):
        fit_network(data, short, 6, checkpoints=Checkpoints(tmp_path, resume=True))
    with pytest.raises(CheckpointError, match="other recordings"):
        fit_network(made_rows(seed=3), short, 5, checkpoints=Checkpoints(tmp_path, resume=True))
    fit_network(data, short, 6, checkpoints=Checkpoints(tmp_path, resume=False))
    (tmp_path / "network.pt").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="damaged"):
        fit_network(data, short, 6, checkpoints=Checkpoints(tmp_path, resume=True))


def test_kept_trees_are_the_same(tmp_path: Path) -> None:
    """Trees read back from a checkpoint give the bits that they gave before."""
    data = made_rows()
    booster = fit_trees(data, TREES, 1)
    kept = Checkpoints(tmp_path, resume=True)
    assert kept.booster("trees", "x") is None
    kept.save_booster("trees", "x", booster)
    again = kept.booster("trees", "x")
    assert again is not None
    assert np.array_equal(tree_probabilities(again, data.features), tree_probabilities(booster, data.features))


def test_seed_makes_the_network() -> None:
    """The same seed gives the same network, another one another."""
    data, one = made_rows(), {**SETTINGS, "epochs": 1}
    first = fit_network(data, one, 1).network
    assert same(first, fit_network(data, one, 1).network)
    assert not same(first, fit_network(data, one, 2).network)


def test_training_stops_when_other_patients_no_longer_gain() -> None:
    """With a rate far too high for the held-out rows training ends early, and the best epoch is given."""
    data = made_rows()
    held = made_rows(90, 1)
    wrong = Rows(held.features, held.images, np.roll(held.allowed, 1), held.weight)
    found = fit_network(data, {**SETTINGS, "epochs": 30, "patience": 2}, 1, held=wrong)
    assert len(found.losses) < 30
    assert found.epochs == 1 + int(np.argmin(found.held)) == len(found.losses) - 2


def test_trees_teach() -> None:
    """The teacher's loss is least where the summed classes have its probabilities, however N is shared out."""
    soft = np.array([[0.7, 0.2, 0.1]], np.float32)

    def value(p: list[float]) -> float:
        return float(taught(torch.log(torch.tensor([p])), soft))

    good = value([0.4, 0.1, 0.1, 0.2, 0.1, 0.1, 1e-9, 1e-9])
    assert good == pytest.approx(value([0.1, 0.3, 0.2, 0.2, 0.1, 0.1, 1e-9, 1e-9]), abs=1e-5)
    assert good < value([0.4, 0.1, 0.1, 0.1, 0.2, 0.1, 1e-9, 1e-9])


def test_pretraining_goes_on_with_one_database() -> None:
    """Pre-training uses all rows, fine-tuning those of the database named; labels alone teach where asked."""
    parts = {("mitdb", "1"): made_rows(seed=1), ("svdb", "2"): made_rows(seed=2), ("svdb", "3"): made_rows(seed=3)}
    config: dict[str, Any] = {"network": {**SETTINGS, "epochs": 1, "soften": 0.0}, "trees": TREES,
                              "pretrain": {"epochs": 1, "rate": 1e-3, "then": "mitdb"}}  # fmt: skip
    found: list[str] = []
    tuned = fit(parts, config, "x", 1, found.append).fitted
    assert [text.split(",")[0] for text in found] == ["x-pretrain", "x"]
    plain = fit(parts, {**config, "pretrain": {**config["pretrain"], "epochs": 0}}, "x", 1).fitted
    assert not same(tuned.network, plain.network)


def test_early_stopping_holds_patients_out() -> None:
    """With early stopping some patients' rows are no training rows."""
    parts = {("svdb", str(i)): made_rows(seed=i) for i in range(4)}
    config = {"network": {**SETTINGS, "epochs": 1, "held": 4}, "trees": TREES, "pretrain": {"epochs": 0}}
    found = fit(parts, config, "x", 1, early=True).fitted
    assert len(found.held) == 1
    assert len(fit(parts, config, "x", 1).fitted.held) == 0


def test_teachers_are_strangers() -> None:
    """No row is judged by trees that saw its patient; rows of cinc2017 get the mean of all trees."""
    parts = {("svdb", "1"): made_rows(seed=1), ("cinc2017", "A"): made_rows(60, 2), ("svdb", "3"): made_rows(seed=3)}
    soft = teach(parts, TREES, "x", 1)
    assert soft.shape == (540, 3)
    assert np.allclose(soft.sum(axis=1), 1.0, atol=1e-5)
    trees = [fit_trees(merged([parts[other], parts["cinc2017", "A"]]), TREES, 1) for other in list(parts)[::2]]
    # The order of rows differs from patient to patient, so equal trees need equal orders.
    said = [tree_probabilities(one, parts["cinc2017", "A"].features) for one in trees]
    assert np.abs(soft[240:300] - np.mean(said, axis=0)).max() < 0.3
    other = {**parts, ("svdb", "1"): replace(parts["svdb", "1"], allowed=np.roll(parts["svdb", "1"].allowed, 7))}
    assert np.array_equal(teach(other, TREES, "x", 1)[:240], soft[:240])


def test_resumed_trees_and_network(tmp_path: Path) -> None:
    """Trees and network of a fit that was cut off between them are those of one that ran through."""
    parts = {("svdb", "1"): made_rows(seed=1), ("svdb", "2"): made_rows(seed=2)}
    config: dict[str, Any] = {"network": SETTINGS, "trees": TREES, "pretrain": {"epochs": 0}}
    through = fit(parts, config, "x", 1)
    with pytest.raises(CutOffError):
        fit(parts, config, "x", 1, cut_off(1), Checkpoints(tmp_path, resume=False))
    resumed = fit(parts, config, "x", 1, None, Checkpoints(tmp_path, resume=True))
    assert same(through.fitted.network, resumed.fitted.network)
    assert through.booster.model_to_string() == resumed.booster.model_to_string()


@pytest.mark.parametrize("patch", [2, 4])
def test_exported_graph_is_the_network(tmp_path: Path, patch: int) -> None:
    """The graph gives the network's logits with the bias on what the mix takes, and the trees' scores."""
    data = made_rows()
    shape = {**SETTINGS["shape"], "patch": patch, "blocks": [[32, 8 // patch // 2], [48, 2]]}
    network = fit_network(data, {**SETTINGS, "epochs": 1, "shape": shape}, 1).network
    booster = fit_trees(data, TREES, 1)
    contract = Contract("beat", "1", 250, CLASSES, NAMES, image=features_image.CONTRACT)
    save(tmp_path / "beat.onnx", network, booster, np.arange(8.0), contract)
    logits, trees = Model(tmp_path / "beat.onnx").run(data.features, data.images.astype(np.float32))
    assert np.allclose(logits, network_logits(network, data.features, data.images) + 2 * np.arange(8), atol=2e-3)
    assert np.allclose(trees, booster.predict(data.features, raw_score=True), atol=1e-4)


def test_key_names_arrays_and_settings() -> None:
    """Any change of a byte, a shape or a setting gives another key."""
    x = np.arange(6.0)
    keys = {key(x), key(x.reshape(2, 3)), key(x + 1), key(x.astype(np.float32)), key(x, 1), key(x, {"a": 1})}
    assert len(keys) == 6
    assert key(x.copy(), {"a": 1}) == key(x, {"a": 1})


def test_search_space() -> None:
    """Each path of the shipped search exists, is asked for by its kind, and its first trials lie in it."""
    section = CONFIG["search"]
    config = beat_search.changed({"every": 1, **CONFIG}, section["smaller"])
    assert config["every"] == section["smaller"]["every"] > 1
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for values in section["first"]:
        study.enqueue_trial(beat_search.named(config, section["space"], values))
    for values in section["first"]:
        asked = beat_search.suggest(study.ask(), section["space"])
        assert asked.keys() == section["space"].keys()
        for path, value in values.items():
            assert asked[path] == value
        assert beat_search.changed(config, asked)["network"]["shape"]["stem"] == 16
    with pytest.raises(ValueError, match=r"network\.depth"):
        beat_search.changed(config, {"network.depth": 3})
