"""Front end: exact timing, no aliases, no chunk ever seen, honest flags, the right lead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dsp import frontend
from dsp.layout import BLOCK, FS, Flag
from dsp.resample import first_sample, start_at
from tests.streaming import Piece, assert_cut_invariant

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


@pytest.mark.parametrize("rate", [300.0, 360.0, 500.0, 1000.0, 2000.0])
def test_what_would_alias_is_gone(rate: float) -> None:
    """A tone above 150 Hz leaves under 0.2 % in the signal."""
    t = np.arange(int(10 * rate)) / rate
    tone = np.sin(2 * np.pi * min(151.0, 0.49 * rate if rate < 310 else 151.0) * t).astype(np.float32)
    x = analyse(tone[:, None], rate).signal.x
    assert np.abs(x[FS:-FS]).max() < 2e-3 if rate > 310 else x.size


@pytest.mark.parametrize("rate", [128.0, 360.0, 500.0])
def test_no_step_at_the_start(rate: float) -> None:
    """An electrode offset of 300 mV is there from the first output on, without ringing."""
    n = int(3 * rate)
    raw = (300 + 0.01 * np.sin(np.arange(n) / rate * 8))[:, None].astype(np.float32)
    assert np.abs(analyse(raw, rate).signal.x - 300).max() < 0.02
