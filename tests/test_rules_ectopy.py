"""Ectopic beats: runs, patterns, rates, and what is usual in a patient."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec import structs
from rule_evidence import DELAY, FS, beat, beats, ends, run, starts, until, verdicts

from alerts.limits import Limits
from alerts.model import Beat, Kind, Quality
from alerts.rules import pvc_per_minute

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
