"""Shapes of single beats against the patient's own, and statistics over the last beats.

A patient's shapes are clustered online (at most `SHAPES`); the most frequent one is the dominant shape. Beats unlike
it, or much wider, are taken as V-like and left out of RR statistics.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsp.kernel import kernel
from dsp.layout import FS
from inference.rhythm_pattern import NO_P
from inference.rhythm_state import BEFORE, HELD, P_FIRST, P_POINTS, POINTS, RING, SHAPES

JOIN: Final = 0.90
"""Correlation above which a beat joins a cluster."""

ODD: Final = 0.75
"""Correlation with the dominant shape below which a beat is V-like."""

WIDE: Final = 1.35
"""Width over the dominant shape's from which a beat is V-like."""


@kernel
def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Correlation of two shapes, 0 where one is flat.

    Parameters
    ----------
    a, b : ndarray of float32, shape (k,)

    Returns
    -------
    float
    """
    n = len(a)
    mean_a = 0.0
    mean_b = 0.0
    for i in range(n):
        mean_a += a[i]
        mean_b += b[i]
    mean_a /= n
    mean_b /= n
    ab = 0.0
    aa = 0.0
    bb = 0.0
    for i in range(n):
        u = a[i] - mean_a
        v = b[i] - mean_b
        ab += u * v
        aa += u * u
        bb += v * v
    if aa * bb <= 0.0:
        return 0.0
    return ab / math.sqrt(aa * bb)


@kernel
def dominant(state: Any) -> int:
    """Index of the patient's most frequent shape.

    Parameters
    ----------
    state : record of STATE

    Returns
    -------
    int
    """
    best = 0
    for k in range(1, SHAPES):
        if state.counts[k] > state.counts[best]:
            best = k
    return best


@kernel
def learn_shape(state: Any, shape: NDArray[np.float32], width: float, amplitude: float, best: int) -> None:
    """Put a beat into its cluster, or start one in place of the rarest.

    Parameters
    ----------
    state : record of STATE
        Changed in place.
    shape : ndarray of float32, shape (POINTS,)
    width : float
        s.
    amplitude : float
        ln mV.
    best : int
        The cluster that it joins, -1 for a new one.
    """
    for k in range(SHAPES):
        state.counts[k] *= 0.997
    if best < 0:
        best = 0
        for k in range(1, SHAPES):
            if state.counts[k] < state.counts[best]:
                best = k
        state.counts[best] = 0.0
    gain = max(1.0 / (state.counts[best] + 1.0), 0.03)
    if state.counts[best] == 0.0:
        gain = 1.0
    for i in range(POINTS):
        state.shapes[best, i] += gain * (shape[i] - state.shapes[best, i])
    state.widths[best] += gain * (width - state.widths[best])
    state.sizes[best] += gain * (amplitude - state.sizes[best])
    state.counts[best] += 1.0


@kernel
def add_beat(state: Any, r: int, strength: float, now: int, learn: bool) -> None:
    """Take a beat that has just become final.

    Parameters
    ----------
    state : record of STATE
        Changed in place.
    r : int
        R peak, index at 250 Hz.
    strength : float
        Acceptance probability of the detector.
    now : int
        Index of the next sample; the wave before it is stored.
    learn : bool
        Whether the patient's shapes may change by it.
    """
    at = state.beats % HELD
    previous = (state.beats - 1) % HELD
    half = r // 2
    # The shape, from what is stored of it.
    shape = np.zeros(POINTS, np.float32)
    oldest = max(now // 2 - RING, (state.begin + 1) // 2)
    for i in range(POINTS):
        k = half - BEFORE + i
        if oldest <= k < now // 2:
            shape[i] = state.wave[k % RING]
    least = shape[0]
    most = shape[0]
    energy = 1e-12
    moment = 0.0
    for i in range(1, POINTS):
        least = min(least, shape[i])
        most = max(most, shape[i])
        step = shape[i] - shape[i - 1]
        energy += step * step
        moment += step * step * i
    middle = moment / energy
    spread = 0.0
    for i in range(1, POINTS):
        step = shape[i] - shape[i - 1]
        spread += step * step * (i - middle) * (i - middle)
    width = math.sqrt(spread / energy) * (2.0 / FS)
    amplitude = math.log(most - least + 1e-4)

    best = -1
    closest = JOIN
    for k in range(SHAPES):
        if state.counts[k] > 0.0:
            c = correlation(shape, state.shapes[k])
            if c > closest:
                closest = c
                best = k
    main = dominant(state)
    usual = 1.0
    odd = 0
    if state.counts[main] > 0.0:
        usual = correlation(shape, state.shapes[main])
        if usual < ODD or width > WIDE * state.widths[main]:
            odd = 1
    if learn:
        learn_shape(state, shape, width, amplitude, best)
    pair = 0.0
    if state.beats > 0:
        pair = correlation(shape, state.last_shape)
    for i in range(POINTS):
        state.last_shape[i] = shape[i]

    # The P zone, only where the last T wave has passed.
    fit = NO_P
    recent = 0.0
    if state.beats > 0 and odd == 0 and r - state.r[previous] > 0.45 * FS and half - P_FIRST >= oldest:
        mean = 0.0
        for i in range(P_POINTS):
            mean += state.wave[(half - P_FIRST + i) % RING]
        mean /= P_POINTS
        slope = 0.0
        for i in range(P_POINTS):
            slope += (i - 0.5 * (P_POINTS - 1)) * (state.wave[(half - P_FIRST + i) % RING] - mean)
        slope /= P_POINTS * (P_POINTS * P_POINTS - 1) / 12.0
        gain = max(1.0 / (state.p_beats + 1.0), 0.08)
        power = 0.0
        both = 0.0
        own = 0.0
        for i in range(P_POINTS):
            v = state.wave[(half - P_FIRST + i) % RING] - mean - slope * (i - 0.5 * (P_POINTS - 1))
            power += v * v
            both += v * state.p_mean[i]
            own += state.p_mean[i] * state.p_mean[i]
            state.p_mean[i] += gain * (v - state.p_mean[i])
        state.p_power += gain * (power - state.p_power)
        if own * power > 0.0:
            recent = both / math.sqrt(own * power)
        fit = recent
        state.p_recent += gain * (recent - state.p_recent)
        state.p_beats += 1

    state.r[at] = r
    state.usual[at] = usual
    state.pair[at] = pair
    state.width[at] = width
    state.amplitude[at] = amplitude
    state.strength[at] = strength
    state.odd[at] = odd
    state.p_fit[at] = fit
    state.beats += 1


@kernel
def beat_features(state: Any, end: int, out: NDArray[np.float32]) -> None:
    """Compute the beat features of the window that ends at `end`, from column 26 of `SHOCK_NAMES` on.

    Parameters
    ----------
    state : record of STATE
    end : int
        Index at 250 Hz, exclusive.
    out : ndarray of float32, shape (F1,)
        Filled in.
    """
    main = dominant(state)
    in_4 = 0
    in_8 = 0
    intervals = 0
    rr_sum = 0.0
    rr_square = 0.0
    rr_last = 2.0
    width = 0.0
    ratio = 0.0
    pair = 0.0
    usual = 0.0
    least = 1.0
    size = 0.0
    size_square = 0.0
    strength = 0.0
    wide = 0
    since = 4.0
    held = min(state.beats, HELD)
    for back in range(held):
        number = state.beats - 1 - back
        i = number % HELD
        age = end - state.r[i]
        if age > 8 * FS:
            break
        in_8 += 1
        if back == 0:
            since = min(age / FS, 4.0)
        if age > 4 * FS:
            continue
        in_4 += 1
        width += state.width[i]
        ratio += state.width[i] - state.widths[main]
        pair += state.pair[i]
        usual += state.usual[i]
        least = min(least, state.usual[i])
        v = state.amplitude[i] - state.sizes[main]
        size += v
        size_square += v * v
        strength += state.strength[i]
        wide += state.odd[i]
        if back + 1 < held:
            rr = (state.r[i] - state.r[(number - 1) % HELD]) / FS
            if intervals == 0:
                rr_last = min(rr, 2.0)
            rr_sum += rr
            rr_square += rr * rr
            intervals += 1
    out[26] = in_4
    out[27] = in_8
    out[28] = 4.0
    out[29] = 0.0
    if intervals > 0:
        mean = rr_sum / intervals
        out[28] = min(mean, 4.0)
        out[29] = math.sqrt(max(rr_square / intervals - mean * mean, 0.0)) / mean
    out[30] = rr_last
    out[31] = since
    count = max(in_4, 1)
    out[32] = width / count
    out[33] = ratio / count
    out[34] = pair / count
    out[35] = usual / count
    out[36] = least
    mean = size / count
    out[37] = mean
    out[38] = math.sqrt(max(size_square / count - mean * mean, 0.0))
    out[39] = strength / count
    out[40] = wide / count
