"""Rules: evidence of one patient in, alarm conditions out. Pure, in order, exact to the sample.

Evidence comes in the order in which it was known (`in_order` sorts what one call found). Deadlines (no beat for 4 s,
rate over its limit for 10 s, hold times) are not tied to the moment at which they are looked at: each carries its own
index, falls due before any later evidence, and reports ``at`` = that index plus the detector's delay (less where a
beat settled it earlier). How often `Horizon` comes therefore changes nothing. A stream that ends in an alarm leaves
it standing: no evidence is no end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, assert_never

from alerts.limits import KINDS, Limits
from alerts.model import Beat, Condition, Evidence, Horizon, Kind, Note, Quality, Rhythm, Silence
from alerts.rules_beats import arm, asystole_due, on_beat, pause_due, rate_due, run_due
from alerts.rules_rhythm import on_rhythm
from alerts.rules_state import NEVER, RuleState, end, pvc_per_minute, switch_off
from alerts.rules_technical import on_jump, on_note, on_quality, on_silence, seen_due

__all__ = ["RuleState", "fold", "in_order", "jump", "known_at", "new_state", "pvc_per_minute", "step", "switch_off"]

_RANK: Final = {Quality: 0, Note: 1, Silence: 2, Beat: 3, Rhythm: 4, Horizon: 5}
_KIND_OF: Final = {str(kind): kind for kind in KINDS}


def new_state(delay: int, limits: Limits, start: int = 0) -> RuleState:
    """Rules of a patient whose epoch begins.

    Parameters
    ----------
    delay : int
        ``decided - index`` of the detector's `Horizon`, samples at 250 Hz.
    limits : Limits
        Limits of the patient.
    start : int
        Index of the first sample.
    """
    state = RuleState(delay=delay, start=start)
    arm(state, limits)
    return state


def known_at(evidence: Evidence) -> int:
    """Index of the last sample that was needed to know `evidence`."""
    if isinstance(evidence, Beat | Horizon):
        return evidence.decided
    if isinstance(evidence, Rhythm | Quality):
        return evidence.end
    return evidence.at


def in_order(evidence: Iterable[Evidence]) -> list[Evidence]:
    """Sort what one call found into the order that `step` wants: by when it was known, beats by R."""
    return sorted(evidence, key=lambda item: (known_at(item), _RANK[type(item)]))


def fold(state: RuleState, evidence: Iterable[Evidence], limits: Limits) -> list[Condition]:
    """Sort and take in the evidence of one call; as `step` for each."""
    out: list[Condition] = []
    for item in in_order(evidence):
        _take(state, item, limits, out)
    return out


def step(state: RuleState, evidence: Evidence, limits: Limits) -> list[Condition]:
    """Take in one piece of evidence.

    Parameters
    ----------
    state : RuleState
        Changed in place.
    evidence : Evidence
        Not known earlier than the evidence before it.
    limits : Limits
        Limits in force; they may change from call to call and hold for what comes.

    Returns
    -------
    list of Condition
        What began, changed or ended, in order.
    """
    out: list[Condition] = []
    _take(state, evidence, limits, out)
    return out


def jump(state: RuleState, since: int, start: int, limits: Limits) -> list[Condition]:
    """Go on after a gap that was not filled with missing samples.

    Parameters
    ----------
    state : RuleState
        Changed in place.
    since, start : int
        First index that is missing, first index that is there again.
    limits : Limits
        Limits in force.

    Returns
    -------
    list of Condition
        What fell due; nothing is judged over the gap, as in any blind stretch.
    """
    out: list[Condition] = []
    _until(state, since, limits, out)
    on_jump(state, since, start, limits, out)
    return out


def _take(state: RuleState, item: Evidence, limits: Limits, out: list[Condition]) -> None:
    if isinstance(item, Beat):
        # Beats come in order of R, so the deadlines up to this one are decided.
        if item.r >= state.next_due or item.decided >= state.next_seen:
            _fall_due(state, item.r, item.decided, limits, out)
        on_beat(state, item, limits, out)
    elif isinstance(item, Rhythm):
        _until(state, item.end, limits, out)
        on_rhythm(state, item, limits, out)
    elif isinstance(item, Horizon):
        if item.index >= state.next_due or item.decided >= state.next_seen:
            _fall_due(state, item.index, item.decided, limits, out)
    elif isinstance(item, Quality):
        _until(state, item.end, limits, out)
        on_quality(state, item, limits, out)
    elif isinstance(item, Silence):
        _until(state, item.at, limits, out)
        on_silence(state, item, limits, out)
    elif isinstance(item, Note):
        _until(state, item.at, limits, out)
        on_note(state, item, limits, out)
    else:
        assert_never(item)


def _until(state: RuleState, known: int, limits: Limits, out: list[Condition]) -> None:
    index = known - state.delay
    if index >= state.next_due or known >= state.next_seen:
        _fall_due(state, index, known, limits, out)


def _fall_due(state: RuleState, index: int, known: int, limits: Limits, out: list[Condition]) -> None:
    """Let fall due, in order, what lies up to `index` in the line of beats and up to `known` in that of samples."""
    delay = state.delay
    while True:
        beat_due, beat_key = min(((at, key) for key, at in state.due.items()), default=(NEVER, ""))
        seen, seen_key = min(((at, key) for key, at in state.due_seen.items()), default=(NEVER, ""))
        state.next_due, state.next_seen = beat_due, seen
        if beat_due <= index and (seen > known or beat_due + delay <= seen):
            del state.due[beat_key]
            _beat_due(state, beat_key, beat_due, min(beat_due + delay, known), limits, out)
        elif seen <= known:
            del state.due_seen[seen_key]
            seen_due(state, seen_key, seen, limits, out)
        else:
            return


def _beat_due(state: RuleState, key: str, due: int, at: int, limits: Limits, out: list[Condition]) -> None:
    kind = _KIND_OF.get(key)
    if kind is Kind.VTACH and state.shocks >= limits.verdict_s:
        state.verdict_vt = True
    elif kind is not None:
        if kind in state.standing:
            end(state, out, kind, at)
    elif key == "asystole":
        asystole_due(state, at, due, limits, out)
    elif key == "pause":
        pause_due(state, at, due, limits, out)
    elif key == "run":
        run_due(state, at, limits, out)
    else:
        rate_due(state, key, at, limits, out)
