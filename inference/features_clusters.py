"""Clusters of the QRS shapes that a patient's beats have: which one a beat joins, and which one is the usual beat's.

A cluster is the mean of its members, and knows how early they come. Beats are compared where they fit best, up to 32 ms
to either side of the R peak.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from dsp.kernel import kernel
from inference.features_rr import put, ratio
from inference.features_segment import LEFT, correlate, window_norms

CLUSTERS: Final = 8
QRS_FROM: Final = -11
QRS: Final = 32
"""Points of a QRS shape, from 88 ms before to 160 ms after R."""
SHIFTS: Final = 8
FIRST_SHIFT: Final = -4
JOIN: Final = 0.90
"""Correlation above which a beat joins a cluster."""
LIKE: Final = 0.75
"""Correlation with the dominant shape above which a beat counts as conducted the usual way."""

FIELDS: Final = [
    ("shapes", np.float32, (CLUSTERS + 1, QRS)),  # mean shapes without their mean; the last row is the previous beat
    ("norms", np.float32, (CLUSTERS + 1,)),
    ("counts", np.float32, (CLUSTERS,)),  # decaying
    ("members", np.int64, (CLUSTERS,)),
    ("early", np.float32, (CLUSTERS,)),  # mean of ln(RR / median) of members
    ("late", np.float32, (CLUSTERS,)),  # mean of ln(RR / median) of the beats that follow members
]

NAMES: Final = (
    "corr_dominant",
    "corr_own",
    "corr_previous",
    "corr_second",
    "shift",
    "is_dominant",
    "is_new",
    "own_share",
    "own_members",
    "dominant_share",
    "clusters",
    "own_early",
    "dominant_early",
    "own_early_less_dominant",
    "own_late",
    "same_as_previous",
)


@kernel
def forget_clusters(s: Any) -> None:
    """Forget all clusters."""
    s["counts"][:] = 0.0
    s["members"][:] = 0
    s["norms"][:] = 0.0
    s["shapes"][:] = 0.0
    s["early"][:] = 0.0
    s["late"][:] = 0.0


@kernel
def dominant(s: Any) -> int:
    """Cluster of the usual beat, -1 if there is none: the most frequent, beats that come early counting 0.3."""
    best, most = -1, 0.0
    for c in range(CLUSTERS):
        if s["members"][c] > 0:
            weight = s["counts"][c] * (0.3 if s["early"][c] < -0.12 else 1.0)
            if weight > most:
                best, most = c, weight
    return best


@kernel
def cluster_features(s: Any, seg: Any, w: Any, work: Any, out: Any) -> int:
    """Write what the clusters say of a beat, and to `w` the one that it joins; returns how many were written."""
    norms, scores = work[0], work[1]
    at = LEFT + QRS_FROM + FIRST_SHIFT
    window_norms(seg, at, QRS, SHIFTS, norms)
    main = dominant(s)
    own, own_corr, own_shift, second_corr, main_corr, clusters, total = -1, -1.0, -FIRST_SHIFT, 0.0, 0.0, 0, 0.0
    for c in range(CLUSTERS):
        if s["members"][c] == 0:
            continue
        clusters += 1
        total += s["counts"][c]
        k = correlate(s["shapes"][c], s["norms"][c], seg, at, QRS, SHIFTS, norms, scores)
        if c == main:
            main_corr = scores[k]
        if scores[k] > own_corr:
            second_corr = max(own_corr, 0.0)
            own, own_corr, own_shift = c, scores[k], k
        elif scores[k] > second_corr:
            second_corr = scores[k]
    k = correlate(s["shapes"][CLUSTERS], s["norms"][CLUSTERS], seg, at, QRS, SHIFTS, norms, scores)
    previous_corr = scores[k]
    joins = own >= 0 and own_corr > JOIN
    w["cluster"] = own if joins else -1
    w["shift"] = own_shift if joins else -FIRST_SHIFT
    w["main_corr"] = main_corr
    w["first"] = main < 0
    return put(
        out,
        0,
        (
            main_corr,
            own_corr if own >= 0 else 0.0,
            previous_corr,
            second_corr,
            np.float64(own_shift + FIRST_SHIFT),
            1.0 if joins and own == main else 0.0,
            0.0 if joins else 1.0,
            np.float64(s["counts"][own]) / total if joins else 0.0,
            math.log1p(min(np.float64(s["members"][own]), 300.0)) if joins else 0.0,
            np.float64(s["counts"][main]) / total if main >= 0 else 0.0,
            np.float64(clusters),
            np.float64(s["early"][own]) if joins else 0.0,
            np.float64(s["early"][main]) if main >= 0 else 0.0,
            np.float64(s["early"][own] - s["early"][main]) if joins else 0.0,
            np.float64(s["late"][own]) if joins else 0.0,
            1.0 if joins and own == s["last_cluster"] else 0.0,
        ),
    )


@kernel
def _place(s: Any) -> int:
    """Row for a new cluster: a free one, else that of the rarest."""
    rarest = 0
    for c in range(CLUSTERS):
        if s["members"][c] == 0:
            return c
        if s["counts"][c] < s["counts"][rarest]:
            rarest = c
    return rarest


@kernel
def _store(s: Any, row: int, seg: Any, at: int, rate: float) -> None:
    """Move a mean shape towards the window of `seg` at `at`."""
    mean = 0.0
    for j in range(QRS):
        mean += seg[at + j] / QRS
    shape, square = s["shapes"][row], 0.0
    for j in range(QRS):
        v = shape[j] + rate * (seg[at + j] - mean - shape[j])
        shape[j] = v
        square += v * v
    s["norms"][row] = math.sqrt(square)


@kernel
def cluster_update(s: Any, seg: Any, rr: float, usual_rr: float, w: Any) -> int:
    """Let a beat into its cluster, or into a new one; returns which."""
    c: int = w["cluster"]
    for i in range(CLUSTERS):
        s["counts"][i] *= np.float32(0.997)
    if c < 0:
        c = _place(s)
        s["members"][c] = 0
        s["counts"][c] = 0.0
        s["early"][c] = 0.0
        s["late"][c] = 0.0
    rate = max(1.0 / (s["members"][c] + 1.0), 0.03)
    _store(s, c, seg, LEFT + QRS_FROM + FIRST_SHIFT + w["shift"], rate)
    _store(s, CLUSTERS, seg, LEFT + QRS_FROM, 1.0)
    s["counts"][c] += np.float32(1.0)
    s["members"][c] += 1
    if rr > 0.0 and usual_rr > 0.0:
        step = ratio(rr, usual_rr)
        s["early"][c] += max(1.0 / s["members"][c], 0.08) * (step - s["early"][c])
        last = s["last_cluster"]
        if last >= 0:
            s["late"][last] += max(1.0 / max(1, s["members"][last]), 0.08) * (step - s["late"][last])
    return c
