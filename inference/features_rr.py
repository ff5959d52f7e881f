"""RR features of a beat: its intervals against baselines that a patient with mostly premature beats can't fool.

Every function works on one patient's record (`FIELDS` are part of `inference.features.STATE`) and is compiled. A beat's
features see the history before it; then the history takes it in.

Irregularity: median and clipped mean of ``|RR_i - RR_(i-L)|`` over the median RR for lags 1 to 3. The minimum over the
lags is low in bigeminy and trigeminy, and high in atrial fibrillation.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from dsp.kernel import kernel

KEPT: Final = 64
"""RR intervals kept a patient."""
BIN_S: Final = 0.01
BINS: Final = 200
"""Histogram of all RR, up to 2 s."""
FORGET: Final = 0.998
"""What a beat leaves of the histogram's older counts."""
LONGEST_S: Final = 3.0
SHORTEST_S: Final = 0.12
EARLY: Final = 0.85
"""Below this share of its baseline an RR is early."""

FIELDS: Final = [
    ("rr_count", np.int64),
    ("rr", np.float32, (KEPT,)),  # s, interval i in place i % KEPT
    ("rr_pure", np.uint8, (KEPT,)),  # both its beats looked like the dominant shape
    ("histogram", np.float32, (BINS,)),
    ("slow", np.float32),  # asymmetric baseline: rises quickly, falls slowly
    ("gate", np.float32),  # follows only intervals that resemble it
    ("early_run", np.int64),  # early beats in a row up to the last one
    ("early_share", np.float32),  # slow average of being early
]

NAMES: Final = (
    "rr",
    "rr_known",
    "rr_1",
    "rr_2",
    "rr_next",
    "rr_next_known",
    "rr_count",
    "rr_by_median8",
    "rr_by_median32",
    "rr_by_slow",
    "rr_by_gate",
    "rr_by_q25",
    "rr_by_q50",
    "rr_by_q90",
    "rr_by_mean3",
    "rr_by_rr1",
    "rr_by_rr2",
    "rr1_by_median32",
    "rr1_by_slow",
    "rr1_by_gate",
    "rr1_by_q50",
    "rr2_by_slow",
    "next_by_median8",
    "next_by_median32",
    "next_by_slow",
    "next_by_gate",
    "next_by_q50",
    "next_by_rr",
    "pair_by_slow",
    "pair_before_by_slow",
    "min8_by_median8",
    "max8_by_median8",
    "median8_by_slow",
    "median32_by_q50",
    "gate_by_slow",
    "q50_by_q90",
    "q25_by_q50",
    "slow",
    "change_1",
    "change_2",
    "change_3",
    "change_13",
    "early_run",
    "early_share",
    "irregular_1",
    "irregular_2",
    "irregular_3",
    "irregular_min",
    "irregular_long_1",
    "irregular_long_min",
    "irregular_pure",
    "pure_share",
    "even_share",
)


@kernel
def clip(value: float, limit: float) -> float:
    """`value` within +-`limit`."""
    return min(limit, max(-limit, value))


@kernel
def ratio(a: float, b: float) -> float:
    """Natural logarithm of a / b, within +-2; 0 where one is not known."""
    if a <= 0.0 or b <= 0.0:
        return 0.0
    return clip(math.log(a / b), 2.0)


@kernel
def put(out: Any, k: int, values: Any) -> int:
    """Write a tuple of floats from place `k` on; returns the place behind it."""
    for value in values:
        out[k] = value
        k += 1
    return k


@kernel
def recent(s: Any, back: int) -> float:
    """Interval `back` places before the current one (1: the last one taken in), s; 0 if there is none."""
    if back > s["rr_count"] or back > KEPT:
        return 0.0
    return np.float64(s["rr"][(s["rr_count"] - back) % KEPT])


@kernel
def median(values: Any, n: int) -> float:
    """Median of the first `n` values, which get sorted; 0 of none."""
    for i in range(1, n):
        v = values[i]
        j = i
        while j > 0 and values[j - 1] > v:
            values[j] = values[j - 1]
            j -= 1
        values[j] = v
    if n == 0:
        return 0.0
    return np.float64(0.5 * (values[(n - 1) // 2] + values[n // 2]))


@kernel
def median_rr(s: Any, wanted: int, scratch: Any) -> float:
    """Median of the last `wanted` intervals, s; 0 if there is none."""
    n = min(wanted, s["rr_count"])
    for i in range(n):
        scratch[i] = s["rr"][(s["rr_count"] - 1 - i) % KEPT]
    return median(scratch, n)


@kernel
def _quantile(histogram: Any, share: float) -> float:
    total = 0.0
    for i in range(BINS):
        total += histogram[i]
    if total <= 0.0:
        return 0.0
    below = 0.0
    for i in range(BINS):
        below += histogram[i]
        if below >= share * total:
            return np.float64((i + 1.0 - (below - share * total) / histogram[i]) * BIN_S)
    return BINS * BIN_S


@kernel
def _irregular(s: Any, lag: int, wanted: int, middle: float, scratch: Any) -> float:
    n = min(wanted, s["rr_count"] - lag, KEPT - lag)
    if n < 3 or middle <= 0.0:
        return 0.0
    for i in range(n):
        scratch[i] = abs(recent(s, i + 1) - recent(s, i + 1 + lag))
    return min(1.0, median(scratch, n) / middle)


@kernel
def _irregular_mean(s: Any, lag: int, middle: float, pure: bool) -> float:
    total, n = 0.0, 0
    count = s["rr_count"]
    for i in range(1, min(count, KEPT) - lag + 1):
        if pure and not (s["rr_pure"][(count - i) % KEPT] and s["rr_pure"][(count - i - lag) % KEPT]):
            continue
        total += min(0.4, abs(recent(s, i) - recent(s, i + lag)) / middle)
        n += 1
    if n < 3:
        return 0.0
    return total / n


@kernel
def rr_features(s: Any, rr: float, rr_next: float, waited: float, scratch: Any, out: Any) -> int:
    """Write the RR features of a beat.

    Parameters
    ----------
    s : record
        The patient, as before the beat.
    rr : float
        Interval to the previous beat, s; 0 where not known.
    rr_next : float
        Interval to the next beat, s; 0 where that was not known in time.
    waited : float
        Time without a next beat that stands for `rr_next` then, s.
    scratch : ndarray of float64, shape (>= KEPT,)
        Overwritten.
    out : ndarray of float32
        Written from the front.

    Returns
    -------
    int
        Features written, ``len(NAMES)``.
    """
    rr1, rr2, rr3 = recent(s, 1), recent(s, 2), recent(s, 3)
    after = rr_next if rr_next > 0.0 else waited
    median8, median32 = median_rr(s, 8, scratch), median_rr(s, 32, scratch)
    slow, gate = np.float64(s["slow"]), np.float64(s["gate"])
    histogram = s["histogram"]
    q25, q50, q90 = _quantile(histogram, 0.25), _quantile(histogram, 0.5), _quantile(histogram, 0.9)
    least, most = 9.0, 0.0
    for i in range(1, min(8, s["rr_count"]) + 1):
        least, most = min(least, recent(s, i)), max(most, recent(s, i))
    mean3 = (rr1 + rr2 + rr3) / 3.0 if rr3 > 0.0 else rr1
    k = put(
        out,
        0,
        (
            rr,
            1.0 if rr > 0.0 else 0.0,
            rr1,
            rr2,
            after,
            1.0 if rr_next > 0.0 else 0.0,
            math.log1p(min(np.float64(s["rr_count"]), 300.0)),
            ratio(rr, median8),
            ratio(rr, median32),
            ratio(rr, slow),
            ratio(rr, gate),
            ratio(rr, q25),
            ratio(rr, q50),
            ratio(rr, q90),
            ratio(rr, mean3),
            ratio(rr, rr1),
            ratio(rr, rr2),
        ),
    )
    k = put(
        out,
        k,
        (
            ratio(rr1, median32),
            ratio(rr1, slow),
            ratio(rr1, gate),
            ratio(rr1, q50),
            ratio(rr2, slow),
            ratio(after, median8),
            ratio(after, median32),
            ratio(after, slow),
            ratio(after, gate),
            ratio(after, q50),
            ratio(after, rr),
            ratio(rr + after, 2.0 * slow) if rr > 0.0 else 0.0,
            ratio(rr + rr1, 2.0 * slow) if rr > 0.0 and rr1 > 0.0 else 0.0,
            ratio(least, median8),
            ratio(most, median8),
            ratio(median8, slow),
            ratio(median32, q50),
            ratio(gate, slow),
            ratio(q50, q90),
            ratio(q25, q50),
            slow,
        ),
    )
    unit = median8 if median8 > 0.0 else 1.0
    out[k] = abs(rr - rr1) / unit if rr > 0.0 and rr1 > 0.0 else 0.0
    out[k + 1] = abs(rr - rr2) / unit if rr > 0.0 and rr2 > 0.0 else 0.0
    out[k + 2] = abs(rr - rr3) / unit if rr > 0.0 and rr3 > 0.0 else 0.0
    out[k + 3] = abs(rr1 - rr3) / unit if rr1 > 0.0 and rr3 > 0.0 else 0.0
    out[k + 4] = math.log1p(min(np.float64(s["early_run"]), 50.0))
    out[k + 5] = s["early_share"]
    k += 6
    middle = median32
    one = _irregular(s, 1, 24, middle, scratch)
    two = _irregular(s, 2, 24, middle, scratch)
    three = _irregular(s, 3, 24, middle, scratch)
    out[k], out[k + 1], out[k + 2], out[k + 3] = one, two, three, min(one, min(two, three))
    k += 4
    long_middle = q50 if q50 > 0.0 else 1.0
    far = _irregular_mean(s, 1, long_middle, False)
    out[k] = far
    out[k + 1] = min(far, min(_irregular_mean(s, 2, long_middle, False), _irregular_mean(s, 3, long_middle, False)))
    out[k + 2] = _irregular_mean(s, 1, long_middle, True)
    pure, even, n = 0, 0, min(int(s["rr_count"]), KEPT)
    for i in range(n):
        pure += s["rr_pure"][i]
        even += abs(s["rr"][i] - long_middle) < 0.05 * long_middle
    out[k + 3] = pure / n if n else 0.0
    out[k + 4] = even / n if n else 0.0
    return k + 5


@kernel
def rr_update(s: Any, rr: float, pure: bool) -> None:
    """Take an interval into the history.

    Parameters
    ----------
    s : record
        The patient, changed.
    rr : float
        Interval that ends with the beat, s; not known, or outside of `SHORTEST_S` to `LONGEST_S`: nothing is learnt.
    pure : bool
        Both its beats looked like the dominant shape.
    """
    if rr < SHORTEST_S or rr > LONGEST_S:
        s["early_run"] = 0
        return
    slow, gate = np.float64(s["slow"]), np.float64(s["gate"])
    early = slow > 0.0 and rr < EARLY * slow
    s["early_run"] = s["early_run"] + 1 if early else 0
    rate = max(0.03, 1.0 / (s["rr_count"] + 1.0))
    s["early_share"] += np.float32(rate * ((1.0 if early else 0.0) - s["early_share"]))
    if slow <= 0.0:
        slow, gate = np.float64(rr), np.float64(rr)
    else:
        u = min(rr, 1.4 * slow)
        slow += (0.15 if u > slow else 0.012) * (u - slow)
        follow = 0.1 if 0.85 < rr / gate < 1.25 else 0.006
        if s["rr_count"] < 8:
            follow = 1.0 / (s["rr_count"] + 1.0)
        gate += follow * (rr - gate)
    s["slow"], s["gate"] = slow, gate
    place = s["rr_count"] % KEPT
    s["rr"][place] = rr
    s["rr_pure"][place] = pure
    s["rr_count"] += 1
    histogram = s["histogram"]
    for i in range(BINS):
        histogram[i] *= np.float32(FORGET)
    histogram[min(BINS - 1, int(rr / BIN_S))] += np.float32(1.0)
