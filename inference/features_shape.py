"""Shape features of a beat: its QRS against clusters of earlier ones, its P zone and T wave against the patient's own.

Every function works on one patient's record (`FIELDS` are part of `inference.features.STATE`) and is compiled. All
shapes are read from one segment of 125 Hz around the R peak (`segment`). Templates are means of earlier beats, so a
patient whose beats are all wide, or all premature, is compared with itself.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from dsp.kernel import kernel
from inference.features_rr import put, ratio

STEP: Final = 2
"""Samples at the analysis rate from point to point of a segment (8 ms)."""
LEFT: Final = 62
RIGHT: Final = 77
POINTS: Final = LEFT + RIGHT + 1
"""Points of a segment, from 496 ms before to 616 ms after the R peak."""
SPARE: Final = 2
"""Samples of smoothing beyond its ends."""

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

P_FROM: Final = -31
P: Final = 24
"""Points of the P zone, from 248 to 64 ms before R."""
P_SHIFTS: Final = 16
P_FIRST_SHIFT: Final = -14

T_FROM: Final = 20
T: Final = 54
"""Points of the T zone, from 160 to 584 ms after R."""

FIELDS: Final = [
    ("shapes", np.float32, (CLUSTERS + 1, QRS)),  # mean shapes without their mean; the last row is the previous beat
    ("norms", np.float32, (CLUSTERS + 1,)),
    ("counts", np.float32, (CLUSTERS,)),  # decaying
    ("members", np.int64, (CLUSTERS,)),
    ("early", np.float32, (CLUSTERS,)),  # mean of ln(RR / median) of members
    ("late", np.float32, (CLUSTERS,)),  # mean of ln(RR / median) of the beats that follow members
    ("beats", np.int64),  # beats learnt from
    ("amplitude", np.float32),  # mean of usual beats: peak to peak of the QRS, mV
    ("area", np.float32),
    ("width", np.float32),
    ("slope", np.float32),
    ("likeness", np.float32),  # slow average of the correlation with the dominant shape
    ("p", np.float32, (P,)),
    ("p_power", np.float32),
    ("p_count", np.int64),
    ("p_fast", np.float32, (P,)),
    ("p_fast_power", np.float32),
    ("t", np.float32, (T,)),
    ("t_count", np.float32, (T,)),
    ("last_cluster", np.int64),  # -1: none
    ("last_like", np.float32),
    ("last_width", np.float32),
    ("last_amplitude", np.float32),
]

WORK: Final = np.dtype(
    [
        ("cluster", np.int64),  # joined, -1: none
        ("shift", np.int64),
        ("first", np.bool_),  # there was no shape to compare with
        ("main_corr", np.float64),
        ("amplitude", np.float64),
        ("area", np.float64),
        ("width", np.float64),
        ("slope", np.float64),
        ("p", np.float64, (P,)),
    ],
    align=True,
)
"""What a beat's features leave for the update."""

NAMES: Final = (
    "beats_learnt",
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
    "previous_like",
    "previous_width",
    "previous_amplitude",
    "likeness",
    "amplitude",
    "amplitude_ratio",
    "area_ratio",
    "width",
    "width_ratio",
    "slope_width",
    "slope_ratio",
    "top_share",
    "polarity",
    "st",
    "t_mean",
    "t_against_qrs",
    "t_corr",
    "t_energy",
    "p_corr",
    "p_projection",
    "p_energy",
    "p_share",
    "p_template",
    "p_coherence",
    "p_coherence_fast",
    "p_best",
    "p_best_shift",
    "hidden_corr",
    "hidden_energy",
    "hidden_projection",
    "hidden_best",
    "hidden_best_shift",
    "p_count",
    "noise",
)


@kernel
def forget(s: Any) -> None:
    """Forget all shapes and levels (another lead is analysed now)."""
    s["counts"][:] = 0.0
    s["members"][:] = 0
    s["norms"][:] = 0.0
    s["shapes"][:] = 0.0
    s["early"][:] = 0.0
    s["late"][:] = 0.0
    s["beats"] = 0
    s["amplitude"] = 0.0
    s["area"] = 0.0
    s["width"] = 0.0
    s["slope"] = 0.0
    s["likeness"] = 0.0
    s["p"][:] = 0.0
    s["p_power"] = 0.0
    s["p_count"] = 0
    s["p_fast"][:] = 0.0
    s["p_fast_power"] = 0.0
    s["t"][:] = 0.0
    s["t_count"][:] = 0.0
    s["last_cluster"] = -1
    s["last_like"] = 0.0
    s["last_width"] = 0.0
    s["last_amplitude"] = 0.0


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
def _correlate(template: Any, norm: float, seg: Any, at: int, n: int, shifts: int, energy: Any, scores: Any) -> None:
    """Correlation of a template of zero mean with the `shifts` windows of `seg` from `at` on."""
    for k in range(shifts):
        scores[k] = 0.0
    for j in range(n):
        v = template[j]
        for k in range(shifts):
            scores[k] += v * seg[at + j + k]
    for k in range(shifts):
        scale = norm * energy[k]
        scores[k] = scores[k] / scale if scale > 1e-9 else 0.0


@kernel
def _energies(seg: Any, at: int, n: int, shifts: int, energy: Any) -> None:
    """Norm, without the mean, of the `shifts` windows of `n` points from `at` on."""
    for k in range(shifts):
        total, square = 0.0, 0.0
        for j in range(n):
            v = seg[at + j + k]
            total += v
            square += v * v
        energy[k] = math.sqrt(max(0.0, square - total * total / n))


@kernel
def _best(scores: Any, n: int) -> int:
    best = 0
    for k in range(1, n):
        if scores[k] > scores[best]:
            best = k
    return best


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
def _detrended(seg: Any, at: int, n: int, out: Any) -> float:
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
def _clip(value: float, limit: float) -> float:
    return min(limit, max(-limit, value))


@kernel
def shape_features(s: Any, seg: Any, rr: float, rough: float, w: Any, work: Any, out: Any) -> int:
    """Write the shape features of a beat.

    Parameters
    ----------
    s : record
        The patient, as before the beat.
    seg : ndarray of float64, shape (POINTS,)
        From `segment`.
    rr : float
        Interval to the previous beat, s; 0 where not known.
    rough : float
        Noise, from `segment`.
    w : record of `WORK`
        What `shape_update` will need of this beat; overwritten.
    work : ndarray of float64, shape (4, POINTS)
        Overwritten.
    out : ndarray of float32
        Written from the front.

    Returns
    -------
    int
        Features written, ``len(NAMES)``.
    """
    energy, scores, other = work[0], work[1], work[2]
    at = LEFT + QRS_FROM + FIRST_SHIFT
    _energies(seg, at, QRS, SHIFTS, energy)
    main = dominant(s)
    own, own_corr, own_shift, second_corr, main_corr, clusters, total = -1, -1.0, -FIRST_SHIFT, 0.0, 0.0, 0, 0.0
    for c in range(CLUSTERS):
        if s["members"][c] == 0:
            continue
        clusters += 1
        total += s["counts"][c]
        _correlate(s["shapes"][c], s["norms"][c], seg, at, QRS, SHIFTS, energy, scores)
        k = _best(scores, SHIFTS)
        if c == main:
            main_corr = scores[k]
        if scores[k] > own_corr:
            second_corr = max(own_corr, 0.0)
            own, own_corr, own_shift = c, scores[k], k
        elif scores[k] > second_corr:
            second_corr = scores[k]
    _correlate(s["shapes"][CLUSTERS], s["norms"][CLUSTERS], seg, at, QRS, SHIFTS, energy, scores)
    previous_corr = scores[_best(scores, SHIFTS)]
    joins = own >= 0 and own_corr > JOIN
    shift = own_shift if joins else -FIRST_SHIFT
    w["cluster"] = own if joins else -1
    w["shift"] = shift
    w["main_corr"] = main_corr
    w["first"] = main < 0

    base = 0.0
    for j in range(LEFT - 12, LEFT - 7):
        base += 0.2 * seg[j]
    low, high, area, square, signed = 1e9, -1e9, 0.0, 0.0, 0.0
    steep, rise, rise_square = 0.0, 0.0, 0.0
    for j in range(LEFT + QRS_FROM, LEFT + QRS_FROM + QRS):
        v = seg[j] - base
        low, high = min(low, v), max(high, v)
        area += abs(v)
        signed += v
        square += v * v
        d = abs(seg[j + 1] - seg[j])
        steep = max(steep, d)
        rise += d
        rise_square += d * d
    amplitude = max(high - low, 1e-3)
    width = 8.0 * area * area / max(square, 1e-9)
    slope_width = 8.0 * rise * rise / max(rise_square, 1e-9)
    w["amplitude"], w["area"], w["width"], w["slope"] = amplitude, area, width, steep
    polarity = signed / max(area, 1e-9)
    st = 0.0
    for j in range(LEFT + 13, LEFT + 19):
        st += (seg[j] - base) / 6.0
    t_mean = 0.0
    for j in range(LEFT + 22, LEFT + 46):
        t_mean += (seg[j] - base) / 24.0
    scale = np.float64(s["amplitude"]) if s["amplitude"] > 0.0 else amplitude

    k = put(
        out,
        0,
        (
            math.log1p(min(np.float64(s["beats"]), 300.0)),
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
            np.float64(s["last_like"]),
            np.float64(s["last_width"]),
            np.float64(s["last_amplitude"]),
            np.float64(s["likeness"]),
        ),
    )
    k = put(
        out,
        k,
        (
            math.log(amplitude),
            ratio(amplitude, np.float64(s["amplitude"])),
            ratio(area, np.float64(s["area"])),
            0.01 * width,
            ratio(width, np.float64(s["width"])),
            0.01 * slope_width,
            ratio(steep, np.float64(s["slope"])),
            high / amplitude,
            polarity,
            _clip(st / scale, 3.0),
            _clip(t_mean / scale, 3.0),
            _clip(t_mean * polarity / scale, 3.0),
        ),
    )

    for j in range(T):
        other[j] = s["t"][j]
    template_energy = _detrended(other, 0, T, scores)
    t_energy = _detrended(seg, LEFT + T_FROM, T, energy)
    dot = 0.0
    for j in range(T):
        dot += scores[j] * energy[j]
    norm = math.sqrt(template_energy * t_energy)
    out[k] = dot / norm if norm > 1e-9 else 0.0
    out[k + 1] = math.log(math.sqrt(t_energy / T) / scale + 1e-3)
    return k + 2 + _p_features(s, seg, rr, scale, rough, w, work, out[k + 2 :])


@kernel
def _p_features(s: Any, seg: Any, rr: float, scale: float, rough: float, w: Any, work: Any, out: Any) -> int:
    zone, scores, other, energy = work[0], work[1], work[2], work[3]
    p_zone = w["p"]
    power = _detrended(seg, LEFT + P_FROM, P, zone)
    template = s["p"]
    template_power = 0.0
    for j in range(P):
        p_zone[j] = zone[j]
        template_power += template[j] * template[j]
    dot = 0.0
    for j in range(P):
        dot += zone[j] * template[j]
    norm = math.sqrt(power * template_power)
    rms = math.sqrt(power / P)
    out[0] = dot / norm if norm > 1e-9 else 0.0
    out[1] = _clip(dot / template_power, 4.0) if template_power > 1e-9 else 0.0
    out[2] = math.log(rms / scale + 1e-3)
    out[3] = math.log((rms + 1e-3) / (math.sqrt(template_power / P) + 1e-3))
    out[4] = math.log(math.sqrt(template_power / P) / scale + 1e-3)
    out[5] = min(1.0, template_power / s["p_power"]) if s["p_power"] > 1e-9 else 0.0
    fast = 0.0
    for j in range(P):
        fast += s["p_fast"][j] * s["p_fast"][j]
    out[6] = min(1.0, fast / s["p_fast_power"]) if s["p_fast_power"] > 1e-9 else 0.0
    at = LEFT + P_FROM + P_FIRST_SHIFT
    template_norm = math.sqrt(template_power)
    _energies(seg, at, P, P_SHIFTS, energy)
    _correlate(template, template_norm, seg, at, P, P_SHIFTS, energy, scores)
    best = _best(scores, P_SHIFTS)
    out[7], out[8] = scores[best], np.float64(best + P_FIRST_SHIFT)

    # What the previous beat's T wave leaves: the patient's own template goes, at the place that RR gives it.
    offset = round(rr * 125.0) - LEFT
    for i in range(LEFT - 6):
        v = seg[i]
        j = offset + i - T_FROM
        if rr > 0.0 and 0 <= j < T:
            v -= s["t"][j]
        other[i] = v
    power = _detrended(other, LEFT + P_FROM, P, zone)
    dot = 0.0
    for j in range(P):
        dot += zone[j] * template[j]
    norm = math.sqrt(power * template_power)
    out[9] = dot / norm if norm > 1e-9 else 0.0
    out[10] = math.log(math.sqrt(power / P) / scale + 1e-3)
    out[11] = _clip(dot / template_power, 4.0) if template_power > 1e-9 else 0.0
    _energies(other, at, P, P_SHIFTS, energy)
    _correlate(template, template_norm, other, at, P, P_SHIFTS, energy, scores)
    best = _best(scores, P_SHIFTS)
    out[12], out[13] = scores[best], np.float64(best + P_FIRST_SHIFT)
    out[14] = math.log1p(min(np.float64(s["p_count"]), 100.0))
    out[15] = math.log(rough / scale + 1e-3)
    return 16


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
def shape_update(s: Any, seg: Any, rr: float, rr_next: float, usual_rr: float, w: Any) -> bool:
    """Learn from a beat of good signal.

    Parameters
    ----------
    s : record
        The patient, changed.
    seg : ndarray of float64, shape (POINTS,)
        From `segment`.
    rr, rr_next : float
        Intervals before and after, s; 0 where not known.
    usual_rr : float
        Median of recent intervals before this one, s; 0 where there is none.
    w : record of `WORK`
        Left by `shape_features`.

    Returns
    -------
    bool
        Whether the beat looked like the usual one, so that its image is one to remember.
    """
    c = w["cluster"]
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
    usual = w["first"] or w["main_corr"] > LIKE
    if s["beats"] == 0:
        s["amplitude"], s["area"], s["width"], s["slope"] = w["amplitude"], w["area"], w["width"], w["slope"]
    s["last_cluster"] = c
    s["last_like"] = w["main_corr"]
    s["last_width"] = ratio(w["width"], np.float64(s["width"]))
    s["last_amplitude"] = ratio(w["amplitude"], np.float64(s["amplitude"]))
    s["beats"] += 1
    general = max(1.0 / s["beats"], 0.03)
    s["likeness"] += general * (w["main_corr"] - s["likeness"])
    if usual:
        s["amplitude"] += general * (w["amplitude"] - s["amplitude"])
        s["area"] += general * (w["area"] - s["area"])
        s["width"] += general * (w["width"] - s["width"])
        s["slope"] += general * (w["slope"] - s["slope"])
        _learn_p(s, rr, usual_rr, w["p"])
        _learn_t(s, seg, rr_next)
    return bool(usual)


@kernel
def _learn_p(s: Any, rr: float, usual_rr: float, zone: Any) -> None:
    """P templates learn from beats that don't come early: their P zone holds no T wave."""
    if rr < 0.9 * usual_rr or rr <= 0.0:
        return
    s["p_count"] += 1
    slow, fast = max(1.0 / s["p_count"], 0.04), max(1.0 / s["p_count"], 0.15)
    template, quick, power = s["p"], s["p_fast"], 0.0
    for j in range(P):
        template[j] += slow * (zone[j] - template[j])
        quick[j] += fast * (zone[j] - quick[j])
        power += zone[j] * zone[j]
    s["p_power"] += slow * (power - s["p_power"])
    s["p_fast_power"] += fast * (power - s["p_fast_power"])


@kernel
def _learn_t(s: Any, seg: Any, rr_next: float) -> None:
    """Let the T template learn up to where the next beat's P zone may begin."""
    base = 0.0
    for j in range(LEFT - 12, LEFT - 7):
        base += 0.2 * seg[j]
    last = T
    if rr_next > 0.0:
        last = min(T, int((rr_next - 0.28) * 125.0) - T_FROM)
    for j in range(last):
        s["t_count"][j] += np.float32(1.0)
        s["t"][j] += max(1.0 / s["t_count"][j], 0.05) * (seg[LEFT + T_FROM + j] - base - s["t"][j])
