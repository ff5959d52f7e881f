"""Rules: evidence in, conditions out; exact deadlines, chaining, hysteresis, blindness."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from alerts.limits import ADULT, HIGHER, KINDS, PROFILES, Limits, LimitsError, changed
from alerts.model import (
    LETHAL,
    Beat,
    Condition,
    Evidence,
    Horizon,
    Kind,
    Note,
    Peak,
    Priority,
    Quality,
    Rhythm,
    Silence,
)
from alerts.rules import RuleState, fold, in_order, jump, known_at, new_state, pvc_per_minute, step

FS, BLOCK, DELAY = 250, 50, 150


def block_after(index: int) -> int:
    """End of the first block that ends after `index`."""
    return (index // BLOCK + 1) * BLOCK


def beat(r: int, code: str = "N", p: float = 0.95, shape: int = 0) -> Beat:
    """Make a beat decided as the detector does it, DELAY after R at the latest."""
    return Beat(r, block_after(r + 100), code, p, shape)


def beats(codes: str, rr: float | Sequence[float] = 0.8, start: float = 0.4, p: float = 0.95) -> list[Beat]:
    """Beats with these codes, `rr` s apart, the first at `start` s."""
    steps = [rr] * len(codes) if isinstance(rr, int | float) else list(rr)
    out, at = [], start
    for code, interval in zip(codes, steps, strict=True):
        out.append(beat(round(at * FS), code, p))
        at += interval
    return out


def verdicts(code: str, first: int, last: int, p: float = 0.7) -> list[Rhythm]:
    """Give a verdict at each full second from `first` to `last`."""
    return [Rhythm(second * FS, code, p) for second in range(first, last + 1)]


def until(seconds: float) -> Horizon:
    """Everything up to a time is seen."""
    return Horizon(round(seconds * FS) - DELAY, round(seconds * FS))


def run(
    evidence: Iterable[Evidence], limits: Limits = ADULT, state: RuleState | None = None
) -> tuple[list[Condition], RuleState]:
    """Take in evidence, sorted."""
    if state is None:
        state = new_state(DELAY, limits)
    return fold(state, evidence, limits), state


def starts(conditions: Iterable[Condition], kind: Kind | None = None) -> list[Condition]:
    """Pick beginnings (and new values) of a kind."""
    return [c for c in conditions if c.on and (kind is None or c.kind is kind)]


def ends(conditions: Iterable[Condition], kind: Kind) -> list[Condition]:
    """Pick the ends of a kind."""
    return [c for c in conditions if not c.on and c.kind is kind]


# --- asystole and pause ------------------------------------------------------------------------------------------


def test_asystole_comes_exactly_four_seconds_after_the_last_beat():
    """Onset is the last R peak, `at` the deadline plus the detector's delay, wherever the horizon stands."""
    last = beats("NNNNNNNNNN")[-1].r
    conditions, _ = run([*beats("NNNNNNNNNN"), until(30)])
    (asystole,) = starts(conditions, Kind.ASYSTOLE)
    assert (asystole.onset, asystole.at) == (last, last + 4 * FS + DELAY)
    assert "4 s" in asystole.detail


def test_pause_gives_way_to_asystole():
    """PAUSE comes first and ends as ASYSTOLE stands for it."""
    conditions, _ = run([*beats("NNNNNN"), until(20)])
    assert [(c.kind, c.on) for c in conditions] == [
        (Kind.PAUSE, True),
        (Kind.ASYSTOLE, True),
        (Kind.PAUSE, False),
    ]
    assert conditions[2].by is Kind.ASYSTOLE


def test_pause_tells_its_true_length_when_the_next_beat_has_come():
    """A pause of 3 s is raised at 2.5 s, then its value is corrected; it ends 10 s after the deadline."""
    conditions, _ = run([*beats("NNNNNNNNNNNNNNNNNNN", [0.8] * 4 + [3.0] + [0.8] * 14), until(18)])
    pauses = [c for c in conditions if c.kind is Kind.PAUSE]
    assert [(c.on, c.value) for c in pauses] == [(True, 2.5), (True, 3.0), (False, None)]
    assert pauses[2].at == pauses[0].onset + round(2.5 * FS) + 10 * FS + DELAY


def test_one_invented_beat_does_not_end_asystole():
    """A single peak in the line leaves ASYSTOLE; two that follow each other end it."""
    lone = [*beats("NNNNN"), beat(12 * FS), until(15)]
    conditions, state = run(lone)
    assert not ends(conditions, Kind.ASYSTOLE)
    conditions, _ = run([beat(16 * FS), beat(16 * FS + 200)], state=state)
    assert len(ends(conditions, Kind.ASYSTOLE)) == 1


def test_no_asystole_while_lead_is_off():
    """A blind signal says LEADS_OFF and what it makes blind; the time without QRS starts anew afterwards."""
    off, back = 6 * FS, 30 * FS
    conditions, _ = run(
        [
            *beats("NNNNNN"),
            Quality(off, "MLII", True, False, False),
            Quality(back, "MLII", False, False, False),
            until(33),
        ]
    )
    assert [c.kind for c in starts(conditions)] == [Kind.LEADS_OFF]
    assert "can't be judged" in starts(conditions)[0].detail
    assert ends(conditions, Kind.LEADS_OFF)[0].at == back - BLOCK + 2 * FS
    conditions, _ = run(
        [
            *beats("NNNNNN"),
            Quality(off, "MLII", True, False, False),
            Quality(back, "MLII", False, False, False),
            until(60),
        ]
    )
    assert starts(conditions, Kind.ASYSTOLE)[0].at == back - BLOCK + 4 * FS + DELAY


def test_short_losses_only_stop_the_clock_of_asystole():
    """With 0.2 s missing in each 2 s, asystole is found after 4 s of signal that could be used."""
    evidence: list[Evidence] = [*beats("NNNNNN")]
    for second in range(6, 30, 2):
        evidence += [
            Quality(second * FS, "MLII", False, True, False),
            Quality(second * FS + BLOCK, "MLII", False, False, False),
        ]
    conditions, _ = run([*evidence, until(30)])
    last = beats("NNNNNN")[-1].r
    assert starts(conditions, Kind.ASYSTOLE)[0].at == last + 4 * FS + 2 * BLOCK + DELAY


def test_noise_hides_beats_so_asystole_waits_for_its_end():
    """While noise covers the time without a beat nothing is said; a second after enough of it is clean, it is."""
    noisy = Quality(8 * FS, "MLII", False, False, True)
    clean = Quality(20 * FS, "MLII", False, False, False)
    conditions, _ = run([*beats("NNNNNNNNN"), noisy, until(19)])
    assert not starts(conditions, Kind.ASYSTOLE)
    assert not starts(conditions, Kind.PAUSE)
    conditions, _ = run([*beats("NNNNNNNNN"), noisy, clean, until(40)])
    (asystole,) = starts(conditions, Kind.ASYSTOLE)
    assert 22 * FS <= asystole.at - DELAY <= 24 * FS


def test_activity_that_may_hide_beats_delays_asystole_but_never_for_ever():
    """A lively signal without a beat is given 20 s; a quiet one is asystole after 4 s."""
    lively = [Rhythm(second * FS, "N", 0.9, 0.6) for second in range(8, 45)]
    conditions, _ = run([*beats("NNNNNNNNN"), *lively, until(45)])
    (asystole,) = starts(conditions, Kind.ASYSTOLE)
    last = beats("NNNNNNNNN")[-1].r
    assert asystole.at == last + 20 * FS + DELAY
    quiet = [Rhythm(second * FS, "N", 0.9, 0.1) for second in range(8, 45)]
    conditions, _ = run([*beats("NNNNNNNNN"), *quiet, until(45)])
    assert starts(conditions, Kind.ASYSTOLE)[0].at == last + 4 * FS + DELAY


def test_no_asystole_while_fibrillation_is_the_verdict():
    """VF without detected beats is VFIB alone; ASYSTOLE comes when the fibrillation has ended without beats."""
    evidence = [*beats("NNNNNN"), *verdicts("N", 1, 5), *verdicts("VFL", 6, 20), *verdicts("N", 21, 40), until(40)]
    conditions, _ = run(evidence)
    lethal = [(c.kind, c.on) for c in conditions if c.kind in (Kind.VFIB, Kind.ASYSTOLE)]
    assert lethal == [(Kind.VFIB, True), (Kind.VFIB, False), (Kind.ASYSTOLE, True)]
    assert starts(conditions, Kind.VFIB)[0].at == 9 * FS
    assert starts(conditions, Kind.VFIB)[0].onset == 5 * FS


def test_a_stream_without_any_beat_is_asystole_after_the_settling_time():
    """The first beat never comes: raised once, from the first sample."""
    conditions, _ = run([until(60)])
    (asystole,) = starts(conditions)
    assert (asystole.kind, asystole.onset, asystole.at) == (Kind.ASYSTOLE, 0, 8 * FS + DELAY)


SLOW = 400
"""Delay of classified beats where R peaks come earlier, with `DELAY`."""


def peaks(evidence: Iterable[Evidence]) -> list[Evidence]:
    """Tell R peaks when the detector knows them, and their beats `SLOW` less `DELAY` samples later."""
    out: list[Evidence] = []
    for item in evidence:
        if isinstance(item, Beat):
            out += [Peak(item.r, item.decided), structs.replace(item, decided=item.decided + SLOW - DELAY)]
        else:
            out.append(item)
    return out


def beside(first: float, last: float, rr: float = 0.8) -> list[Peak]:
    """R peaks on a lead that is not analysed."""
    times = [round((first + k * rr) * FS) for k in range(int((last - first) / rr) + 1)]
    return [Peak(r, block_after(r + 100), beside=True) for r in times]


def early() -> RuleState:
    """Make rules that get R peaks before their beats."""
    return new_state(SLOW, ADULT, peak_delay=DELAY)


def test_asystole_does_not_wait_for_the_class_of_a_beat():
    """With R peaks of their own PAUSE and ASYSTOLE come as early as the detector can tell."""
    known = beats("NNNNNNNNNN")
    conditions, _ = run([*peaks(known), Horizon(30 * FS - SLOW, 30 * FS)], state=early())
    (asystole,) = starts(conditions, Kind.ASYSTOLE)
    (pause,) = starts(conditions, Kind.PAUSE)
    assert asystole.at == known[-1].r + 4 * FS + DELAY
    assert pause.at == known[-1].r + round(2.5 * FS) + DELAY


def test_beats_on_another_lead_stand_against_asystole_but_not_for_ever():
    """A dead lead beside a living one is no asystole for 30 s; one that stops with it does not hold it back."""
    known = beats("NNNNNNNNNN")
    last = known[-1].r
    through, _ = run([*peaks(known), *beside(0.4, 30), Horizon(30 * FS - SLOW, 30 * FS)], state=early())
    assert not starts(through, Kind.ASYSTOLE)
    assert not starts(through, Kind.PAUSE)
    stuck, _ = run([*peaks(known), *beside(0.4, 60), Horizon(60 * FS - SLOW, 60 * FS)], state=early())
    assert starts(stuck, Kind.ASYSTOLE)[0].at == last + 30 * FS + DELAY
    both, _ = run([*peaks(known), *beside(0.4, last / FS), Horizon(30 * FS - SLOW, 30 * FS)], state=early())
    assert starts(both, Kind.ASYSTOLE)[0].at == last + 4 * FS + DELAY


# --- rates -------------------------------------------------------------------------------------------------------


def test_tachycardia_needs_ten_seconds_and_has_hysteresis():
    """HR 134 is TACHY after 10 s, still on at 117, off after 10 s at 109."""
    fast, slower, slow = 60 / 134, 60 / 117, 60 / 109
    evidence = [
        *beats("N" * 80, [fast] * 30 + [slower] * 15 + [slow] * 35),
    ]
    conditions, _ = run(evidence)
    tachy = [c for c in conditions if c.kind is Kind.TACHY]
    assert [c.on for c in tachy] == [True] * (len(tachy) - 1) + [False]
    first = beats("N" * 5, fast)[-1].r
    assert tachy[0].at == first + 10 * FS + DELAY
    assert (tachy[0].value, tachy[0].limit, tachy[0].onset) == (134.0, 120.0, beats("N", fast)[0].r)
    assert tachy[0].detail == "HR 134 > 120, mean of 4 RR"
    assert tachy[-1].at > (30 * fast + 15 * slower + 10) * FS


def test_a_rate_that_swings_round_its_limit_is_one_alarm():
    """In AF the mean of 4 RR falls under the lower limit for a moment: EXTREME_TACHY stands on."""
    conditions, state = run(beats("N" * 120, ([60 / 190] * 12 + [60 / 130] * 8) * 6))
    assert len({c.onset for c in starts(conditions, Kind.EXTREME_TACHY)}) == 1
    assert Kind.EXTREME_TACHY in state.standing


def test_extreme_rate_stands_for_the_plain_one():
    """HR 180 is EXTREME_TACHY at once and never TACHY beside it; below 150 TACHY is on again."""
    evidence = [*beats("N" * 120, [60 / 180] * 60 + [60 / 140] * 60)]
    conditions, state = run(evidence)
    assert starts(conditions)[0].kind is Kind.EXTREME_TACHY
    tachy, extreme_end = starts(conditions, Kind.TACHY)[0], ends(conditions, Kind.EXTREME_TACHY)[0]
    assert tachy.at >= extreme_end.at
    assert set(state.standing) == {Kind.TACHY}


def test_bradycardia_and_extreme_bradycardia():
    """HR 45 is BRADY after 10 s; HR 30 is EXTREME_BRADY at once, which ends BRADY."""
    conditions, state = run([*beats("N" * 30, [60 / 45] * 20 + [60 / 30] * 10)])
    assert starts(conditions)[0].kind is Kind.BRADY
    (extreme,) = starts(conditions, Kind.EXTREME_BRADY)
    (plain,) = ends(conditions, Kind.BRADY)
    assert (plain.by, plain.at) == (Kind.EXTREME_BRADY, extreme.at)
    assert set(state.standing) == {Kind.EXTREME_BRADY}


def test_no_rate_across_a_gap():
    """Beats on both sides of a loss give no interval, and after a long one the rate is unknown."""
    late = beats("NNNN", start=40.0)
    evidence = [
        *beats("NNNNNNNN"),
        Quality(8 * FS, "MLII", False, True, False),
        Quality(39 * FS, "MLII", False, False, False),
        *late,
    ]
    conditions, state = run(evidence)
    assert {c.kind for c in conditions} == {Kind.NO_DATA}
    assert state.hr == 0.0


def test_beats_in_a_blind_stretch_are_left_out_and_counted():
    """A beat that the detector reports from lead-off gives neither rate nor alarm."""
    invented = [beat(r, "V") for r in range(10 * FS, 14 * FS, 60)]
    conditions, state = run([*beats("NNNNN"), Quality(5 * FS, "II", True, False, False), *invented, until(16)])
    assert state.ignored == len(invented)
    assert not [c for c in conditions if c.kind not in (Kind.LEADS_OFF,)]


def test_standing_rate_alarm_ends_when_nobody_can_judge_it():
    """Ten seconds after the lead fell off TACHY ends and says why."""
    conditions, _ = run([*beats("N" * 60, 0.4), Quality(24 * FS, "II", True, False, False), until(50)])
    (gone,) = ends(conditions, Kind.TACHY)
    assert gone.at == 24 * FS - BLOCK + 10 * FS
    assert "can't be judged" in gone.detail


# --- ectopic beats -----------------------------------------------------------------------------------------------


def test_five_fast_ventricular_beats_are_ventricular_tachycardia():
    """Raised with the fifth beat, from the first, in the words for staff; a single alarm for the run."""
    rr = 60 / 152
    evidence = beats("NNNNN" + "VVVVVVV" + "NNNNNNNNNN", [0.8] * 5 + [rr] * 7 + [0.8] * 10)
    conditions, _ = run([*evidence, until(25)])
    (tachycardia,) = starts(conditions, Kind.VTACH)
    assert tachycardia.onset == evidence[5].r
    assert tachycardia.at == evidence[9].decided
    assert tachycardia.detail == "5 ventricular beats at 152/min, limit 5 at 100/min"
    assert ends(conditions, Kind.VTACH)[0].at == evidence[11].r + 5 * FS + DELAY
    assert not starts(conditions, Kind.NSVT)
    assert not starts(conditions, Kind.PVC_PAIR)


@pytest.mark.parametrize(
    ("codes", "rr", "kind"),
    [
        ("NNNVNNN", 0.45, None),
        ("NNNVVNNN", 0.45, Kind.PVC_PAIR),
        ("NNNVVVNNN", 0.45, Kind.NSVT),
        ("NNNVVVVNNN", 0.45, Kind.NSVT),
        ("NNNVVVVVNN", 0.45, Kind.VTACH),
        ("NNNVVVVVNN", 0.7, Kind.PVC_PAIR),
        ("NNN" + "V" * 16, 0.8, Kind.VENT_RHYTHM),
        ("NNNAAAAANN", 0.4, Kind.SVT),
        ("NNNAAAANNN", 0.4, None),
    ],
)
def test_runs(codes: str, rr: float, kind: Kind | None):
    """Length and rate of a run decide what it is called."""
    conditions, _ = run([*beats(codes, rr), until(30)], Limits(off=frozenset({Kind.ASYSTOLE, Kind.PAUSE})))
    kinds = [c.kind for c in starts(conditions) if c.kind not in (Kind.R_ON_T, Kind.TACHY, Kind.PVC_RATE)]
    assert kinds == ([kind] if kind else [])


def test_unsure_ventricular_beats_are_no_lethal_alarm():
    """Five V of probability 0.5 are told as NSVT, not as VTACH."""
    conditions, _ = run([*beats("VVVVVV", 0.4, p=0.5), *beats("NNNN", start=4.0)])
    assert {c.kind for c in starts(conditions)} & {Kind.VTACH, Kind.NSVT} == {Kind.NSVT}


def test_run_that_becomes_fast_later():
    """Ten slow V, then fast ones: VTACH when five in a row are fast in the mean, from the first of these."""
    evidence = beats("N" * 4 + "V" * 16, [0.8] * 14 + [0.4] * 6)
    conditions, _ = run(evidence)
    tachycardia = starts(conditions, Kind.VTACH)[0]
    assert tachycardia.at == evidence[16].decided
    assert tachycardia.onset == evidence[12].r


def test_bigeminy_and_trigeminy():
    """Three cycles in a row, not two; a broken pattern starts anew."""
    conditions, _ = run(beats("NNNVNVNNNVNVN"))
    assert not starts(conditions, Kind.BIGEMINY)
    conditions, _ = run(beats("NNNNVNVNVN"))
    assert len(starts(conditions, Kind.BIGEMINY)) == 1
    conditions, _ = run(beats("NNNNVNNVNNVN"))
    assert [c.kind for c in starts(conditions)] == [Kind.TRIGEMINY]


def test_many_ventricular_beats_a_minute():
    """The tenth within a minute raises PVC_RATE; it ends when fewer than seven are left."""
    codes = "NNNNV" * 10 + "N" * 90
    evidence = beats(codes)
    conditions, state = run(evidence)
    (first, *_) = starts(conditions, Kind.PVC_RATE)
    assert first.at == evidence[49].decided
    assert first.value == 10
    assert ends(conditions, Kind.PVC_RATE)[0].at == evidence[19].r + 60 * FS + DELAY
    assert pvc_per_minute(state, evidence[49].r) == 10


def test_r_on_t_and_multiform():
    """A V 240 ms after the beat before lies on its T wave; two shapes within a minute are multiform."""
    conditions, _ = run([*beats("NNNNNNV", [0.8] * 5 + [0.24, 0.8])])
    assert [c.kind for c in starts(conditions)] == [Kind.R_ON_T]
    two = [*beats("NNNN"), beat(1000, "V", shape=1), beat(1300, "N"), beat(1500, "V", shape=2)]
    conditions, _ = run(two)
    assert [c.kind for c in starts(conditions)] == [Kind.MULTIFORM]


# --- rhythm verdicts ---------------------------------------------------------------------------------------------


def test_three_sure_verdicts_are_an_alarm_and_two_are_not():
    """Each looks at 4 s: three that are sure raise VFIB, one of them unsure delays it by a second."""
    (sure,) = starts(run([*verdicts("VFL", 5, 8, 0.9)])[0], Kind.VFIB)
    assert (sure.onset, sure.at) == (4 * FS, 7 * FS)
    assert "sure" in sure.detail
    assert not run(verdicts("VFL", 5, 6, 1.0))[0]
    doubted = [*verdicts("VFL", 5, 5, 0.5), *verdicts("VFL", 6, 9, 0.9)]
    assert starts(run(doubted)[0], Kind.VFIB)[0].at == 8 * FS


def test_three_seconds_of_flutter_are_no_alarm():
    """Four verdicts in a row are needed; a hole in the row starts it anew."""
    conditions, _ = run([*verdicts("VFL", 1, 3), *verdicts("N", 4, 4), *verdicts("VFL", 5, 7)])
    assert not conditions
    conditions, _ = run([*verdicts("VFL", 1, 3), *verdicts("VFL", 6, 8)])
    assert not conditions


def test_tachycardia_by_verdict_unless_the_beats_say_otherwise():
    """The window classifier alone raises VTACH where no beats are found, not against plain normal beats."""
    conditions, _ = run(verdicts("VT", 1, 4))
    assert [c.kind for c in starts(conditions)] == [Kind.VTACH]
    conditions, _ = run([*beats("N" * 20), *verdicts("VT", 4, 14)])
    assert not conditions
    conditions, _ = run([*beats("L" * 36, 0.4), *verdicts("VT", 2, 7)])
    assert Kind.VTACH in {c.kind for c in starts(conditions)}


def test_flutter_verdict_against_regular_normal_beats_is_not_believed():
    """Motion that looks like VF over a regular rhythm raises nothing; irregular peaks do not contradict."""
    conditions, _ = run([*beats("N" * 20), *verdicts("VFL", 4, 14)])
    assert not conditions
    rng = random.Random(3)
    chaos = beats("N" * 40, [rng.uniform(0.2, 0.6) for _ in range(40)])
    conditions, _ = run([*chaos, *verdicts("VFL", 4, 14)])
    assert Kind.VFIB in {c.kind for c in starts(conditions)}


def test_fibrillation_stands_for_tachycardia():
    """VTACH, then VFIB: the first ends because the second stands for it, and no rate alarm comes beside it."""
    evidence = [
        *beats("N" * 5 + "V" * 10, [0.8] * 5 + [0.35] * 10),
        *verdicts("VT", 6, 9),
        *verdicts("VFL", 10, 20),
        until(20),
    ]
    conditions, state = run(evidence)
    (gone,) = ends(conditions, Kind.VTACH)
    assert gone.by is Kind.VFIB
    assert set(state.standing) == {Kind.VFIB}


def test_verdicts_of_a_blind_signal_say_nothing():
    """VF verdicts with the lead off raise no alarm and end none."""
    conditions, state = run(
        [
            *verdicts("VFL", 1, 6),
            Quality(6 * FS + BLOCK, "II", True, False, False),
            *verdicts("N", 7, 30),
            until(30),
        ]
    )
    assert not ends(conditions, Kind.VFIB)
    assert set(state.standing) == {Kind.VFIB, Kind.LEADS_OFF}


def test_atrial_fibrillation_after_a_minute_and_off_after_a_minute_without():
    """On at 60 s of verdicts, short breaks allowed; off 60 s after the last; only with rate where AF is known."""
    evidence = [*verdicts("AFIB", 1, 30), *verdicts("N", 31, 33), *verdicts("AFIB", 34, 70), *verdicts("N", 71, 140)]
    quiet = dataclasses.replace(ADULT, off=frozenset({Kind.ASYSTOLE, Kind.PAUSE}))
    conditions, _ = run(evidence, quiet)
    assert [(c.kind, c.on, c.at) for c in conditions] == [
        (Kind.AFIB, True, 60 * FS),
        (Kind.AFIB, False, 130 * FS),
    ]
    known = dataclasses.replace(PROFILES["af"], off=quiet.off)
    assert run(evidence, known)[0] == []


# --- technical ---------------------------------------------------------------------------------------------------


def test_silence_and_missing_samples_are_no_data():
    """Ten seconds without a frame, or of samples that are not valid; both end with the first that is."""
    conditions, _ = run([Silence(500, 9.0), Silence(500, 10.0), Silence(500, 11.0), Silence(500, 0.0)])
    assert [(c.kind, c.on) for c in conditions] == [(Kind.NO_DATA, True), (Kind.NO_DATA, False)]
    conditions, _ = run([Quality(1000, "II", False, True, False), until(20), Quality(6000, "II", False, False, False)])
    assert [(c.kind, c.on, c.at) for c in conditions] == [
        (Kind.NO_DATA, True, 950 + 10 * FS),
        (Kind.NO_DATA, False, 6000),
    ]


def test_noise_for_twenty_of_thirty_seconds():
    """Two stretches that add up to 20 s within 30 s raise NOISY at the exact sample; it ends at 10 s or less."""
    flips = [(5, True), (15, False), (20, True), (40, False)]
    evidence = [Quality(second * FS + BLOCK, "II", False, False, noisy) for second, noisy in flips]
    conditions, _ = run([*evidence, until(90)], Limits(off=frozenset({Kind.ASYSTOLE})))
    assert [(c.kind, c.on, c.at) for c in conditions] == [
        (Kind.NOISY, True, 30 * FS),
        (Kind.NOISY, False, 60 * FS),
    ]


def test_button_and_battery():
    """A press is an alarm of 10 s; a battery at the limit is one until it is well above."""
    notes = [Note(100, "button"), Note(200, "battery", 20.0), Note(900, "battery", 23.0), Note(950, "battery", 26.0)]
    conditions, _ = run([*notes, until(14)], Limits(off=frozenset({Kind.ASYSTOLE})))
    assert [(c.kind, c.on) for c in conditions] == [
        (Kind.PATIENT_BUTTON, True),
        (Kind.BATTERY, True),
        (Kind.BATTERY, False),
        (Kind.PATIENT_BUTTON, False),
    ]


def test_nothing_is_judged_over_a_gap_that_nobody_filled():
    """Two minutes that never came are NO_DATA, neither asystole nor pause nor bradycardia."""
    _, state = run([*beats("N" * 10), until(10)])
    conditions = jump(state, 10 * FS, 130 * FS, ADULT)
    more, state = run([*beats("N" * 10, start=130.5), until(140)], state=state)
    assert [(c.kind, c.on) for c in [*conditions, *more]] == [(Kind.NO_DATA, True), (Kind.NO_DATA, False)]
    assert state.hr == pytest.approx(75, abs=1)


# --- limits ------------------------------------------------------------------------------------------------------


def test_every_kind_has_its_row_and_chains_lead_upwards():
    """The table is complete, and what stands for a kind is never of a lower priority."""
    assert set(KINDS) == set(Kind)
    for low, highs in HIGHER.items():
        assert all(KINDS[high].priority >= KINDS[low].priority for high in highs)
        assert low not in highs


def test_limits_are_checked_as_a_set():
    """All contradictions are told at once, in words."""
    with pytest.raises(LimitsError) as caught:
        Limits(brady=119.0, extreme_tachy=1000.0, battery=float("nan"))
    text = str(caught.value)
    assert "brady = 119 must lie below tachy = 120" in text
    assert "extreme_tachy = 1000 is outside" in text
    assert "battery = nan" in text


def test_changes_of_limits_by_staff():
    """Values by name; unknown names, wrong types and fractions of beats are refused in words."""
    new = changed(ADULT, {"tachy": 130, "PVC_RATE": False, "afib_with_rate": True, "vtach_beats": 6.0})
    assert (new.tachy, new.vtach_beats, new.off) == (130.0, 6, frozenset({Kind.PVC_RATE}))
    assert changed(new, {"PVC_RATE": True}).off == frozenset()
    for values in (
        {"no_such": 1.0},
        {"tachy": "fast"},
        {"tachy": True},
        {"vtach_beats": 5.5},
        {"ASYSTOLE": 1.0},
        {"afib_with_rate": 1.0},
        {"pvc_per_min": float("inf")},
        {"brady": 200.0},
    ):
        with pytest.raises(LimitsError):
            changed(ADULT, values)


def test_a_kind_switched_off_is_silent_and_lower_ones_stay():
    """Without VTACH a run of seven is told as NSVT."""
    off = changed(ADULT, {"VTACH": False})
    conditions, _ = run(beats("NNNVVVVVVVNN", 0.45), off)
    assert {c.kind for c in starts(conditions)} >= {Kind.NSVT}
    assert Kind.VTACH not in {c.kind for c in conditions}
    assert KINDS[Kind.VTACH].priority is Priority.HIGH


# --- what is usual in a patient ----------------------------------------------------------------------------------


def shaped(codes: str, shapes: Sequence[int], rr: float, start: float) -> list[Beat]:
    """Beats with these codes and shapes, `rr` s apart."""
    return [structs.replace(b, shape=k) for b, k in zip(beats(codes, rr, start), shapes, strict=True)]


def test_wide_beats_as_the_patient_always_has_them_are_no_tachycardia():
    """300 paced beats at 104/min, then six that the network calls V: same shape, same rate, nothing lethal."""
    rr = 60 / 104
    usual = shaped("/" * 300, [1] * 300, rr, 0.4)
    again = shaped("V" * 6, [1] * 6, rr, 0.4 + 300 * rr)
    assert not starts(run([*usual, *again])[0], Kind.VTACH)
    other = shaped("V" * 6, [2] * 6, rr, 0.4 + 300 * rr)
    assert len(starts(run([*usual, *other])[0], Kind.VTACH)) == 1
    faster = shaped("V" * 6, [1] * 6, 0.4, 0.4 + 300 * rr)
    assert len(starts(run([*usual, *faster])[0], Kind.VTACH)) == 1


def test_a_verdict_of_tachycardia_is_not_believed_against_usual_beats_at_a_usual_rate():
    """Paced beats at 70/min called V do not bear a verdict of VT out, nor do others at that pace; faster ones do."""
    rr = 60 / 70
    usual = shaped("/" * 250, [1] * 250, rr, 0.4)
    end = 0.4 + 250 * rr
    said = verdicts("VT", round(end) + 3, round(end) + 10)
    same = shaped("V" * 16, [1] * 16, rr, end)
    assert not starts(run([*usual, *same, *said])[0], Kind.VTACH)
    pace = shaped("V" * 16, [2] * 16, rr, end)
    assert not starts(run([*usual, *pace, *said])[0], Kind.VTACH)
    new = shaped("V" * 30, [2] * 30, 0.45, end)
    assert len(starts(run([*usual, *new, *said])[0], Kind.VTACH)) == 1


def test_shapes_are_forgotten_with_the_lead():
    """What was usual on one lead says nothing on another."""
    rr = 60 / 104
    usual = shaped("/" * 300, [1] * 300, rr, 0.4)
    there = Quality(usual[0].decided, "II", False, False, False)
    here = Quality(usual[-1].decided, "V1", False, False, False)
    again = shaped("V" * 6, [1] * 6, rr, 0.4 + 300 * rr)
    assert len(starts(run([there, *usual, here, *again])[0], Kind.VTACH)) == 1


def test_a_run_in_noise_must_repeat_itself():
    """Five V of four shapes in noise are no VTACH; five alike are, and so are five unlike ones without noise."""
    noisy = Quality(12 * FS, "II", False, False, True)
    before = beats("N" * 18)
    mixed = shaped("V" * 6, [3, 4, 5, 6, 3, 4], 0.45, 14.8)
    alike = shaped("V" * 6, [3, 3, 3, 3, 3, 3], 0.45, 14.8)
    assert not starts(run([noisy, *before, *mixed])[0], Kind.VTACH)
    assert len(starts(run([noisy, *before, *alike])[0], Kind.VTACH)) == 1
    assert len(starts(run([*before, *mixed])[0], Kind.VTACH)) == 1


# --- properties --------------------------------------------------------------------------------------------------


@st.composite
def streams(draw: st.DrawFn) -> list[Evidence]:
    """Draw a minute or two of arbitrary evidence, as a detector with DELAY would tell it."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    seconds = draw(st.integers(20, 120))
    wild = draw(st.floats(0, 1))
    evidence: list[Evidence] = []
    blind: list[tuple[int, int]] = []
    at, flags = 0, (False, False, False)
    while (at := at + BLOCK * rng.randint(1, 200)) < seconds * FS:
        new = (rng.random() < 0.3 * wild, rng.random() < 0.2 * wild, rng.random() < 0.5)
        if (new[0] or new[1]) and not (flags[0] or flags[1]):
            blind.append((at - BLOCK, seconds * FS))
        elif blind and (flags[0] or flags[1]) and not (new[0] or new[1]):
            blind[-1] = (blind[-1][0], at - BLOCK)
        flags = new
        evidence.append(Quality(at, "II", *flags))
    r, code = 50, "N"
    mean = rng.uniform(0.3, 2.0)
    while (r := r + max(50, round(rng.choice([mean, mean, mean, 0.35, 0.5, 3.0, 5.0 * wild]) * FS))) < seconds * FS:
        if rng.random() < 0.5:
            code = rng.choice("NNVVVAQFL")
        if not any(a <= r < b for a, b in blind):
            evidence.append(beat(r, code, rng.uniform(0.4, 1.0), rng.randint(0, 2)))
    verdict = "N"
    for second in range(1, seconds + 1):
        if rng.random() < 0.15:
            verdict = rng.choice(["N", "N", "AFIB", "VT", "VFL", "ASYS", "NOISE"])
        evidence.append(Rhythm(second * FS, verdict, 0.9))
    return evidence


def cut(evidence: list[Evidence], at: Sequence[int], seed: int, delay: int = DELAY) -> list[list[Evidence]]:
    """Chunks as a pipeline would give them: unsorted between the kinds, one horizon at the end of each."""
    rng = random.Random(seed)
    rest, chunks = in_order(evidence), []
    for end in at:
        mine = [item for item in rest if known_at(item) <= end]
        rest = rest[len(mine) :]
        groups = [[item for item in mine if type(item) is kind] for kind in (Beat, Peak, Rhythm, Quality)]
        groups.append([Horizon(end - delay, end)])
        rng.shuffle(groups)
        chunks.append([item for group in groups for item in group])
    assert not rest
    return chunks


@settings(max_examples=150, deadline=None)
@given(streams(), st.lists(st.integers(1, 1500), max_size=30), st.integers(0, 99), st.booleans())
def test_conditions_do_not_depend_on_chunks(evidence: list[Evidence], cuts: list[int], seed: int, ahead: bool):
    """Horizon at each block, at random places, or only once at the end: the same conditions, to the sample."""
    if ahead:
        rng = random.Random(seed)
        others = [item.r + rng.randint(-9, 9) for item in evidence if isinstance(item, Beat) and rng.random() < 0.7]
        evidence = peaks(evidence) + [Peak(r, block_after(r + 100), beside=True) for r in others]
    delay = SLOW if ahead else DELAY
    fresh = early if ahead else lambda: new_state(DELAY, ADULT)
    end = block_after(max(known_at(item) for item in evidence) + 20 * FS)
    whole, state = [], fresh()
    for chunk in cut(evidence, range(BLOCK, end + 1, BLOCK), seed, delay):
        for item in in_order(chunk):
            whole += step(state, item, ADULT)
    for places in ([end], sorted({min(place * BLOCK, end) for place in cuts} | {end})):
        other, restored = [], fresh()
        for chunk in cut(evidence, places, seed, delay):
            other += fold(restored, chunk, ADULT)
            restored = msgspec.msgpack.decode(msgspec.msgpack.encode(restored), type=RuleState)
        assert other == whole
        assert restored.standing == state.standing


@settings(max_examples=150, deadline=None)
@given(streams())
def test_conditions_form_a_legal_story(evidence: list[Evidence]):
    """Begin before end, identities used once, no evidence from the future, chains kept."""
    standing: dict[Kind, int] = {}
    seen: set[tuple[Kind, int]] = set()
    state = new_state(DELAY, ADULT)
    for chunk in cut(evidence, range(BLOCK, 140 * FS, BLOCK), 0):
        for condition in fold(state, chunk, ADULT):
            assert condition.onset <= condition.at <= max(map(known_at, chunk))
            assert condition.detail or not condition.on
            if not condition.on:
                assert standing.pop(condition.kind) == condition.onset
            elif condition.kind in standing:
                assert standing[condition.kind] == condition.onset
            else:
                assert (condition.kind, condition.onset) not in seen
                seen.add((condition.kind, condition.onset))
                standing[condition.kind] = condition.onset
        assert standing == state.standing
        for low, highs in HIGHER.items():
            assert low not in standing or not any(high in standing for high in highs)


@settings(max_examples=100, deadline=None)
@given(streams())
def test_asystole_is_never_missed_and_never_invented(evidence: list[Evidence]):
    """In a good signal without VF, ASYSTOLE begins in RR intervals of 4 s and more and nowhere else."""
    good = [item for item in evidence if isinstance(item, Beat)]
    conditions, _ = run([*good, until(150)])
    times = [item.r for item in good]
    long = [a for a, b in zip(times, [*times[1:], 150 * FS - DELAY], strict=False) if b - a >= 4 * FS]
    found = {c.onset for c in starts(conditions, Kind.ASYSTOLE)}
    assert found <= {0, *long}
    if times and long:
        assert long[0] in found or (times[0] >= 8 * FS)


# --- recordings --------------------------------------------------------------------------------------------------

SYMBOLS = {**dict.fromkeys("Njen", "N"), **dict.fromkeys("AaJS", "A"), **dict.fromkeys("VE", "V")}
SYMBOLS |= {"L": "L", "R": "R", "F": "F", "/": "/", "f": "/", "Q": "Q"}


@pytest.mark.data
@pytest.mark.parametrize(
    ("record", "lethal"),
    [("100", []), ("208", []), ("203", [(Kind.VTACH, 303), (Kind.VTACH, 1605)]), ("223", [(Kind.VTACH, 582)])],
)
def test_reference_beats_of_recordings(record: str, lethal: list[tuple[Kind, int]], data_dir: Path):
    """Beats as cardiologists marked them: the known runs are found where they are, and nothing lethal elsewhere."""
    marks = wfdb.rdann(str(data_dir / "mitdb" / record), "atr")
    found = [
        beat(round(sample * FS / 360), SYMBOLS[symbol])
        for sample, symbol in zip(marks.sample.tolist(), marks.symbol, strict=True)
        if symbol in SYMBOLS
    ]
    conditions, _ = run([*found, until(1805)])
    serious = sorted({(c.kind, c.onset // FS) for c in starts(conditions) if c.kind in LETHAL})
    assert serious[: len(lethal)] == lethal
    assert len(serious) == len(lethal) or record == "223"


@pytest.mark.data
def test_asystole_of_a_recording(data_dir: Path):
    """Record 232 pauses for 4 s and more: ASYSTOLE for each such interval, PAUSE or ASYSTOLE for each over 2.5 s."""
    marks = wfdb.rdann(str(data_dir / "mitdb" / "232"), "atr")
    chosen = [s for s, symbol in zip(marks.sample.tolist(), marks.symbol, strict=True) if symbol in SYMBOLS]
    times = [round(sample * FS / 360) for sample in chosen]
    conditions, _ = run([beat(r) for r in times])
    long = [a for a, b in pairwise(times) if b - a >= 4 * FS]
    assert len(long) > 10
    assert {c.onset for c in starts(conditions, Kind.ASYSTOLE)} == set(long)
