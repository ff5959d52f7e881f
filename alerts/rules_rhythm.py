"""Rules over rhythm verdicts: fibrillation, tachycardia seen by the window classifier, atrial fibrillation.

A verdict stands for the second before its end and looks at the last 4 s. VFIB and VTACH come after `verdict_s` verdicts
of VFL or VT in a row, or one fewer where they are sure (`SURE`), as VFIB where at most one of these was VT. Beats may
contradict: a verdict is not believed against beats that are plainly those of another rhythm (`contradicted`). They end
after as many other verdicts in a row; a lack of verdicts ends nothing. AFIB needs `afib_s` in which no five verdicts in
a row were of another rhythm, and ends after `afib_s` without.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from alerts.limits import Limits
from alerts.model import RATE, Condition, Kind, Rhythm
from alerts.rules_shapes import usual_pace, usual_shape
from alerts.rules_state import RuleState, begin, end

MAX_STEP: Final = RATE + RATE // 2
"""Verdicts farther apart than this are no row."""
AFIB_BREAK: Final = 5 * RATE
SURE: Final = 0.8
"""Mean probability from which verdicts are sure. It took the median delay of the alarm from 5.5 to 4.5 s on held-out
patients of vfdb, with 34 false alarms instead of 32."""


def contradicted(state: RuleState, end_index: int, *, flutter: bool) -> bool:
    """Whether the beats of the last 4 s speak against a verdict of VFL (`flutter`) or VT.

    Against VT: 3 beats or more of which fewer than half are ventricular, fused or unclassifiable (bundle branch or
    paced beats at 100/min and more count as wide, too; beats of the patient's usual shape do not while the rate is
    under 100/min), while the rate is under 100/min, or in the first 8 s of verdicts whatever the rate; and 4 beats or
    more that go on at the patient's usual pace below 100/min. Against VFL: 4 beats or more, none of them ventricular,
    fused or unclassifiable, at under 150/min and regular within 15 %; fibrillation yields no such beats. Too few beats
    say nothing.
    """
    since = end_index - state.delay - 4 * RATE
    times = [r for r in state.recent_r if r > since]
    n = len(times)
    if n < 3:
        return False
    codes = state.recent_codes[-n:]
    rate = 60 * RATE * (n - 1) / (times[-1] - times[0])
    wide = codes.count("V") + codes.count("F") + codes.count("Q")
    if flutter:
        steps = [b - a for a, b in pairwise(times)]
        regular = max(steps) - min(steps) <= 0.15 * sum(steps) / len(steps)
        return n >= 4 and wide == 0 and rate < 150 and regular
    if n >= 4 and usual_pace(state, times):
        return True
    if rate < 100:
        shapes = state.recent_shapes[-n:]
        wide -= sum(code in "VFQ" and usual_shape(state, shape) for code, shape in zip(codes, shapes, strict=True))
    else:
        wide += codes.count("L") + codes.count("R") + codes.count("/")
    return 2 * wide < n and (rate < 100 or state.shocks < 8)


def on_rhythm(state: RuleState, verdict: Rhythm, limits: Limits, out: list[Condition]) -> None:
    """Take in one verdict."""
    at, code = verdict.end, verdict.code
    if at <= state.verdict_end:
        return
    row = at - state.verdict_end <= MAX_STEP
    state.verdict, state.verdict_end, state.activity = code, at, verdict.activity
    if state.blind_from >= 0 and at > state.blind_from:
        # What a blind window says is no evidence, neither for a rhythm nor for its end.
        state.shocks = state.calm = 0
        return
    if code in ("VFL", "VT"):
        _shock(state, verdict, row, limits, out)
    else:
        _calm(state, at, code, row, limits, out)
    if code == "AFIB":
        _afib(state, at, limits, out)
    elif state.standing and Kind.AFIB in state.standing and at - state.afib_last >= limits.afib_s * RATE:
        end(state, out, Kind.AFIB, at, f"no atrial fibrillation for {limits.afib_s:g} s")


def _shock(state: RuleState, verdict: Rhythm, row: bool, limits: Limits, out: list[Condition]) -> None:
    at, need = verdict.end, limits.verdict_s
    state.calm = 0
    if state.shocks == 0 or not row:
        state.shocks, state.shock_from, state.flutters, state.shock_p = 0, at - RATE, 0, []
    state.shocks += 1
    state.flutters = (state.flutters << 1 | (verdict.code == "VFL")) & ((1 << need) - 1)
    state.shock_p = [*state.shock_p, verdict.probability][1 - need :]
    sure = state.shocks == need - 1 and sum(state.shock_p) >= SURE * (need - 1)
    if state.shocks < need and not sure:
        return
    asked = ", all of them sure" if sure else f", limit {need} s"
    vfl = state.flutters.bit_count()
    if vfl >= min(state.shocks, need) - 1 or (Kind.VFIB in state.standing and vfl > 0):
        if Kind.VFIB in state.standing or contradicted(state, at, flutter=True):
            return
        begin(
            state,
            limits,
            out,
            Kind.VFIB,
            state.shock_from,
            at,
            detail=f"ventricular fibrillation or flutter for {state.shocks} s{asked}",
        )
    elif Kind.VTACH not in state.standing and not contradicted(state, at, flutter=False):
        state.verdict_vt = begin(
            state,
            limits,
            out,
            Kind.VTACH,
            state.shock_from,
            at,
            value=float(round(state.hr)) if state.hr > 0 else None,
            limit=limits.vtach_rate,
            detail=f"rhythm of ventricular tachycardia for {state.shocks} s{asked}",
        )


def _calm(state: RuleState, at: int, code: str, row: bool, limits: Limits, out: list[Condition]) -> None:
    state.shocks = 0
    if code == "NOISE":
        state.calm = 0
        return
    state.calm = state.calm + 1 if row else 1
    if state.calm < limits.verdict_s:
        return
    if state.standing and Kind.VFIB in state.standing:
        end(state, out, Kind.VFIB, at, f"other rhythm for {state.calm} s")
    if state.verdict_vt:
        state.verdict_vt = False
        if Kind.VTACH in state.standing:
            end(state, out, Kind.VTACH, at, f"other rhythm for {state.calm} s")


def _afib(state: RuleState, at: int, limits: Limits, out: list[Condition]) -> None:
    if state.afib_last < 0 or at - state.afib_last > AFIB_BREAK:
        state.afib_from = at - RATE
    state.afib_last = at
    fast = not limits.afib_with_rate or state.hr > limits.tachy
    if fast and at - state.afib_from >= limits.afib_s * RATE:
        begin(
            state,
            limits,
            out,
            Kind.AFIB,
            state.afib_from,
            at,
            detail=f"atrial fibrillation for {limits.afib_s:g} s"
            + (f" with HR {state.hr:.0f} > {limits.tachy:g}" if limits.afib_with_rate else ""),
        )
    elif not fast and Kind.AFIB in state.standing and state.hr > 0 and state.hr < limits.tachy - limits.tachy_back:
        end(state, out, Kind.AFIB, at, f"HR {state.hr:.0f}, atrial fibrillation is known")
