"""The sequential part of the rhythm stage: filters, windows, beats, the patient's slow average; one row a second."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter

from dsp.kernel import kernel
from dsp.layout import BLIND, BLOCK, FS, Flag
from inference.rhythm_af import AF_LEAST, af_features
from inference.rhythm_beats import add_beat, beat_features
from inference.rhythm_state import AF_EVERY, BLOCKS, DELAY, F1, RING, SPAN
from inference.rhythm_window import window_features

AF_FIRST: Final = 8 * FS
"""Samples after the start before which no AF score is due."""

SETTLE: Final = 8
"""Rows after which the slow average is good for a difference."""

AVERAGE: Final = 120
"""Rows that the slow average remembers."""

_HIGH: Final = tuple(float(v) for part in butter(2, 0.7, "highpass", fs=FS) for v in part)
_LOW: Final = tuple(float(v) for part in butter(2, 30.0, "lowpass", fs=FS) for v in part)
_SWITCHED: Final = int(Flag.SWITCHED)
_NOISY: Final = int(Flag.NOISY)


@kernel
def restart(state: Any) -> None:
    """Forget levels, shapes and averages at a change of lead; the rhythm's own verdicts stay.

    Parameters
    ----------
    state : record of STATE
        Changed in place.
    """
    state.begin = state.next
    state.primed = 0
    state.beats = 0
    state.counts[:] = 0.0
    state.p_mean[:] = 0.0
    state.p_power = 0.0
    state.p_recent = 0.0
    state.p_beats = 0
    state.past_good[:] = 0
    state.average[:] = 0.0
    state.average_rows = 0
    state.shock_known = 0


@kernel
def filter_block(state: Any, x: NDArray[np.float32]) -> None:
    """Filter one block into the stored wave and the sums of the drift.

    Parameters
    ----------
    state : record of STATE
        Changed in place.
    x : ndarray of float32, shape (BLOCK,)
        mV.
    """
    hb0, hb1, hb2, _, ha1, ha2 = _HIGH
    lb0, lb1, lb2, _, la1, la2 = _LOW
    if state.primed == 0:
        # Steady state for the first value, so that an offset makes no step.
        state.high[0] = -x[0] * hb0
        state.high[1] = x[0] * hb2
        state.low[:] = 0.0
        state.primed = 1
    h0 = state.high[0]
    h1 = state.high[1]
    l0 = state.low[0]
    l1 = state.low[1]
    total = 0.0
    square = 0.0
    first = state.next
    for i in range(BLOCK):
        v = float(x[i])
        y = hb0 * v + h0
        h0 = hb1 * v - ha1 * y + h1
        h1 = hb2 * v - ha2 * y
        total += v - y
        square += (v - y) * (v - y)
        z = lb0 * y + l0
        l0 = lb1 * y - la1 * z + l1
        l1 = lb2 * y - la2 * z
        if (first + i) % 2 == 0:
            state.wave[(first + i) // 2 % RING] = z
    state.high[0] = h0
    state.high[1] = h1
    state.low[0] = l0
    state.low[1] = l1
    second = first // FS % SPAN
    if first % FS == 0:
        state.drift[second, 0] = 0.0
        state.drift[second, 1] = 0.0
    state.drift[second, 0] += total
    state.drift[second, 1] += square


@kernel
def average_row(state: Any, second: int, good: bool, out: NDArray[np.float32]) -> None:
    """Write each feature minus the patient's slow average behind the features, and take in an older row.

    Parameters
    ----------
    state : record of STATE
        Changed in place.
    second : int
        Number of the row.
    good : bool
        Whether the row may enter the average later.
    out : ndarray of float32, shape (2 * F1,)
        The first half is given, the second filled in.
    """
    at = second % DELAY
    if state.past_good[at] == 1:
        state.average_rows += 1
        gain = max(1.0 / state.average_rows, 1.0 / AVERAGE)
        for k in range(F1):
            state.average[k] += gain * (state.past[at, k] - state.average[k])
    ready = state.average_rows >= SETTLE
    for k in range(F1):
        state.past[at, k] = out[k]
        out[F1 + k] = out[k] - state.average[k] if ready else 0.0
    state.past_good[at] = 1 if good else 0


@kernel
def step_kernel(
    states: NDArray[np.void],
    slots: NDArray[np.int64],
    x: NDArray[np.float32],
    flags: NDArray[np.uint8],
    cuts: NDArray[np.int64],
    peak_cuts: NDArray[np.int64],
    r: NDArray[np.int64],
    decided: NDArray[np.int64],
    strength: NDArray[np.float32],
    row_cuts: NDArray[np.int64],
    end: NDArray[np.int64],
    shock: NDArray[np.float32],
    shock_due: NDArray[np.bool_],
    af: NDArray[np.float32],
    af_due: NDArray[np.bool_],
    quiet: NDArray[np.float32],
    noisy: NDArray[np.float32],
    beats: NDArray[np.float32],
) -> None:
    """Run all patients of a batch, block by block; see `inference.rhythm.step` for the columns."""
    values = np.empty(RING)
    for p in range(len(slots)):
        state = states[slots[p]]
        at = peak_cuts[p]
        row = row_cuts[p]
        for b in range(cuts[p] // BLOCK, cuts[p + 1] // BLOCK):
            flag = flags[b]
            if flag & _SWITCHED:
                restart(state)
            filter_block(state, x[b * BLOCK : (b + 1) * BLOCK])
            state.quality[state.next // BLOCK % BLOCKS] = flag
            state.next += BLOCK
            now = state.next
            while at < peak_cuts[p + 1] and decided[at] <= now:
                # A beat of the lead before belongs to no shape of this one.
                if r[at] >= state.begin:
                    learn = state.quality[r[at] // BLOCK % BLOCKS] == 0
                    add_beat(state, r[at], strength[at], now, learn)
                at += 1
            if now % FS != 0:
                continue
            bad = 0
            rough = 0
            for k in range(BLOCKS):
                if state.quality[k] & BLIND:
                    bad += 1
                elif state.quality[k] & _NOISY:
                    rough += 1
            whole = now - state.begin >= SPAN * FS
            out = shock[row]
            end[row] = now
            noisy[row] = (bad + rough) / BLOCKS
            due = whole and bad == 0
            shock_due[row] = due
            if whole:
                oldest = now // 2 % RING
                for i in range(RING):
                    k = oldest + i
                    values[i] = state.wave[k if k < RING else k - RING]
                total = 0.0
                square = 0.0
                for k in range(SPAN):
                    total += state.drift[k, 0]
                    square += state.drift[k, 1]
                mean = total / (SPAN * FS)
                drift = math.sqrt(max(square / (SPAN * FS) - mean * mean, 0.0))
                quiet[row] = window_features(values, drift, out)
                beat_features(state, now, out)
                out[F1 - 1] = rough / BLOCKS
                beats[row] = out[26]
                average_row(state, now // FS, due, out)
            if now % (AF_EVERY * FS) == 0 and now - state.begin >= AF_FIRST:
                af_due[row] = af_features(state, now, af[row]) >= AF_LEAST
            row += 1
