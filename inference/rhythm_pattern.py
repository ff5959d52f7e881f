"""Patterns of RR intervals over all beats of the last 20 s, ectopic ones with them.

Ectopy is irregular but not without rule: a basic interval stays the most frequent one, early beats are coupled to the
one before and followed by a pause that makes up for them, and the interval before tells the next one. In atrial
fibrillation none of it holds, and no P wave repeats.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsp.kernel import kernel
from dsp.layout import FS
from inference.rhythm_state import HELD

PATTERN_FEATURES: Final = (
    "all_intervals",
    "all_lag_1",
    "all_lag_2",
    "all_lag_3",
    "modal_share",
    "modal_usual",
    "modal_length",
    "foretold_1",
    "foretold_2",
    "early_share",
    "early_then_late",
    "compensation",
    "coupling_spread",
    "late_share",
    "p_mean",
    "p_high",
    "p_on_time",
    "usual_mean",
    "dominant_share",
)
"""Columns of these patterns."""

NEAR: Final = 0.05
"""Share of the basic interval by which intervals of one length differ."""

EARLY: Final = 0.88
"""Of the basic interval; a shorter one ends in an early beat."""

LATE: Final = 1.15
NO_P: Final = -2.0
"""In place of the correlation of a beat whose P zone was not looked at."""

LONGEST: Final = 2.5
"""s; longer intervals hold missed beats or a pause."""


@kernel
def modal(rr: NDArray[np.float64], n: int) -> tuple[float, float]:
    """Find the interval that most others agree with.

    Parameters
    ----------
    rr : ndarray of float64, shape (>= n,)
        s, ascending.
    n : int

    Returns
    -------
    float
        Mean of the largest group, s; 0 of nothing.
    float
        Its share.
    """
    most = 0
    length = 0.0
    last = 0
    for first in range(n):
        while last < n and rr[last] <= rr[first] * (1.0 + 2.0 * NEAR):
            last += 1
        if last - first > most:
            most = last - first
            length = 0.0
            for k in range(first, last):
                length += rr[k] / most
    return length, most / max(n, 1)


@kernel
def foretold(rr: NDArray[np.float64], n: int, depth: int, errors: NDArray[np.float64]) -> float:
    """Median error when each interval is foretold by what followed the most alike intervals before it.

    Parameters
    ----------
    rr : ndarray of float64, shape (>= n,)
    n : int
    depth : int
        Intervals that are compared.
    errors : ndarray of float64, shape (>= n,)
        Scratch.

    Returns
    -------
    float
        s; 1 where there are too few intervals.
    """
    if n < depth + 3:
        return 1.0
    for i in range(depth, n):
        closest = 1e9
        value = 0.0
        for j in range(depth, n):
            if j == i:
                continue
            away = 0.0
            for k in range(1, depth + 1):
                away += abs(rr[i - k] - rr[j - k])
            if away < closest:
                closest = away
                value = rr[j]
        errors[i - depth] = abs(rr[i] - value)
    return float(np.sort(errors[: n - depth])[(n - depth) // 2])


@kernel
def pattern_features(state: Any, first: int, out: NDArray[np.float32]) -> None:
    """Describe the intervals of all beats from number `first` on.

    Parameters
    ----------
    state : record of STATE
    first : int
        Number of the oldest beat.
    out : ndarray of float32, shape (len(PATTERN_FEATURES),)
        Filled in; zeros where there are too few intervals.
    """
    for k in range(len(out)):
        out[k] = 0.0
    rr = np.empty(HELD)
    usual = np.empty(HELD)
    scratch = np.empty(HELD)
    n = 0
    m = 0
    p_count = 0
    p_sum = 0.0
    p_high = 0
    usual_sum = 0.0
    dominant = 0
    beats = 0
    for number in range(first, state.beats):
        i = number % HELD
        beats += 1
        usual_sum += state.usual[i]
        dominant += state.usual[i] > 0.9
        if state.p_fit[i] > NO_P:
            p_count += 1
            p_sum += state.p_fit[i]
            p_high += state.p_fit[i] > 0.7
        if number == first:
            continue
        j = (number - 1) % HELD
        value = (state.r[i] - state.r[j]) / FS
        if value < LONGEST:
            rr[n] = value
            n += 1
            if state.odd[i] == 0 and state.odd[j] == 0:
                usual[m] = value
                m += 1
    out[0] = n
    out[14] = p_sum / max(p_count, 1)
    out[15] = p_high / max(p_count, 1)
    out[17] = usual_sum / max(beats, 1)
    out[18] = dominant / max(beats, 1)
    if n < 3:
        return
    ordered = np.sort(rr[:n])
    median = ordered[n // 2]
    for lag in range(1, 4):
        if n > lag:
            for i in range(lag, n):
                scratch[i - lag] = abs(rr[i] - rr[i - lag]) / median
            out[lag] = np.sort(scratch[: n - lag])[(n - lag) // 2]
    length, share = modal(ordered, n)
    out[4] = share
    out[5] = modal(np.sort(usual[:m]), m)[1]
    out[6] = length / median
    out[7] = foretold(rr, n, 1, scratch) / median
    out[8] = foretold(rr, n, 2, scratch) / median
    early = 0
    followed = 0
    late = 0
    made_up = 0.0
    pairs = 0
    total = 0.0
    square = 0.0
    for i in range(n):
        if rr[i] > LATE * length:
            late += 1
        if rr[i] < EARLY * length:
            early += 1
            total += rr[i]
            square += rr[i] * rr[i]
            if i + 1 < n:
                pairs += 1
                followed += rr[i + 1] > length
                made_up += min(abs(rr[i] + rr[i + 1] - 2.0 * length) / length, 1.0)
    out[9] = early / n
    out[10] = followed / max(pairs, 1)
    out[11] = made_up / max(pairs, 1)
    if early > 1:
        out[12] = math.sqrt(max(square / early - (total / early) ** 2, 0.0)) / length
    out[13] = late / n
    on_time = 0
    p_sum = 0.0
    for number in range(first + 1, state.beats):
        i = number % HELD
        value = (state.r[i] - state.r[(number - 1) % HELD]) / FS
        if state.p_fit[i] > NO_P and abs(value - length) < 2.0 * NEAR * length:
            on_time += 1
            p_sum += state.p_fit[i]
    out[16] = p_sum / max(on_time, 1)
