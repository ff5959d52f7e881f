"""Asystole and pause: exact deadlines, blindness, other leads."""

from __future__ import annotations

from rule_evidence import (
    BLOCK,
    DELAY,
    FS,
    SLOW,
    beat,
    beats,
    block_after,
    early,
    ends,
    peaks,
    run,
    starts,
    until,
    verdicts,
)

from alerts.model import Evidence, Horizon, Kind, Peak, Quality, Rhythm


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


def beside(first: float, last: float, rr: float = 0.8) -> list[Peak]:
    """R peaks on a lead that is not analysed."""
    times = [round((first + k * rr) * FS) for k in range(int((last - first) / rr) + 1)]
    return [Peak(r, block_after(r + 100), beside=True) for r in times]


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
