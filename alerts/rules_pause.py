"""Rules over R peaks alone: pauses and asystole, which need not wait for the class of a beat.

ASYSTOLE ends at the second beat in a row that follows the one before within the pause limit (one invented beat ends
nothing), PAUSE a hold time after its last evidence. Beats on a lead that is not analysed stand against both: then the
heart beats and it is the analysed lead that has failed. They do so for `BESIDE_WAIT` at most, since they may be noise.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from alerts.limits import Limits
from alerts.model import RATE, Condition, Kind
from alerts.rules_state import SETTLE, SHORT_BLIND, RuleState, begin, end, forget_rate, hold, set_peak

LIVELY: Final = 0.3
"""A line without a heart is quiet. Where the signal is beyond 0.1 mV for more than this share it may hold beats that
motion hides..."""
LIVELY_WAIT: Final = 20 * RATE
"""... and is given this long to show one before ASYSTOLE is raised all the same."""
NOISE_HIDES: Final = RATE
"""More noise than this in the time without a beat can hide one."""
BESIDE_WAIT: Final = 30 * RATE
"""Beats on a lead beside hold ASYSTOLE back for this long after the last one of the analysed lead."""
BESIDE_KEPT: Final = 6
"""Beats of the leads beside that are kept."""
BESIDE_NEED: Final = 3
"""So many of them, each within the pause limit of the next, up to now, say that the heart beats."""
BESIDE_APART: Final = RATE // 4
"""Closer together they are one beat on two leads, or noise."""


def arm(state: RuleState, limits: Limits) -> None:
    """Set the deadlines of PAUSE and ASYSTOLE after the last beat (after the start where there was none)."""
    beat = state.peak_r
    pause = round(limits.pause_s * RATE)
    usable = round(limits.asystole_s * RATE)
    asystole = beat + usable if beat >= 0 else state.start + SETTLE + usable
    start = beat if beat > state.start else state.start
    if state.blind_from >= 0:
        if asystole > state.blind_from:
            state.asystole_left = asystole - max(state.blind_from, start)
            state.due_peak.pop("asystole", None)
        else:
            set_peak(state, "asystole", asystole)
        if beat >= 0 and beat + pause <= state.blind_from:
            set_peak(state, "pause", beat + pause)
        else:
            state.due_peak.pop("pause", None)
        return
    if state.dark_to > start and asystole > state.dark_from:
        short = state.dark_to - state.dark_from <= SHORT_BLIND
        asystole = state.dark_to + (asystole - max(state.dark_from, start) if short else usable)
    set_peak(state, "asystole", asystole)
    if beat >= 0 and (state.dark_to <= beat or beat + pause <= state.dark_from):
        set_peak(state, "pause", beat + pause)
    else:
        state.due_peak.pop("pause", None)


def on_peak(state: RuleState, r: int, at: int, limits: Limits, out: list[Condition]) -> None:
    """Take in an R peak of the analysed lead."""
    last = state.peak_r
    if r <= last or state.dark_last <= r < state.dark_to or 0 <= state.blind_from <= r:
        return
    state.peak_r = r
    arm(state, limits)
    if state.standing:
        rr = r - last if last >= 0 else 0
        gap = state.dark_from < r and state.dark_to > last
        _pause_over(state, rr, gap, at, limits, out)


def on_beside(state: RuleState, r: int) -> None:
    """Take in an R peak of a lead that is not analysed."""
    kept = sorted({*state.beside, r})
    state.beside = kept[-BESIDE_KEPT:]


def beats_beside(state: RuleState, since: int, now: int, limits: Limits) -> bool:
    """Whether another lead shows the heart beating: `BESIDE_NEED` beats or more, the last within the limit of `now`."""
    pause = limits.pause_s * RATE
    # The newest may lie behind `now`; those count as well.
    times = [r for r in state.beside if r > since - pause]
    steps = [b - a for a, b in pairwise(times)]
    return (
        len(times) >= BESIDE_NEED
        and all(BESIDE_APART <= step <= pause for step in steps[1 - BESIDE_NEED :])
        and times[-1] > max(since, now - pause)
    )


def noise_within(state: RuleState, since: int, until: int) -> int:
    """Noisy samples between two indices, as far as the kept stretches say."""
    bounds = [*state.noise, until] if len(state.noise) % 2 else state.noise
    return sum(max(0, min(bounds[i + 1], until) - max(bounds[i], since)) for i in range(0, len(bounds), 2))


def pause_due(state: RuleState, at: int, due: int, limits: Limits, out: list[Condition]) -> None:
    """No beat for the pause limit; in noise a beat may have been missed, so that nothing is said."""
    since = due - round(limits.pause_s * RATE)
    if noise_within(state, since, due) > NOISE_HIDES or beats_beside(state, since, due, limits):
        return
    if begin(
        state,
        limits,
        out,
        Kind.PAUSE,
        state.peak_r,
        at,
        value=limits.pause_s,
        limit=limits.pause_s,
        detail=f"no beat for {limits.pause_s:g} s",
        step=0.0,
    ):
        hold(state, Kind.PAUSE, due)


def asystole_due(state: RuleState, at: int, due: int, limits: Limits, out: list[Condition]) -> None:
    """No beat for the limit of ASYSTOLE in a usable signal; looked for again while something may hide beats."""
    usable = round(limits.asystole_s * RATE)
    lively = state.activity > LIVELY and due + state.peak_delay - state.verdict_end <= 2 * RATE
    since = max(state.peak_r, state.start)
    elsewhere = due - since < BESIDE_WAIT and beats_beside(state, since, due, limits)
    if noise_within(state, due - usable, due) > NOISE_HIDES or (lively and due - since < LIVELY_WAIT) or elsewhere:
        set_peak(state, "asystole", due + RATE)
        return
    forget_rate(state)
    shocked = state.shocks > 0 and due + state.peak_delay - state.verdict_end <= 2 * RATE
    if shocked or Kind.VFIB in state.standing:
        # Fibrillation has no beats: look again until that verdict is gone.
        set_peak(state, "asystole", due + RATE)
        return
    begin(
        state,
        limits,
        out,
        Kind.ASYSTOLE,
        state.peak_r if state.peak_r >= 0 else state.start,
        at,
        value=limits.asystole_s,
        limit=limits.asystole_s,
        detail=f"no QRS for {limits.asystole_s:g} s with a usable signal",
    )


def _pause_over(state: RuleState, rr: int, gap: bool, at: int, limits: Limits, out: list[Condition]) -> None:
    if Kind.ASYSTOLE in state.standing:
        if 0 < rr <= limits.pause_s * RATE and not gap:
            end(state, out, Kind.ASYSTOLE, at, "beats are back")
        return
    if Kind.PAUSE in state.standing and rr > limits.pause_s * RATE and not gap:
        seconds = rr / RATE
        begin(
            state,
            limits,
            out,
            Kind.PAUSE,
            state.peak_r - rr,
            at,
            value=seconds,
            limit=limits.pause_s,
            detail=f"{seconds:.1f} s from beat to beat, limit {limits.pause_s:g} s",
            step=0.0,
        )
