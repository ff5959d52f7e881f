"""Where a QRS complex may be: two causal band-passes, an envelope, its level, and the envelope's peaks.

The envelope of the 8 to 28 Hz band, at half of `dsp.layout.FS` (*ticks* of 8 ms), has about three peaks a second; all
but a few in ten thousand beats of the MIT-BIH Arrhythmia Database are among them, so that the networks of `dsp.qrs`
look at peaks alone.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy import signal as sps

from dsp.kernel import kernel
from dsp.layout import FS

RING: Final = 256
"""Ticks kept of each wave (2.048 s); a power of two."""

CANDIDATES: Final = 16
"""Candidates kept; more than fit into the look-back and the look-ahead together."""

REACH: Final = 9
"""A candidate is the largest envelope within so many ticks on either side."""

SPAN: Final = 3
"""Blocks over which the envelope's maximum is taken for the level (0.6 s)."""

HISTORY: Final = 13
"""Spans whose median is the level (7.8 s)."""

_RELATIVE: Final = 0.07
_FLOOR: Final = 0.001
_TAPS: Final = 9
_MASK: Final = RING - 1


def _bandpass(low: float, high: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Coefficients ``b0 b1 b2 a1 a2`` of a second-order Butterworth band-pass."""
    section = sps.butter(1, [low, high], "bandpass", fs=FS, output="sos")[0]
    return np.ascontiguousarray(section[[0, 1, 2, 4, 5]])


def _rest(c: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """State of the filter after a constant 1: the output is 0, so the state is the input's part alone."""
    return np.array([c[1] + c[2], c[2]])


_WIDE: Final = _bandpass(1.5, 35.0)
_WIDE_REST: Final = _rest(_WIDE)
_NARROW: Final = _bandpass(8.0, 28.0)
_NARROW_REST: Final = _rest(_NARROW)

FIELDS: Final = [
    ("position", np.int64),  # index of the next sample
    ("blind", np.uint8),  # the last block held nothing
    ("noisy", np.uint8),  # the last block was noisy
    ("spoilt", np.uint8),  # this span teaches no level
    ("blocks", np.uint8),  # blocks of this span so far
    ("wide_z", np.float64, (2,)),
    ("narrow_z", np.float64, (2,)),
    ("wide", np.float32, (RING,)),
    ("narrow", np.float32, (RING,)),
    ("envelope", np.float32, (RING,)),
    ("level", np.float32),
    ("span_peak", np.float32),
    ("spans", np.float32, (3,)),
    ("spans_n", np.int64),
    ("history", np.float32, (HISTORY,)),
    ("history_n", np.int64),
    ("tick", np.int64, (CANDIDATES,)),
    ("height", np.float32, (CANDIDATES,)),
    ("candidates_n", np.int64),
]
"""State of this stage: fields of `dsp.qrs.STATE`."""


@kernel
def rest(state: Any, value: float) -> None:
    """Set both filters to the state in which a constant `value` (mV) has always come in."""
    for k in range(2):
        state.wide_z[k] = _WIDE_REST[k] * value
        state.narrow_z[k] = _NARROW_REST[k] * value


@kernel
def forget_level(state: Any) -> None:
    """Start the level anew: a new lead."""
    state.level = 0.0
    state.span_peak = 0.0
    state.spans_n = 0
    state.history_n = 0
    state.blocks = 0
    state.spoilt = 0


@kernel
def _section(c: Any, z: Any, value: float) -> Any:
    """One second-order section, transposed direct form II."""
    out = c[0] * value + z[0]
    z[0] = c[1] * value - c[3] * out + z[1]
    z[1] = c[2] * value - c[4] * out
    return out


@kernel
def push_sample(state: Any, value: float) -> bool:
    """Filter one sample (mV); on an even index append a tick.

    Returns
    -------
    bool
        Whether a tick was appended.
    """
    wide = narrow = 0.0
    if not state.blind:
        wide = _section(_WIDE, state.wide_z, value)
        narrow = _section(_NARROW, state.narrow_z, value)
    position = state.position
    state.position = position + 1
    if position & 1:
        return False
    t = position >> 1
    state.wide[t & _MASK] = wide
    state.narrow[t & _MASK] = narrow
    total = np.float32(0.0)
    for k in range(_TAPS):
        total += abs(state.narrow[(t - k) & _MASK])
    height = total / np.float32(_TAPS)
    state.envelope[t & _MASK] = height
    state.span_peak = max(state.span_peak, height)
    if state.history_n == 0:
        state.level = max(state.level, height)
    return True


@kernel
def find_candidate(state: Any, t: int) -> None:
    """Append the candidate `REACH` ticks before tick `t`, if there is one."""
    k = t - REACH
    height = state.envelope[k & _MASK]
    if height < _RELATIVE * state.level or height < _FLOOR:
        return
    for d in range(1, REACH + 1):
        if state.envelope[(k + d) & _MASK] > height or state.envelope[(k - d) & _MASK] >= height:
            return
    slot = state.candidates_n % CANDIDATES
    state.tick[slot] = k
    state.height[slot] = height
    state.candidates_n += 1


@kernel
def end_block(state: Any) -> None:
    """Let the level learn at the end of a span: median over the last spans of the largest of three spans."""
    if state.blind or (state.noisy and state.history_n >= 3):
        state.spoilt = 1
    state.blocks += 1
    if state.blocks < SPAN:
        return
    if not state.spoilt:
        state.spans[state.spans_n % 3] = state.span_peak
        state.spans_n += 1
        if state.spans_n >= 3:
            state.history[state.history_n % HISTORY] = max(state.spans[0], state.spans[1], state.spans[2])
            state.history_n += 1
            n = min(state.history_n, HISTORY)
            state.level = np.sort(state.history[:n])[n // 2]
    state.blocks = 0
    state.spoilt = 0
    state.span_peak = 0.0


@kernel
def loudness(state: Any) -> Any:
    """Level of the envelope (mV), never below a floor."""
    return max(state.level, np.float32(_FLOOR))
