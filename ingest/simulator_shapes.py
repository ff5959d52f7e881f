"""Shapes of beats: the Gaussian events P, Q, R, S and T of the dynamical model, per lead.

McSharry, Clifford, Tarassenko and Smith 2003 (IEEE Trans Biomed Eng 50:289) pull a point round a limit cycle through
Gaussian events at fixed angles. On the cycle the angle runs evenly from beat to beat, and the equation of the height,
``dz/dt = -sum a_i dtheta_i exp(-dtheta_i^2 / 2 b_i^2) - (z - z0)``, is linear: its solution is the sum of the
Gaussians, high-passed by the last term. Deviations from the paper: events are given by their time from R and their
width in seconds with the peak in mV per lead (so that wide, premature and paced beats need no angles of their own); P
and T move with the RR interval (as ``hrfact`` of the authors' program does); the time constant of the last term is
3.2 s (0.05 Hz, a monitor's lower edge) and not 1 s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEADS: Final = ("MLII", "V1", "V5")
"""Leads that have shapes. The columns of `Shape.peak`."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The events of one kind of beat.

    Attributes
    ----------
    at : ndarray of float64, shape (k,)
        Centre of each event, s from the R peak, at an RR of 0.8 s.
    width : ndarray of float64, shape (k,)
        Standard deviation, s.
    moves : ndarray of float64, shape (k,)
        Power of ``RR / 0.8 s`` by which centre and width stretch: 0 for the QRS complex.
    peak : ndarray of float64, shape (k, 3)
        mV in each of `LEADS`.
    """

    at: NDArray[np.float64]
    width: NDArray[np.float64]
    moves: NDArray[np.float64]
    peak: NDArray[np.float64]


_Event = tuple[float, float, float, tuple[float, float, float]]
_P_MOVES, _T_MOVES = 0.35, 0.55


def _p(at: float = -0.165, size: float = 1.0) -> list[_Event]:
    return [
        (at - 0.014, 0.018, _P_MOVES, (0.075 * size, 0.055 * size, 0.06 * size)),
        (at + 0.016, 0.018, _P_MOVES, (0.085 * size, -0.02 * size, 0.07 * size)),
    ]


def _t(mlii: float, v1: float, v5: float, at: float = 0.285) -> list[_Event]:
    """T wave: a slow rise and a quicker fall."""
    return [
        (at - 0.040, 0.048, _T_MOVES, (0.55 * mlii, 0.55 * v1, 0.55 * v5)),
        (at, 0.030, _T_MOVES, (0.62 * mlii, 0.62 * v1, 0.62 * v5)),
    ]


_NARROW: Final[list[_Event]] = [
    (-0.024, 0.0075, 0.0, (-0.10, 0.04, -0.12)),
    (-0.014, 0.0075, 0.0, (0.10, 0.22, 0.05)),
    (0.000, 0.0095, 0.0, (1.15, -0.25, 1.40)),
    (0.014, 0.0095, 0.0, (0.05, -0.85, 0.05)),
    (0.030, 0.0085, 0.0, (-0.24, -0.20, -0.32)),
]
_LEFT_BLOCK: Final[list[_Event]] = [
    (-0.044, 0.010, 0.0, (0.12, 0.12, 0.15)),
    (-0.022, 0.013, 0.0, (0.80, -0.45, 0.85)),
    (0.003, 0.010, 0.0, (0.28, -0.60, 0.32)),
    (0.026, 0.015, 0.0, (0.92, -1.20, 1.10)),
    (0.058, 0.013, 0.0, (0.18, -0.45, 0.22)),
    *_t(-0.30, 0.45, -0.36, 0.32),
]
_RIGHT_BLOCK: Final[list[_Event]] = [
    (-0.024, 0.0075, 0.0, (-0.08, 0.05, -0.10)),
    (-0.006, 0.009, 0.0, (0.25, 0.35, 0.20)),
    (0.002, 0.0105, 0.0, (0.90, -0.30, 1.10)),
    (0.030, 0.010, 0.0, (-0.18, -0.30, -0.20)),
    (0.062, 0.019, 0.0, (-0.42, 0.95, -0.48)),
    *_t(0.24, -0.30, 0.28, 0.31),
]
_RIGHT_VENTRICLE: Final[list[_Event]] = [
    (-0.040, 0.013, 0.0, (0.32, 0.15, 0.25)),
    (0.000, 0.0175, 0.0, (1.60, -0.95, 1.05)),
    (0.034, 0.012, 0.0, (0.42, -0.75, 0.40)),
    (0.058, 0.014, 0.0, (-0.22, -0.10, -0.12)),
    *_t(-0.62, 0.55, -0.48, 0.31),
]
_LEFT_VENTRICLE: Final[list[_Event]] = [
    (-0.036, 0.010, 0.0, (0.30, 0.35, -0.20)),
    (0.000, 0.0165, 0.0, (-1.35, 1.25, -0.95)),
    (0.032, 0.014, 0.0, (-0.62, 0.40, -0.70)),
    (0.060, 0.014, 0.0, (0.16, -0.14, 0.12)),
    *_t(0.52, -0.45, 0.42, 0.31),
]
_PACED: Final[list[_Event]] = [
    (-0.052, 0.0020, 0.0, (0.85, -0.70, 0.75)),
    (-0.026, 0.014, 0.0, (-0.40, -0.25, 0.30)),
    (0.000, 0.018, 0.0, (-1.05, -0.95, 0.60)),
    (0.040, 0.018, 0.0, (-0.70, -0.70, 0.35)),
    *_t(0.48, 0.50, -0.30, 0.33),
]
_ATRIAL_SPIKE: Final[list[_Event]] = [(-0.235, 0.0020, 0.0, (0.50, 0.35, 0.45))]
_RETROGRADE: Final[list[_Event]] = [(0.085, 0.013, 0.2, (-0.10, 0.10, -0.05))]


def _half(events: list[_Event]) -> list[_Event]:
    return [(at, width, moves, (0.5 * a, 0.5 * b, 0.5 * c)) for at, width, moves, (a, b, c) in events]


_NORMAL_T: Final = _t(0.26, -0.06, 0.34)

EVENTS: Final[Mapping[str, list[_Event]]] = {
    "normal": [*_p(), *_NARROW, *_NORMAL_T],
    "no_p": [*_NARROW, *_NORMAL_T],
    "svt": [*_NARROW, *_RETROGRADE, *_t(0.20, -0.05, 0.26)],
    "atrial": [*_p(-0.135, -0.65), *_NARROW, *_NORMAL_T],
    "lbbb": [*_p(-0.20), *_LEFT_BLOCK],
    "rbbb": [*_p(), *_RIGHT_BLOCK],
    "rbbb_atrial": [*_p(-0.135, -0.65), *_RIGHT_BLOCK],
    "lbbb_atrial": [*_p(-0.16, -0.65), *_LEFT_BLOCK],
    "pvc1": _RIGHT_VENTRICLE,
    "pvc2": _LEFT_VENTRICLE,
    "fusion": [*_p(), *_half([*_NARROW, *_NORMAL_T]), *_half(_RIGHT_VENTRICLE)],
    "paced": _PACED,
    "paced_dual": [*_ATRIAL_SPIKE, *_p(-0.19), *_PACED],
    "p_alone": _p(0.0),
}
"""Kinds of beats by name. ``p_alone`` is a P wave that no ventricle answers."""

NAMES: Final = tuple(EVENTS)


def shapes_of(seed: int, leads: tuple[str, ...]) -> tuple[Shape, ...]:
    """Make one patient's own shapes.

    Parameters
    ----------
    seed : int
        Makes the patient: sizes vary by about 12 %, widths and places by a few percent.
    leads : tuple of str
        Names out of `LEADS`; they choose the columns of `Shape.peak`.

    Returns
    -------
    tuple of Shape
        In the order of `NAMES`.
    """
    rng = np.random.default_rng((seed, 1))
    columns = [LEADS.index(lead) for lead in leads]
    size = rng.normal(1.0, 0.12, len(LEADS)).clip(0.7, 1.35)
    shapes = []
    for name in NAMES:
        events = EVENTS[name]
        at, width, moves, peak = (np.array([event[i] for event in events], dtype=np.float64) for i in range(4))
        jitter = rng.normal(1.0, 0.05, (3, len(events))).clip(0.88, 1.12)
        peak = peak * size * jitter[0][:, None]
        shapes.append(Shape(at * (1 + (jitter[1] - 1) * 0.4), width * jitter[2], moves, peak[:, columns]))
    return tuple(shapes)
