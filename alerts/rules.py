"""Rules: evidence of one patient in, alarm conditions out. Pure, in order, exact to the sample.

Evidence comes in the order in which it was known (`in_order` sorts what one call found). Deadlines (no beat for 4 s,
rate over its limit for 10 s, hold times) are not tied to the moment at which they are looked at: each carries its own
index, falls due before any later evidence, and reports ``at`` = that index plus the detector's delay (less where a
beat settled it earlier). How often `Horizon` comes therefore changes nothing. A stream that ends in an alarm leaves
it standing: no evidence is no end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Final, assert_never

from alerts.limits import KINDS, Limits
from alerts.model import Beat, Condition, Evidence, Horizon, Kind, Note, Peak, Quality, Rhythm, Silence
from alerts.rules_beats import on_beat, rate_due, run_due
from alerts.rules_pause import arm, asystole_due, on_beside, on_peak, pause_due
from alerts.rules_rhythm import on_rhythm
from alerts.rules_state import NEVER, RuleState, end, pvc_per_minute, switch_off
from alerts.rules_technical import on_jump, on_note, on_quality, on_silence, seen_due

__all__ = ["RuleState", "fold", "in_order", "jump", "known_at", "new_state", "pvc_per_minute", "step", "switch_off"]

_RANK: Final[dict[type[Evidence], int]] = {
    Quality: 0, Note: 1, Silence: 2, Peak: 3, Beat: 4, Rhythm: 5, Horizon: 6,
}  # fmt: skip
_KNOWN: Final[dict[type[Evidence], Callable[[Evidence], int]]] = {
    Beat: attrgetter("decided"),
    Peak: attrgetter("decided"),
    Horizon: attrgetter("decided"),
    Rhythm: attrgetter("end"),
    Quality: attrgetter("end"),
    Silence: attrgetter("at"),
    Note: attrgetter("at"),
}
_KIND_OF: Final = {str(kind): kind for kind in KINDS}


def new_state(delay: int, limits: Limits, start: int = 0, peak_delay: int = -1) -> RuleState:
    """Rules of a patient whose epoch begins.

    Parameters
    ----------
    delay : int
        ``decided - index`` of the detector's `Horizon`, samples at 250 Hz.
    limits : Limits
        Limits of the patient.
    start : int
        Index of the first sample.
    peak_delay : int
        The same for R peaks without their classes; -1 where they come with the beats only.
    """
    state = RuleState(delay=delay, start=start, peak_delay=peak_delay)
    arm(state, limits)
    return state


def known_at(evidence: Evidence) -> int:
    """Index of the last sample that was needed to know `evidence`."""
    return _KNOWN[type(evidence)](evidence)


def in_order(evidence: Iterable[Evidence]) -> list[Evidence]:
    """Sort what one call found into the order that `step` wants: by when it was known, beats by R."""
    return sorted(evidence, key=_place)


def _place(item: Evidence) -> int:
    kind = type(item)
    return 8 * _KNOWN[kind](item) + _RANK[kind]


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
        _until(state, item.decided, limits, out, item.r, item.r)
        if item.r > state.peak_r:
            on_peak(state, item.r, item.decided, limits, out)
        on_beat(state, item, limits, out)
    elif isinstance(item, Peak):
        if item.beside:
            _until(state, item.decided, limits, out)
            on_beside(state, item.r)
        else:
            _until(state, item.decided, limits, out, -1, item.r)
            on_peak(state, item.r, item.decided, limits, out)
    elif isinstance(item, Rhythm):
        _until(state, item.end, limits, out)
        on_rhythm(state, item, limits, out)
    elif isinstance(item, Horizon):
        _until(state, item.decided, limits, out, item.index)
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


def _until(
    state: RuleState, known: int, limits: Limits, out: list[Condition], beats: int = -1, peaks: int = -1
) -> None:
    """Let fall due, in order, what is settled once `known` samples are seen.

    Beats are known up to `known` less their delay and up to `beats`, R peaks likewise up to `peaks`.
    """
    delay, peak_delay = state.delay, state.peak_delay
    if beats < known - delay:
        beats = known - delay
    if peaks < known - peak_delay:
        peaks = known - peak_delay
    while beats >= state.next_due or peaks >= state.next_peak or known >= state.next_seen:
        beat_due, beat_key = _first(state.due)
        peak_due, peak_key = _first(state.due_peak)
        seen, seen_key = _first(state.due_seen)
        state.next_due, state.next_peak, state.next_seen = beat_due, peak_due, seen
        beat_at = beat_due + delay if beat_due <= beats else NEVER
        peak_at = peak_due + peak_delay if peak_due <= peaks else NEVER
        seen_at = seen if seen <= known else NEVER
        first = min(beat_at, peak_at, seen_at)
        if first == NEVER:
            return
        if peak_at == first:
            del state.due_peak[peak_key]
            due = asystole_due if peak_key == "asystole" else pause_due
            due(state, min(peak_at, known), peak_due, limits, out)
        elif beat_at == first:
            del state.due[beat_key]
            _beat_due(state, beat_key, min(beat_at, known), limits, out)
        else:
            del state.due_seen[seen_key]
            seen_due(state, seen_key, seen, limits, out)


def _first(due: dict[str, int]) -> tuple[int, str]:
    return min((at, key) for key, at in due.items()) if due else (NEVER, "")


def _beat_due(state: RuleState, key: str, at: int, limits: Limits, out: list[Condition]) -> None:
    kind = _KIND_OF.get(key)
    if kind is Kind.VTACH and state.shocks >= limits.verdict_s:
        state.verdict_vt = True
    elif kind is not None:
        if kind in state.standing:
            end(state, out, kind, at)
    elif key == "run":
        run_due(state, at, limits, out)
    else:
        rate_due(state, key, at, limits, out)
