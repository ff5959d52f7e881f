"""What the two networks of the QRS detector see of a candidate.

The first sees the shape of both waves round the candidate and its nearest neighbours; the second sees the first one's
verdicts on it and its neighbours, and what the detector has accepted so far.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsp.kernel import kernel
from dsp.qrs_candidates import CANDIDATES, HISTORY, RING, loudness, middle

BEFORE: Final = 64
"""Ticks of shape before the candidate."""

AFTER: Final = 32
"""Ticks of shape after the candidate."""

FIRST_DELAY: Final = 34
"""Ticks after a candidate at which the first network judges it."""

SECOND_DELAY: Final = 60
"""Ticks after a candidate at which the second network judges it, for good."""

PREVIOUS: Final = 5
NEXT: Final = 2

TEMPLATE: Final = 25
"""Ticks of a template, the last one `TEMPLATE_AFTER` after the candidate."""

TEMPLATE_AFTER: Final = 5

INTERVALS: Final = 8
"""Intervals between accepted beats whose median is the usual one."""

_MASK: Final = RING - 1
_CAP: Final = 375.0
_RATE: Final = np.float32(1 / 125)

FIRST_NAMES: Final = (
    *(f"wide[{d}]" for d in range(-BEFORE, AFTER + 1)),
    *(f"narrow[{d}]" for d in range(-BEFORE, AFTER + 1)),
    "height",
    "level_age",
    "noisy",
    "quiet",
    *(f"{what}_previous[{i}]" for i in range(1, PREVIOUS + 1) for what in ("time", "height")),
    *(f"{what}_next[{i}]" for i in range(1, NEXT + 1) for what in ("time", "height")),
)
"""Columns of the first network's row."""

SECOND_NAMES: Final = (
    "logit",
    "height_to_level",
    "height_to_beats",
    "template_wide",
    "template_narrow",
    "since_beat",
    "since_beat_to_usual",
    "usual_interval",
    "last_interval_to_usual",
    "previous_logit",
    "previous_time",
    "previous_height",
    "previous_accepted",
    "next_logit",
    "next_time",
    "next_height",
    "next_template_narrow",
    "second_next_logit",
    "second_next_time",
    "rejected_height",
    "doubt",
    "density",
    "beats_learnt",
    "intervals_learnt",
    "level_age",
    "noisy",
    "quiet",
    "usual_quiet",
)
"""Columns of the second network's row."""

FIELDS: Final = [
    ("logit", np.float32, (CANDIDATES,)),
    ("quiet", np.float32, (CANDIDATES,)),
    ("usual_quiet", np.float32),
    ("first_n", np.int64),  # candidates that the first network has judged
    ("second_n", np.int64),  # candidates that are decided
    ("beat", np.int64),  # tick of the last accepted candidate
    ("beats_n", np.int64),
    ("beat_height", np.float32),
    ("intervals", np.float32, (INTERVALS,)),
    ("intervals_n", np.int64),
    ("interval", np.float32),
    ("template_wide", np.float32, (TEMPLATE,)),
    ("template_narrow", np.float32, (TEMPLATE,)),
    ("templates_n", np.int64),
    ("rejected", np.float32),
    ("doubt", np.float32),
    ("density", np.float32),
]
"""State of this stage: fields of `dsp.qrs_lead.LEAD`."""


@kernel
def forget_beats(state: Any) -> None:
    """Forget shapes and heights of beats: a new lead. Rhythm stays."""
    state.templates_n = 0
    state.template_wide[:] = 0.0
    state.template_narrow[:] = 0.0
    state.beat_height = 0.0


@kernel
def first_row(state: Any, index: int, row: NDArray[np.float32]) -> None:
    """Write the first network's row of candidate `index` (a running number) to `row`."""
    slot = index % CANDIDATES
    c = state.tick[slot]
    height = state.height[slot]
    level = loudness(state)
    scale = np.float32(2.0) / level
    n = BEFORE + AFTER + 1
    for i in range(n):
        k = (c - BEFORE + i) & _MASK
        row[i] = state.wide[k] * scale
        row[n + i] = state.narrow[k] * scale
    for i in range(2 * n):
        row[i] /= np.sqrt(np.float32(1.0) + abs(row[i]))
    at = 2 * n
    row[at] = _ratio(height, level)
    row[at + 1] = np.float32(min(state.history_n, HISTORY)) / np.float32(HISTORY)
    row[at + 2] = np.float32(state.noisy)
    lowest = height
    for k in range(c - BEFORE, c + AFTER + 1):
        lowest = min(lowest, state.envelope[k & _MASK])
    row[at + 3] = state.quiet[slot] = _ratio(lowest, level)
    at += 4
    for i in range(1, PREVIOUS + 1):
        row[at] = np.float32(2.0)
        row[at + 1] = np.float32(0.0)
        if index - i >= 0:
            other = (index - i) % CANDIDATES
            row[at] = min(np.float32(c - state.tick[other]) * _RATE, np.float32(2.0))
            row[at + 1] = _ratio(state.height[other], height)
        at += 2
    for i in range(1, NEXT + 1):
        row[at] = np.float32(0.25)
        row[at + 1] = np.float32(0.0)
        if index + i < state.candidates_n:
            other = (index + i) % CANDIDATES
            row[at] = np.float32(state.tick[other] - c) * _RATE
            row[at + 1] = _ratio(state.height[other], height)
        at += 2


@kernel
def second_row(state: Any, index: int, row: NDArray[np.float32]) -> None:
    """Write the second network's row of candidate `index` (a running number) to `row`."""
    slot = index % CANDIDATES
    c = state.tick[slot]
    height = state.height[slot]
    usual = np.float32(state.interval) if state.intervals_n > 0 else np.float32(100.0)
    since = np.float32(min(float(c - state.beat), _CAP)) if state.beats_n > 0 else np.float32(_CAP)
    row[:] = 0.0
    row[0] = _logit(state.logit[slot])
    row[1] = _ratio(height, loudness(state))
    if state.templates_n > 0:
        row[2] = _ratio(height, state.beat_height)
        row[3] = _similarity(state.wide, state.template_wide, c)
        row[4] = _similarity(state.narrow, state.template_narrow, c)
    row[5] = since * _RATE
    row[6] = min(since / usual, np.float32(3.0))
    row[7] = usual * _RATE
    if state.intervals_n > 0:
        row[8] = state.intervals[(state.intervals_n - 1) % INTERVALS] / usual
    row[9] = row[13] = row[17] = np.float32(-2.0)
    row[10] = row[14] = row[18] = np.float32(0.25)
    if index > 0:
        other = (index - 1) % CANDIDATES
        apart = c - state.tick[other]
        if apart <= SECOND_DELAY - FIRST_DELAY:
            row[9] = _logit(state.logit[other])
            row[10] = np.float32(apart) * _RATE
            row[11] = _ratio(state.height[other], height)
            row[12] = np.float32(1.0) if state.beats_n > 0 and state.beat == state.tick[other] else np.float32(0.0)
    if index + 1 < state.first_n:
        other = (index + 1) % CANDIDATES
        row[13] = _logit(state.logit[other])
        row[14] = np.float32(state.tick[other] - c) * _RATE
        row[15] = _ratio(state.height[other], height)
        if state.templates_n > 0:
            row[16] = _similarity(state.narrow, state.template_narrow, state.tick[other])
    if index + 2 < state.first_n:
        other = (index + 2) % CANDIDATES
        row[17] = _logit(state.logit[other])
        row[18] = np.float32(state.tick[other] - c) * _RATE
    row[19] = state.rejected
    row[20] = state.doubt
    row[21] = state.density
    row[22] = np.float32(min(state.templates_n, 16)) / np.float32(16.0)
    row[23] = np.float32(min(state.intervals_n, INTERVALS)) / np.float32(INTERVALS)
    row[24] = np.float32(min(state.history_n, HISTORY)) / np.float32(HISTORY)
    row[25] = np.float32(state.noisy)
    row[26] = state.quiet[slot]
    row[27] = state.usual_quiet


@kernel
def learn(state: Any, index: int, accepted: bool, certain: bool) -> None:
    """Take the decision on candidate `index` into the state; shapes are learnt from `certain` beats alone."""
    slot = index % CANDIDATES
    c = state.tick[slot]
    height = state.height[slot]
    share = np.float32(1 / 16)
    doubt = np.exp(-abs(state.logit[slot]))
    state.doubt += share * (np.float32(doubt) - state.doubt)
    state.usual_quiet += share * (state.quiet[slot] - state.usual_quiet)
    apart = c - state.tick[(index - 1) % CANDIDATES] if index > 0 else 60
    state.density += share * (min(np.float32(apart) * _RATE, np.float32(2.0)) - state.density)
    if not accepted:
        state.rejected += share * (_ratio(height, loudness(state)) - state.rejected)
        return
    if state.beats_n > 0:
        interval = c - state.beat
        if interval <= _CAP:
            state.intervals[state.intervals_n % INTERVALS] = np.float32(interval)
            state.intervals_n += 1
            n = min(state.intervals_n, INTERVALS)
            state.interval = middle(state.intervals, n)
    state.beat = c
    state.beats_n += 1
    if state.noisy or not certain:
        return
    state.templates_n += 1
    weight = np.float32(max(1.0 / state.templates_n, 1 / 16))
    state.beat_height += weight * (height - state.beat_height)
    for i in range(TEMPLATE):
        k = (c - TEMPLATE + 1 + TEMPLATE_AFTER + i) & _MASK
        state.template_wide[i] += weight * (state.wide[k] - state.template_wide[i])
        state.template_narrow[i] += weight * (state.narrow[k] - state.template_narrow[i])


@kernel
def perceptron(row: Any, layers: Any, hidden: Any, hidden2: Any) -> Any:
    """Output of a multilayer perceptron; inner loops run over outputs, so that they vectorise in the order written."""
    w1, b1, w2, b2, w3, b3 = layers
    n0, n1, n2 = row.shape[0], b1.shape[0], b2.shape[0]
    for j in range(n1):
        hidden[j] = b1[j]
    for i in range(0, n0 - 3, 4):
        v0, v1, v2, v3 = row[i], row[i + 1], row[i + 2], row[i + 3]
        for j in range(n1):
            hidden[j] = hidden[j] + v0 * w1[i, j] + v1 * w1[i + 1, j] + v2 * w1[i + 2, j] + v3 * w1[i + 3, j]
    for i in range(n0 - n0 % 4, n0):
        for j in range(n1):
            hidden[j] += row[i] * w1[i, j]
    for j in range(n2):
        hidden2[j] = b2[j]
    for i in range(n1):
        value = hidden[i]
        if value <= np.float32(0.0):
            continue
        for j in range(n2):
            hidden2[j] += value * w2[i, j]
    out = b3[0]
    for i in range(n2):
        out += max(hidden2[i], np.float32(0.0)) * w3[i, 0]
    return out


@kernel
def _ratio(part: Any, whole: Any) -> Any:
    """Log ratio of two heights, within +-4."""
    tiny = np.float32(1e-6)
    return min(max(np.log((np.float32(part) + tiny) / (np.float32(whole) + tiny)), np.float32(-4.0)), np.float32(4.0))


@kernel
def _logit(value: Any) -> Any:
    """First network's logit, within +-2."""
    return min(max(value * np.float32(0.2), np.float32(-2.0)), np.float32(2.0))


@kernel
def _similarity(wave: NDArray[np.float32], template: NDArray[np.float32], c: int) -> Any:
    """Cosine between a template and the wave round tick `c`."""
    dot = own = other = np.float32(0.0)
    for i in range(TEMPLATE):
        value = wave[(c - TEMPLATE + 1 + TEMPLATE_AFTER + i) & _MASK]
        dot += value * template[i]
        own += value * value
        other += template[i] * template[i]
    return dot / np.sqrt(own * other + np.float32(1e-12))
