"""Made-up hearts, and what the rhythm stage says of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dsp.layout import BLOCK, FS, Peaks, Signal
from inference import rhythm
from inference.rhythm import AF_FEATURES, CODES, SHOCK_FEATURES, Rows, Verdicts

ONE = np.zeros(1, np.int64)
SHOCK = {name: k for k, name in enumerate(SHOCK_FEATURES)}
AF = {name: k for k, name in enumerate(AF_FEATURES)}


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


def names_of(verdicts: Verdicts) -> list[str]:
    """Codes as text."""
    return [CODES[code] for code in verdicts.code]
