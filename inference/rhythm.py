"""Rhythm of a patient, one verdict a second: features here, trees in ONNX, then a decision with memory.

``step`` turns signal and beats into rows, `RhythmModel` scores rows, ``decide`` turns scores into verdicts. A verdict at
second t rests on the wave before t and on beats that were final by then, so it never depends on how the input was cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp.layout import FS, Peaks, Signal
from inference.rhythm_beats import AF_FEATURES
from inference.rhythm_state import SHOCK_FEATURES, STATE, new_states, reset
from inference.rhythm_step import step_kernel

__all__ = ["AF_FEATURES", "SHOCK_FEATURES", "STATE", "Rows", "new_states", "reset", "step"]


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known at each full second.

    Attributes
    ----------
    offsets : ndarray of int64, shape (n + 1,)
        Cuts the other columns by patient.
    end : ndarray of int64, shape (m,)
        Index at 250 Hz of the end of the window, exclusive; multiples of 250.
    shock : ndarray of float32, shape (m, len(SHOCK_FEATURES))
        Features of the last 4 s, zeros before there are 4 s.
    shock_due : ndarray of bool, shape (m,)
        A full window without a block in `dsp.layout.BLIND`.
    af : ndarray of float32, shape (m, len(AF_FEATURES))
        RR statistics of the last 20 s, zeros where none are due.
    af_due : ndarray of bool, shape (m,)
        Each third second, if there are enough intervals.
    quiet : ndarray of float32, shape (m,)
        Share of samples of the window beyond 0.1 mV.
    noisy : ndarray of float32, shape (m,)
        Share of blocks of the window with any quality flag.
    beats : ndarray of float32, shape (m,)
        Beats in the window.
    """

    offsets: NDArray[np.int64]
    end: NDArray[np.int64]
    shock: NDArray[np.float32]
    shock_due: NDArray[np.bool_]
    af: NDArray[np.float32]
    af_due: NDArray[np.bool_]
    quiet: NDArray[np.float32]
    noisy: NDArray[np.float32]
    beats: NDArray[np.float32]


def step(states: NDArray[np.void], slots: NDArray[np.int64], signal: Signal, peaks: Peaks) -> Rows:
    """Advance the patients of `slots` by `signal`.

    Parameters
    ----------
    states : ndarray of STATE
        Changed in place.
    slots : ndarray of int64, shape (n,)
        Rows of `states`, in the order of the batch.
    signal : Signal
        The next blocks of each patient.
    peaks : Peaks
        Beats that became final in these blocks.

    Returns
    -------
    Rows

    Raises
    ------
    ValueError
        The signal doesn't continue where a patient's state ends.
    """
    if not np.array_equal(states["next"][slots], signal.start):
        raise ValueError("the signal must continue where the state ends; reset the state for a new start")
    first = signal.start // FS
    last = (signal.start + np.diff(signal.offsets)) // FS
    offsets = np.concatenate([[0], np.cumsum(last - first)]).astype(np.int64)
    m = int(offsets[-1])
    rows = Rows(
        offsets,
        np.zeros(m, np.int64),
        np.zeros((m, len(SHOCK_FEATURES)), np.float32),
        np.zeros(m, np.bool_),
        np.zeros((m, len(AF_FEATURES)), np.float32),
        np.zeros(m, np.bool_),
        np.zeros(m, np.float32),
        np.zeros(m, np.float32),
        np.zeros(m, np.float32),
    )
    step_kernel(
        states,
        slots,
        signal.x,
        signal.flags,
        signal.offsets,
        peaks.offsets,
        peaks.r,
        peaks.decided,
        peaks.strength,
        rows.offsets,
        rows.end,
        rows.shock,
        rows.shock_due,
        rows.af,
        rows.af_due,
        rows.quiet,
        rows.noisy,
        rows.beats,
    )
    return rows
