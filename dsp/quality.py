"""Signal quality of one lead, block by block, with memory; run by `dsp.frontend` on each lead.

Flat and saturated are read from the device's own samples (their steps tell the converter's resolution), noise from the
signal at `FS` so that it means the same at each rate.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from dsp.kernel import kernel
from dsp.layout import BLOCK, FS, Flag

SECOND: Final = FS // BLOCK
"""Blocks in a second."""

FLAT_MV: Final = 0.005
"""A flat line moves no more than this and two steps of the converter in 1 s: electrodes on skin are never so quiet."""
COARSEST_MV: Final = 0.010
"""Steps above this count as this."""
RAIL_MV: Final = 1.5
"""Equal samples this far from the lead's mean are a rail."""
RAIL_S: Final = 0.08
"""... when they last so long."""
HUGE_MV: Final = 30.0
"""More than this within 1 s is no ECG."""

DRIFT_MV: Final = 0.8
DRIFT_SHARE: Final = 0.25
"""Electrode motion: the 1-s mean moves within 1 s by more than this and this share of the usual span. Waves of VT and
VF come several times a second, so they hardly move it."""
SPAN_MV: Final = 5.0
SPAN_RATIO: Final = 1.8
"""Electrode motion: the span of 1 s stays above this and this many times the usual one for 2 s."""
HF_MV: Final = 0.012
HF_RATIO: Final = 4.0
HF_ALWAYS_MV: Final = 0.040
"""Muscle or mains: fine noise (mean absolute second difference, a quarter of it) stays above this and this many times
its usual floor in the quietest 40 ms of each block for 1 s, or above the last whatever is usual. QRS complexes leave
quiet parts in each second; VT and VF are smooth."""
USUAL: Final = 60 * SECOND
"""Blocks over which the usual is learnt, from blocks that are not noisy; 20 times slower from noisy ones."""
HOLD: Final = 5
"""Blocks that stay noisy after the last reason."""
PARTS: Final = 5
PART: Final = BLOCK // PARTS

QUALITY: Final = np.dtype(
    [
        ("low", np.float32, (SECOND,)),  # extremes of the last blocks, mV
        ("high", np.float32, (SECOND,)),
        ("mean", np.float32, (2 * SECOND,)),  # means of the last blocks, mV
        ("hf", np.float32, (SECOND,)),  # fine noise in the quietest part of each of the last blocks, mV
        ("span", np.float32, (2 * SECOND,)),  # spans of 1 s at each of the last blocks, mV
        ("usual_span", np.float64),
        ("usual_hf", np.float64),
        ("calm", np.int64),  # blocks from which the usual was learnt, at most USUAL
        ("level", np.float64),  # slow mean, mV
        ("fine", np.float32),  # least step seen between samples, mV
        ("last", np.float32),  # last device sample
        ("prev", np.float32, (2,)),  # last two samples at FS
        ("run", np.int64),  # equal device samples up to now
        ("blocks", np.int64),  # blocks since the reset
        ("bad", np.int64),  # blocks in a row without contact
        ("good", np.int64),  # blocks in a row with contact
        ("off", np.bool_),
        ("noisy", np.int64),  # blocks for which the lead stays noisy
    ],
    align=True,
)

_LEAST_MV: Final = 0.05
_MISSING: Final = int(Flag.MISSING)
_FLAT: Final = int(Flag.FLAT)
_SATURATED: Final = int(Flag.SATURATED)
_LEAD_OFF: Final = int(Flag.LEAD_OFF)
_NOISY: Final = int(Flag.NOISY)


@kernel
def _disturbed(q: Any) -> bool:
    """Tell whether the last block gives a reason to call the lead noisy."""
    floor = q.hf.min()
    if floor > min(max(HF_MV, HF_RATIO * q.usual_hf), HF_ALWAYS_MV):
        return True
    if q.blocks < 2 * SECOND:
        return False
    recent = before = 0.0
    for j in range(SECOND):
        recent += q.mean[(q.blocks - 1 - j) % (2 * SECOND)]
        before += q.mean[(q.blocks - 1 - SECOND - j) % (2 * SECOND)]
    if abs(recent - before) > SECOND * max(DRIFT_MV, DRIFT_SHARE * q.usual_span):
        return True
    return bool(q.blocks >= 3 * SECOND and q.span.min() > max(SPAN_MV, SPAN_RATIO * q.usual_span))


@kernel
def _learn(q: Any, span: Any) -> None:
    """Follow what is usual in this lead."""
    floor = np.float64(q.hf.min())
    if q.calm == 0:
        q.usual_span, q.usual_hf = span, floor
    if q.noisy > 0:
        weight = 1.0 / (20 * USUAL)
    else:
        q.calm = min(q.calm + 1, USUAL)
        weight = 1.0 / q.calm
    q.usual_span += (span - q.usual_span) * weight
    q.usual_hf += (floor - q.usual_hf) * weight


@kernel
def excess(q: Any) -> Any:
    """Tell how many times the usual span the last second spans; 1 where there is no usual yet."""
    if q.calm == 0 or q.off:
        return 1.0
    return q.span[(q.blocks - 1) % (2 * SECOND)] / max(q.usual_span, _LEAST_MV)


@kernel
def assess(q: Any, raw: Any, missing: bool, rail_run: int, x: Any) -> int:
    """Judge the next block of one lead.

    Parameters
    ----------
    q : record of `QUALITY`
        Memory of the lead, changed; zeros at the start.
    raw : ndarray of float32
        Device samples within the block, mV, missing ones held.
    missing : bool
        Some of them never came.
    rail_run : int
        Equal samples that make a rail, at the device's rate.
    x : ndarray of float32, shape (BLOCK,)
        The block at `FS`, mV.

    Returns
    -------
    int
        `Flag` bits.
    """
    if q.blocks == 0:
        q.level = np.float64(raw[0])
        q.fine = COARSEST_MV
        q.last = raw[0]
        q.prev[:] = x[0]
    low = high = raw[0]
    last, run, fine, level = q.last, q.run, q.fine, q.level
    rail = False
    for i in range(raw.size):
        v = raw[i]
        step = abs(v - last)
        if step == 0:
            run += 1
            if run >= rail_run and abs(v - level) > RAIL_MV:
                rail = True
        else:
            run = 0
            fine = min(fine, step)
        last = v
        low = min(low, v)
        high = max(high, v)
    q.last, q.run, q.fine = last, run, fine

    quiet = np.float32(1e9)
    total = np.float32(0.0)
    p1, p2 = q.prev[0], q.prev[1]
    for part in range(PARTS):
        rough = np.float32(0.0)
        for i in range(part * PART, (part + 1) * PART):
            v = x[i]
            rough += abs(v - p1 - (p1 - p2))
            total += v
            p2 = p1
            p1 = v
        quiet = min(quiet, rough)
    q.prev[0], q.prev[1] = p1, p2
    mean = total / np.float32(BLOCK)
    quiet /= np.float32(4 * PART)

    at = q.blocks % SECOND
    q.low[at], q.high[at], q.hf[at] = low, high, quiet
    q.mean[q.blocks % (2 * SECOND)] = mean
    q.level += (mean - q.level) * 0.05
    q.blocks += 1

    flags = 0
    if missing:
        flags |= _MISSING
    if rail:
        flags |= _SATURATED
    span = np.float32(0.0)
    if q.blocks >= SECOND:
        span = q.high.max() - q.low.min()
        if span <= FLAT_MV + 2 * fine:
            flags |= _FLAT
    if flags & (_MISSING | _SATURATED) or span > HUGE_MV:
        q.bad += 1
        q.good = 0
    else:
        q.bad = 0
        q.good += 1
    if flags & _FLAT or q.bad >= SECOND:
        q.off = True
    elif q.good >= 2:
        q.off = False
    if q.off:
        flags |= _LEAD_OFF

    q.span[(q.blocks - 1) % (2 * SECOND)] = span
    if not q.off and q.blocks >= SECOND:
        if _disturbed(q):
            q.noisy = HOLD
        _learn(q, span)
    if q.noisy > 0:
        q.noisy -= 1
        flags |= _NOISY
    return flags
