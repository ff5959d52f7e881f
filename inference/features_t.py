"""T wave of a beat against the patient's own: a template of the stretch from the ST segment to the end of T."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from dsp.kernel import kernel
from inference.features_segment import LEFT, POINT_HZ, baseline, detrended

T_FROM: Final = 20
T: Final = 54
"""Points of the T zone, from 160 to 584 ms after R."""
P_ZONE_S: Final = 0.28
"""So long before an R peak its P zone may begin."""

FIELDS: Final = [
    ("t", np.float32, (T,)),
    ("t_count", np.float32, (T,)),
]

NAMES: Final = (
    "t_corr",
    "t_energy",
)


@kernel
def forget_t(s: Any) -> None:
    """Forget the T wave."""
    s["t"][:] = 0.0
    s["t_count"][:] = 0.0


@kernel
def t_features(s: Any, seg: Any, scale: float, work: Any, out: Any) -> int:
    """Write the features of the T wave; `scale` is the size of the QRS, mV. Returns how many."""
    zone, template, copy = work[0], work[1], work[2]
    for j in range(T):
        copy[j] = s["t"][j]
    template_energy = detrended(copy, 0, T, template)
    t_energy = detrended(seg, LEFT + T_FROM, T, zone)
    dot = 0.0
    for j in range(T):
        dot += template[j] * zone[j]
    norm = math.sqrt(template_energy * t_energy)
    out[0] = dot / norm if norm > 1e-9 else 0.0
    out[1] = math.log(math.sqrt(t_energy / T) / scale + 1e-3)
    return 2


@kernel
def t_update(s: Any, seg: Any, rr_next: float) -> None:
    """Let the template learn up to where the next beat's P zone may begin."""
    base = baseline(seg)
    last = T
    if rr_next > 0.0:
        last = min(T, int((rr_next - P_ZONE_S) * POINT_HZ) - T_FROM)
    for j in range(last):
        s["t_count"][j] += np.float32(1.0)
        s["t"][j] += max(1.0 / s["t_count"][j], 0.05) * (seg[LEFT + T_FROM + j] - base - s["t"][j])
