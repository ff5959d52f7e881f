"""States as bytes: what is zero or can be made again is left out, and comes back bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsp import spectrogram
from dsp.layout import BLOCK, Flag, Signal
from dsp.squeeze import restore, squeeze


@given(
    words=st.integers(1, 700),
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
)
def test_a_row_comes_back(words: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    row = rng.integers(1, 2**64, words, np.uint64, endpoint=False) * (rng.random(words) < share)
    back = np.full(words, 7, np.uint64)
    restore(squeeze(row.astype(np.uint64)), back)
    np.testing.assert_array_equal(back, row)


def test_zeros_take_no_room() -> None:
    row = np.zeros(8_000, np.uint64)
    row[4_000] = 1
    assert len(squeeze(row)) == 16 * 8 + 64


@pytest.mark.parametrize("cut", [0, 3, 8, 72])
def test_what_does_not_fit_is_refused(cut: int) -> None:
    packed = squeeze(np.arange(1, 17, dtype=np.uint64))
    with pytest.raises(ValueError, match="not the packed state of 128 bytes"):
        restore(packed[:cut] if cut < 72 else packed + bytes(8), np.zeros(16, np.uint64))


@pytest.mark.parametrize("blocks", [1, 3, 40])
def test_columns_are_made_again_bit_for_bit(blocks: int) -> None:
    """After any number of samples, a start away from 0 and a change of the lead."""
    rng = np.random.default_rng(blocks)
    states = spectrogram.new_states(2)
    slots = np.array([1], np.int64)
    start = 9 * BLOCK
    spectrogram.reset(states, slots, np.array([start], np.int64))
    for number in range(blocks):
        flags = np.array([int(Flag.SWITCHED) if number % 5 == 2 else 0], np.uint8)
        x = rng.standard_normal(BLOCK).astype(np.float32)
        spectrogram.step(states, slots, Signal(x, flags, np.array([0, BLOCK]), np.array([start + number * BLOCK])))
    before = states[1].copy()
    states["re"][1] = states["im"][1] = np.nan
    spectrogram.rebuild(states, slots)
    count = min(spectrogram.RING, int(before["next"] - before["first"]))
    rows = np.arange(before["next"] - count, before["next"]) % spectrogram.RING
    assert count > 0
    for name in ("re", "im"):
        np.testing.assert_array_equal(states[name][1][rows].view(np.uint32), before[name][rows].view(np.uint32))
