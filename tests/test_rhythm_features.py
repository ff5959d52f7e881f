"""Features of the rhythm stage say what they should: of a window, of the beats in it, of what came before."""

from __future__ import annotations

import numpy as np
import pytest
from hearts import AF, SHOCK, analyse, beats_every, wave_of
from hypothesis import given, settings
from hypothesis import strategies as st

from dsp.layout import BLOCK, FS, Flag
from inference.rhythm_state import F1, RING
from inference.rhythm_step import SETTLE
from inference.rhythm_window import HALF_POINTS, POINTS, real_spectrum, window_features


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_spectrum_is_the_fourier_transform(seed: int) -> None:
    """The transform agrees with numpy's."""
    values = np.random.default_rng(seed).normal(size=POINTS)
    re, im = np.empty(HALF_POINTS + 1), np.empty(HALF_POINTS + 1)
    real_spectrum(values, re, im)
    np.testing.assert_allclose(re + 1j * im, np.fft.rfft(values), atol=1e-11)


def test_window_of_a_sine() -> None:
    """A sine of 4 Hz is periodic, peaks at 4 Hz and passes no VF filter."""
    out = np.zeros(F1, np.float32)
    window_features(0.5 * np.sin(2 * np.pi * 4 * np.arange(RING) / 125), 0.0, out)
    assert out[SHOCK["peak_hz"]] == pytest.approx(4, abs=0.25)
    assert out[SHOCK["period"]] == pytest.approx(0.25, abs=0.02)
    assert out[SHOCK["crossings"]] == pytest.approx(8, abs=0.5)
    assert out[SHOCK["leakage"]] < 0.15
    assert out[SHOCK["periodicity"]] > 0.9
    assert out[SHOCK["rms"]] == pytest.approx(np.log(0.5 / np.sqrt(2)), abs=0.01)


def test_window_of_a_beating_heart() -> None:
    """Complexes leave most of the window flat and pass the VF filter."""
    out = np.zeros(F1, np.float32)
    window_features(wave_of(beats_every([0.8] * 4), 4)[::2], 0.0, out)
    assert out[SHOCK["flat_share"]] > 0.5
    assert out[SHOCK["leakage"]] > 0.5


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_window_of_nothing_is_finite(value: float) -> None:
    """A constant gives numbers, none of them infinite."""
    out = np.zeros(F1, np.float32)
    assert window_features(np.full(RING, value), 0.0, out) == 0.0
    assert np.isfinite(out).all()


def test_beats_are_counted_and_compared() -> None:
    """A regular heart gives its rate, no spread, and beats like the usual ones."""
    rows = analyse(wave_of(beats_every([0.8] * 60), 50), beats_every([0.8] * 60))
    last = rows.shock[-1]
    assert last[SHOCK["beats_4"]] in (4, 5)
    assert last[SHOCK["rr_mean"]] == pytest.approx(0.8, abs=0.01)
    assert last[SHOCK["rr_spread"]] < 0.01
    assert last[SHOCK["usual"]] > 0.98
    assert rows.end.tolist() == [FS * k for k in range(1, 51)]


def test_slow_average_trails_and_waits() -> None:
    """Changes are zero until enough rows, and then a new amplitude stands out."""
    r = beats_every([0.8] * 60)
    x = wave_of(r, 48)
    x[40 * FS :] *= 3
    rows = analyse(x, r)
    change = rows.shock[:, F1:]
    assert not change[: 3 + 5 + SETTLE - 1].any()
    assert change[39, SHOCK["rms"]] == pytest.approx(0, abs=0.15)
    assert change[44, SHOCK["rms"]] == pytest.approx(np.log(3), abs=0.2)


def test_regular_and_irregular_hearts_differ() -> None:
    """RR statistics: a regular heart has no steps, bigeminy agrees at lag 2, fibrillation at none."""
    rng = np.random.default_rng(1)
    hearts = {
        "regular": np.full(30, 0.8),
        "bigeminy": np.tile([0.6, 1.0], 15),
        "irregular": rng.uniform(0.4, 1.2, 40),
    }
    found = {}
    for name, rr in hearts.items():
        rows = analyse(wave_of(beats_every(rr), 24), beats_every(rr))
        assert rows.af_due[23]
        found[name] = rows.af[23]
    assert found["regular"][AF["lag_1"]] < 0.01
    assert found["bigeminy"][AF["lag_1"]] > 0.3
    assert found["bigeminy"][AF["lag_2"]] < 0.01
    assert found["irregular"][AF["lag_least"]] > 0.1
    assert found["irregular"][AF["turning"]] > found["regular"][AF["turning"]]


def test_ventricular_beats_are_left_out_of_rr() -> None:
    """Wide beats at odd times don't make a regular heart irregular."""
    r = beats_every([0.8] * 40)
    early = r[[15, 21, 27]] + int(0.4 * FS)
    x = wave_of(r, 30) + wave_of(early, 30, width=0.06, p_wave=0.0)
    rows = analyse(x, np.sort(np.concatenate([r, early])))
    assert rows.af[26, AF["odd_share"]] > 0.05
    assert rows.af[26, AF["rr_step"]] < 0.02


def test_patterns_part_ectopy_from_fibrillation() -> None:
    """Coupled early beats with a pause keep a basic interval and can be foretold; fibrillation can't."""
    rng = np.random.default_rng(3)
    ectopic = np.full(30, 0.8)
    for at in (3, 6, 11, 14, 19, 24):
        ectopic[at : at + 2] = 0.5, 1.1
    found = {}
    for name, rr in (("ectopy", ectopic), ("fibrillation", rng.uniform(0.4, 1.2, 40))):
        r = beats_every(rr)
        found[name] = analyse(wave_of(r, 24), r).af[23]
    ectopy, fibrillation = found["ectopy"], found["fibrillation"]
    assert ectopy[AF["modal_share"]] > 0.4 > fibrillation[AF["modal_share"]]
    assert ectopy[AF["compensation"]] < 0.02
    assert ectopy[AF["early_then_late"]] == 1.0
    assert ectopy[AF["coupling_spread"]] < 0.02 < fibrillation[AF["coupling_spread"]]
    assert ectopy[AF["foretold_1"]] < 0.02 < fibrillation[AF["foretold_1"]]


def test_no_p_wave_no_coherence() -> None:
    """The P zone of a heart with P waves is coherent, noise in its place is not."""
    rng = np.random.default_rng(2)
    r = beats_every([0.9] * 30)
    noise = rng.normal(0, 0.02, 25 * FS)
    with_p = analyse(wave_of(r, 25) + noise, r).af[23, AF["p_coherence"]]
    without = analyse(wave_of(r, 25, p_wave=0.0) + noise, r).af[23, AF["p_coherence"]]
    assert with_p > 0.6 > without


@pytest.mark.parametrize("flag", [Flag.MISSING, Flag.FLAT, Flag.SATURATED, Flag.LEAD_OFF])
def test_blind_windows_are_not_scored(flag: Flag) -> None:
    """One blind block takes the verdict from each window that holds it, and only from these."""
    flags = np.zeros(20 * FS // BLOCK, np.uint8)
    flags[52] = flag
    rows = analyse(wave_of(beats_every([0.8] * 24), 20), beats_every([0.8] * 24), flags)
    assert np.flatnonzero(~rows.shock_due).tolist() == [0, 1, 2, 10, 11, 12, 13]


def test_change_of_lead_forgets_the_other_lead() -> None:
    """After a switch there is no verdict for four seconds and no average of the lead before."""
    flags = np.zeros(40 * FS // BLOCK, np.uint8)
    flags[100] = Flag.SWITCHED
    r = beats_every([0.8] * 48)
    x = wave_of(r, 40)
    x[20 * FS :] *= -2
    rows = analyse(x, r, flags)
    assert not rows.shock_due[20:23].any()
    assert rows.shock_due[23:].all()
    assert not rows.shock[23:30, F1:].any()
    assert rows.shock[-1, SHOCK["usual"]] > 0.95
