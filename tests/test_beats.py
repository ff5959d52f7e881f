"""The beat model: the shipped file fits the features, its verdicts are probabilities, and rows don't see each other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsp.spectrogram import BINS
from inference.beats import CLASSES, FILE, BeatModel, mix, probabilities
from inference.contract import KEY, ContractError, to_json
from inference.features import NAMES, Rows
from inference.features_image import CHANNELS, COLUMNS
from inference.shipped import shipped

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def model() -> BeatModel:
    """Load the shipped model."""
    return BeatModel.load()


def random_rows(m: int, seed: int = 0) -> Rows:
    """Make rows of noise, of the size of real ones."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((m, CHANNELS, COLUMNS, BINS)).astype(np.float32)
    features = rng.standard_normal((m, len(NAMES))).astype(np.float32)
    count, zeros = np.arange(m, dtype=np.int64), np.zeros(m, np.float32)
    return Rows(
        np.array([0, m]),
        count,
        count,
        features,
        images.transpose(0, 1, 3, 2),
        zeros,
        zeros,
        count,
        zeros.astype(np.uint8),
    )


def part(rows: Rows, first: int, last: int) -> Rows:
    """Take a stretch of the rows."""
    return replace(rows, features=rows.features[first:last], images=rows.images[first:last])


def test_probabilities(model: BeatModel) -> None:
    """Verdicts are float32 probabilities that sum to 1, and no rows give none."""
    p = model.classify(random_rows(70))
    assert p.shape == (70, len(CLASSES))
    assert p.dtype == np.float32
    assert (p >= 0).all()
    assert np.abs(p.sum(axis=1) - 1).max() < 1e-5
    assert model.classify(random_rows(0)).shape == (0, len(CLASSES))


def test_rows_do_not_see_each_other(model: BeatModel) -> None:
    """The bits of a row's verdict don't depend on how many rows are classified with it."""
    rows = random_rows(150)
    whole = model.classify(rows)
    for size in (1, 2, 3, 5, 17, 64, 100):
        cut = np.concatenate([model.classify(part(rows, at, at + size)) for at in range(0, 150, size)])
        assert cut.tobytes() == whole.tobytes(), size


def test_mix() -> None:
    """Trees that agree change nothing; others move S against N halfway; L to N stays as the network has it."""
    p = np.array([[0.3, 0.2, 0.02, 0.2, 0.2, 0.05, 0.01, 0.02]])
    groups = np.array([[0.57, 0.2, 0.2]])
    same = probabilities(mix(np.log(p).astype(np.float32), np.log(groups).astype(np.float32)), 1.0)
    assert np.allclose(same, p, atol=1e-6)
    moved = mix(np.log(p).astype(np.float32), np.log(groups * [1.0, 4.0, 1.0]).astype(np.float32))[0]
    assert moved[3] - moved[0] == pytest.approx(np.log(0.2 / 0.3) + 0.5 * np.log(4.0), abs=1e-5)
    assert moved[0] - moved[1] == pytest.approx(np.log(1.5), abs=1e-5)


def test_temperature() -> None:
    """A higher temperature keeps the order and makes verdicts less sure; huge logits do not overflow."""
    logits = np.array([[3.0, 1.0, 0.0], [1e4, 0.0, -1e4]])
    cold, warm = probabilities(logits, 1.0), probabilities(logits, 2.0)
    assert cold[0, 0] > warm[0, 0] > warm[0, 1] > cold[0, 1]
    assert np.isfinite(warm).all()


def test_model_for_other_features_is_refused(model: BeatModel, tmp_path: Path) -> None:
    """A model whose contract names other features is refused, and so is an empty folder."""
    shutil.copy(shipped() / FILE, tmp_path / FILE)
    graph = onnx.load(str(tmp_path / FILE))
    other = replace(model.contract, features=tuple(reversed(NAMES)))
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, {KEY: to_json(other)})
    onnx.save(graph, str(tmp_path / FILE))
    with pytest.raises(ContractError, match="order differs"):
        BeatModel.load(tmp_path)
    with pytest.raises(ContractError, match="no model"):
        BeatModel.load(tmp_path / "none")


def test_shipped_report_belongs_to_the_model(model: BeatModel) -> None:
    """The report beside the model names its training records, none of DS2 or paced, and figures above the floor."""
    splits = pytest.importorskip("inference.training.splits")
    report = json.loads((shipped() / "beat.json").read_text("utf-8"))
    records = report["training_records"]
    assert splits.training_hash(records) == model.contract.training
    assert not {f"mitdb/{name}" for name in (*splits.DS2, *splits.PACED)} & set(records)
    assert not [name for name in records if name.startswith("cinc2017/") and splits.challenge_test(name[9:])]
    assert report["temperature"] == model.contract.temperature
    veb = report["test"]["live R peaks"]["veb"]
    assert veb["sensitivity"][0] >= 0.88
    assert veb["precision"][0] >= 0.85
    assert (shipped() / FILE).stat().st_size < 2_000_000


def test_random_split_report() -> None:
    """The report of the random split holds all eight classes and an accuracy of 99 % or more."""
    report = json.loads((shipped() / "random_split.json").read_text("utf-8"))
    assert tuple(report["classes"]) == CLASSES
    assert report["accuracy"] >= 0.99
    confusion = np.array(report["confusion"])
    assert confusion.sum() == report["test_beats"]
    assert np.trace(confusion) / confusion.sum() == pytest.approx(report["accuracy"], abs=1e-4)
