"""Features of the last four seconds of the wave: level, shape of the distribution, VF filter, spectrum, periodicity.

VF-filter leakage after Kuo and Dillman (1978), crossings and flat share after Thakor (1990) and Jekova (2000), spectral
shares after Barro (1989); the spectrum is one transform of 256 points at 62.5 Hz.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp.kernel import kernel
from inference.rhythm_state import HALF, RING, SHOCK_NAMES, SPAN

POINTS: Final = 256
"""Length of the transform."""

HALF_POINTS: Final = POINTS // 2
KEPT: Final = RING // 2
"""Samples of a window at 62.5 Hz."""

HZ: Final = HALF / 2 / POINTS
"""Width of a spectral bin, Hz."""

TINY: Final = 1e-9
SMALL: Final = 0.1
"""mV; a heart that beats has more than 2 % of its samples beyond it."""

_TAPER = np.hanning(KEPT + 2)[1:-1]
_COS = np.cos(2 * np.pi * np.arange(HALF_POINTS) / POINTS)
_SIN = np.sin(2 * np.pi * np.arange(HALF_POINTS) / POINTS)
_BITS: Final = 7
_REVERSED = np.array([int(f"{i:07b}"[::-1], 2) for i in range(HALF_POINTS)])
_EDGES = np.round(np.array([0.5, 1.5, 2.5, 3.5, 5.0, 7.5, 11.5, 17.0, 30.0]) / HZ).astype(np.int64)
_FIRST: Final = round(1.0 / HZ)
_LAST: Final = round(9.0 / HZ)
_TOP: Final = round(30.0 / HZ)
_SHORTEST: Final = round(0.14 * HALF / 2)
_LONGEST: Final = round(1.1 * HALF / 2)

assert SHOCK_NAMES[0] == "rms"  # noqa: S101  the order below is the order of the names
PEAK_HZ: Final = SHOCK_NAMES.index("peak_hz")
PERIODICITY: Final = SHOCK_NAMES.index("periodicity")


@kernel
def transform(re: NDArray[np.float64], im: NDArray[np.float64]) -> None:
    """Fourier transform of `HALF_POINTS` complex values, in place (radix 2).

    Parameters
    ----------
    re, im : ndarray of float64, shape (HALF_POINTS,)
    """
    for i in range(HALF_POINTS):
        j = _REVERSED[i]
        if j > i:
            re[i], re[j] = re[j], re[i]
            im[i], im[j] = im[j], im[i]
    size = 1
    while size < HALF_POINTS:
        step = HALF_POINTS // size
        for first in range(size):
            c = _COS[first * step]
            s = -_SIN[first * step]
            for i in range(first, HALF_POINTS, 2 * size):
                j = i + size
                a = re[j] * c - im[j] * s
                b = re[j] * s + im[j] * c
                re[j] = re[i] - a
                im[j] = im[i] - b
                re[i] += a
                im[i] += b
        size *= 2


@kernel
def real_spectrum(values: NDArray[np.float64], re: NDArray[np.float64], im: NDArray[np.float64]) -> None:
    """Bins 0 to HALF_POINTS of the transform of `POINTS` real values.

    Parameters
    ----------
    values : ndarray of float64, shape (POINTS,)
    re, im : ndarray of float64, shape (HALF_POINTS + 1,)
        Filled in.
    """
    for i in range(HALF_POINTS):
        re[i] = values[2 * i]
        im[i] = values[2 * i + 1]
    transform(re[:HALF_POINTS], im[:HALF_POINTS])
    re[HALF_POINTS] = re[0] - im[0]
    im[HALF_POINTS] = 0.0
    re[0] = re[0] + im[0]
    im[0] = 0.0
    for k in range(1, HALF_POINTS // 2 + 1):
        m = HALF_POINTS - k
        even_re = 0.5 * (re[k] + re[m])
        even_im = 0.5 * (im[k] - im[m])
        odd_re = 0.5 * (im[k] + im[m])
        odd_im = 0.5 * (re[m] - re[k])
        c = _COS[k]
        s = _SIN[k]
        turned_re = odd_re * c + odd_im * s
        turned_im = odd_im * c - odd_re * s
        re[k] = even_re + turned_re
        im[k] = even_im + turned_im
        re[m] = even_re - turned_re
        im[m] = turned_im - even_im


@kernel
def window_features(x: NDArray[np.float64], drift: float, out: NDArray[np.float32]) -> float:
    """Compute the wave features of a window, the first 26 of `SHOCK_NAMES`.

    Parameters
    ----------
    x : ndarray of float64, shape (RING,)
        mV at 125 Hz, 0.7 to 30 Hz, oldest first.
    drift : float
        Standard deviation of what the high-pass took away, mV.
    out : ndarray of float32, shape (F1,)
        Filled in.

    Returns
    -------
    float
        Share of samples beyond `SMALL`, for the asystole rule.
    """
    n = RING
    total = 0.0
    for i in range(n):
        total += x[i]
    mean = total / n
    power = 0.0
    third = 0.0
    fourth = 0.0
    largest = 0.0
    absolute = 0.0
    slope = 0.0
    steepest = 0.0
    crossings = 0
    beyond = 0
    before = x[0] - mean
    second = np.zeros(SPAN)
    for i in range(n):
        v = x[i] - mean
        square = v * v
        power += square
        second[i // HALF] += square
        third += square * v
        fourth += square * square
        size = abs(v)
        absolute += size
        largest = max(largest, size)
        if size > SMALL:
            beyond += 1
        change = abs(v - before)
        slope += change
        steepest = max(steepest, change)
        if (v >= 0.0) != (before >= 0.0):
            crossings += 1
        before = v
    variance = power / n + TINY
    rms = math.sqrt(variance)
    flat = 0
    slope_flat = 0
    for i in range(1, n):
        if abs(x[i] - mean) < 0.15 * largest:
            flat += 1
        if abs(x[i] - x[i - 1]) < 0.1 * steepest:
            slope_flat += 1
    # The VF filter: a sine shifted by half its mean period cancels itself.
    lag = min(max(int(math.pi * absolute / (slope + TINY) + 0.5), 1), HALF)
    over = 0.0
    under = TINY
    for i in range(lag, n):
        over += abs(x[i] + x[i - lag] - 2 * mean)
        under += abs(x[i] - mean) + abs(x[i - lag] - mean)
    least = second[0]
    most = second[0]
    for i in range(1, SPAN):
        least = min(least, second[i])
        most = max(most, second[i])
    out[0] = math.log(rms)
    out[1] = math.log(largest / rms + TINY)
    out[2] = over / under
    out[3] = flat / n
    out[4] = slope_flat / n
    out[5] = crossings / SPAN
    out[6] = math.log(slope / (absolute + TINY) + TINY)
    out[7] = math.log(fourth / n / (variance * variance) + TINY)
    out[8] = third / n / (variance * rms)
    out[9] = math.log((drift + 0.001) / (rms + 0.001))
    out[10] = math.log((most + TINY) / (least + TINY))
    out[11] = math.log((least * SPAN + TINY) / (power + TINY))

    values = np.zeros(POINTS)
    for i in range(KEPT):
        values[i] = (0.5 * (x[2 * i] + x[2 * i + 1]) - mean) * _TAPER[i]
    re = np.empty(HALF_POINTS + 1)
    im = np.empty(HALF_POINTS + 1)
    real_spectrum(values, re, im)
    density = np.empty(HALF_POINTS + 1)
    for k in range(HALF_POINTS + 1):
        density[k] = re[k] * re[k] + im[k] * im[k]
    everything = TINY
    moment = 0.0
    for k in range(2, _TOP):
        everything += density[k]
        moment += k * density[k]
    peak = _FIRST
    for k in range(_FIRST, _LAST + 1):
        if density[k] > density[peak]:
            peak = k
    near = 0.0
    for k in range(peak - 2, peak + 3):
        near += density[k]
    harmonic = 0.0
    for k in range(2 * peak - 2, 2 * peak + 3):
        harmonic += density[k]
    entropy = 0.0
    for k in range(2, _TOP):
        p = density[k] / everything
        entropy -= p * math.log(p + 1e-12)
    out[12] = peak * HZ
    out[13] = near / everything
    out[14] = harmonic / everything
    out[15] = moment / everything / peak
    out[16] = entropy
    for band in range(len(_EDGES) - 2):
        share = 0.0
        for k in range(_EDGES[band + 1], _EDGES[band + 2]):
            share += density[k]
        out[17 + band] = math.log(share / everything + 1e-4)

    # Autocorrelation by the transform of the density (real and even, so one real transform gives it).
    for k in range(HALF_POINTS + 1):
        values[k] = density[k]
    for k in range(1, HALF_POINTS):
        values[POINTS - k] = density[k]
    real_spectrum(values, re, im)
    best = -1.0
    period = 0
    fallen = False
    for k in range(2, _LONGEST + 1):
        # Only a maximum after the first fall counts: lags near zero always agree.
        fallen = fallen or re[k] < 0.5 * re[0]
        if fallen and k >= _SHORTEST and re[k] > re[k - 1] and re[k] >= re[k + 1]:
            height = re[k] / (re[0] + TINY) * (KEPT / (KEPT - k))
            if height > best + 0.05:
                best = height
                period = k
    out[24] = max(best, 0.0)
    out[25] = period / (HALF / 2)
    return beyond / n
