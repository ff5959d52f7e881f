"""Technical rules: lead off, no data, noise, battery; what a blind signal does to the other rules.

LEADS_OFF comes with the first block without contact and goes after 2 s with it. NO_DATA comes after `no_data_s`
without a frame or without a valid sample and goes with the first. NOISY comes with `noisy_s` of noise in the last
`noisy_of_s` and goes with `noisy_back_s` or less. While the signal is blind no beat counts, ASYSTOLE and PAUSE wait,
and verdicts say nothing. After `BLIND_END` of it the standing conditions that nobody can judge any more end and say
so, except the lethal ones: these stand until there is evidence of their end. While no frame comes nobody knows yet
whether samples are missing, for what a cut network held up is judged as if it had come in time: so silence ends them
after `SILENT_END_S` only.
"""

from __future__ import annotations

from typing import Final

from alerts.limits import Limits
from alerts.model import LETHAL, RATE, TECHNICAL, Condition, Kind, Note, Quality, Silence
from alerts.rules_shapes import forget_shapes
from alerts.rules_state import NEVER, SHORT_BLIND, RuleState, begin, end, forget_rate, hold, set_peak, set_seen

BLOCK: Final = RATE // 5
"""Samples in a block of the signal path (0.2 s); flags are those of one block."""
LEADS_BACK: Final = 2 * RATE
BLIND_END: Final = 10 * RATE
SILENT_END_S: Final = 60.0
BLINDED: Final = "heart rate, beats and rhythm can't be judged"


def on_quality(state: RuleState, quality: Quality, limits: Limits, out: list[Condition]) -> None:
    """Take in a change of the flags."""
    at = quality.end
    first = max(at - BLOCK, state.start)
    if quality.lead != state.lead:
        forget_shapes(state)
    state.lead = quality.lead
    if quality.lead_off != state.lead_off:
        state.lead_off = quality.lead_off
        _leads(state, first, at, limits, out)
    if quality.missing != state.missing:
        state.missing = quality.missing
        if quality.missing:
            set_seen(state, "missing", first + round(limits.no_data_s * RATE))
        else:
            state.due_seen.pop("missing", None)
            _data_back(state, at, out)
    blind = quality.lead_off or quality.missing
    if blind and state.blind_from < 0:
        _go_blind(state, first)
    elif not blind and state.blind_from >= 0:
        _see(state, first, limits)
    noisy = len(state.noise) % 2 == 1
    if quality.noisy != noisy:
        state.noise.append(first)
        set_seen(state, "noise", at)


def on_jump(state: RuleState, since: int, start: int, limits: Limits, out: list[Condition]) -> None:
    """Take in that no sample is there from one index to another, where nobody filled the gap with blocks."""
    on_quality(state, Quality(since + BLOCK, state.lead, state.lead_off, True, False), limits, out)
    for key, due in sorted(state.due_seen.items(), key=lambda item: item[1]):
        if due <= start:
            del state.due_seen[key]
            seen_due(state, key, due, limits, out)
    on_quality(state, Quality(start + BLOCK, state.lead, False, False, False), limits, out)


def _leads(state: RuleState, first: int, at: int, limits: Limits, out: list[Condition]) -> None:
    if state.lead_off:
        state.due_seen.pop("leads", None)
        begin(state, limits, out, Kind.LEADS_OFF, first, at, detail=f"no contact on {state.lead}: {BLINDED}")
    elif Kind.LEADS_OFF in state.standing:
        set_seen(state, "leads", first + LEADS_BACK)


def _go_blind(state: RuleState, first: int) -> None:
    state.blind_from = first
    set_seen(state, "blind", first + BLIND_END)
    due = state.due_peak.get("asystole", NEVER)
    state.asystole_left = 0
    if first < due < NEVER:
        state.asystole_left = due - first
        del state.due_peak["asystole"]
    if state.due_peak.get("pause", 0) > first:
        del state.due_peak["pause"]


def _see(state: RuleState, first: int, limits: Limits) -> None:
    since = state.blind_from
    # Stretches close together count as one: beats between them that are still to come lie next to a gap.
    if state.dark_to < 0 or since - state.dark_to > SHORT_BLIND:
        state.dark_from = since
    state.dark_last, state.dark_to = since, first
    state.blind_from = -1
    state.due_seen.pop("blind", None)
    if first - since > SHORT_BLIND:
        set_peak(state, "asystole", first + round(limits.asystole_s * RATE))
    elif state.asystole_left:
        set_peak(state, "asystole", first + state.asystole_left)
    elif "asystole" not in state.due_peak:
        set_peak(state, "asystole", first + round(limits.asystole_s * RATE))


def on_silence(state: RuleState, silence: Silence, limits: Limits, out: list[Condition]) -> None:
    """Take in how long no frame has come."""
    if silence.seconds >= limits.no_data_s:
        state.silent = True
        begin(
            state,
            limits,
            out,
            Kind.NO_DATA,
            silence.at,
            silence.at,
            value=silence.seconds,
            limit=limits.no_data_s,
            detail=f"no data for {silence.seconds:.0f} s: {BLINDED}",
            step=NEVER,
        )
        if silence.seconds >= SILENT_END_S:
            _end_blind(state, silence.at, out)
    elif silence.seconds == 0 and state.silent:
        state.silent = False
        _data_back(state, silence.at, out)


def _data_back(state: RuleState, at: int, out: list[Condition]) -> None:
    if Kind.NO_DATA in state.standing and not (state.missing or state.silent):
        end(state, out, Kind.NO_DATA, at, "data are back")


def _end_blind(state: RuleState, at: int, out: list[Condition]) -> None:
    forget_rate(state)
    for kind in list(state.standing):
        if kind not in LETHAL and kind not in TECHNICAL:
            end(state, out, kind, at, "the signal is lost, so this can't be judged any more")


def seen_due(state: RuleState, key: str, due: int, limits: Limits, out: list[Condition]) -> None:
    """Act on a deadline in the time line of samples."""
    if key == "leads":
        if Kind.LEADS_OFF in state.standing:
            end(state, out, Kind.LEADS_OFF, due, f"contact on {state.lead} is back")
    elif key == "missing":
        begin(
            state,
            limits,
            out,
            Kind.NO_DATA,
            due - round(limits.no_data_s * RATE),
            due,
            value=limits.no_data_s,
            limit=limits.no_data_s,
            detail=f"no valid sample for {limits.no_data_s:g} s: {BLINDED}",
            step=NEVER,
        )
    elif key == "blind":
        _end_blind(state, due, out)
    else:
        _noise_due(state, due, limits, out)


def _noise_due(state: RuleState, at: int, limits: Limits, out: list[Condition]) -> None:
    window = round(limits.noisy_of_s * RATE)
    since = at - window
    noise = state.noise
    while len(noise) >= 2 and noise[1] <= since:
        del noise[:2]
    bounds = [*noise, at] if len(noise) % 2 else noise
    total = sum(b - max(a, since) for a, b in zip(bounds[::2], bounds[1::2], strict=True))
    enough, little = round(limits.noisy_s * RATE), round(limits.noisy_back_s * RATE)
    standing = Kind.NOISY in state.standing
    if not standing and total >= enough:
        standing = begin(
            state,
            limits,
            out,
            Kind.NOISY,
            max(noise[0], since),
            at,
            value=total / RATE,
            limit=limits.noisy_s,
            detail=f"noise for {total / RATE:.0f} s of {limits.noisy_of_s:g} s: beats and rhythm are doubtful",
        )
    elif standing and total <= little:
        standing = False
        end(state, out, Kind.NOISY, at, f"noise for {total / RATE:.0f} s of {limits.noisy_of_s:g} s")
    # The total moves by at most one sample a sample, so it can't reach the other bound before this.
    if standing:
        set_seen(state, "noise", at + max(total - little, 1))
    elif len(noise) % 2:
        set_seen(state, "noise", at + max(enough - total, 1))


def on_note(state: RuleState, note: Note, limits: Limits, out: list[Condition]) -> None:
    """Take in what the device said of itself."""
    if note.name == "button":
        if begin(state, limits, out, Kind.PATIENT_BUTTON, note.at, note.at, detail="the patient pressed the button"):
            hold(state, Kind.PATIENT_BUTTON, note.at)
    elif note.name == "battery":
        if note.value <= limits.battery:
            begin(
                state,
                limits,
                out,
                Kind.BATTERY,
                note.at,
                note.at,
                value=note.value,
                limit=limits.battery,
                detail=f"battery at {note.value:.0f} %, limit {limits.battery:g} %",
                step=5.0,
            )
        elif Kind.BATTERY in state.standing and note.value >= limits.battery + limits.battery_back:
            end(state, out, Kind.BATTERY, note.at, f"battery at {note.value:.0f} %")
