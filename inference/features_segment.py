"""The segment of 125 Hz round an R peak from which all shapes are read, and how a part of it is held to a template."""

from __future__ import annotations

import math
from typing import Any, Final

from dsp.kernel import kernel

STEP: Final = 2
"""Samples at the analysis rate from point to point of a segment (8 ms)."""
POINT_HZ: Final = 125.0
LEFT: Final = 62
RIGHT: Final = 77
POINTS: Final = LEFT + RIGHT + 1
"""Points of a segment, from 496 ms before to 616 ms after the R peak."""
SPARE: Final = 2
"""Samples of smoothing beyond its ends."""


@kernel
def segment(ring: Any, r: int, first: int, out: Any) -> float:
    """Read the smoothed segment round an R peak.

    A binomial-like mean of 5 samples has its zero at 62.5 Hz, so that two samples make one point.

    Parameters
    ----------
    ring : ndarray of float32, shape (a power of two,)
        mV; sample k in place k modulo the length.
    r : int
        Index of the R peak.
    first : int
        First sample there is; earlier ones read as it.
    out : ndarray of float64, shape (POINTS,)
        Written, mV.

    Returns
    -------
    float
        Mean absolute second difference outside of the QRS, mV: noise.
    """
    mask = ring.size - 1
    at = r - STEP * LEFT
    if at - SPARE >= first:
        for i in range(POINTS):
            k = at + STEP * i
            out[i] = 0.125 * (
                ring[(k - 2) & mask]
                + ring[(k + 2) & mask]
                + 2.0 * (ring[(k - 1) & mask] + ring[k & mask] + ring[(k + 1) & mask])
            )
    else:
        for i in range(POINTS):
            k = at + STEP * i
            total = 0.0
            for d in range(-2, 3):
                total += (2.0 if -2 < d < 2 else 1.0) * ring[max(first, k + d) & mask]
            out[i] = 0.125 * total
    rough = 0.0
    for k in range(r - 100, r - 30):
        if k - 1 >= first:
            rough += abs(ring[(k - 1) & mask] - 2.0 * ring[k & mask] + ring[(k + 1) & mask])
    return rough / 70.0


@kernel
def baseline(seg: Any) -> float:
    """Level before the QRS, mV: mean from 96 to 64 ms before R."""
    base = 0.0
    for j in range(LEFT - 12, LEFT - 7):
        base += 0.2 * seg[j]
    return base


@kernel
def detrended(seg: Any, at: int, n: int, out: Any) -> float:
    """Copy `n` points without their mean and slope; returns their energy."""
    middle = 0.5 * (n - 1)
    mean, slope, spread = 0.0, 0.0, 0.0
    for j in range(n):
        mean += seg[at + j]
        slope += (j - middle) * seg[at + j]
        spread += (j - middle) * (j - middle)
    mean /= n
    slope /= spread
    energy = 0.0
    for j in range(n):
        v = seg[at + j] - mean - slope * (j - middle)
        out[j] = v
        energy += v * v
    return energy


@kernel
def window_norms(seg: Any, at: int, n: int, shifts: int, norms: Any) -> None:
    """Norm, without the mean, of the `shifts` windows of `n` points from `at` on."""
    for k in range(shifts):
        total, square = 0.0, 0.0
        for j in range(n):
            v = seg[at + j + k]
            total += v
            square += v * v
        norms[k] = math.sqrt(max(0.0, square - total * total / n))


@kernel
def correlate(template: Any, norm: float, seg: Any, at: int, n: int, shifts: int, norms: Any, scores: Any) -> int:
    """Correlate a template of zero mean with the `shifts` windows of `seg` from `at` on; returns the best window."""
    for k in range(shifts):
        scores[k] = 0.0
    for j in range(n):
        v = template[j]
        for k in range(shifts):
            scores[k] += v * seg[at + j + k]
    for k in range(shifts):
        scale = norm * norms[k]
        scores[k] = scores[k] / scale if scale > 1e-9 else 0.0
    best = 0
    for k in range(1, shifts):
        if scores[k] > scores[best]:
            best = k
    return best
