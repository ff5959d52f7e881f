"""Spectrogram columns: equal to scipy's transform, never dependent on chunks, kept in a ring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal as sps
from streaming import Piece, assert_cut_invariant

from dsp import spectrogram
from dsp.layout import BLOCK, FS, Flag, Signal


def signal_of(x: NDArray[np.float32], start: int = 0) -> Signal:
    """One patient's samples without flags."""
    return Signal(x, np.zeros(x.size // BLOCK, np.uint8), np.array([0, x.size]), np.array([start]))


def transform(x: NDArray[np.float32], start: int = 0) -> tuple[spectrogram.Columns, NDArray[Any]]:
    """All columns of one patient, and the state after them."""
    states = spectrogram.new_states(1)
    one = np.zeros(1, np.int64)
    spectrogram.reset(states, one, np.array([start]))
    return spectrogram.step(states, one, signal_of(x, start)), states


def by_scipy(x: NDArray[np.float32], columns: int) -> NDArray[np.complex128]:
    """Compute the same columns by scipy: high-pass settled on the first sample, Hann, 128 points, centred phase."""
    b, a = sps.butter(2, 0.5, "highpass", fs=FS)
    y, _ = sps.lfilter(b, a, x.astype(float), zi=sps.lfilter_zi(b, a) * float(x[0]))
    y = np.concatenate([np.zeros(32), y, np.zeros(64)])
    window = sps.get_window("hann", 64)
    rows = np.stack([y[8 * c : 8 * c + 64] * window for c in range(columns)])
    turn = np.exp(2j * np.pi * 32 * np.arange(24) / 128)
    return np.fft.rfft(rows, 128, axis=1)[:, :24] * turn / 16


def test_equals_scipy() -> None:
    """Columns are scipy's short-time transform to float32 precision."""
    x = np.cumsum(np.random.default_rng(0).normal(0, 0.05, 40 * BLOCK)).astype(np.float32)
    columns, _ = transform(x)
    expected = by_scipy(x, len(columns.re))
    assert len(columns.re) == (x.size - 32) // 8 + 1
    assert np.abs(columns.re + 1j * columns.im - expected).max() < 1e-5 * np.abs(x).max()


def test_a_sine_on_a_bin_has_its_amplitude() -> None:
    """1 mV at bin 16 has magnitude 1 and the phase of the column's centre."""
    k = np.arange(20 * BLOCK)
    columns, _ = transform(np.cos(2 * np.pi * 16 / 128 * k).astype(np.float32))
    z = (columns.re + 1j * columns.im)[40:, 16]
    centre = 8 * np.arange(40, 40 + z.size)
    assert np.allclose(z, np.exp(2j * np.pi * 16 / 128 * centre), atol=0.03)


def test_cutting_changes_no_bit() -> None:
    """Blocks one by one or many together, with any batch mates: same columns and state."""
    rng = np.random.default_rng(3)
    lengths = [60 * BLOCK, 31 * BLOCK, 7 * BLOCK, BLOCK]
    starts = np.array([0, BLOCK, 3 * BLOCK, 10**9])
    xs = [rng.normal(size=n).astype(np.float32) for n in lengths]
    flags = [np.where(rng.random(n // BLOCK) < 0.1, int(Flag.SWITCHED), 0).astype(np.uint8) for n in lengths]

    def new_states() -> NDArray[Any]:
        states = spectrogram.new_states(4)
        spectrogram.reset(states, np.arange(4), starts)
        return states

    def feed(states: NDArray[Any], slots: NDArray[np.int64], spans: Sequence[tuple[int, int]]) -> list[Piece]:
        offsets = np.cumsum([0, *(b - a for a, b in spans)]).astype(np.int64)
        pairs = list(zip(slots, spans, strict=True))
        columns = spectrogram.step(
            states,
            slots,
            Signal(
                np.concatenate([xs[s][a:b] for s, (a, b) in pairs]),
                np.concatenate([flags[s][a // BLOCK : b // BLOCK] for s, (a, b) in pairs]),
                offsets,
                np.array([starts[s] + a for s, (a, _) in pairs]),
            ),
        )
        cut = columns.offsets
        return [
            {
                "re": columns.re[cut[i] : cut[i + 1]],
                "im": columns.im[cut[i] : cut[i + 1]],
                "number": columns.first[i] + np.arange(cut[i + 1] - cut[i]),
            }
            for i in range(slots.size)
        ]

    whole = assert_cut_invariant(feed, new_states, lengths, [1, 2, 5, 13], unit=BLOCK)
    for piece, start in zip(whole, starts, strict=True):
        assert np.array_equal(piece["number"], -(-start // 8) + np.arange(len(piece["number"])))


def test_slices_come_out_of_the_ring() -> None:
    """The last 128 columns can be read; what is not there is zero and counted as absent."""
    x = np.random.default_rng(1).normal(size=60 * BLOCK).astype(np.float32)
    columns, states = transform(x)
    n = len(columns.re)
    re, im = np.full((140, 24), 7, np.float32), np.full((140, 24), 7, np.float32)
    found = spectrogram.image_slice(states[0], n - 134, 140, re, im)
    assert found == spectrogram.RING == 128
    assert np.array_equal(re[6:134], columns.re[-128:])
    assert np.array_equal(im[6:134], columns.im[-128:])
    assert not re[:6].any()
    assert not im[134:].any()


def test_refuses_blocks_that_do_not_follow() -> None:
    """A forgotten reset is an error, not a smeared column."""
    _, states = transform(np.zeros(2 * BLOCK, np.float32))
    with pytest.raises(ValueError, match="reset the patient"):
        spectrogram.step(states, np.zeros(1, np.int64), signal_of(np.zeros(BLOCK, np.float32), 5 * BLOCK))


def test_baseline_is_gone() -> None:
    """An offset of 300 mV leaves nothing in the lowest bins, from the first column on."""
    columns, _ = transform(np.full(20 * BLOCK, 300.0, np.float32))
    assert np.abs(columns.re).max() < 1e-4
