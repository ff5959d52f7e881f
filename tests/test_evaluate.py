"""The evaluation: figures of classes, windows, episodes and alarms on known answers, and a ratchet on real records."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress

from inference.training.records import CLASSES, Record
from inference.training.scoring import Counts
from ingest.recordings import read_record
from rhythmwatch import episodes, figures
from rhythmwatch.accuracy import Report
from rhythmwatch.accuracy_plots import training_curves
from rhythmwatch.accuracy_targets import TARGETS, Target
from rhythmwatch.annotations import AlarmLine, rhythm_marks
from rhythmwatch.challenge import Judged, challenge_figures
from rhythmwatch.class_figures import auc, by_class, reliability, roc
from rhythmwatch.episodes import Timeline
from rhythmwatch.evaluate import QUICK, jobs_of, run_evaluation
from rhythmwatch.results import Results
from rhythmwatch.scores import Scored
from rhythmwatch.stress import motion_hour

FLOORS = {
    "qrs_se": 99.75,
    "qrs_ppv": 99.75,
    "veb_f1": 0.98,
    "sveb_f1": 0.80,
}
"""What the training records of ``--quick`` must reach; these figures may only rise."""


def line(kind: str, onset: float, raised: float, cleared: float | None = None) -> AlarmLine:
    return AlarmLine(kind, "high", onset, raised, cleared, "")


def track(
    reference: list[tuple[str, int]],
    verdict: list[tuple[str, int]],
    alarms: tuple[AlarmLine, ...] = (),
    lethal: tuple[episodes.Span, ...] = (),
) -> Timeline:
    def spread(parts: list[tuple[str, int]]) -> Any:
        return np.array([code for code, count in parts for _ in range(count)])

    codes, at, spans = spread(reference), 0, []
    for code, count in reference:
        spans.append((code, float(at), float(at + count)))
        at += count
    return Timeline(
        "x",
        codes,
        spread(verdict),
        spread(verdict),
        alarms,
        {
            "shock": episodes.joined(spans, episodes.SHOCKABLE),
            "af": episodes.joined(spans, episodes.AF),
            "lethal": lethal,
        },
    )


def record(codes: str, times: list[float], rhythms: dict[float, str] | None = None) -> Record:
    rate = 100.0
    known = rhythms or {0.0: "(N"}
    return Record(
        "x", "mitdb", rate, ("MLII",), np.zeros((6000, 1), np.float32),
        np.array([round(t * rate) for t in times], np.int64), np.array(list(codes), "U1"),
        np.array([round(t * rate) for t in known], np.int64), tuple(known.values()), (),
    )  # fmt: skip


def scored(name: str, wanted: list[int], found: list[int]) -> Scored:
    rng = np.random.default_rng(1)
    size = len(CLASSES)
    classes = np.zeros((size + 1, size + 1), np.int64)
    np.add.at(classes, (wanted, found), 1)
    groups = np.zeros((6, 6), np.int64)
    belongs = np.array((0, 0, 0, 1, 2, 3, 4, 4))
    np.add.at(groups, (belongs[wanted], belongs[found]), 1)
    p = rng.random((len(wanted), size)).astype(np.float32)
    p[np.arange(len(wanted)), found] += 2
    counts = Counts(len(wanted), 1, 2)
    return Scored(
        name, counts, counts, counts, groups, classes,
        np.array(wanted, np.int8), p / p.sum(axis=1, keepdims=True), 0.5,
    )  # fmt: skip


def judged(label: str, share: float, said: str = "N") -> Judged:
    return Judged("A", label, share, share > 0.5, said, 0.01)


def test_auc_is_the_share_of_pairs_in_order() -> None:
    """The area under the curve is how often a positive outranks a negative, ties counting half."""
    scores = np.array([0.1, 0.4, 0.4, 0.9], np.float32)
    assert auc(scores, np.array([False, False, True, True])) == pytest.approx(3.5 / 4)
    assert np.isnan(auc(scores, np.ones(4, bool)))


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=60))
def test_auc_is_the_area_under_the_roc(pairs: list[tuple[int, bool]]) -> None:
    """Ranks and the curve itself give the same area, whatever the ties."""
    scores = np.array([score for score, _ in pairs], np.float32)
    positive = np.array([flag for _, flag in pairs])
    if positive.all() or not positive.any():
        return
    false, true = roc(scores, positive)
    area = float((np.diff(false) * (true[1:] + true[:-1]) / 2).sum())
    assert area == pytest.approx(auc(scores, positive))
    assert (false[-1], true[-1]) == (1, 1)


def test_reliability_of_a_sure_and_right_model() -> None:
    """A model that is sure and right has no calibration error; sure and wrong half of the time has a half."""
    p = np.zeros((10, 8), np.float32)
    p[:, 0] = 1
    assert reliability(p, np.zeros(10, np.int8))["ece"] == 0
    wanted = np.array([0, 1] * 5, np.int8)
    result = reliability(p, wanted)
    assert result["ece"] == pytest.approx(0.5)
    assert result["count"] == [10]


def test_class_figures_count_missed_and_invented_beats() -> None:
    """Missed beats are misses of their class, invented ones false positives of theirs."""
    matrix = np.zeros((9, 9), np.int64)
    matrix[0, 0], matrix[4, 4], matrix[4, 8], matrix[8, 4], matrix[0, 4] = 90, 6, 2, 1, 3
    each = by_class(matrix, CLASSES, np.zeros((0, 8), np.float32), np.zeros(0, np.int8))["V"]
    assert each["beats"] == 8
    assert each["recall"] == pytest.approx(75)
    assert each["precision"] == pytest.approx(60)
    assert each["specificity"] == pytest.approx(100 * 90 / 94)


def test_seconds_hold_one_rhythm_or_none() -> None:
    """A second in which the rhythm changes has no label, and a later span stands above an earlier one."""
    codes = episodes.by_second([("N", 0.0, 3.5), ("VT", 3.5, 6.0), ("VFL", 5.0, 6.0)], 6)
    assert codes.tolist() == ["N", "N", "N", "", "VT", "VFL"]


def test_windows_need_one_class_throughout() -> None:
    """Of 10 s of N and 6 s of VT, 7 and 3 windows of 4 s are pure; the verdict at their end counts."""
    item = track([("N", 10), ("VT", 6)], [("N", 11), ("VT", 5)])
    counts = episodes.windows(item)
    assert counts["other"] == (0, 7)
    assert counts["vt"] == (3, 3)
    assert counts["vf"] == (0, 0)
    assert episodes.named(track([("VFL", 8)], [("VT", 6), ("VFL", 2)]))["vf"] == (2, 5)


def test_disputed_rhythms_count_against_specificity_and_are_given_apart() -> None:
    """A shockable verdict in (HGEA lowers the specificity, and not the one without disputed rhythms."""
    item = track([("N", 20), ("HGEA", 8)], [("N", 20), ("VT", 8)])
    result = episodes.shock_figures([item])
    assert result["specificity"] == pytest.approx(100 * 17 / 22)
    assert result["specificity_undisputed"] == 100


def test_delay_runs_from_the_reference_onset_to_raised() -> None:
    """A fresh alarm counts from the onset, a standing one as at once, none within 5 s of the end as missed."""
    reference = [("N", 20), ("VT", 10), ("N", 30), ("VFL", 10), ("N", 10)]
    verdict = [("N", 80)]
    fresh = track(reference, verdict, (line("VTACH", 21.0, 24.5, 32.0), line("VFIB", 61.0, 66.0)))
    assert episodes.delays(fresh) == [4.5, 6.0]
    standing = track(reference, verdict, (line("VFIB", 15.0, 19.0, 70.0),))
    assert episodes.delays(standing) == [0.0, 0.0]
    late = track(reference, verdict, (line("VFIB", 30.0, 36.0, 38.0), line("ASYSTOLE", 61.0, 62.0)))
    assert episodes.delays(late) == [None, None]
    assert episodes.shock_figures([late])["missed"] == 2


def test_events_that_justify_a_lethal_alarm() -> None:
    """Five fast ventricular beats, a labelled tachycardia and a long pause justify one; slow or few beats don't."""
    fast = [10 + 0.5 * i for i in range(5)]
    assert episodes.lethal_spans(record("VVVVV", fast)) == ((10.0, 12.0),)
    assert episodes.lethal_spans(record("VVVV", fast[:4])) == ()
    assert episodes.lethal_spans(record("VVVVV", [10 + 0.7 * i for i in range(5)])) == ()
    assert episodes.lethal_spans(record("NN", [10.0, 14.5])) == ((10.0, 14.5),)
    labelled = record("NN", [10.0, 11.0], {0.0: "(N", 20.0: "(VT", 25.0: "(N"})
    assert episodes.lethal_spans(labelled) == ((20.0, 25.0),)


def test_lethal_alarms_away_from_any_event_are_false() -> None:
    """An alarm that overlaps an event within 10 s is true; another lethal one is false; other kinds don't count."""
    alarms = (line("VTACH", 100.0, 103.0), line("ASYSTOLE", 300.0, 304.0), line("BRADY", 10.0, 20.0))
    item = track([("N", 400)], [("N", 400)], alarms, ((106.0, 110.0),))
    assert [alarm.kind for alarm in episodes.false_lethal(item)] == ["ASYSTOLE"]
    result = figures.lethal_figures([item])
    assert result["records_without_event"] == []
    assert result["all_false"] == [["x", "ASYSTOLE", 300.0]]


def test_af_by_second_and_by_episode() -> None:
    """Late on and late off shows as missed and false seconds, while the episode is found."""
    item = track([("N", 60), ("AFIB", 60), ("N", 60)], [("N", 75), ("AFIB", 60), ("N", 45)])
    counts = episodes.af_seconds(item)
    assert (counts.tp, counts.fn, counts.fp) == (45, 15, 15)
    result = figures.af_figures([item])
    assert result["se"] == 75
    assert result["sp"] == pytest.approx(100 * 105 / 120)
    assert result["episodes"]["episode_se"] == 100
    assert result["episodes"]["duration_ppv"] == 75


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_spans_cover_the_true_seconds(said: list[bool]) -> None:
    """Runs as spans hold exactly the true seconds, and an episode list scores 100 % against itself."""
    spans = episodes.spans_of(np.array(said))
    assert sum(last - first for first, last in spans) == sum(said)
    if any(said):
        assert set(episodes.summed([episodes.episode_scores(spans, spans)]).values()) == {100.0}


def test_challenge_labels_and_f1() -> None:
    """Labels go by the verdict on the whole, AF by its seconds as well; noise costs precision."""
    items = [
        judged("A", 0.9, "A"), judged("A", 0.2), judged("N", 0.1), judged("O", 0.0, "O"), judged("~", 0.8, "A"),
        judged("O", 0.0, "~"),
    ]  # fmt: skip
    result = challenge_figures(items)
    assert result["f1"]["A"] == pytest.approx(0.5)
    assert result["f1"]["O"] == pytest.approx(2 / 3, abs=1e-4)
    assert result["table"]["~"] == [0, 1, 0, 0]
    assert result["table"]["O"] == [0, 0, 1, 1]
    assert result["f1_af_half"] == pytest.approx(0.5)


def test_targets_say_what_is_reached() -> None:
    """A figure is at the aim, at the floor or below; where less is better the other way round."""
    high, low = Target("x", ("a",), 90, 95), Target("x", ("a",), 5, 4, low=True)
    assert [high.verdict(value) for value in (95, 90, 89, None)] == ["aim", "floor", "**below**", ""]
    assert [low.verdict(value) for value in (4, 5, 6)] == ["aim", "floor", "**below**"]
    assert Target("x", ("a", "b"), 1, 0).value({"a": {"b": [1, 2]}}) == 2
    assert Target("x", ("a", "b"), 1, 0).value({"a": {}}) is None


def test_training_curves_are_found_wherever_a_report_holds_them() -> None:
    """Lists of numbers, lists of epochs and named parts under ``curves`` or ``history`` become curves."""
    report = {"fit": {"history": [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]}, "curves": {"a": [1, 2]}}
    assert training_curves(report) == {"fit loss": [2.0, 1.0], "a": [1.0, 2.0]}
    assert training_curves({"x": [1, 2]}) == {}


def test_report_writes_page_numbers_and_plots(tmp_path: Path) -> None:
    """The page holds every table, JSON has no NaN, and each plot stays under 60 kB."""
    results = Results(
        beats=[scored("100", [0, 0, 3, 4, 1], [0, 0, 3, 4, 0]), scored("119", [0, 4, 4], [0, 4, 0])],
        timelines={
            "mitdb/100": track([("N", 60), ("AFIB", 30)], [("N", 65), ("AFIB", 25)]),
            "vfdb/426": track([("N", 60), ("VT", 30)], [("N", 65), ("VT", 25)], (line("VTACH", 61, 65.0),)),
        },
        noise={"118e24": Counts(10, 0, 1)},
        motion=(line("VFIB", 5.0, 9.0),),
        challenge=[judged("A", 0.9), judged("N", 0.1)],
    )
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "beat.json").write_text(json.dumps({"curves": {"loss": [3, 2, 1]}}), encoding="utf-8")
    report = Report.of(results, "abc", tmp_path / "models", 1.0)
    report.write(tmp_path / "docs")
    page = (tmp_path / "docs" / "accuracy.md").read_text("utf-8")
    for heading in ("Against the targets", "QRS", "Eight classes, DS2", "Shockable rhythms", "Per record", "Plots"):
        assert f"## {heading}" in page
    assert "(accuracy/training-beat.png)" in page
    numbers = json.loads((tmp_path / "docs" / "accuracy.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert numbers["motion_hour"]["lethal"] == 1
    plots = list((tmp_path / "docs" / "accuracy").glob("*.png"))
    assert len(plots) == 5
    assert all(plot.stat().st_size < 60_000 for plot in plots)


def test_report_is_the_same_in_any_order(tmp_path: Path) -> None:
    """Processes end in any order; sorted results give one and the same page."""
    first, second = scored("100", [0, 4], [0, 4]), scored("103", [0, 3], [0, 0])
    pages = [
        Report.of(Results(beats=items).in_order(), "abc", tmp_path, 1.0).markdown()
        for items in ([first, second], [second, first])
    ]
    assert pages[0] == pages[1]


@pytest.mark.data
def test_every_measure_of_the_table_is_run(data_dir: Path) -> None:
    """The jobs hold all 48 mitdb records, the test parts of vfdb and cinc2017, the noise, and no record twice."""
    jobs = jobs_of(data_dir, quick=False)
    names = [(job.database, name) for job in jobs for name in job.names]
    assert len(names) == len(set(names))
    count = {database: sum(found == database for found, _ in names) for database, _ in names}
    assert count["mitdb"] == 48
    assert count["vfdb"] == 7
    assert count["nstdb"] == 4
    assert {job.names for job in jobs_of(data_dir, quick=True)} == {(name,) for name in QUICK}


@pytest.mark.data
def test_the_hour_of_motion_is_as_loud_as_it_says(data_dir: Path) -> None:
    """An hour of both leads; its noise has the power of that of ``118e00``, slow drift aside."""
    hour = motion_hour(data_dir)
    assert hour.seconds == 3600
    heart = read_record(data_dir / "mitdb" / "118")
    published = read_record(data_dir / "nstdb" / "118e00")
    made = np.diff(hour.samples[: len(heart.samples)].astype(float) - heart.samples, axis=0)
    rate = round(heart.rate)
    noise = published.samples.astype(float)[: len(heart.samples)] - heart.samples[: len(published.samples)]
    there = np.concatenate(
        [np.diff(noise[a * rate : b * rate], axis=0) for a, b in ((300, 420), (540, 660), (780, 900))]
    )
    assert made.std(axis=0) == pytest.approx(there.std(axis=0), rel=0.05)


@pytest.mark.data
@pytest.mark.timeout(400)
def test_quick_evaluation_holds_its_floors(data_dir: Path) -> None:
    """The ratchet: training records through the live pipeline are no worse than they were."""
    with Progress(disable=True) as bar:
        report = run_evaluation(data_dir, None, quick=True, jobs=2, bar=bar)
    beats = report.figures["beats"]["DS1"]
    assert beats["records"] == sorted(QUICK)
    got = {
        "qrs_se": beats["qrs"]["se"],
        "qrs_ppv": beats["qrs"]["ppv"],
        "veb_f1": beats["veb"]["f1"],
        "sveb_f1": beats["sveb"]["f1"],
    }
    assert {name: value for name, value in got.items() if value < FLOORS[name]} == {}


def test_targets_read_figures_that_exist() -> None:
    """Each measure has a floor with its aim, and none is listed twice."""
    assert len({target.measure for target in TARGETS}) == len(TARGETS)
    for target in TARGETS:
        if target.floor is not None and target.aim is not None:
            assert target.aim != target.floor
            assert (target.aim < target.floor) == target.low


def test_marks_look_back_to_where_the_rhythm_changed() -> None:
    """Marks lie 2 s before the verdict, 8 s where fibrillation begins or ends, never out of order or before 0."""
    changes = [(100, "NOISE"), (400, "N"), (3000, "AFIB"), (6000, "N"), (9000, "VFL"), (9100, "AFIB")]
    marks = rhythm_marks(changes, 100.0)
    assert marks == [(0, "NOISE"), (200, "N"), (2200, "AFIB"), (5200, "N"), (8800, "VFL"), (8900, "AFIB")]
    assert rhythm_marks([(1000, "N"), (1400, "AFIB")], 100.0) == [(600, "AFIB")]


@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["N", "AFIB", "VT", "VFL", "ASYS", "NOISE"]))))
def test_marks_ascend_and_never_repeat(steps: list[tuple[int, str]]) -> None:
    """Whatever the verdicts, marks ascend, no code follows itself, and the last one is the last verdict."""
    at, changes = 0, []
    for seconds, code in steps:
        at += 250 * seconds
        if not changes or changes[-1][1] != code:
            changes.append((at, code))
    marks = rhythm_marks(changes, 250.0)
    assert all(a < b for (a, _), (b, _) in pairwise(marks))
    assert all(a != b for (_, a), (_, b) in pairwise(marks))
    assert [mark[1] for mark in marks[-1:]] == [change[1] for change in changes[-1:]]
