"""What goes on between the beats: fibrillation and flutter waves, and the noises of skin, muscle and mains.

All but the muscle noise are closed functions of time, so that any stretch of them can be had without the one before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from ingest.simulator_script import Segment
from ingest.simulator_shapes import LEADS

_ATRIAL_GAIN: Final = (0.8, 1.2, 0.35)
_FLUTTER_GAIN: Final = (-1.0, 0.7, -0.5)
_WAVES: Final = 18
_MUSCLE_A: Final = np.array([1.0, -0.35, 0.12])
_MUSCLE_B: Final = np.array([1.0, -1.0])
_MUSCLE_SD: Final = 1.28
"""Standard deviation of white noise of unit variance behind that filter."""
_BUMPS_A_SECOND: Final = 2.2


@dataclass(frozen=True, slots=True, eq=False)
class Waves:
    """A sum of sinusoids per lead: ``sum_k a_k sin(2 pi f_k t + p_k + q_kl)``.

    Attributes
    ----------
    frequency, phase, size : ndarray of float64, shape (k,)
        Hz, radians, relative amplitude.
    lead_phase : ndarray of float64, shape (k, leads)
        Phase of each lead beside the common one.
    """

    frequency: NDArray[np.float64]
    phase: NDArray[np.float64]
    size: NDArray[np.float64]
    lead_phase: NDArray[np.float64]

    def at(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evaluate at times of shape (n,), s; shape (n, leads)."""
        angle = 2 * np.pi * np.outer(t, self.frequency) + self.phase
        in_phase, quadrature = (
            self.size[:, None] * np.cos(self.lead_phase),
            self.size[:, None] * np.sin(self.lead_phase),
        )
        summed: NDArray[np.float64] = np.sin(angle) @ in_phase + np.cos(angle) @ quadrature
        return summed


def wander_waves(rng: np.random.Generator, leads: int) -> Waves:
    """Make the baseline's wander: breathing near 0.25 Hz, its harmonic, and slow drifts; about unit peak."""
    frequency = np.concatenate([[0.25, 0.5], rng.uniform(0.02, 0.16, 6)]) * rng.uniform(0.9, 1.1)
    size = np.array([0.55, 0.15, *rng.uniform(0.1, 0.3, 6)])
    return Waves(frequency, rng.uniform(0, 2 * np.pi, 8), size, rng.normal(0, 0.6, (8, leads)))


def rhythm_waves(segment: Segment, rng: np.random.Generator, leads: int) -> Waves | None:
    """Make the waves of one stretch of AF or VF, with unit standard deviation; None for other rhythms."""
    if segment.rhythm == "vf":
        hz = segment["hz"]
        frequency = rng.normal(hz, 0.24 * hz, _WAVES).clip(0.35 * hz, 2.2 * hz)
        size = rng.uniform(0.5, 1.5, _WAVES)
        spread = 0.9
    elif segment.rhythm == "af":
        frequency = np.concatenate([rng.normal(6.1, 0.45, 8), rng.normal(12.0, 0.9, 4)])
        size = np.concatenate([np.ones(8), np.full(4, 0.4)])
        spread = 0.5
    else:
        return None
    size = size / math.sqrt(0.5 * float(np.sum(size**2)))
    phases = rng.uniform(0, 2 * np.pi, size.size)
    return Waves(frequency, phases, size, rng.normal(0, spread, (size.size, leads)))


def rhythm_signal(
    segment: Segment, waves: Waves | None, t: NDArray[np.float64], start: float, end: float, columns: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Evaluate the continuous part of a rhythm.

    Parameters
    ----------
    segment : Segment
        The rhythm.
    waves : Waves or None
        From `rhythm_waves` for this stretch.
    t : ndarray of float64, shape (n,)
        Times, s.
    start, end : float
        The stretch, s.
    columns : ndarray of int64, shape (leads,)
        Index in `simulator_shapes.LEADS` of each lead.

    Returns
    -------
    ndarray of float64, shape (n, leads), or None
        mV; None for a rhythm that is silent between beats.
    """
    edge = np.clip(np.minimum(t - start, end - t) / 0.3, 0.0, 1.0)[:, None]
    if segment.rhythm == "vf" and waves is not None:
        fading = np.clip((t - start) / min(end - start, 60.0), 0.0, 1.0)[:, None]
        size = segment["coarse"] ** (1 - fading) * max(segment["fine"], 1e-3) ** fading
        swell = 1 + 0.3 * np.sin(2 * np.pi * 0.31 * (t - start))[:, None]
        return np.asarray(0.6 * segment["amp"] * edge * size * swell * waves.at(t))
    if segment.rhythm == "vfl":
        angle = 2 * np.pi * segment["hr"] / 60.0 * (t - start)
        wave = np.sin(angle) + 0.18 * np.sin(2 * angle + 0.6)
        return np.asarray(segment["amp"] * edge * wave[:, None] * np.array([0.9, -0.7, 0.7])[columns])
    if segment.rhythm == "af" and waves is not None:
        return np.asarray(segment["f"] * 0.6 * edge * waves.at(t) * np.array(_ATRIAL_GAIN)[columns])
    if segment.rhythm == "flutter":
        angle = 2 * np.pi * segment["atrial"] / 60.0 * t - 1.9
        saw = np.sin(angle) + 0.42 * np.sin(2 * angle) + 0.16 * np.sin(3 * angle)
        return np.asarray(segment["f"] * edge * saw[:, None] * np.array(_FLUTTER_GAIN)[columns])
    return None


def muscle_noise(
    rng: np.random.Generator, n: int, state: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw `n` samples of broad noise with little below 10 Hz and unit variance.

    Parameters
    ----------
    rng : numpy.random.Generator
        Drawn from.
    n : int
        Samples a lead.
    state : ndarray of float64, shape (2, leads)
        Filter state; zeros at first.

    Returns
    -------
    noise : ndarray of float64, shape (n, leads)
        Unit variance.
    state : ndarray of float64, shape (2, leads)
        For the next call.
    """
    white = rng.standard_normal((n, state.shape[1]))
    coloured, state = lfilter(_MUSCLE_B, _MUSCLE_A, white, axis=0, zi=state)
    return coloured / _MUSCLE_SD, state


def motion_events(
    size: float, start: float, end: float, leads: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Plan the electrode's motion as bumps of random width and size, some as narrow as a QRS complex.

    Parameters
    ----------
    size : float
        Typical size, mV.
    start, end : float
        The stretch, s.
    leads : int
        Columns of the result.
    rng : numpy.random.Generator
        Drawn from.

    Returns
    -------
    centre, width : ndarray of float64, shape (k,)
        s.
    peak : ndarray of float64, shape (k, leads)
        mV; the leads have it in part in common.
    """
    count = int(rng.poisson(_BUMPS_A_SECOND * (end - start)))
    centre = np.sort(rng.uniform(start, end, count))
    width = np.exp(rng.normal(math.log(0.07), 0.75, count)).clip(0.012, 0.28)
    common, own = rng.laplace(0, 0.5, (count, 1)), rng.laplace(0, 0.3, (count, leads))
    return centre, width, size * (common + own)


def columns_of(leads: tuple[str, ...]) -> NDArray[np.int64]:
    """Index of each lead in `simulator_shapes.LEADS`."""
    return np.array([LEADS.index(lead) for lead in leads], dtype=np.int64)
