"""What the rhythm stage remembers of a patient: one numpy record, plain bytes.

Sizes are at the half rate of 125 Hz, where a window of 4 s is 500 samples.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp.layout import BLOCK, FS

HALF: Final = FS // 2
"""Rate of the stored wave, Hz."""

SPAN: Final = 4
"""Length of a rhythm window, s."""

RING: Final = SPAN * HALF
"""Samples of the stored wave."""

BLOCKS: Final = SPAN * FS // BLOCK
"""Blocks in a window."""

HELD: Final = 64
"""Beats remembered: 20 s at 190/min."""

SHAPES: Final = 6
"""Clusters of QRS shapes kept for a patient."""

BEFORE: Final = 11
"""Samples of a QRS shape before R (88 ms)."""

POINTS: Final = 32
"""Samples of a QRS shape (to 168 ms after R)."""

P_FIRST: Final = 31
"""Samples before R where the P zone starts (248 ms)."""

P_POINTS: Final = 24
"""Samples of the P zone (to 56 ms before R)."""

AF_EVERY: Final = 3
"""Seconds from one AF score to the next."""

DELAY: Final = 5
"""Seconds by which the patient's slow average trails, so that an onset stands out against it."""

SHOCK_NAMES: Final = (
    "rms",
    "crest",
    "leakage",
    "flat_share",
    "slope_flat_share",
    "crossings",
    "slope_rate",
    "kurtosis",
    "skew",
    "drift",
    "second_spread",
    "second_least",
    "peak_hz",
    "peak_share",
    "harmonic_share",
    "centroid_ratio",
    "entropy",
    "band_2",
    "band_3",
    "band_4",
    "band_6",
    "band_9",
    "band_14",
    "band_24",
    "periodicity",
    "period",
    "beats_4",
    "beats_8",
    "rr_mean",
    "rr_spread",
    "rr_last",
    "since_beat",
    "width",
    "width_ratio",
    "pair",
    "usual",
    "usual_least",
    "amplitude",
    "amplitude_spread",
    "strength",
    "wide_share",
    "noisy",
)
"""Features of a window, in order; each comes again minus the patient's slow average (`SHOCK_FEATURES`)."""

SHOCK_FEATURES: Final = (*SHOCK_NAMES, *(f"{name}_change" for name in SHOCK_NAMES))
"""Columns of `Rows.shock`."""

F1: Final = len(SHOCK_NAMES)

STATE: Final = np.dtype(
    [
        ("next", "i8"),  # index at 250 Hz of the next sample
        ("begin", "i8"),  # first sample since the start or the last change of lead
        ("primed", "u1"),
        ("high", "f8", (2,)),  # filter states
        ("low", "f8", (2,)),
        ("wave", "f4", (RING,)),  # at sample index // 2 % RING
        ("drift", "f8", (SPAN, 2)),  # sum and sum of squares of the drift, a second each
        ("quality", "u1", (BLOCKS,)),  # flags of the window's blocks
        ("beats", "i8"),  # beats so far since begin
        ("r", "i8", (HELD,)),  # of each beat, at beat number % HELD
        ("usual", "f4", (HELD,)),  # correlation with the dominant shape
        ("pair", "f4", (HELD,)),  # correlation with the beat before
        ("width", "f4", (HELD,)),  # s
        ("amplitude", "f4", (HELD,)),  # ln mV
        ("strength", "f4", (HELD,)),
        ("odd", "u1", (HELD,)),  # V-like: not for RR statistics
        ("p_fit", "f4", (HELD,)),  # correlation of the P zone with the patient's
        ("last_shape", "f4", (POINTS,)),
        ("shapes", "f4", (SHAPES, POINTS)),
        ("counts", "f4", (SHAPES,)),
        ("widths", "f4", (SHAPES,)),
        ("sizes", "f4", (SHAPES,)),
        ("p_mean", "f4", (P_POINTS,)),
        ("p_power", "f4"),
        ("p_recent", "f4"),
        ("p_beats", "i8"),
        ("past", "f4", (DELAY, F1)),  # rows of the last seconds, at second % DELAY
        ("past_good", "u1", (DELAY,)),
        ("average", "f8", (F1,)),
        ("average_rows", "i8"),
        ("shock_last", "f4"),  # decision
        ("shock_known", "u1"),
        ("shock_on", "u1"),
        ("named", "f4"),  # 1: tachycardia, 0: fibrillation or flutter, slow mean over a run
        ("af_scores", "f4", (3,)),
        ("af_known", "i8"),
        ("af_mean", "f4"),
        ("af_on", "u1"),
        ("af_missed", "i8"),  # seconds since the last AF score
    ],
    align=True,
)
"""One patient."""


def new_states(n: int) -> NDArray[np.void]:
    """Make `n` empty states, each of a patient whose first sample has index 0.

    Parameters
    ----------
    n : int

    Returns
    -------
    ndarray of STATE, shape (n,)
    """
    return np.zeros(n, STATE)


def reset(states: NDArray[np.void], slots: NDArray[np.int64], start: NDArray[np.int64] | int = 0) -> None:
    """Empty the records of `slots`.

    Parameters
    ----------
    states : ndarray of STATE, shape (n,)
        Changed in place.
    slots : ndarray of int64, shape (k,)
        Rows of `states`.
    start : ndarray of int64, shape (k,), or int
        Index at 250 Hz of each patient's next sample; a multiple of `dsp.layout.BLOCK`.
    """
    states[slots] = np.zeros((), STATE)
    states["next"][slots] = start
    states["begin"][slots] = start
