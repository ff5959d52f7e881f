"""What only training makes: wavelet images, synthetic conduction, and the models of the random split."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightgbm")

from test_beat_training import made_strip  # noqa: E402

from dsp.layout import FS  # noqa: E402
from dsp.spectrogram import BINS  # noqa: E402
from inference.features_image import BEFORE, CHANNELS, COLUMNS  # noqa: E402
from inference.training import beat_conduction, beat_random  # noqa: E402
from inference.training.beat_data import annotated, rows  # noqa: E402
from inference.training.beat_wavelet import FREQUENCIES, KINDS, LEFT, RIGHT, kernels, wavelet_images  # noqa: E402


def test_morlet_measures_a_sine() -> None:
    """A sine of 1 mV has magnitude 1 in the row of its frequency, and less three rows away."""
    re, im = kernels("morlet")
    t = np.arange(-LEFT, RIGHT) / FS
    for row in (8, 14, 20):
        wave = np.sin(2 * np.pi * FREQUENCIES[row] * t)
        magnitude = np.hypot(wave @ re, wave @ im).reshape(COLUMNS, BINS)[BEFORE]
        assert magnitude[row] == pytest.approx(1.0, abs=0.05)
        assert magnitude[row - 3] < 0.9
        assert magnitude[row + 3] < 0.9


def test_ricker_is_real_and_the_other_kinds_are_refused() -> None:
    """The Ricker wavelet has no imaginary part; a kind that isn't there is named with those that are."""
    _, im = kernels("ricker")
    assert not im.any()
    with pytest.raises(ValueError, match="haar"):
        kernels("haar")


@pytest.mark.parametrize("kind", KINDS)
def test_wavelet_rows_differ_in_the_image_alone(kind: str) -> None:
    """Rows with wavelet images have the beats, labels and features of the shipped kind."""
    source = made_strip()
    peaks = annotated(source.beats, source.x.size)
    keep = np.arange(source.beats.size) % 2 == 0
    shipped, other = rows(source, peaks, keep), rows(source, peaks, keep, kind)
    assert np.array_equal(shipped.r, other.r)
    assert np.array_equal(shipped.features, other.features)
    assert other.images.shape == shipped.images.shape == (shipped.r.size, CHANNELS, COLUMNS, BINS)
    assert np.isfinite(other.images.astype(np.float32)).all()


def test_wavelet_images_look_no_further_ahead() -> None:
    """Samples beyond those of the shipped image change nothing; the first beat knows no mean image."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(2000).astype(np.float32)
    r = np.array([600, 900])
    usual = np.ones(2, bool)
    images = wavelet_images(x, r, usual, "morlet")
    later = x.copy()
    later[900 + RIGHT :] = 5.0
    assert np.array_equal(wavelet_images(later, r, usual, "morlet"), images)
    assert not images[0, 1].any()
    assert images[1, 1].any()


@pytest.mark.parametrize("kind", beat_conduction.KINDS)
def test_conduction_changes_qrs_and_labels_alone(kind: int) -> None:
    """Beats made over carry the new class, S beats keep theirs, and the stretch is as long as before."""
    source = made_strip()
    made = beat_conduction.conducted(source, np.random.default_rng(1), kind)
    assert made is not None
    assert made.patient == source.patient
    assert (made.allowed == kind).sum() > 40
    assert set(made.allowed.tolist()) <= {kind, 1 << 3, 7}
    assert made.x.size == source.x.size // 50 * 50 <= 250 * 100
    early = made.beats[made.allowed == 1 << 3]
    assert np.isfinite(made.x).all()
    assert early.size


def test_conduction_in_part_and_too_few_beats() -> None:
    """Part of the beats stays as it was; a patient with few normal beats gives nothing."""
    source = made_strip()
    made = beat_conduction.conducted(source, np.random.default_rng(3), beat_conduction.L_BIT, 0.5)
    assert made is not None
    assert (made.allowed == 7).any()
    assert (made.allowed == beat_conduction.L_BIT).any()
    assert beat_conduction.conducted(made_strip(4), np.random.default_rng(1), beat_conduction.L_BIT) is None


def test_neighbours_find_the_class() -> None:
    """A wave among those of a class is called that class."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 20)) * 3
    classes = np.repeat([0, 3, 4], 30)
    waves = (centres.repeat(30, axis=0) + rng.standard_normal((90, 20)) * 0.3).astype(np.float32)
    said = beat_random.neighbours(waves, classes, centres.astype(np.float32), 5)
    assert said.argmax(axis=1).tolist() == [0, 3, 4]


def test_rare_classes_gain_only_as_much_as_accuracy_allows() -> None:
    """The offset that is chosen finds more of the rare class, and less is taken where accuracy must be higher."""
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 5], [950, 50])
    logits = np.full((1000, 8), -20.0)
    logits[:, 0], logits[:, 5] = 0.0, -3.0
    logits[classes == 5, 5] += 2.5
    logits[:, 5] += rng.standard_normal(1000)
    said = [beat_random._normalised(logits)] * 3
    frequency = np.maximum(np.bincount(classes, minlength=8), 1) / 1000
    _, strict = beat_random.choose(said, classes, frequency, 0.96)
    _, loose = beat_random.choose(said, classes, frequency, 0.90)
    assert strict < loose
    called = np.argmax(said[0] - strict * np.log(frequency), axis=1)
    assert beat_random.table(classes, called)["accuracy"] >= 0.96
