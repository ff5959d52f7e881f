"""Shape features of a beat: its QRS against clusters of earlier ones, its P zone and T wave against the patient's own.

Every function works on one patient's record (`FIELDS` are part of `inference.features.STATE`) and is compiled. All
shapes are read from one segment of 125 Hz around the R peak (`inference.features_segment`). Templates are means of
earlier beats, so a patient whose beats are all wide, or all premature, is compared with itself. This module measures
the QRS and the levels behind it; the rest comes from `inference.features_clusters`, `inference.features_p` and
`inference.features_t`.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from dsp.kernel import kernel
from inference import features_clusters, features_p, features_t
from inference.features_clusters import LIKE, QRS, QRS_FROM, cluster_features, cluster_update, forget_clusters
from inference.features_p import P, forget_p, p_features, p_update
from inference.features_rr import clip, put, ratio
from inference.features_segment import LEFT, baseline
from inference.features_t import forget_t, t_features, t_update

FIELDS: Final = [
    *features_clusters.FIELDS,
    ("beats", np.int64),  # beats learnt from
    ("amplitude", np.float32),  # mean of usual beats: peak to peak of the QRS, mV
    ("area", np.float32),
    ("width", np.float32),
    ("slope", np.float32),
    ("likeness", np.float32),  # slow average of the correlation with the dominant shape
    *features_p.FIELDS,
    *features_t.FIELDS,
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
    *features_clusters.NAMES,
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
    *features_t.NAMES,
    *features_p.NAMES,
    "noise",
)


@kernel
def forget(s: Any) -> None:
    """Forget all shapes and levels (another lead is analysed now)."""
    forget_clusters(s)
    s["beats"] = 0
    s["amplitude"] = 0.0
    s["area"] = 0.0
    s["width"] = 0.0
    s["slope"] = 0.0
    s["likeness"] = 0.0
    forget_p(s)
    forget_t(s)
    s["last_cluster"] = -1
    s["last_like"] = 0.0
    s["last_width"] = 0.0
    s["last_amplitude"] = 0.0


@kernel
def shape_features(s: Any, seg: Any, rr: float, rough: float, w: Any, work: Any, out: Any) -> int:
    """Write the shape features of a beat.

    Parameters
    ----------
    s : record
        The patient, as before the beat.
    seg : ndarray of float64, shape (POINTS,)
        From `inference.features_segment.segment`.
    rr : float
        Interval to the previous beat, s; 0 where not known.
    rough : float
        Noise, from the same.
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
    base = baseline(seg)
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

    out[0] = math.log1p(min(np.float64(s["beats"]), 300.0))
    k = 1 + cluster_features(s, seg, w, work, out[1:])
    k = put(
        out,
        k,
        (
            np.float64(s["last_like"]),
            np.float64(s["last_width"]),
            np.float64(s["last_amplitude"]),
            np.float64(s["likeness"]),
            math.log(amplitude),
            ratio(amplitude, np.float64(s["amplitude"])),
            ratio(area, np.float64(s["area"])),
            0.01 * width,
            ratio(width, np.float64(s["width"])),
            0.01 * slope_width,
            ratio(steep, np.float64(s["slope"])),
            high / amplitude,
            polarity,
            clip(st / scale, 3.0),
            clip(t_mean / scale, 3.0),
            clip(t_mean * polarity / scale, 3.0),
        ),
    )
    k += t_features(s, seg, scale, work, out[k:])
    k += p_features(s, seg, rr, scale, w, work, out[k:])
    out[k] = math.log(rough / scale + 1e-3)
    return k + 1


@kernel
def shape_update(s: Any, seg: Any, rr: float, rr_next: float, usual_rr: float, w: Any) -> bool:
    """Learn from a beat of good signal.

    Parameters
    ----------
    s : record
        The patient, changed.
    seg : ndarray of float64, shape (POINTS,)
        From `inference.features_segment.segment`.
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
    c = cluster_update(s, seg, rr, usual_rr, w)
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
        p_update(s, rr, usual_rr, w["p"])
        t_update(s, seg, rr_next)
    return bool(usual)
