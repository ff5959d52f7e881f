"""From the device's rate to `FS`: bank of linear-phase FIR phases, one bank a rate.

Output ``k`` sits exactly at device sample ``k * rate / FS``: the delay of the filter is waited for, never shifted into
the signal. The position is kept as an exact fraction, so it does not drift in days.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp.kernel import kernel
from dsp.layout import BLOCK, FS

RATE_MIN: Final = 50.0
RATE_MAX: Final = 2000.0
MAX_PHASES: Final = 1024
ATTENUATION_DB: Final = 60.0
LANES: Final = 8
"""Partial sums of a filter output, so that it is vectorised in a fixed order; taps come in pairs of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Filter phases of one rate.

    Attributes
    ----------
    taps : ndarray of float32, shape (phases, 2 * half)
        Row ``p`` weighs device samples ``floor(pos) - half + 1 .. floor(pos) + half`` for the fraction
        ``p / (phases - 1)`` of a sample. Each row sums to 1. Shape (1, 0) at `FS`: samples pass as they are.
    half : int
        Half the number of taps.
    num, den : int
        Device samples an output, as a reduced fraction.
    """

    taps: NDArray[np.float32]
    half: int
    num: int
    den: int


@lru_cache(maxsize=64)
def bank(rate: float) -> Bank:
    """Filter phases for devices of `rate` Hz.

    Low-pass by a Kaiser-windowed sinc cut at half the lower of the two rates: passes to 0.4 of the lower rate, and
    60 dB down from 0.6 on, so what aliases falls above 0.4.

    Parameters
    ----------
    rate : float
        Hz, 50 to 2000; taken as the nearest fraction with a denominator up to 1000.

    Returns
    -------
    Bank

    Raises
    ------
    ValueError
        A rate outside of the limits.
    """
    if not RATE_MIN <= rate <= RATE_MAX:
        raise ValueError(f"rate {rate} Hz is outside {RATE_MIN:g} to {RATE_MAX:g}; resample the recording first")
    step = Fraction(rate).limit_denominator(1000) / FS
    num, den = step.numerator, step.denominator
    if step == 1:
        return Bank(np.zeros((1, 0), np.float32), 0, 1, 1)
    low = min(1.0, float(FS / rate))
    transition = 0.2 * low
    length = (ATTENUATION_DB - 7.95) / (2.285 * 2 * np.pi * transition)
    half = int(np.ceil(length / 2 / LANES)) * LANES
    phases = min(den, MAX_PHASES)
    fraction = np.arange(phases + 1)[:, None] / phases
    t = np.arange(2 * half)[None, :] - (half - 1) - fraction
    beta = 0.1102 * (ATTENUATION_DB - 8.7)
    window = np.i0(beta * np.sqrt(np.maximum(0.0, 1 - (t / half) ** 2)))
    taps = np.sinc(low * t) * window
    taps /= taps.sum(axis=1, keepdims=True)
    return Bank(np.ascontiguousarray(taps, np.float32), half, num, den)


def first_sample(start: int, rate: float) -> int:
    """First device sample at or after output `start`: the one to feed first after a reset at `start`.

    Parameters
    ----------
    start : int
        Index at `FS`, multiple of `BLOCK`.
    rate : float
        Device rate, Hz.

    Returns
    -------
    int
        ``ceil(start * rate / FS)``.
    """
    b = bank(rate)
    return -(-start * b.num // b.den)


def start_at(sample: int, rate: float) -> int:
    """Earliest block that needs no device sample before `sample`.

    Parameters
    ----------
    sample : int
        First device sample at hand.
    rate : float
        Device rate, Hz.

    Returns
    -------
    int
        Index at `FS`, a multiple of `BLOCK`; the samples before `first_sample` of it are to be left out.
    """
    b = bank(rate)
    return -(-sample * b.den // (b.num * BLOCK)) * BLOCK


@kernel
def end_needed(k: int, num: int, den: int, half: int) -> int:
    """Device sample after the last one that the block starting at `k` needs."""
    return (k + BLOCK - 1) * num // den + half + 1


@kernel
def resample_block(
    raw: NDArray[np.float32],
    base: int,
    k: int,
    taps: NDArray[np.float32],
    half: int,
    num: int,
    den: int,
    out: NDArray[np.float32],
) -> None:
    """Compute outputs ``k .. k + BLOCK`` of one lead.

    Parameters
    ----------
    raw : ndarray of float32
        Device samples from index `base` on; must reach from ``floor(k * num / den) - half + 1`` to `end_needed`.
    base, k : int
        Device index of ``raw[0]``; first output.
    taps, half, num, den
        The bank.
    out : ndarray of float32, shape (BLOCK,)
        Written.
    """
    whole, part = num // den, num % den
    pos = k * num // den
    rem = k * num - pos * den
    pos -= base
    if half == 0:
        for i in range(BLOCK):
            out[i] = raw[pos + i]
        return
    phases = taps.shape[0] - 1
    width = 2 * half
    part_sum = np.empty(LANES, np.float32)
    for i in range(BLOCK):
        h = taps[rem if phases == den else (rem * phases + den // 2) // den]
        r = raw[pos - half + 1 : pos + half + 1]
        for lane in range(LANES):
            part_sum[lane] = h[lane] * r[lane] + h[LANES + lane] * r[LANES + lane]
        for t in range(2 * LANES, width, 2 * LANES):
            for lane in range(LANES):
                part_sum[lane] += h[t + lane] * r[t + lane] + h[t + LANES + lane] * r[t + LANES + lane]
        out[i] = ((part_sum[0] + part_sum[4]) + (part_sum[2] + part_sum[6])) + (
            (part_sum[1] + part_sum[5]) + (part_sum[3] + part_sum[7])
        )
        pos += whole
        rem += part
        if rem >= den:
            rem -= den
            pos += 1
