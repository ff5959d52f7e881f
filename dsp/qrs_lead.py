"""One lead of the QRS detector: its state, its blocks taken in, the R peaks of its beats marked."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from dsp.kernel import kernel
from dsp.layout import BLIND, BLOCK, Flag
from dsp.qrs_candidates import FIELDS as CANDIDATE_FIELDS
from dsp.qrs_candidates import forget_level, push_block, rest
from dsp.qrs_features import FIELDS as FEATURE_FIELDS
from dsp.qrs_features import forget_beats

DEAD: Final = 24
"""Ticks after an accepted candidate in which none is accepted (192 ms, the refractory period)."""

SAMPLES: Final = 512
"""Samples kept of the signal (2.048 s); a power of two."""

BLOCKS: Final = 16
"""Flags of blocks kept."""

LAG: Final = 14
"""Samples from the R peak to its candidate (delay of the filters and of the envelope)."""

SEARCH: Final = 15
"""The R peak lies within so many samples of where the candidate says (60 ms)."""

BASE: Final = 32
"""Half the window of the baseline against which the R peak is largest (128 ms)."""

_SWITCHED: Final = int(Flag.SWITCHED)
_NOISY: Final = int(Flag.NOISY)

LEAD: Final = np.dtype(
    [
        *CANDIDATE_FIELDS,
        *FEATURE_FIELDS,
        ("samples", np.float32, (SAMPLES,)),
        ("flags", np.uint8, (BLOCKS,)),
        ("begun", np.uint8),
    ],
    align=True,
)
"""State of one lead."""


@kernel
def take(own: Any, x: Any, at: int, flag: int) -> None:
    """Take a block of one lead in."""
    blind = (flag & BLIND) != 0
    if (flag & _SWITCHED) and own.begun:
        forget_level(own)
        forget_beats(own)
    if not blind and (own.blind or (flag & _SWITCHED) or not own.begun):
        rest(own, x[at])
    own.begun = 1
    own.blind = blind
    own.noisy = (flag & _NOISY) != 0
    own.flags[(own.position // BLOCK) % BLOCKS] = flag
    to = own.position & (SAMPLES - 1)
    for i in range(BLOCK):
        own.samples[(to + i) & (SAMPLES - 1)] = x[at + i]
    push_block(own, x, at)


@kernel
def r_peak(own: Any, c: int, origin: int) -> int:
    """R peak of candidate `c` (ticks); -1 if it is dead time after a beat, in the dark or before `origin`."""
    if own.beats_n > 0 and c - own.beat < DEAD:
        return -1
    place = _mark(own, c)
    if place < origin or (own.flags[(place // BLOCK) % BLOCKS] & BLIND) != 0:
        return -1
    return place


@kernel
def _mark(state: Any, c: int) -> int:
    """R peak of candidate `c` (ticks): where the signal is farthest from its mean over +-`BASE` samples."""
    mask = SAMPLES - 1
    middle = 2 * c - LAG
    total = 0.0
    for k in range(middle - SEARCH - BASE, middle - SEARCH + BASE + 1):
        total += state.samples[k & mask]
    best, place = -1.0, middle
    for k in range(middle - SEARCH, middle + SEARCH + 1):
        value = 0.0
        for d in range(-2, 3):
            value += (3 - abs(d)) * state.samples[(k + d) & mask]
        distance = abs(value / 9.0 - total / (2 * BASE + 1))
        if distance > best:
            best, place = distance, k
        total += state.samples[(k + BASE + 1) & mask] - state.samples[(k - BASE) & mask]
    return place
