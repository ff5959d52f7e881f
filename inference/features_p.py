"""P wave of a beat against the patient's own, also with what is left of the T wave before it taken away.

Two templates of the P zone, a slow and a fast one, are means of beats that don't come early. What they keep of the
power of the zones that they are means of tells how alike those are: a P wave stays, fibrillation cancels out.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from dsp.kernel import kernel
from inference.features_rr import clip, put
from inference.features_segment import LEFT, POINT_HZ, correlate, detrended, window_norms
from inference.features_t import T_FROM, T

P_FROM: Final = -31
P: Final = 24
"""Points of the P zone, from 248 to 64 ms before R."""
P_SHIFTS: Final = 16
P_FIRST_SHIFT: Final = -14

FIELDS: Final = [
    ("p", np.float32, (P,)),
    ("p_power", np.float32),
    ("p_count", np.int64),
    ("p_fast", np.float32, (P,)),
    ("p_fast_power", np.float32),
]

NAMES: Final = (
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
)


@kernel
def forget_p(s: Any) -> None:
    """Forget the P wave."""
    s["p"][:] = 0.0
    s["p_power"] = 0.0
    s["p_count"] = 0
    s["p_fast"][:] = 0.0
    s["p_fast_power"] = 0.0


@kernel
def _power(template: Any) -> float:
    power = 0.0
    for j in range(P):
        power += template[j] * template[j]
    return power


@kernel
def _against(
    template: Any, template_power: float, seg: Any, zone: Any, norms: Any, scores: Any
) -> tuple[float, float, float, float, float]:
    """Hold the P zone of `seg`, detrended to `zone`, to the template.

    Returns its power, correlation and projection, and the best correlation of a shifted zone with its shift.
    """
    power = detrended(seg, LEFT + P_FROM, P, zone)
    dot = 0.0
    for j in range(P):
        dot += zone[j] * template[j]
    norm = math.sqrt(power * template_power)
    corr = dot / norm if norm > 1e-9 else 0.0
    projection = clip(dot / template_power, 4.0) if template_power > 1e-9 else 0.0
    at = LEFT + P_FROM + P_FIRST_SHIFT
    window_norms(seg, at, P, P_SHIFTS, norms)
    best = correlate(template, math.sqrt(template_power), seg, at, P, P_SHIFTS, norms, scores)
    return power, corr, projection, scores[best], np.float64(best + P_FIRST_SHIFT)


@kernel
def p_features(s: Any, seg: Any, rr: float, scale: float, w: Any, work: Any, out: Any) -> int:
    """Write the features of the P zone, and its shape to `w`; `scale` is the size of the QRS, mV. Returns how many."""
    zone, scores, other, norms = work[0], work[1], work[2], work[3]
    p_zone = w["p"]
    template = s["p"]
    template_power = _power(template)
    power, corr, projection, best, shift = _against(template, template_power, seg, zone, norms, scores)
    for j in range(P):
        p_zone[j] = zone[j]
    rms = math.sqrt(power / P)
    template_rms = math.sqrt(template_power / P)
    k = put(
        out,
        0,
        (
            corr,
            projection,
            math.log(rms / scale + 1e-3),
            math.log((rms + 1e-3) / (template_rms + 1e-3)),
            math.log(template_rms / scale + 1e-3),
            min(1.0, template_power / s["p_power"]) if s["p_power"] > 1e-9 else 0.0,
            min(1.0, _power(s["p_fast"]) / s["p_fast_power"]) if s["p_fast_power"] > 1e-9 else 0.0,
            best,
            shift,
        ),
    )

    # What the previous beat's T wave leaves: the patient's own template goes, at the place that RR gives it.
    offset = round(rr * POINT_HZ) - LEFT
    for i in range(LEFT - 6):
        v = seg[i]
        j = offset + i - T_FROM
        if rr > 0.0 and 0 <= j < T:
            v -= s["t"][j]
        other[i] = v
    power, corr, projection, best, shift = _against(template, template_power, other, zone, norms, scores)
    return put(
        out,
        k,
        (
            corr,
            math.log(math.sqrt(power / P) / scale + 1e-3),
            projection,
            best,
            shift,
            math.log1p(min(np.float64(s["p_count"]), 100.0)),
        ),
    )


@kernel
def p_update(s: Any, rr: float, usual_rr: float, zone: Any) -> None:
    """Let the templates learn from a beat that doesn't come early: its P zone holds no T wave."""
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
