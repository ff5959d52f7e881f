"""The maps of the beat verdicts: exact sums, the shipped weights untouched, small enough for every beat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import explain
from inference.beats import CLASSES, BeatModel
from inference.contract import ContractError
from inference.features import NAMES, Rows
from inference.features_image import CHANNELS, COLUMNS


def some_rows(m: int, seed: int = 0) -> Rows:
    """Rows of noise."""
    rng = np.random.default_rng(seed)
    images = rng.normal(0, 1, (m, CHANNELS, COLUMNS, explain.BINS)).astype(np.float32).transpose(0, 1, 3, 2)
    zeros = np.zeros(m, np.int64)
    return Rows(
        np.array([0, m]), zeros, zeros, rng.normal(0, 1, (m, len(NAMES))).astype(np.float32), images,
        zeros.astype(np.float32), zeros.astype(np.float32), zeros, zeros.astype(np.uint8),
    )  # fmt: skip


@pytest.fixture(scope="module")
def model() -> BeatModel:
    return BeatModel.load()


@pytest.mark.parametrize("m", [0, 1, 5, 70])
def test_explaining_changes_no_bit_of_the_probabilities(model: BeatModel, m: int) -> None:
    """The run that gives the maps gives the very probabilities of the run that doesn't."""
    rows = some_rows(m)
    p, maps = model.explain(rows)
    assert np.array_equal(p, model.classify(rows))
    assert [bool(item) for item in maps] == (p.argmax(axis=1) != 0).tolist()
    assert all(len(item) == explain.SIZE for item in model.explain(rows, normal=True)[1])


def test_cells_and_columns_add_up_to_the_step_between_the_logits(model: BeatModel) -> None:
    """Cells, feature columns and biases sum to the logit of one class less the other's, for every pair of classes."""
    rows = some_rows(20, 3)
    outputs = model.explainer.model.run(rows.features, rows.images.transpose(0, 1, 3, 2))
    logits, _, activation, joined, hidden = outputs
    weights = model.explainer.weights
    for second in range(1, len(CLASSES)):
        best, other = np.zeros(20, np.int64), np.full(20, second)
        cells, columns = explain.maps(activation, joined, hidden, weights, best, other)
        # What is left when the input of the linear rest is zero: the biases, seen from the logits' side.
        slope = ((weights.last[best] - weights.last[other]) * (hidden > 0)).astype(np.float64)
        linear = (slope * hidden).sum(axis=1)
        head_bias = linear - (slope @ weights.head * joined).sum(axis=1)
        pooled = (activation * weights.pool).sum(axis=(2, 3))
        channels = len(weights.pool)
        on = joined[:, :channels] > 0
        pool_bias = ((slope @ weights.head)[:, :channels] * on * (joined[:, :channels] - pooled)).sum(axis=1)
        last_bias = (logits[:, 0] - logits[:, second]) - linear
        assert np.ptp(last_bias) < 1e-3
        total = cells.sum(axis=(1, 2)) + columns + head_bias + pool_bias + last_bias
        assert np.allclose(total, logits[:, 0] - logits[:, second], atol=1e-3)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_packed_map_keeps_signs_and_its_strongest_cell(seed: int) -> None:
    """Packing loses less than a hundredth of the strongest cell, and the grid keeps each cell's value at its centre."""
    cells = np.random.default_rng(seed).normal(0, 1, (1, *explain.CELLS)).astype(np.float32)
    packed = explain.pack(cells, np.zeros(1, np.float32))[0]
    grid = explain.heat(packed)
    assert grid.shape == (explain.BINS, COLUMNS)
    at_centres = grid[:: explain.STRIDE, :: explain.STRIDE].T
    assert np.allclose(at_centres, cells[0] / np.abs(cells).max(), atol=0.01)
    assert np.abs(grid).max() <= 1.0
    assert explain.image_share(packed) == 100


def test_a_map_of_another_size_is_refused() -> None:
    """A map that isn't one is an error, not a picture."""
    with pytest.raises(ValueError, match="19 bytes"):
        explain.heat(b"abc")


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    """No file: what is missing and what to do."""
    with pytest.raises(ContractError, match="install the package again"):
        explain.Explainer.load(tmp_path / "beat.onnx")
