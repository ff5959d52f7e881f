"""Where a QRS complex may be: two causal band-passes, an envelope, its level, and the envelope's peaks.

The envelope of the 8 to 28 Hz band, at half of `dsp.layout.FS` (*ticks* of 8 ms), has about three peaks a second; all
but a few in ten thousand beats of the MIT-BIH Arrhythmia Database are among them, so that the networks of `dsp.qrs`
look at peaks alone.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import signal as sps

from dsp.kernel import kernel
from dsp.layout import BLOCK, FS

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


def _bandpass(low: float, high: float) -> NDArray[np.float64]:
    """Coefficients ``b0 b1 b2 a1 a2`` of a second-order Butterworth band-pass."""
    section = sps.butter(1, [low, high], "bandpass", fs=FS, output="sos")[0]
    return np.ascontiguousarray(section[[0, 1, 2, 4, 5]])


def _rest(c: NDArray[np.float64]) -> NDArray[np.float64]:
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
"""State of this stage: fields of `dsp.qrs_lead.LEAD`."""


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
def push_block(state: Any, x: NDArray[np.float32], at: int) -> None:
    """Filter the block ``x[at : at + BLOCK]`` (mV) and append its ticks: even samples of both waves, the envelope."""
    first = state.position >> 1
    state.position += BLOCK
    if state.blind:
        for k in range(BLOCK // 2):
            state.wide[(first + k) & _MASK] = 0.0
            state.narrow[(first + k) & _MASK] = 0.0
    else:
        b0, b1, b2, a1, a2 = _WIDE
        c0, c1, c2, d1, d2 = _NARROW
        u0, u1 = state.wide_z
        v0, v1 = state.narrow_z
        for k in range(BLOCK):
            value = float(x[at + k])
            wide = b0 * value + u0
            u0 = b1 * value - a1 * wide + u1
            u1 = b2 * value - a2 * wide
            narrow = c0 * value + v0
            v0 = c1 * value - d1 * narrow + v1
            v1 = c2 * value - d2 * narrow
            if k % 2 == 0:
                t = first + k // 2
                state.wide[t & _MASK] = wide
                state.narrow[t & _MASK] = narrow
        state.wide_z[0], state.wide_z[1] = u0, u1
        state.narrow_z[0], state.narrow_z[1] = v0, v1
    for t in range(first, first + BLOCK // 2):
        total = np.float32(0.0)
        for k in range(_TAPS):
            total += abs(state.narrow[(t - k) & _MASK])
        state.envelope[t & _MASK] = total / np.float32(_TAPS)


@kernel
def follow(state: Any, t: int) -> None:
    """Take tick `t` into the span's maximum, and into the level as long as that has no history."""
    height = state.envelope[t & _MASK]
    state.span_peak = max(state.span_peak, height)
    if state.history_n == 0:
        state.level = max(state.level, height)


@kernel
def find_candidate(state: Any, t: int) -> None:
    """Append the candidate `REACH` ticks before tick `t`, if there is one."""
    k = t - REACH
    height = state.envelope[k & _MASK]
    if height < _RELATIVE * state.level or height < _FLOOR:
        return
    if state.envelope[(k + 1) & _MASK] > height:
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
            state.level = middle(state.history, n)
    state.blocks = 0
    state.spoilt = 0
    state.span_peak = 0.0


@kernel
def middle(values: Any, n: int) -> Any:
    """Upper median of the first `n` values, by rank: for a handful it is faster than a sort, which allocates."""
    for i in range(n):
        below = same = 0
        for k in range(n):
            below += values[k] < values[i]
            same += values[k] == values[i]
        if below <= n // 2 < below + same:
            return values[i]
    return values[0]


@kernel
def loudness(state: Any) -> Any:
    """Level of the envelope (mV), never below a floor."""
    return max(state.level, np.float32(_FLOOR))
