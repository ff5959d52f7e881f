"""State of the rules of one patient, its deadlines, and how a condition begins and ends."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

import msgspec

from alerts.limits import HIGHER, KINDS, LOWER, Limits
from alerts.model import RATE, Condition, Kind

SETTLE: Final = 4 * RATE
"""Grace at the start of an epoch before the lack of beats counts: the detector learns its levels."""
SHORT_BLIND: Final = RATE
"""A blind stretch up to this only stops the clock of ASYSTOLE; after a longer one it starts anew."""
NEVER: Final = 1 << 62

_HOLD: Final = {kind: round(row.hold_s * RATE) for kind, row in KINDS.items()}


class RuleState(msgspec.Struct):
    """What the rules remember of a patient in one epoch; all times are indices at `RATE`. Serialise with msgspec.

    Parameters
    ----------
    delay : int
        How far the index up to which all beats are known lies behind the newest sample (``decided - index`` of
        `alerts.model.Horizon`, a constant of the detector).
    start : int
        Index of the first sample in the epoch.
    peak_delay : int
        The same for R peaks without their classes (`alerts.model.Peak`); -1: they come with the beats.
    """

    delay: int
    start: int = 0
    peak_delay: int = -1

    def __post_init__(self) -> None:
        if self.peak_delay < 0:
            self.peak_delay = self.delay

    # Standing conditions (onset), the value last shown of each, and the last onset ever used of each.
    standing: dict[Kind, int] = {}
    shown: dict[Kind, float] = {}
    used: dict[Kind, int] = {}

    # Deadlines in the time lines of beats, of R peaks and of samples; the earliest may be too early, never late.
    due: dict[str, int] = {}
    next_due: int = NEVER
    due_peak: dict[str, int] = {}
    next_peak: int = NEVER
    due_seen: dict[str, int] = {}
    next_seen: int = NEVER

    # Sight: start of the blind stretch (-1: sighted), the last one, ASYSTOLE's time left when it began.
    blind_from: int = -1
    dark_last: int = -1
    dark_to: int = -1
    dark_from: int = -1
    """Start of the last stretch, or of those before it that lie close together."""
    asystole_left: int = 0
    lead: str = ""
    lead_off: bool = False
    missing: bool = False
    silent: bool = False
    ignored: int = 0
    """Beats that came out of a blind stretch and were left out."""
    noise: list[int] = []
    """Bounds of noisy stretches, oldest first; an odd number of them: noisy now."""

    # R peaks of the analysed lead, and the newest ones of other leads.
    peak_r: int = -1
    beside: list[int] = []

    # Beats: last R, last RR intervals that count with their starts, rate and the beat that gave it.
    last_r: int = -1
    rr: list[int] = []
    rr_from: list[int] = []
    hr: float = 0.0
    """Beats a minute, 0 = unknown."""
    hr_at: int = -1
    fast_from: int = -1
    fast_onset: int = -1
    slow_from: int = -1
    slow_onset: int = -1

    # Runs and patterns of ectopic beats.
    run: int = 0
    run_from: int = -1
    run_last: int = -1
    run_rr: list[int] = []
    run_p: list[float] = []
    run_alarmed: bool = False
    s_run: int = 0
    s_from: int = -1
    s_rr: list[int] = []
    v_times: list[int] = []
    since_v: int = -1
    """Other beats since the last ventricular one; -1 = none seen yet or broken by a gap."""
    bigeminy: int = 0
    bigeminy_from: int = -1
    trigeminy: int = 0
    trigeminy_from: int = -1
    shapes: dict[int, int] = {}
    recent_r: list[int] = []
    recent_codes: str = ""
    recent_shapes: list[int] = []

    # What is usual (`alerts.rules_shapes`): share of each shape and beats it was learnt from, mean interval likewise.
    shares: dict[int, float] = {}
    shaped: int = 0
    usual_rr: float = 0.0
    paced_n: int = 0

    # Rhythm verdicts.
    verdict: str = ""
    verdict_end: int = -1
    activity: float = 0.0
    """Of the last verdict: share of its window in which the signal is more than a quiet line."""
    shocks: int = 0
    """VFL or VT verdicts in a row."""
    shock_from: int = -1
    shock_p: list[float] = []
    """Probabilities of the last of them."""
    flutters: int = 0
    """Bits of the last verdicts of that row, 1 = VFL, newest lowest."""
    calm: int = 0
    """Other verdicts in a row."""
    verdict_vt: bool = False
    """VTACH stands by verdict, not by beats."""
    afib_from: int = -1
    afib_last: int = -1


def pvc_per_minute(state: RuleState, index: int) -> int:
    """Ventricular beats in the minute before `index`."""
    since = index - 60 * RATE
    return sum(r > since for r in state.v_times)


def forget_rate(state: RuleState) -> None:
    """Heart rate is unknown from here."""
    state.rr.clear()
    state.rr_from.clear()
    state.hr = 0.0
    state.fast_from = state.slow_from = -1
    state.due.pop("tachy", None)
    state.due.pop("brady", None)


def set_due(state: RuleState, key: str, at: int) -> None:
    """Set a deadline in the time line of beats."""
    state.due[key] = at
    if at < state.next_due:
        state.next_due = at


def set_peak(state: RuleState, key: str, at: int) -> None:
    """Set a deadline in the time line of R peaks."""
    state.due_peak[key] = at
    if at < state.next_peak:
        state.next_peak = at


def set_seen(state: RuleState, key: str, at: int) -> None:
    """Set a deadline in the time line of samples."""
    state.due_seen[key] = at
    if at < state.next_seen:
        state.next_seen = at


def begin(
    state: RuleState,
    limits: Limits,
    out: list[Condition],
    kind: Kind,
    onset: int,
    at: int,
    *,
    value: float | None = None,
    limit: float | None = None,
    detail: str = "",
    step: float = 1.0,
) -> bool:
    """Begin a condition, or go on with it; False where a higher one stands for it or it is switched off.

    A standing condition is reported again only when its value moved by `step` or more since it was last shown.
    """
    if kind in limits.off:
        return False
    standing = state.standing
    for high in HIGHER.get(kind, ()):
        if high in standing:
            return False
    first = standing.get(kind)
    if first is None:
        # Identity is the onset: two alarms of one kind never share it.
        onset = max(onset, state.used.get(kind, -1) + 1, 0)
        standing[kind] = state.used[kind] = onset
        out.append(Condition(kind, True, onset, at, value, limit, detail))
        for low in LOWER[kind]:
            if low in standing:
                end(state, out, low, at, by=kind)
    elif value is not None and KINDS[kind].updates and abs(value - state.shown.get(kind, value)) >= step:
        out.append(Condition(kind, True, first, at, value, limit, detail))
    else:
        return True
    if value is not None:
        state.shown[kind] = value
    return True


def end(
    state: RuleState, out: list[Condition], kind: Kind, at: int, detail: str = "", *, by: Kind | None = None
) -> None:
    """End a condition that stands."""
    onset = state.standing.pop(kind)
    state.shown.pop(kind, None)
    state.due.pop(kind, None)
    out.append(Condition(kind, False, onset, at, detail=detail or (f"{by} stands for it" if by else ""), by=by))


def switch_off(state: RuleState, off: Set[Kind]) -> None:
    """Forget the standing conditions of kinds that were switched off; whoever keeps the alarms ends these."""
    for kind in off & state.standing.keys():
        del state.standing[kind]
        state.shown.pop(kind, None)
        state.due.pop(kind, None)
        if kind is Kind.VTACH:
            state.verdict_vt = False


def hold(state: RuleState, kind: Kind, last: int) -> None:
    """Let a standing condition end its hold time after its last evidence."""
    if kind in state.standing:
        set_due(state, kind, last + _HOLD[kind])
