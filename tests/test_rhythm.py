"""Rhythm stage: no cut of the input changes a bit, features say what they should, decisions have memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from streaming import Piece, assert_cut_invariant

from dsp.layout import BLOCK, FS, Flag, Peaks, Signal
from inference import rhythm
from inference.contract import ContractError
from inference.rhythm import AF_FEATURES, CODES, SHOCK_FEATURES, RhythmModel, Rows, Scores, Verdicts
from inference.rhythm_state import F1, RING
from inference.rhythm_step import SETTLE, step_kernel
from inference.rhythm_window import HALF_POINTS, POINTS, real_spectrum, window_features

ONE = np.zeros(1, np.int64)
SHOCK = {name: k for k, name in enumerate(SHOCK_FEATURES)}
AF = {name: k for k, name in enumerate(AF_FEATURES)}


def peaks_of(r: NDArray[np.int64], total: int) -> Peaks:
    """Beats that become final in the block 0.5 s after them."""
    decided = (r + FS // 2 + BLOCK - 1) // BLOCK * BLOCK
    keep = decided <= total
    strength = np.full(keep.sum(), 0.99, np.float32)
    return Peaks(np.array([0, keep.sum()]), r[keep], decided[keep], strength, np.array([total]))


def analyse(x: NDArray[np.float64], r: NDArray[np.int64], flags: NDArray[np.uint8] | None = None) -> Rows:
    """One patient from index 0, all at once."""
    total = len(x) // BLOCK * BLOCK
    quality = np.zeros(total // BLOCK, np.uint8) if flags is None else flags
    signal = Signal(x[:total].astype(np.float32), quality, np.array([0, total]), ONE)
    return rhythm.step(rhythm.new_states(1), ONE, signal, peaks_of(r, total))


def wave_of(r: NDArray[np.int64], seconds: int, width: float = 0.02, p_wave: float = 0.1) -> NDArray[np.float64]:
    """QRS-like bumps of 1 mV with P and T waves."""
    t = np.arange(seconds * FS) / FS
    x = np.zeros(len(t))
    for at in r / FS:
        x += np.exp(-0.5 * ((t - at) / width) ** 2)
        x += p_wave * np.exp(-0.5 * ((t - at + 0.16) / 0.02) ** 2) + 0.2 * np.exp(-0.5 * ((t - at - 0.25) / 0.05) ** 2)
    return x


def beats_every(intervals: Sequence[float] | NDArray[np.float64], first: float = 0.5) -> NDArray[np.int64]:
    """R peaks with these intervals, s."""
    return np.round((first + np.concatenate([[0.0], np.cumsum(intervals)])) * FS).astype(np.int64)


def fibrillating(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    """Waves of 4 to 6 Hz with wandering frequency and amplitude."""
    n = seconds * FS
    rate = 4.8 + np.interp(np.arange(n), np.arange(0, n + FS, FS // 2), rng.normal(0, 0.5, n // (FS // 2) + 2))
    size = 0.4 + np.interp(np.arange(n), np.arange(0, n + FS, FS // 2), rng.normal(0, 0.08, n // (FS // 2) + 2))
    return np.asarray(size * np.sin(2 * np.pi * np.cumsum(rate) / FS) + rng.normal(0, 0.01, n))


def feeder(signals: Sequence[Signal], beats: Sequence[Peaks], model: RhythmModel | None) -> Any:
    """Adapter of the whole stage for `tests.streaming`."""

    def feed(states: NDArray[Any], slots: NDArray[np.int64], spans: Sequence[tuple[int, int]]) -> list[Piece]:
        x, flags, r, decided, strength = [], [], [], [], []
        for s, (a, b) in zip(slots, spans, strict=True):
            x.append(signals[s].x[a:b])
            flags.append(signals[s].flags[a // BLOCK : b // BLOCK])
            start = signals[s].start[0]
            own = (beats[s].decided > start + a) & (beats[s].decided <= start + b)
            r.append(beats[s].r[own])
            decided.append(beats[s].decided[own])
            strength.append(beats[s].strength[own])
        start = np.array([signals[s].start[0] + a for s, (a, _) in zip(slots, spans, strict=True)])
        cuts = np.cumsum([0, *map(len, x)])
        signal = Signal(np.concatenate(x), np.concatenate(flags), cuts, start)
        peak_cuts = np.cumsum([0, *map(len, r)])
        peaks = Peaks(
            peak_cuts, np.concatenate(r), np.concatenate(decided), np.concatenate(strength), start + np.diff(cuts)
        )
        rows = rhythm.step(states, slots, signal, peaks)
        m = len(rows.end)
        plain = Scores(np.full(m, 0.3, np.float32), np.full(m, 0.6, np.float32))
        verdicts = rhythm.decide(states, slots, rows, plain if model is None else model.classify(rows))
        columns: Piece = {
            name: getattr(rows, name)
            for name in ("end", "shock", "shock_due", "af", "af_due", "quiet", "noisy", "beats")
        }
        columns |= {
            f"verdict_{name}": getattr(verdicts, name) for name in ("end", "code", "probability", "shock", "af")
        }
        cut = rows.offsets
        return [{name: c[cut[i] : cut[i + 1]] for name, c in columns.items()} for i in range(slots.size)]

    return feed


@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4))
@settings(max_examples=8, deadline=None)
def test_cutting_changes_no_bit(seed: int, sizes: list[int]) -> None:
    """Blocks one by one or in any number, with any batch mates and flags: same rows, verdicts and state."""
    rng = np.random.default_rng(seed)
    lengths = [BLOCK * int(rng.integers(1, 250)) for _ in range(4)]
    starts = [BLOCK * int(rng.integers(0, 1000)) for _ in lengths]
    signals, beats = [], []
    for n, start in zip(lengths, starts, strict=True):
        flags = np.where(rng.random(n // BLOCK) < 0.03, rng.choice([1, 8, 16, 32, 48], n // BLOCK), 0).astype(np.uint8)
        x = np.cumsum(rng.normal(0, 0.05, n)).astype(np.float32)
        signals.append(Signal(x, flags, np.array([0, n]), np.array([start])))
        found = peaks_of(start + np.cumsum(rng.integers(60, 300, n // 60)), start + n)
        beats.append(replace(found, strength=rng.random(len(found.r)).astype(np.float32)))

    def fresh() -> NDArray[Any]:
        states = rhythm.new_states(len(lengths))
        rhythm.reset(states, np.arange(len(lengths)), np.array(starts))
        return states

    assert_cut_invariant(feeder(signals, beats, None), fresh, lengths, sizes, seed, BLOCK)


def test_scores_ignore_batch_mates() -> None:
    """With the shipped models too, verdicts are the same bits however rows are batched."""
    rng = np.random.default_rng(3)
    n = 40 * FS
    signals = [
        Signal(x.astype(np.float32), np.zeros(n // BLOCK, np.uint8), np.array([0, n]), ONE)
        for x in (fibrillating(rng, 40), wave_of(beats_every([0.8] * 45), 40), rng.normal(0, 0.2, n))
    ]
    beats = [peaks_of(beats_every([rr] * int(38 / rr)), n) for rr in (0.3, 0.8, 0.7)]
    model = RhythmModel.load()
    whole = assert_cut_invariant(
        feeder(signals, beats, model), lambda: rhythm.new_states(3), [n] * 3, [1, 3, 7, 40], 1, BLOCK
    )
    assert len(whole[0]["verdict_code"]) == 40


def test_a_gap_in_the_signal_is_refused() -> None:
    """A signal that doesn't follow the state is an error, not a wrong window."""
    signal = Signal(np.zeros(BLOCK, np.float32), np.zeros(1, np.uint8), np.array([0, BLOCK]), np.array([BLOCK]))
    with pytest.raises(ValueError, match="must continue"):
        rhythm.step(rhythm.new_states(1), ONE, signal, peaks_of(np.zeros(0, np.int64), 0))


def test_plain_python_gives_the_same() -> None:
    """The kernel and its uncompiled source agree to the last bit on a short stretch."""
    rng = np.random.default_rng(5)
    n = 6 * FS
    x = wave_of(beats_every([0.7] * 7), 6) + rng.normal(0, 0.01, n)
    peaks = peaks_of(beats_every([0.7] * 7), n)
    made = []
    for kernel, states in ((step_kernel, rhythm.new_states(1)), (step_kernel.py_func, None)):  # type: ignore[attr-defined]
        own = rhythm.new_states(1).view(np.recarray) if states is None else states
        end, shock, af = np.zeros(6, np.int64), np.zeros((6, 2 * F1), np.float32), np.zeros((6, len(AF)), np.float32)
        due, af_due = np.zeros(6, np.bool_), np.zeros(6, np.bool_)
        rules = np.zeros((3, 6), np.float32)
        kernel(
            own, ONE, x.astype(np.float32), np.zeros(n // BLOCK, np.uint8), np.array([0, n]), peaks.offsets, peaks.r,
            peaks.decided, peaks.strength, np.array([0, 6]), end, shock, due, af, af_due, *rules,
        )  # fmt: skip
        made.append((end, shock, due, af, af_due, rules))
    for compiled, plain in zip(*made, strict=True):
        np.testing.assert_array_equal(compiled, plain)


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


def rows_like(m: int, **changed: NDArray[Any]) -> Rows:
    """Rows of one patient in which all is due and nothing is conspicuous."""
    plain = {
        "offsets": np.array([0, m]),
        "end": FS * np.arange(1, m + 1),
        "shock": np.zeros((m, len(SHOCK)), np.float32),
        "shock_due": np.ones(m, np.bool_),
        "af": np.zeros((m, len(AF)), np.float32),
        "af_due": np.arange(1, m + 1) % 3 == 0,
        "quiet": np.full(m, 0.5, np.float32),
        "noisy": np.zeros(m, np.float32),
        "beats": np.full(m, 5.0, np.float32),
    }
    return Rows(**{**plain, **changed})


def decided(rows: Rows, shock: Sequence[float], af: Sequence[float] | None = None) -> Verdicts:
    """Verdicts of one patient."""
    other = np.zeros(len(shock), np.float32) if af is None else np.array(af, np.float32)
    return rhythm.decide(rhythm.new_states(1), ONE, rows, Scores(np.array(shock, np.float32), other))


def names_of(verdicts: Verdicts) -> list[str]:
    """Codes as text."""
    return [CODES[code] for code in verdicts.code]


def test_shockable_verdicts_have_hysteresis() -> None:
    """On above a mean of 0.5, kept above 0.3, off below."""
    verdicts = decided(rows_like(8), [0.1, 1.0, 0.5, 0.2, 0.1, 0.3, 0.55, 0.6])
    assert names_of(verdicts) == ["N", "VFL", "VFL", "VFL", "N", "N", "N", "VFL"]
    assert verdicts.probability[1] == pytest.approx(0.55)


def test_complexes_are_named_tachycardia() -> None:
    """A wave that the VF filter doesn't cancel is tachycardia, and one odd second doesn't rename a run."""
    features = np.zeros((6, len(SHOCK)), np.float32)
    features[:, SHOCK["leakage"]] = [0.7, 0.7, 0.7, 0.2, 0.7, 0.7]
    assert names_of(decided(rows_like(6, shock=features), [0.9] * 6)) == ["VT"] * 6


def test_slow_regular_sine_is_named_tachycardia() -> None:
    """A regular wave below 190/min is tachycardia even where it looks like a sine."""
    features = np.zeros((3, len(SHOCK)), np.float32)
    features[:, SHOCK["periodicity"]] = 0.95
    features[:, SHOCK["peak_hz"]] = 2.5
    assert names_of(decided(rows_like(3, shock=features), [0.9] * 3)) == ["VT"] * 3


def test_blind_second_ends_a_shockable_verdict() -> None:
    """Nothing is claimed where nothing can be seen, and the memory starts afresh."""
    due = np.array([True, True, False, True])
    assert names_of(decided(rows_like(4, shock_due=due), [0.9, 0.9, 0.9, 0.3])) == ["VFL", "VFL", "NOISE", "N"]


def test_asystole_needs_quiet_and_no_beats() -> None:
    """A quiet window without beats is asystole, with beats it is not, whatever the model says."""
    quiet = np.array([0.5, 0.01, 0.01], np.float32)
    beats = np.array([0.0, 3.0, 0.0], np.float32)
    verdicts = decided(rows_like(3, quiet=quiet, beats=beats), [0.0, 0.0, 0.9])
    assert names_of(verdicts) == ["N", "N", "ASYS"]


def test_noise_is_said_but_gates_no_shockable_verdict() -> None:
    """Flagged blocks make noise of a plain second, not of fibrillation."""
    noisy = np.full(4, 0.8, np.float32)
    assert names_of(decided(rows_like(4, noisy=noisy), [0.0, 0.2, 0.9, 0.9])) == ["NOISE", "NOISE", "VFL", "VFL"]


def test_af_is_a_mean_of_three_with_hysteresis() -> None:
    """AF comes on with the mean of three scores above 0.6, holds between, and goes off below 0.4."""
    af = np.zeros(21)
    af[2::3] = [0.2, 0.9, 0.9, 0.3, 0.3, 0.1, 0.1]
    verdicts = decided(rows_like(21), [0.0] * 21, af)
    assert names_of(verdicts) == ["N"] * 8 + ["AFIB"] * 9 + ["N"] * 4
    assert verdicts.decided.tolist() == verdicts.end.tolist()


def test_af_without_new_scores_goes_stale() -> None:
    """Fifteen seconds without a score end AF: what beats can't show any more is not claimed."""
    af = np.zeros(30)
    due = np.zeros(30, np.bool_)
    due[2:9:3] = True
    af[due] = 0.9
    verdicts = decided(rows_like(30, af_due=due), [0.0] * 30, af)
    assert names_of(verdicts) == ["N"] * 2 + ["AFIB"] * 21 + ["N"] * 7
    assert verdicts.af[-1] == 0.0


def test_record_verdict_is_the_majority_since_the_first_score() -> None:
    """Half a minute of AF counts as AF although its first seconds could not be judged."""
    af = np.zeros(12)
    af[8::3] = 0.9
    due = np.zeros(12, np.bool_)
    due[8::3] = True
    assert rhythm.record_verdict(decided(rows_like(12, af_due=due), [0.0] * 12, af)) == "AFIB"
    assert rhythm.record_verdict(decided(rows_like(12), [0.0] * 12)) == "N"
    blind = rows_like(3, shock_due=np.zeros(3, np.bool_))
    assert rhythm.record_verdict(decided(blind, [0.0] * 3)) == "NOISE"


def test_shipped_models_know_fibrillation_from_sinus() -> None:
    """Sinus rhythm gives N; fibrillation after it is called within six seconds."""
    rng = np.random.default_rng(7)
    r = beats_every([0.8] * 74)
    x = np.concatenate([wave_of(r, 60), fibrillating(rng, 20)])
    rows = analyse(x, np.concatenate([r[r < 59.5 * FS], 60 * FS + np.arange(70, 20 * FS - 100, 70)]))
    verdicts = rhythm.decide(rhythm.new_states(1), ONE, rows, RhythmModel.load().classify(rows))
    codes = names_of(verdicts)
    assert set(codes[3:60]) == {"N"}
    assert {"VT", "VFL"} & set(codes[60:66])
    assert set(codes[67:]) <= {"VT", "VFL"}


def test_models_with_another_contract_are_refused(tmp_path: Path) -> None:
    """A missing file and swapped files each give one clear line."""
    with pytest.raises(ContractError, match="no model at"):
        RhythmModel.load(tmp_path)
    folder = Path(rhythm.__file__).parent / "models"
    (tmp_path / "rhythm.onnx").write_bytes((folder / "af.onnx").read_bytes())
    (tmp_path / "af.onnx").write_bytes((folder / "rhythm.onnx").read_bytes())
    with pytest.raises(ContractError, match="asks for model"):
        RhythmModel.load(tmp_path)
