"""RR statistics over the last 20 s for atrial fibrillation, from beats that are not V-like.

Turning points after Dash (2009), matches of intervals as in sample entropy (Lake and Moorman 2011). Steps are low for
one lag in bigeminy and high for all in fibrillation; coherence of the P zone tells premature atrial beats from it.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsp.kernel import kernel
from dsp.layout import FS
from inference.rhythm_pattern import PATTERN_FEATURES, pattern_features
from inference.rhythm_state import HELD, P_POINTS

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
    *PATTERN_FEATURES,
)
"""Columns of `Rows.af`; those of `inference.rhythm_pattern` come last."""

_PATTERNS: Final = len(AF_FEATURES) - len(PATTERN_FEATURES)

_LAGS: Final = 3


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
    for k in range(_PATTERNS):
        out[k] = 0.0
    pattern_features(state, first, out[_PATTERNS:])
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
