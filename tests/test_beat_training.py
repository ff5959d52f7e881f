"""The beat trainer: labels, synthetic patients, splits, the combination of the two models, and a small whole run."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightgbm")

from test_features import patient  # noqa: E402

from dsp.layout import BLOCK  # noqa: E402
from inference import beats as runtime  # noqa: E402
from inference.beats import BeatModel  # noqa: E402
from inference.training import beat_synthetic, beats, records  # noqa: E402
from inference.training.beat_data import ANY_N, Strip, annotated, piece, rows  # noqa: E402
from inference.training.beat_export import rounded_down  # noqa: E402
from inference.training.beat_fit import groups  # noqa: E402
from inference.training.beat_network import loss  # noqa: E402
from inference.training.beat_random import halves, random_split, table  # noqa: E402

CONFIG = Path(str(resources.files("inference.training"))) / "configs" / "beat.toml"


def made_strip(premature: int = 30) -> Strip:
    """Make a patient in which every fourth beat is early and called S."""
    gaps = ([200] * 3 + [130]) * premature
    x, flags, r, _ = patient(gaps)
    allowed = np.full(r.size, ANY_N, np.uint8)
    allowed[4::4] = 1 << 3
    return Strip("svdb/made", "svdb/made", x, flags, r, allowed)


def small_config(tmp_path: Path) -> Path:
    """Shrink the shipped configuration until a run takes seconds."""
    text = CONFIG.read_text("utf-8")
    for name, value in {
        "folds": "2\nevery = 12",
        "epochs": "1",
        "parts": "2",
        "held": "3",
        "draws": "2560",
        "trees": "5",
        "fibrillation": "0",
        "cold_pieces": "1",
    }.items():
        text = re.sub(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
    path = tmp_path / "small.toml"
    path.write_text(text, "utf-8")
    return path


def test_classes_agree() -> None:
    """The runtime and the records name the same classes in the same order."""
    assert runtime.CLASSES == records.CLASSES


def test_groups_of_open_labels() -> None:
    """A label that leaves N, L and R open is of group N; none is of group -1."""
    assert groups(np.array([ANY_N, 1 << 3, 1 << 4, 1 << 5, 1 << 6, 0], np.uint8)).tolist() == [0, 1, 2, 3, 4, -1]


def test_rows_of_a_strip() -> None:
    """Every beat gets its label, chosen beats alone if asked, and a cold piece starts without history."""
    source = made_strip()
    peaks = annotated(source.beats, source.x.size)
    whole = rows(source, peaks)
    assert np.array_equal(whole.r, source.beats[: whole.r.size])
    assert np.array_equal(whole.allowed, source.allowed[: whole.r.size])
    few = rows(source, peaks, source.allowed == 1 << 3)
    assert (few.allowed == 1 << 3).all()
    assert few.r.size == 30
    cold = piece(source, 20, 60)
    assert cold.x.size == 40 * BLOCK
    assert ((cold.beats >= 0) & (cold.beats < cold.x.size)).all()
    assert rows(cold, annotated(cold.beats, cold.x.size)).features[0, 1] == 0


def test_synthetic_patients() -> None:
    """Thinning and runs make S the majority, keep each beat at its own wave, and need enough S to draw from."""
    source = made_strip()
    rng = np.random.default_rng(0)
    thin = beat_synthetic.thinned(source, rng)
    runs = beat_synthetic.runs(source, rng, 4)
    assert thin is not None
    assert runs is not None
    assert (thin.allowed == 8).mean() > (source.allowed == 8).mean()
    assert (runs.allowed == 8).mean() > 0.6
    for one in (thin, runs):
        assert one.patient == source.patient
        heights = one.x[one.beats] - np.array([one.x[max(0, at - 30) : at - 15].mean() for at in one.beats])
        assert np.median(heights) > 0.7
    assert beat_synthetic.thinned(made_strip(5), rng) is None
    assert beat_synthetic.runs(made_strip(5), rng, 4) is None


def test_loss_leaves_open_classes_open() -> None:
    """Any split of the probability among the allowed classes costs the same."""
    allowed = torch.tensor([[1.0, 1.0, 0.0]])
    first = loss(torch.log(torch.tensor([[0.7, 0.2, 0.1]])), allowed, torch.ones(1), 0.0)
    second = loss(torch.log(torch.tensor([[0.45, 0.45, 0.1]])), allowed, torch.ones(1), 0.0)
    assert float(first) == pytest.approx(float(second), abs=1e-6)
    assert float(first) == pytest.approx(-np.log(0.9), abs=1e-5)


def test_rounded_thresholds() -> None:
    """A float32 value lies on the same side of a double and of the threshold made of it."""
    for threshold in (0.1, 1 / 3, -0.1, 2.0, 1e-30):
        small = rounded_down(threshold)
        assert small <= threshold < float(np.nextafter(np.float32(small), np.float32(np.inf)))


def test_halves_and_table() -> None:
    """Each class gives its share to the test, no beat is on both sides, and the table counts right."""
    classes = np.repeat([0, 3, 4], [100, 50, 10])
    train, test = halves(classes, 0.2, np.random.default_rng(0))
    assert np.bincount(classes[test]).tolist() == [20, 0, 0, 10, 2]
    assert not set(train) & set(test)
    assert train.size + test.size == classes.size
    found = table(np.array([0, 0, 4, 4]), np.array([0, 4, 4, 4]))
    assert found["accuracy"] == 0.75
    assert found["classes"]["V"] == {"beats": 2, "sensitivity": 1.0, "precision": 0.6667, "f1": 0.8}
    assert found["classes"]["Q"]["sensitivity"] is None


@pytest.mark.data
@pytest.mark.timeout(600)
def test_small_run(data_dir: Path, tmp_path: Path) -> None:
    """A small run writes a model that loads, a report with every part, and the same again for the same seed."""
    config = small_config(tmp_path)
    lines: list[str] = []
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        report = beats.train(config, data_dir, tmp_path / name / "beat.onnx", lines.append)
        model = BeatModel.load(tmp_path / name)
        assert model.contract.temperature == report["temperature"]
        made.append(json.loads((tmp_path / name / "beat.json").read_text("utf-8")))
    assert made[0] == made[1]
    assert {"cross_validation", "test", "bias", "training_records"} <= set(made[0])
    assert any("DS2" in line for line in lines)


@pytest.mark.data
@pytest.mark.timeout(300)
def test_small_random_split(data_dir: Path, tmp_path: Path) -> None:
    """A small run of the random split reports on a fifth of the beats."""
    report = random_split(small_config(tmp_path), data_dir, tmp_path / "report.json", lambda _: None, every=16)
    assert report["test_beats"] == pytest.approx(0.25 * report["train_beats"], rel=0.02)
    assert json.loads((tmp_path / "report.json").read_text("utf-8")) == report
