"""Shapes of single beats against the patient's own, and statistics over the last beats.

A patient's shapes are clustered online (at most `SHAPES`); the most frequent one is the dominant shape. Beats unlike it,
or much wider, are taken as V-like and left out of RR statistics.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsp.kernel import kernel
from dsp.layout import FS
from inference.rhythm_state import BEFORE, HELD, P_FIRST, P_POINTS, POINTS, RING, SHAPES

JOIN: Final = 0.90
"""Correlation above which a beat joins a cluster."""

ODD: Final = 0.75
"""Correlation with the dominant shape below which a beat is V-like."""

WIDE: Final = 1.35
"""Width over the dominant shape's from which a beat is V-like."""

AF_SPAN: Final = 20 * FS
"""Samples over which RR intervals are judged."""

AF_LEAST: Final = 5
"""RR intervals without which no AF score is due."""

AF_FEATURES: Final = (
    "rr_mean",
    "rr_spread",
    "rr_step",
    "lag_1",
    "lag_2",
    "lag_3",
    "lag_least",
    "lag_most",
    "steps_over_3",
    "steps_over_6",
    "steps_over_12",
    "turning",
    "correlation_1",
    "correlation_2",
    "skew",
    "shortest",
    "longest",
    "quantile_spread",
    "quiet_steps",
    "entropy",
    "matches",
    "p_coherence",
    "p_recent",
    "odd_share",
    "intervals",
    "usual",
)
"""Columns of `Rows.af`."""

_LAGS: Final = 3


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
        state.p_recent += gain * (recent - state.p_recent)
        state.p_beats += 1

    state.r[at] = r
    state.usual[at] = usual
    state.pair[at] = pair
    state.width[at] = width
    state.amplitude[at] = amplitude
    state.strength[at] = strength
    state.odd[at] = odd
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


@kernel
def af_features(state: Any, end: int, out: NDArray[np.float32]) -> int:
    """Compute the RR statistics of the last 20 s.

    Parameters
    ----------
    state : record of STATE
    end : int
        Index at 250 Hz, exclusive.
    out : ndarray of float32, shape (F2,)
        Filled in.

    Returns
    -------
    int
        Usable RR intervals (both beats usual and neighbours).
    """
    rr = np.empty(HELD)
    joined = np.zeros(HELD, np.uint8)  # follows the interval before it without a beat left out
    n = 0
    seen = 0
    odd = 0
    usual = 0.0
    held = min(state.beats, HELD)
    first = state.beats
    for back in range(held):
        if end - state.r[(state.beats - 1 - back) % HELD] > AF_SPAN:
            break
        first = state.beats - 1 - back
    chained = False
    for number in range(first, state.beats):
        i = number % HELD
        seen += 1
        odd += state.odd[i]
        usual += state.usual[i]
        if number == first:
            continue
        j = (number - 1) % HELD
        value = (state.r[i] - state.r[j]) / FS
        if state.odd[i] == 0 and state.odd[j] == 0 and value < 2.5:
            rr[n] = value
            joined[n] = 1 if chained else 0
            chained = True
            n += 1
        else:
            chained = False
    for k in range(len(out)):
        out[k] = 0.0
    out[21] = 0.0
    power = 0.0
    for i in range(P_POINTS):
        power += state.p_mean[i] * state.p_mean[i]
    if state.p_power > 0.0:
        out[21] = power / state.p_power
    out[22] = state.p_recent
    out[23] = odd / max(seen, 1)
    out[24] = n
    out[25] = usual / max(seen, 1)
    if n < AF_LEAST:
        return n

    ordered = np.sort(rr[:n])
    median = ordered[n // 2]
    mean = 0.0
    for i in range(n):
        mean += rr[i]
    mean /= n
    square = 0.0
    cube = 0.0
    one = 0.0
    two = 0.0
    for i in range(n):
        v = rr[i] - mean
        square += v * v
        cube += v * v * v
        if i >= 1 and joined[i]:
            one += v * (rr[i - 1] - mean)
            if i >= 2 and joined[i - 1]:
                two += v * (rr[i - 2] - mean)
    deviation = math.sqrt(square / n) + 1e-4
    out[0] = mean
    out[1] = deviation / mean
    steps = np.empty(HELD)
    lowest = 9.0
    highest = 0.0
    for lag in range(1, _LAGS + 1):
        m = 0
        for i in range(lag, n):
            together = True
            for k in range(lag):
                together = together and joined[i - k] == 1
            if together:
                steps[m] = abs(rr[i] - rr[i - lag]) / median
                m += 1
        value = 0.0
        if m > 0:
            value = np.sort(steps[:m])[m // 2]
        out[2 + lag] = value
        lowest = min(lowest, value)
        highest = max(highest, value)
        if lag == 1 and m > 0:
            total = 0.0
            for i in range(m):
                total += steps[i] * steps[i]
                out[8] += 1.0 / m if steps[i] > 0.03 else 0.0
                out[9] += 1.0 / m if steps[i] > 0.06 else 0.0
                out[10] += 1.0 / m if steps[i] > 0.12 else 0.0
            out[2] = math.sqrt(total / m)
    out[6] = lowest
    out[7] = highest
    turns = 0
    quiet = 0
    triples = 0
    for i in range(2, n):
        if joined[i] and joined[i - 1]:
            triples += 1
            a = rr[i] - rr[i - 1]
            b = rr[i - 1] - rr[i - 2]
            if a * b < 0.0:
                turns += 1
            if abs(a) < 0.04 * median and abs(b) < 0.04 * median:
                quiet += 1
    out[11] = turns / max(triples, 1)
    out[18] = quiet / max(triples, 1)
    out[12] = one / (square + 1e-6)
    out[13] = two / (square + 1e-6)
    out[14] = cube / n / (deviation * deviation * deviation)
    out[15] = ordered[0] / median
    out[16] = ordered[n - 1] / median
    out[17] = (ordered[n - 1 - n // 5] - ordered[n // 5]) / median
    # Entropy of RR over its median in steps of 5 %, and how often two intervals agree to 3 %.
    bins = np.zeros(40)
    matches = 0
    for i in range(n):
        k = int(rr[i] / median * 20.0)
        bins[min(k, 39)] += 1.0
        for j in range(i):
            if abs(rr[i] - rr[j]) < 0.03 * median:
                matches += 1
    for k in range(40):
        if bins[k] > 0.0:
            p = bins[k] / n
            out[19] -= p * math.log(p)
    out[19] /= math.log(float(n))
    out[20] = matches / (n * (n - 1) / 2)
    return n
