"""Rules: rates, rhythm verdicts and technical conditions; exact deadlines, chaining, hysteresis, blindness."""

from __future__ import annotations

import dataclasses
import random

import pytest
from rule_evidence import BLOCK, DELAY, FS, beat, beats, ends, run, starts, until, verdicts

from alerts.limits import ADULT, PROFILES, Limits
from alerts.model import Kind, Note, Quality, Silence
from alerts.rules import jump

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


def test_silence_ends_what_stands_only_after_a_minute():
    """What comes behind a shorter silence without a gap is the same alarm; over a longer one nobody can tell."""
    fast = beats("N" * 40, 0.4)
    at = max(item.r for item in fast)
    short, _ = run([*fast, *(Silence(at, float(second)) for second in range(10, 60)), Silence(at, 0.0)])
    assert [c.on for c in short if c.kind is Kind.TACHY] == [True]
    ended, _ = run([*fast, *(Silence(at, float(second)) for second in range(10, 61))])
    assert [c.on for c in ended if c.kind is Kind.TACHY] == [True, False]


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
