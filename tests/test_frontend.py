"""Front end: exact timing, no aliases, no chunk ever seen, honest flags, the right lead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from streaming import Piece, assert_cut_invariant

from dsp import frontend
from dsp.layout import BLOCK, FS, Flag
from dsp.resample import first_sample, start_at

ALL = np.zeros(1, np.int64)


def analyse(raw: NDArray[np.float32], rate: float, start: int = 0) -> frontend.Output:
    """One patient, all at once."""
    states = frontend.new_states(1)
    frontend.reset(states, ALL, np.array([raw.shape[1]]), np.array([start]))
    return frontend.step(states, ALL, raw, np.array([0, len(raw)]), rate)


def feeder(raws: Sequence[NDArray[np.float32]], rate: float) -> Any:
    """Adapter of the front end for `tests.streaming`."""

    def feed(states: NDArray[Any], slots: NDArray[np.int64], spans: Sequence[tuple[int, int]]) -> list[Piece]:
        parts = [raws[s][a:b] for s, (a, b) in zip(slots, spans, strict=True)]
        offsets = np.cumsum([0, *(len(p) for p in parts)]).astype(np.int64)
        out = frontend.step(states, slots, np.concatenate(parts), offsets, rate)
        cut = out.signal.offsets
        return [
            {
                "x": out.signal.x[cut[i] : cut[i + 1]],
                "flags": out.signal.flags[cut[i] // BLOCK : cut[i + 1] // BLOCK],
                "lead": out.lead[cut[i] // BLOCK : cut[i + 1] // BLOCK],
                "lead_flags": out.lead_flags[cut[i] // BLOCK : cut[i + 1] // BLOCK],
            }
            for i in range(slots.size)
        ]

    return feed


def rough(rng: np.random.Generator, n: int, leads: int) -> NDArray[np.float32]:
    """Wandering noise in steps of 5 uV with gaps, flat and railed stretches."""
    x = np.cumsum(rng.normal(0, 0.02, (n, leads)), axis=0) + rng.normal(0, 0.02, (n, leads))
    for _ in range(6):
        a = int(rng.integers(0, n))
        kind = rng.integers(0, 3)
        x[a : a + n // 8, rng.integers(0, leads)] = (np.nan, 0.5, 9.0)[kind]
    return (np.round(x * 200) / 200).astype(np.float32)


@pytest.mark.parametrize("rate", [50.0, 128.0, 130.0, 250.0, 257.3, 360.0, 500.0, 1000.0, 2000.0])
def test_cutting_changes_no_bit(rate: float) -> None:
    """Samples one by one, in primes, in more than a window, with any batch mates: same output and state."""
    rng = np.random.default_rng(int(rate))
    seconds = 40 if rate < 400 else 8
    leads = [1, 3, 2, 3]
    lengths = [int(rate * seconds), int(rate * seconds) - 17, int(rate * 3), 5]
    raws = []
    for n, count in zip(lengths, leads, strict=True):
        raw = np.full((n, 3), np.nan, np.float32)
        raw[:, :count] = rough(rng, n, count)
        raws.append(raw)

    def new_states() -> NDArray[Any]:
        states = frontend.new_states(4)
        frontend.reset(states, np.arange(4), np.array(leads), np.array([0, BLOCK, 7 * BLOCK, 10**9]))
        return states

    whole = assert_cut_invariant(feeder(raws, rate), new_states, lengths, [1, 7, 31, 97, 1009], seed=1)
    assert all(np.isfinite(piece["x"]).all() for piece in whole)
    assert len(whole[0]["x"]) >= (seconds - 1) * FS


@pytest.mark.parametrize("rate", [50.0, 100.0, 128.0, 130.0, 257.3, 300.0, 333.3, 360.0, 500.0, 1000.0, 2000.0])
def test_output_k_is_device_sample_k_times_rate_over_fs(rate: float) -> None:
    """A sine in the pass band comes out unshifted and unscaled, also when joined in the middle of a stream."""
    begin = 12_345
    start = start_at(begin, rate)
    t = np.arange(first_sample(start, rate), begin + int(12 * rate)) / rate
    f = 0.35 * min(rate, FS)
    x = analyse(np.sin(2 * np.pi * f * t).astype(np.float32)[:, None], rate, start).signal.x
    expected = np.sin(2 * np.pi * f * (start + np.arange(x.size)) / FS)
    assert x.size > 10 * FS
    assert np.abs(x - expected)[FS:-FS].max() < 4e-3


def test_identity_at_the_analysis_rate() -> None:
    """At 250 Hz the samples pass bit by bit and no sample is waited for beyond the block."""
    raw = np.random.default_rng(0).normal(size=(20 * BLOCK, 1)).astype(np.float32)
    assert np.array_equal(analyse(raw, 250.0).signal.x, raw[:, 0])


@pytest.mark.parametrize("rate", [360.0, 500.0, 1000.0, 2000.0])
def test_what_would_alias_is_gone(rate: float) -> None:
    """A tone above 150 Hz leaves under 0.2 % in the signal."""
    t = np.arange(int(10 * rate)) / rate
    tone = np.sin(2 * np.pi * 151.0 * t).astype(np.float32)
    x = analyse(tone[:, None], rate).signal.x
    assert np.abs(x[FS:-FS]).max() < 2e-3


@pytest.mark.parametrize("rate", [128.0, 360.0, 500.0])
def test_no_step_at_the_start(rate: float) -> None:
    """An electrode offset of 300 mV is there from the first output on, without ringing."""
    n = int(3 * rate)
    raw = (300 + 0.01 * np.sin(np.arange(n) / rate * 8))[:, None].astype(np.float32)
    assert np.abs(analyse(raw, rate).signal.x - 300).max() < 0.02


def ecg(seconds: float, rate: float, seed: int = 0) -> NDArray[np.float64]:
    """Make a plain rhythm of 75 a minute: QRS and T as bumps, electrode noise of 10 uV, steps of 5 uV."""
    t = np.arange(int(seconds * rate)) / rate
    beat = (t + 0.4) % 0.8 - 0.4
    x = 1.2 * np.exp(-((beat / 0.02) ** 2)) + 0.25 * np.exp(-(((beat - 0.25) / 0.05) ** 2))
    return np.round((x + np.random.default_rng(seed).normal(0, 0.01, t.size)) * 200) / 200


def flags_of(x: NDArray[np.float64], rate: float = 250.0) -> NDArray[np.uint8]:
    """Give the flags of one lead."""
    return analyse(x.astype(np.float32)[:, None], rate).signal.flags


@pytest.mark.parametrize("rate", [125.0, 250.0, 500.0])
def test_a_clean_lead_has_no_flag(rate: float) -> None:
    """Good signal is good from the first block on."""
    assert not flags_of(ecg(30, rate), rate).any()


def test_missing_samples_flag_their_blocks_and_hold() -> None:
    """A gap flags the blocks it touches, the signal holds the last value, and a second of it is lead-off."""
    x = ecg(10, 250)
    x[1010:1020] = np.nan
    x[1500:2000] = np.nan
    out = analyse(x.astype(np.float32)[:, None], 250.0)
    missing = np.flatnonzero(out.signal.flags & Flag.MISSING)
    assert missing.tolist() == [20, *range(30, 40)]
    assert np.all(out.signal.x[1500:2000] == np.float32(x[1499]))
    off = np.flatnonzero(out.signal.flags & Flag.LEAD_OFF)
    assert off[0] == 34
    assert off[-1] < 42


def test_an_unplugged_lead_is_off_but_a_quiet_heart_is_not() -> None:
    """A constant line, even one toggling by a converter step, is lead-off after 1 s; asystole with its noise is not."""
    x = ecg(20, 250)
    quiet, toggling = x.copy(), x.copy()
    rng = np.random.default_rng(5)
    quiet[2500:] = np.round(rng.normal(0, 0.008, 2500) * 200) / 200
    toggling[2500:] = 0.1 + rng.integers(0, 2, 2500) * 0.005
    assert not (flags_of(quiet) & (Flag.FLAT | Flag.LEAD_OFF)).any()
    for dead in (np.where(np.arange(5000) < 2500, x, 0.1), toggling):
        flags = flags_of(dead)
        assert not (flags[:50] & Flag.LEAD_OFF).any()
        assert (flags[55:] & Flag.LEAD_OFF).all()
        assert (flags[55:] & Flag.FLAT).all()


def test_a_rail_is_saturated_then_off_and_clears() -> None:
    """Equal samples far from the mean are a rail; contact counts again 0.4 s after it."""
    x = ecg(20, 250)
    x[2500:3000] = 5.115
    flags = flags_of(x)
    assert (flags[50:54] & Flag.SATURATED).all()
    assert (flags[54:60] & Flag.LEAD_OFF).all()
    assert not (flags[62:] & (Flag.SATURATED | Flag.LEAD_OFF)).any()


def test_muscle_noise_and_motion_are_noisy() -> None:
    """Fine noise in each part of a second, or a baseline on the move, makes a lead noisy; a steady one clears."""
    x = ecg(60, 250)
    rng = np.random.default_rng(2)
    muscle, motion = x.copy(), x.copy()
    muscle[5000:10000] += rng.normal(0, 0.1, 5000)
    motion[5000:10000] += 3 * np.sin(2 * np.pi * 0.35 * np.arange(5000) / 250)
    for bad in (muscle, motion):
        noisy = (flags_of(bad) & Flag.NOISY) > 0
        assert not noisy[:100].any()
        assert noisy[110:200].mean() > 0.7
        assert not noisy[215:].any()


def test_the_lead_changes_when_it_must_and_returns_when_it_may() -> None:
    """A dead lead is left within 3.5 s, the change is flagged once, and the preferred lead returns after 45 s good."""
    a, b = ecg(120, 250), ecg(120, 250, seed=1) * 0.5
    a[5000:7500] = 0.0
    out = analyse(np.stack([a, b], axis=1).astype(np.float32), 250.0)
    switched = np.flatnonzero(out.signal.flags & Flag.SWITCHED)
    assert switched.size == 2
    assert 110 <= switched[0] <= 118
    assert 150 + frontend.GOOD_RETURN - 5 <= switched[1] <= 150 + frontend.GOOD_RETURN + 5
    assert out.lead[switched[0] - 1 : switched[0] + 1].tolist() == [0, 1]
    assert out.lead[switched[1] - 1 : switched[1] + 1].tolist() == [1, 0]
    at = switched[0] * BLOCK
    assert np.array_equal(out.signal.x[at : at + 5 * BLOCK], b[at : at + 5 * BLOCK].astype(np.float32))


def test_of_two_noisy_leads_the_less_noisy_is_taken() -> None:
    """Motion in both leads, far more of it in the first: the second is analysed until the noise has long ended."""
    rng = np.random.default_rng(5)
    n = 160 * 250
    motion = np.cumsum(rng.normal(0, 0.12, (n, 2)), axis=0)
    motion -= np.stack([np.convolve(column, np.ones(250) / 250, "same") for column in motion.T], axis=1)
    motion[: 60 * 250] = motion[120 * 250 :] = 0.0
    raw = (
        np.stack([ecg(160, 250.0), ecg(160, 250.0, 1)], axis=1)
        + motion * [4.0, 1.0]
        + np.cumsum(np.where(motion != 0, rng.normal(0, 0.2, (n, 2)), 0.0), axis=0)
    )
    out = analyse(raw.astype(np.float32), 250.0)
    assert (out.lead_flags[65 * 5 : 119 * 5] & Flag.NOISY > 0).all(axis=1).mean() > 0.5
    assert out.lead[: 60 * 5].max() == 0
    assert out.lead[80 * 5 : 120 * 5].min() == 1
    assert np.count_nonzero(out.signal.flags & Flag.SWITCHED) <= 2


def test_no_lead_is_left_for_a_worse_one() -> None:
    """A dead lead stays analysed while the other is dead too."""
    dead = np.zeros((5000, 2), np.float32)
    out = analyse(dead, 250.0)
    assert not out.lead.any()
    assert (out.lead_flags[10:] & Flag.LEAD_OFF).all()


def test_wrong_calls_are_refused() -> None:
    """Rates, leads and starts outside of the contract raise with what to do."""
    states = frontend.new_states(1)
    with pytest.raises(ValueError, match="outside 50 to 2000"):
        frontend.step(states, ALL, np.zeros((5, 1), np.float32), np.array([0, 5]), 40.0)
    with pytest.raises(ValueError, match="1 to 3 leads"):
        frontend.reset(states, ALL, np.array([4]), np.array([0]))
    with pytest.raises(ValueError, match="multiple of 50"):
        frontend.reset(states, ALL, np.array([1]), np.array([51]))
    frontend.reset(states, ALL, np.array([2]), np.array([0]))
    with pytest.raises(ValueError, match="2 leads"):
        frontend.step(states, ALL, np.zeros((5, 1), np.float32), np.array([0, 5]), 250.0)


@pytest.mark.data
def test_real_noise_is_noisy_and_clean_records_are_not(data_dir: Path) -> None:
    """Electrode motion at 0 dB is found in over 85 % of its time; records without it stay under 2 %."""
    wfdb = pytest.importorskip("wfdb")
    shares = {}
    for name in ("nstdb/118e00", "mitdb/100", "mitdb/208"):
        record = wfdb.rdrecord(str(data_dir / name), channels=[0])
        flags = flags_of(record.p_signal[:, 0], float(record.fs))
        assert not (flags & (Flag.FLAT | Flag.LEAD_OFF)).any()
        t = np.arange(flags.size) / 5
        noise = (t > 300) & ((t - 300) // 120 % 2 == 0) if name.startswith("nstdb") else np.ones(t.size, bool)
        shares[name] = ((flags[noise] & Flag.NOISY) > 0).mean()
    assert shares["nstdb/118e00"] > 0.85
    assert shares["mitdb/100"] < 0.005
    assert shares["mitdb/208"] < 0.02
