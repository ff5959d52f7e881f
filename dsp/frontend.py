"""From samples of any rate and up to three leads to the analysed lead at `FS`, in blocks, with its quality.

The device's samples wait in the record until all that a block needs are there; then each lead is resampled and judged
and one is chosen. A block sees nothing of how its samples arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsp.kernel import kernel
from dsp.layout import BLOCK, Flag, Signal
from dsp.quality import QUALITY, RAIL_S, SECOND, assess, excess
from dsp.resample import bank, end_needed, resample_block

MAX_ANALYSED: Final = 3
"""Leads looked at; devices with more name three."""
RAW: Final = 640
"""Device samples that wait at most: a block and the filter at 2000 Hz."""
VALID_MV: Final = 1000.0
"""Samples beyond are no measurement: missing."""

OFF_LEAVE: Final = 2 * SECOND
"""Blocks without contact after which another lead is taken."""
NOISY_LEAVE: Final = 8 * SECOND
"""Noisy blocks (each good one takes one off) after which a clean lead is taken."""
LOUD_LEAVE: Final = 3 * SECOND
"""Noisy blocks (each good one takes one off) after which a lead with far less noise is taken, itself noisy or not."""
LOUD: Final = 1.5
"""Times the usual span of 1 s that a lead must span by then."""
LOUD_SHARE: Final = 0.75
"""... and the other lead's ratio must be below this share of it: electrodes are seldom moved alike."""
LOUD_BLOCKS: Final = 8 * SECOND
"""Blocks over which that ratio is averaged."""
STAY: Final = 30 * SECOND
"""Blocks for which a lead is kept in spite of noise after a change: each change costs the beats of some seconds."""
GOOD_TAKE: Final = 2 * SECOND
"""Good blocks in a row that make a lead worth taking."""
GOOD_RETURN: Final = 45 * SECOND
"""Good blocks in a row after which a lead the caller prefers is taken back."""

STATE: Final = np.dtype(
    [
        ("next", np.int64),  # output to come, index at FS
        ("end", np.int64),  # device index after the last sample taken in
        ("base", np.int64),  # device index of raw[:, 0]
        ("primed", np.bool_),
        ("leads", np.int8),
        ("lead", np.int8),  # analysed
        ("valid", np.uint8, (MAX_ANALYSED,)),  # a sample was seen
        ("held", np.float32, (MAX_ANALYSED,)),  # last valid sample
        ("raw", np.float32, (MAX_ANALYSED, RAW)),
        ("gaps", np.uint8, (RAW,)),  # bit l: lead l misses the sample
        ("off_run", np.int64, (MAX_ANALYSED,)),
        ("noisy_run", np.int64, (MAX_ANALYSED,)),
        ("good_run", np.int64, (MAX_ANALYSED,)),
        ("kept", np.int64),  # blocks since the analysed lead changed
        ("loud", np.float64, (MAX_ANALYSED,)),  # span of 1 s over the usual one, averaged
        ("quality", QUALITY, (MAX_ANALYSED,)),
    ],
    align=True,
)

_MISSING: Final = int(Flag.MISSING)
_OFF: Final = int(Flag.LEAD_OFF)
_NOISY: Final = int(Flag.NOISY)
_SWITCHED: Final = int(Flag.SWITCHED)


@dataclass(frozen=True, slots=True)
class Output:
    """What a call gave.

    Attributes
    ----------
    signal : Signal
        The analysed lead.
    lead : ndarray of int8, shape (blocks,)
        Column that is analysed in each block.
    lead_flags : ndarray of uint8, shape (blocks, L)
        `Flag` bits of each lead, for display; a lead that the patient has not: 0.
    """

    signal: Signal
    lead: NDArray[np.int8]
    lead_flags: NDArray[np.uint8]


def new_states(n: int) -> NDArray[Any]:
    """Make records of `n` patients, as after a reset at 0 with one lead.

    Parameters
    ----------
    n : int
        Patients.

    Returns
    -------
    ndarray of `STATE`, shape (n,)
    """
    states = np.zeros(n, STATE)
    states["leads"] = 1
    return states


def reset(states: NDArray[Any], slots: NDArray[np.int64], leads: NDArray[np.int64], start: NDArray[np.int64]) -> None:
    """Forget everything; the next sample of each patient is `dsp.resample.first_sample` of `start`.

    Parameters
    ----------
    states : ndarray of `STATE`
        Store of records, changed.
    slots : ndarray of int64, shape (n,)
        Rows to reset.
    leads : ndarray of int64, shape (n,)
        Leads of each patient, 1 to 3: its columns from the first, preferred ones first.
    start : ndarray of int64, shape (n,)
        Index at `FS` of the first output, a multiple of `BLOCK`.

    Raises
    ------
    ValueError
        No such number of leads, or a start within a block.
    """
    if np.any((leads < 1) | (leads > MAX_ANALYSED)):
        raise ValueError(f"1 to {MAX_ANALYSED} leads are analysed: choose columns before")
    if np.any((start % BLOCK != 0) | (start < 0)):
        raise ValueError(f"a start must be a multiple of {BLOCK}, see dsp.resample.start_at")
    states[slots] = np.zeros(1, STATE)
    states["leads"][slots] = leads
    states["next"][slots] = start


@kernel
def _count(states: Any, slots: Any, raw_offsets: Any, num: int, den: int, half: int, offsets: Any) -> None:
    """Offsets of the blocks that this call completes."""
    for i in range(slots.size):
        s = states[slots[i]]
        end = s.end if s.primed else -(-s.next * num // den)
        end += raw_offsets[i + 1] - raw_offsets[i]
        k = s.next
        while end_needed(k, num, den, half) <= end:
            k += BLOCK
        offsets[i + 1] = offsets[i] + (k - s.next)


@kernel
def _choose(s: Any, lead_flags: Any) -> int:
    """Update the leads' records of good and bad, and name the lead of this block."""
    for lead in range(s.leads):
        flags = lead_flags[lead]
        if flags & _OFF:
            s.off_run[lead] += 1
        else:
            s.off_run[lead] = 0
        if flags & (_OFF | _NOISY):
            s.noisy_run[lead] = min(s.noisy_run[lead] + 1, 2 * NOISY_LEAVE)
        else:
            s.noisy_run[lead] = max(s.noisy_run[lead] - 1, 0)
        if flags:
            s.good_run[lead] = 0
        else:
            s.good_run[lead] += 1
        s.loud[lead] += (excess(s.quality[lead]) - s.loud[lead]) / LOUD_BLOCKS
    now = int(s.lead)
    s.kept += 1
    for lead in range(now):
        if s.good_run[lead] >= GOOD_RETURN:
            return lead
    settled = s.kept >= STAY or s.kept == s.quality[now].blocks
    if s.off_run[now] >= OFF_LEAVE or (s.noisy_run[now] >= NOISY_LEAVE and settled):
        for lead in range(s.leads):
            if lead != now and s.good_run[lead] >= GOOD_TAKE:
                return lead
    if s.noisy_run[now] >= LOUD_LEAVE and s.loud[now] > LOUD and settled:
        for lead in range(s.leads):
            if s.off_run[lead] == 0 and s.loud[lead] < LOUD_SHARE * s.loud[now]:
                return lead
    if s.off_run[now] >= OFF_LEAVE:
        for lead in range(s.leads):
            if s.off_run[lead] == 0:
                return lead
    return now


@kernel
def _step(
    states: Any,
    slots: Any,
    raw: Any,
    raw_offsets: Any,
    taps: Any,
    num: int,
    den: int,
    half: int,
    rail_run: int,
    offsets: Any,
    x: Any,
    flags: Any,
    analysed: Any,
    lead_flags: Any,
    every: Any,
) -> None:
    both = np.empty((MAX_ANALYSED, BLOCK), np.float32)
    for i in range(slots.size):
        s = states[slots[i]]
        if raw_offsets[i + 1] == raw_offsets[i]:
            continue
        buffer, gaps, valid, held, leads = s.raw, s.gaps, s.valid, s.held, s.leads
        if not s.primed:
            s.primed = True
            s.end = -(-s.next * num // den)
            s.base = s.next * num // den - half + (1 if half else 0)
        at = raw_offsets[i]
        out = offsets[i]
        while at < raw_offsets[i + 1]:
            need = end_needed(s.next, num, den, half)
            take = min(need - s.end, raw_offsets[i + 1] - at)
            fill = s.end - s.base
            gaps[fill : fill + take] = 0
            for lead in range(leads):
                row = buffer[lead]
                last_valid = held[lead]
                for j in range(take):
                    v = raw[at + j, lead]
                    if abs(v) <= VALID_MV:
                        if not valid[lead]:
                            valid[lead] = 1
                            row[: fill + j] = v
                        last_valid = v
                    else:
                        gaps[fill + j] |= 1 << lead
                    row[fill + j] = last_valid
                held[lead] = last_valid
            at += take
            s.end += take
            if s.end < need:
                break
            first = -(-s.next * num // den) - s.base
            last = -(-(s.next + BLOCK) * num // den) - s.base
            block = out // BLOCK
            gap = 0
            for j in range(first, last):
                gap |= gaps[j]
            for lead in range(leads):
                resample_block(buffer[lead], s.base, s.next, taps, half, num, den, both[lead])
                lead_flags[block, lead] = assess(
                    s.quality[lead], buffer[lead, first:last], (gap >> lead) & 1 != 0, rail_run, both[lead]
                )
            chosen = _choose(s, lead_flags[block])
            flags[block] = lead_flags[block, chosen]
            if chosen != s.lead:
                s.lead = chosen
                s.kept = 0
                flags[block] |= _SWITCHED
            analysed[block] = chosen
            x[out : out + BLOCK] = both[chosen]
            for lead in range(leads):
                every[lead, out : out + BLOCK] = both[lead]
            out += BLOCK
            s.next += BLOCK
            base = s.next * num // den - half + (1 if half else 0)
            shift = base - s.base
            keep = s.end - base
            for j in range(keep):
                gaps[j] = gaps[j + shift]
            for lead in range(leads):
                row = buffer[lead]
                for j in range(keep):
                    row[j] = row[j + shift]
            s.base = base


def step(
    states: NDArray[Any],
    slots: NDArray[np.int64],
    raw: NDArray[np.float32],
    raw_offsets: NDArray[np.int64],
    rate: float,
) -> Output:
    """Take in samples of patients of one rate and give the blocks that they complete.

    Parameters
    ----------
    states : ndarray of `STATE`
        Store of records, changed.
    slots : ndarray of int64, shape (n,)
        Rows of the patients, each once.
    raw : ndarray of float32, shape (total, L)
        mV, following the last call's samples; NaN where a sample is missing. Columns in order of preference.
    raw_offsets : ndarray of int64, shape (n + 1,)
        Cuts `raw` by patient.
    rate : float
        Hz; the same for a patient from one reset to the next.

    Returns
    -------
    Output

    Raises
    ------
    ValueError
        A rate outside of 50 to 2000 Hz, or fewer columns than a patient has leads.
    """
    b = bank(rate)
    width = raw.shape[1]
    if slots.size and width < int(states["leads"][slots].max()):
        raise ValueError(f"{width} columns given, but a patient has {int(states['leads'][slots].max())} leads")
    start = states["next"][slots]
    offsets = np.zeros(slots.size + 1, np.int64)
    _count(states, slots, raw_offsets, b.num, b.den, b.half, offsets)
    blocks = int(offsets[-1]) // BLOCK
    x = np.empty(int(offsets[-1]), np.float32)
    flags = np.zeros(blocks, np.uint8)
    lead = np.zeros(blocks, np.int8)
    lead_flags = np.zeros((blocks, width), np.uint8)
    every = np.zeros((width, x.size), np.float32)
    rail_run = max(3, round(RAIL_S * rate))
    _step(
        states,
        slots,
        raw,
        raw_offsets,
        b.taps,
        b.num,
        b.den,
        b.half,
        rail_run,
        offsets,
        x,
        flags,
        lead,
        lead_flags,
        every,
    )
    by_lead = np.ascontiguousarray(lead_flags.T)
    counts = states["leads"][slots].astype(np.int64)
    return Output(Signal(x, flags, offsets, start, every, by_lead, lead, counts), lead, lead_flags)
