"""Rules over beats: rates, runs and patterns of ectopic beats.

How they end: rates a hold time after they fell below (rose above) their limit less (plus) its ``*_back``, unless they
came back meanwhile: a mean of 4 RR swings in AF; VTACH, NSVT, SVT and the patterns a hold time
(`alerts.limits.KINDS`) after their last evidence; PVC_RATE when fewer than the limit less `pvc_back` lie within a
minute. The T peak is taken as 0.28 s times the square root of the RR in s after the R peak (after Bazett).
"""

from __future__ import annotations

from math import sqrt
from typing import Final

from alerts.limits import Limits
from alerts.model import RATE, Beat, Condition, Kind
from alerts.rules_shapes import learn_beat, shapeless_run, usual_run
from alerts.rules_state import SHORT_BLIND, RuleState, begin, forget_rate, hold, set_due

MINUTE: Final = 60 * RATE
RUN_OPEN: Final = 2 * RATE
"""A run without a further beat for this long is over."""
T_PEAK_S: Final = 0.28


def on_beat(state: RuleState, beat: Beat, limits: Limits, out: list[Condition]) -> None:
    """Take in one beat."""
    r, at = beat.r, beat.decided
    last = state.last_r
    if r <= last or state.dark_last <= r < state.dark_to or 0 <= state.blind_from <= r:
        state.ignored += 1
        return
    state.last_r = r
    rr = r - last if last >= 0 else 0
    gap = state.dark_from < r and state.dark_to > last
    if gap and state.dark_to - state.dark_from > SHORT_BLIND:
        forget_rate(state)
    if gap:
        rr = 0
    _rate(state, r, rr, at, limits, out)
    code = beat.code
    state.recent_r.append(r)
    state.recent_shapes.append(beat.shape)
    state.recent_codes = (state.recent_codes + code)[-8:]
    if len(state.recent_r) > 8:
        del state.recent_r[0], state.recent_shapes[0]
    if gap or rr > RUN_OPEN:
        _close_run(state, at, limits, out)
        state.s_run = 0
        state.since_v = -1
    if code == "V":
        _ventricular(state, beat, rr, limits, out)
    else:
        if state.run:
            _close_run(state, at, limits, out)
        if state.since_v >= 0:
            state.since_v += 1
    if code == "A":
        _supraventricular(state, r, rr, at, limits, out)
    elif state.s_run:
        state.s_run = 0
    learn_beat(state, beat, rr)


def _rate(state: RuleState, r: int, rr: int, at: int, limits: Limits, out: list[Condition]) -> None:
    if rr <= 0:
        return
    if rr >= limits.asystole_s * RATE:
        forget_rate(state)
        return
    intervals, starts = state.rr, state.rr_from
    intervals.append(rr)
    starts.append(r - rr)
    if len(intervals) < 4:
        return
    if len(intervals) > 4:
        del intervals[0], starts[0]
    state.hr = hr = 4 * MINUTE / (intervals[0] + intervals[1] + intervals[2] + intervals[3])
    state.hr_at = r
    onset = starts[0]
    if hr > limits.extreme_tachy:
        _rate_on(state, Kind.EXTREME_TACHY, onset, at, limits.extreme_tachy, limits, out)
    elif hr < limits.extreme_brady:
        _rate_on(state, Kind.EXTREME_BRADY, onset, at, limits.extreme_brady, limits, out)
    wait = round(limits.rate_s * RATE)
    if hr > limits.tachy:
        if state.fast_from < 0:
            state.fast_from, state.fast_onset = r, onset
            set_due(state, "tachy", r + wait)
        elif r - state.fast_from >= wait:
            _rate_on(state, Kind.TACHY, state.fast_onset, at, limits.tachy, limits, out)
    elif state.fast_from >= 0:
        state.fast_from = -1
        state.due.pop("tachy", None)
    if hr < limits.brady:
        if state.slow_from < 0:
            state.slow_from, state.slow_onset = r, onset
            set_due(state, "brady", r + wait)
        elif r - state.slow_from >= wait:
            _rate_on(state, Kind.BRADY, state.slow_onset, at, limits.brady, limits, out)
    elif state.slow_from >= 0:
        state.slow_from = -1
        state.due.pop("brady", None)
    if state.standing:
        _rates_off(state, r, limits)


def _rates_off(state: RuleState, r: int, limits: Limits) -> None:
    hr = state.hr
    well = (
        (Kind.EXTREME_TACHY, hr < limits.extreme_tachy - limits.extreme_tachy_back),
        (Kind.EXTREME_BRADY, hr > limits.extreme_brady + limits.extreme_brady_back),
        (Kind.TACHY, hr < limits.tachy - limits.tachy_back),
        (Kind.BRADY, hr > limits.brady + limits.brady_back),
    )
    for kind, off in well:
        if kind in state.standing:
            _rate_off(state, kind, r, off)


def _rate_off(state: RuleState, kind: Kind, r: int, well: bool) -> None:
    """Let a rate alarm end once the rate has been well within its limit for its hold time."""
    if not well:
        state.due.pop(kind, None)
    elif kind not in state.due:
        hold(state, kind, r)


def _rate_on(
    state: RuleState, kind: Kind, onset: int, at: int, limit: float, limits: Limits, out: list[Condition]
) -> None:
    hr = round(state.hr)
    sign = ">" if state.hr > limit else "<"
    begin(
        state,
        limits,
        out,
        kind,
        onset,
        at,
        value=float(hr),
        limit=limit,
        detail=f"HR {hr} {sign} {limit:g}, mean of 4 RR",
        step=5.0,
    )


def rate_due(state: RuleState, key: str, at: int, limits: Limits, out: list[Condition]) -> None:
    """Begin TACHY or BRADY: the rate has been beyond the limit for long enough."""
    if key == "tachy":
        _rate_on(state, Kind.TACHY, state.fast_onset, at, limits.tachy, limits, out)
    else:
        _rate_on(state, Kind.BRADY, state.slow_onset, at, limits.brady, limits, out)


def _mean_rate(intervals: list[int]) -> float:
    return MINUTE * len(intervals) / sum(intervals) if intervals else 0.0


def _ventricular(state: RuleState, beat: Beat, rr: int, limits: Limits, out: list[Condition]) -> None:
    r, at = beat.r, beat.decided
    times = state.v_times
    times.append(r)
    while times[0] <= r - MINUTE:
        del times[0]
    if state.run:
        state.run += 1
        state.run_rr.append(rr)
        state.run_p.append(beat.probability)
        if len(state.run_p) > 5:
            del state.run_p[0]
    else:
        state.run, state.run_from, state.run_alarmed = 1, r, False
        state.run_rr, state.run_p = [], [beat.probability]
        _pattern(state, r, rr, at, limits, out)
        if rr:
            _r_on_t(state, r, rr, at, limits, out)
    state.run_last = r
    state.since_v = 0
    if state.run > 1:
        state.bigeminy = state.trigeminy = 0
        set_due(state, "run", r + RUN_OPEN)
        _run_grows(state, r, at, limits, out)
    if len(times) >= limits.pvc_per_min or Kind.PVC_RATE in state.standing:
        _pvc_rate(state, r, at, limits, out)
    if beat.shape:
        _shapes(state, beat, limits, out)


def _run_grows(state: RuleState, r: int, at: int, limits: Limits, out: list[Condition]) -> None:
    n = state.run
    need = limits.vtach_beats - 1
    if len(state.run_rr) > 14:
        del state.run_rr[0]
    if n < limits.vtach_beats:
        return
    # The newest beats decide, so that a run that starts slowly is seen when it has become fast.
    rate = _mean_rate(state.run_rr[-need:])
    sure = sum(state.run_p) / len(state.run_p) >= limits.vtach_probability
    shapes = state.recent_shapes[-limits.vtach_beats :]
    doubtful = usual_run(state, shapes, rate) or shapeless_run(state, shapes, r - sum(state.run_rr[-need:]), r)
    if rate >= limits.vtach_rate and sure and not doubtful:
        onset = state.run_from if n == limits.vtach_beats else r - sum(state.run_rr[-need:])
        if begin(
            state,
            limits,
            out,
            Kind.VTACH,
            max(onset, state.run_from),
            at,
            value=float(round(rate)),
            limit=limits.vtach_rate,
            detail=f"{n} ventricular beats at {rate:.0f}/min, limit {limits.vtach_beats} at {limits.vtach_rate:g}/min",
            step=10.0,
        ):
            state.run_alarmed = True
            state.verdict_vt = False
            hold(state, Kind.VTACH, r)
    elif Kind.VTACH in state.standing and rate >= limits.vtach_rate - limits.vtach_back:
        hold(state, Kind.VTACH, r)
    elif n >= limits.vent_rhythm_beats and rate < limits.vtach_rate and Kind.VTACH not in state.standing:
        if begin(
            state,
            limits,
            out,
            Kind.VENT_RHYTHM,
            state.run_from,
            at,
            value=float(round(rate)),
            limit=limits.vtach_rate,
            detail=f"{n} ventricular beats in a row at {rate:.0f}/min",
            step=10.0,
        ):
            state.run_alarmed = True
        hold(state, Kind.VENT_RHYTHM, r)


def run_due(state: RuleState, at: int, limits: Limits, out: list[Condition]) -> None:
    """No further beat: the run is over."""
    _close_run(state, at, limits, out)


def _close_run(state: RuleState, at: int, limits: Limits, out: list[Condition]) -> None:
    n = state.run
    state.run = 0
    state.due.pop("run", None)
    if n < 2 or state.run_alarmed:
        return
    rate = _mean_rate(state.run_rr)
    kind = Kind.NSVT if n >= limits.nsvt_beats and rate >= limits.vtach_rate else Kind.PVC_PAIR
    limit = f", limit {limits.nsvt_beats} at {limits.vtach_rate:g}/min" if kind is Kind.NSVT else ""
    if begin(
        state,
        limits,
        out,
        kind,
        state.run_from,
        at,
        value=float(round(rate)),
        limit=limits.vtach_rate if kind is Kind.NSVT else None,
        detail=f"{n} ventricular beats at {rate:.0f}/min{limit}",
        step=0.0,
    ):
        hold(state, kind, state.run_last)


def _supraventricular(state: RuleState, r: int, rr: int, at: int, limits: Limits, out: list[Condition]) -> None:
    if state.s_run == 0:
        state.s_run, state.s_from, state.s_rr = 1, r, []
        return
    state.s_run += 1
    state.s_rr.append(rr)
    need = limits.svt_beats - 1
    if len(state.s_rr) > need:
        del state.s_rr[0]
    if state.s_run < limits.svt_beats:
        return
    rate = _mean_rate(state.s_rr)
    if rate >= limits.svt_rate:
        begin(
            state,
            limits,
            out,
            Kind.SVT,
            max(state.s_from, r - sum(state.s_rr)),
            at,
            value=float(round(rate)),
            limit=limits.svt_rate,
            detail=f"{state.s_run} supraventricular beats at {rate:.0f}/min, "
            f"limit {limits.svt_beats} at {limits.svt_rate:g}/min",
            step=10.0,
        )
        hold(state, Kind.SVT, r)


def _pattern(state: RuleState, r: int, rr: int, at: int, limits: Limits, out: list[Condition]) -> None:
    others = state.since_v
    if others == 1 and state.bigeminy:
        state.bigeminy += 1
    else:
        state.bigeminy, state.bigeminy_from = 1, r - rr
    if others == 2 and state.trigeminy:
        state.trigeminy += 1
    else:
        state.trigeminy, state.trigeminy_from = 1, r - rr
    for kind, cycles, onset, words in (
        (Kind.BIGEMINY, state.bigeminy, state.bigeminy_from, "every second beat"),
        (Kind.TRIGEMINY, state.trigeminy, state.trigeminy_from, "every third beat"),
    ):
        if cycles >= limits.cycles and begin(
            state, limits, out, kind, onset, at, detail=f"{words} ventricular, {cycles} times in a row"
        ):
            hold(state, kind, r)


def _r_on_t(state: RuleState, r: int, rr: int, at: int, limits: Limits, out: list[Condition]) -> None:
    if len(state.rr) < 4:
        return
    # Mean of the three RR before the coupling interval (the newest in `rr`).
    usual = sum(state.rr[:3]) / 3 / RATE
    away = abs(rr / RATE - T_PEAK_S * sqrt(usual)) * 1000
    if away <= limits.r_on_t_ms and begin(
        state,
        limits,
        out,
        Kind.R_ON_T,
        r - rr,
        at,
        limit=limits.r_on_t_ms,
        detail=f"ventricular beat {rr * 1000 // RATE} ms after the beat before, {away:.0f} ms from the T peak",
    ):
        hold(state, Kind.R_ON_T, r)


def _pvc_rate(state: RuleState, r: int, at: int, limits: Limits, out: list[Condition]) -> None:
    times = state.v_times
    n = len(times)
    if n >= limits.pvc_per_min:
        begin(
            state,
            limits,
            out,
            Kind.PVC_RATE,
            times[0],
            at,
            value=float(n),
            limit=float(limits.pvc_per_min),
            detail=f"{n} ventricular beats in a minute, limit {limits.pvc_per_min}",
            step=5.0,
        )
    keep = limits.pvc_per_min - limits.pvc_back
    if Kind.PVC_RATE in state.standing and n >= keep:
        set_due(state, Kind.PVC_RATE, times[-keep] + MINUTE)


def _shapes(state: RuleState, beat: Beat, limits: Limits, out: list[Condition]) -> None:
    since = beat.r - limits.multiform_s * RATE
    shapes = {shape: r for shape, r in state.shapes.items() if r > since}
    others = [r for shape, r in shapes.items() if shape != beat.shape]
    shapes[beat.shape] = beat.r
    state.shapes = shapes
    if others and begin(
        state,
        limits,
        out,
        Kind.MULTIFORM,
        min(others),
        beat.decided,
        value=float(len(shapes)),
        detail=f"ventricular beats of {len(shapes)} shapes within {limits.multiform_s:g} s",
    ):
        hold(state, Kind.MULTIFORM, beat.r)
