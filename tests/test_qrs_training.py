"""Training data of the QRS detector keep their truth, and a network comes out the same twice."""

from __future__ import annotations

import numpy as np
import pytest

from dsp.layout import FS
from dsp.qrs import QrsWeights
from dsp.qrs_features import FIRST_NAMES, SECOND_NAMES
from inference.training import qrs_data
from inference.training.qrs import Table, fit, passing, silent, tabulate
from inference.training.qrs_scores import Batch, figures, frame, score
from inference.training.scoring import Counts

STILL = {"noise": 0.0, "loud": 0.0, "flip": 0.0, "stretch": 0.0, "gap": 0.0, "stop": 0.0}


def spikes(times, seconds, rate=250.0):
    """Make a piece with a narrow spike at each time."""
    x = np.zeros(int(seconds * rate), np.float32)
    for beat in times:
        at = int(beat * rate)
        x[at - 3 : at + 4] = [0.1, 0.4, 0.8, 1.0, 0.8, 0.4, 0.1]
    return qrs_data.Piece("a/b", rate, x, np.floor(np.asarray(times) * rate) / rate, np.zeros((0, 2)), 1.0)


class Silence(qrs_data.Noise):
    """Noise of nothing, without recordings."""

    def __init__(self) -> None:
        pass

    def draw(self, rng, n, rate):
        """Give zeros."""
        return np.zeros(n)


def test_cutting_keeps_every_beat_at_its_place():
    """Pieces follow one another, and each beat lies on its spike."""
    piece = spikes(np.arange(1.0, 599.0, 0.83), 600)
    parts = list(qrs_data.cut(piece, np.random.default_rng(1), 0.5))
    assert len(parts) > 3
    assert sum(part.beats.size for part in parts) == piece.beats.size
    for part in parts:
        places = np.round(part.beats * part.rate).astype(int)
        assert np.all(part.mv[places] == 1.0)


@pytest.mark.parametrize("change", [{}, {"flip": 1.0}, {"stretch": 1.0}])
def test_worse_pieces_keep_their_beats_at_their_place(change):
    """Gain, sign and speed change; the spike stays within a sample of its mark."""
    piece = spikes(np.arange(1.0, 55.0, 0.9), 60)
    worse = qrs_data.worsen(piece, np.random.default_rng(4), Silence(), STILL | change)
    flat = np.abs(worse.mv - np.median(worse.mv))
    for beat in worse.beats[(worse.beats > 0.5) & (worse.beats < worse.mv.size / worse.rate - 0.5)]:
        at = round(beat * worse.rate)
        near = flat[at - 20 : at + 21]
        steady = near - np.median(near)
        assert abs(int(np.argmax(np.abs(steady))) - 20) <= 2


def test_a_stopped_heart_has_no_beats_after_it_stops():
    """After the stop the signal is still and no beat is marked."""
    piece = spikes(np.arange(1.0, 55.0, 0.9), 60)
    worse = qrs_data.worsen(piece, np.random.default_rng(4), Silence(), STILL | {"stop": 1.0})
    assert worse.beats.size < piece.beats.size
    last = int((worse.beats[-1] + 0.95) * worse.rate)
    assert np.ptp(worse.mv[last:]) < 0.02 * np.ptp(worse.mv[:last])


def test_only_what_two_detectors_find_becomes_a_label():
    """Where a threshold and the network differ nothing is taught; where they differ often, all is dropped."""
    piece = spikes(np.arange(1.0, 55.0, 0.9), 60)
    full = qrs_data.agreed(piece, piece.beats, piece.mv)
    assert full is not None
    assert full.beats.size == piece.beats.size
    lacking = qrs_data.agreed(piece, np.delete(piece.beats, 10), piece.mv)
    assert lacking is not None
    assert lacking.unsure.shape[0] == full.unsure.shape[0] + 1
    assert qrs_data.agreed(piece, piece.beats[::2], piece.mv) is None


def test_training_separates_and_repeats():
    """A network learns a threshold on one column, and the same seed gives the same weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 5)).astype(np.float16)
    table = Table(x, x[:, 2] > 0.3, np.ones(4000, np.float32), np.zeros(4000, np.int8))
    config = {"hidden": [8, 4], "epochs": 6, "rate": 1e-2, "decay": 0.0, "dropout": 0.0, "batch": 128}
    one, two = (fit(table, np.ones(4000, bool), config, 3) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    w1, b1, w2, b2, w3, b3 = one
    out = np.maximum(np.maximum(x.astype(np.float32) @ w1 + b1, 0) @ w2 + b2, 0) @ w3 + b3
    assert np.mean((out[:, 0] > 0) == table.y) > 0.97


def test_rows_are_labelled_and_easy_ones_thinned():
    """Each spike gives one true row; of easy rows fewer are kept, and their weight makes up for it."""
    piece = spikes(np.arange(1.0, 290.0, 0.9), 300)
    batches = frame([(0, piece)], 1)
    blank = QrsWeights(silent(), passing(), 0.0)
    full = tabulate(batches, lambda _: blank, second=False, easy=1.0, seed=0)
    assert full.y.sum() == piece.beats.size
    assert full.x.shape[1] == len(FIRST_NAMES)
    sharp = QrsWeights((*silent()[:5], np.array([9.0], np.float32)), passing(), 0.0)
    thin = tabulate(batches, lambda _: sharp, second=True, easy=0.2, seed=0)
    assert thin.x.shape[1] == len(SECOND_NAMES)
    assert thin.y.sum() < 0.4 * piece.beats.size
    assert thin.weight[thin.y].sum() == pytest.approx(piece.beats.size, rel=0.4)


def test_scores_leave_second_leads_out():
    """Only main leads are scored; a detector that says nothing misses everything."""
    piece = spikes(np.arange(1.0, 20.0, 0.9), 21)
    other = qrs_data.Piece("c/d", 250.0, piece.mv, piece.beats, piece.unsure, 0.4, main=False)
    signal = qrs_data.through_frontend([piece, other])
    counts = score([Batch([piece, other], signal, 0)], lambda _: QrsWeights(silent(), passing(), 1.0))
    assert counts == {"a/b": Counts(0, piece.beats.size, 0)}
    assert figures([Counts(99, 1, 0)])["sensitivity"] == 99.0
    assert signal.offsets[1] >= 21 * FS
