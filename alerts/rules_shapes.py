"""What is usual in this patient: which shape the beats have, and how fast they come.

A pacemaker or a bundle branch block makes every beat wide; a run of such beats at the usual rate is no tachycardia,
whatever class each of them got. In noise, waves that are taken for beats differ from one another; a tachycardia repeats
itself.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from alerts.model import RATE, Beat
from alerts.rules_pause import noise_within
from alerts.rules_state import RuleState

MEMORY: Final = 500
"""Beats over which the share of each shape is learnt."""
KNOWN: Final = 200
"""Beats from which it is known what is usual (about 3 min)."""
USUAL: Final = 0.3
"""Share of a shape from which it is one of the patient's usual ones."""
FASTER: Final = 1.15
"""A rate this many times the usual one is not usual."""
PACE: Final = 64
"""Beats over which the usual interval is learnt."""
SLOW_RR: Final = 0.6 * RATE
"""Interval of 100/min."""
PACE_MEAN: Final = 0.12
PACE_EACH: Final = 0.35
"""Beats keep the usual pace where the mean interval and each of them differ from the usual one by less than this."""
ALIKE: Final = 0.8
"""Share of the last beats of a run that must have one shape, for it to count in noise."""


def learn_beat(state: RuleState, beat: Beat, rr: int) -> None:
    """Learn the shape and interval of a beat."""
    if 0 < rr <= 2 * RATE:
        state.paced_n = count = state.paced_n + 1
        state.usual_rr += (rr - state.usual_rr) / (count if count < PACE else PACE)
    if not beat.shape:
        return
    if state.shaped < MEMORY:
        state.shaped += 1
    part = 1 / state.shaped
    keep = 1 - part
    state.shares = shares = {shape: share * keep for shape, share in state.shares.items() if share > 1e-4}
    shares[beat.shape] = shares.get(beat.shape, 0.0) + part


def forget_shapes(state: RuleState) -> None:
    """Begin anew: another lead shows other shapes."""
    state.shaped = 0
    state.shares = {}


def usual_shape(state: RuleState, shape: int) -> bool:
    """Whether a shape is one of the patient's usual ones."""
    return state.shaped >= KNOWN and state.shares.get(shape, 0.0) >= USUAL


def usual_run(state: RuleState, shapes: list[int], rate: float) -> bool:
    """Whether beats of these shapes at this rate (a minute) are what this patient always has."""
    if not shapes or state.usual_rr <= 0 or not all(usual_shape(state, shape) for shape in shapes):
        return False
    return rate <= FASTER * 60 * RATE / state.usual_rr


def usual_pace(state: RuleState, times: list[int]) -> bool:
    """Whether beats go on at the usual rate, below 100/min, as if nothing had happened."""
    usual = state.usual_rr
    steps = [b - a for a, b in pairwise(times)]
    return (
        state.paced_n >= PACE
        and usual > SLOW_RR
        and abs(sum(steps) / len(steps) - usual) <= PACE_MEAN * usual
        and all(abs(step - usual) <= PACE_EACH * usual for step in steps)
    )


def shapeless_run(state: RuleState, shapes: list[int], since: int, until: int) -> bool:
    """Whether a run lies in noise for more than half and its beats are not alike."""
    if 2 * noise_within(state, since, until) <= until - since:
        return False
    most = max((shapes.count(shape) for shape in set(shapes) if shape), default=0)
    return most < ALIKE * len(shapes)
