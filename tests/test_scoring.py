"""Scores agree with hand-made cases, with EC57's exceptions, and with another implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.training.scoring import (
    OTHER,
    Counts,
    average,
    confusion,
    detection,
    gross,
    interval,
    match,
    sveb,
    veb,
)

TIMES = st.lists(st.integers(0, 3000), max_size=40, unique=True).map(lambda v: np.sort(np.array(v, float)) / 100)


def test_each_beat_takes_its_nearest_partner():
    """A found beat between two reference beats goes to the nearer one."""
    assert match([1.0, 1.2], [1.15]).tolist() == [-1, 0]
    assert match([1.0, 1.2], [1.05]).tolist() == [0, -1]
    assert match([1.0], [0.9, 1.02]).tolist() == [1]


def test_the_window_includes_its_bounds():
    """A beat exactly 150 ms away matches, one sample further does not."""
    assert detection([1.0], [1.150]) == Counts(1, 0, 0)
    assert detection([1.0], [1.154]) == Counts(0, 1, 1)
    assert detection([1.0], [1.06], window=0.05) == Counts(0, 1, 1)


@given(TIMES, TIMES)
def test_matching_is_one_to_one_and_within_the_window(reference, found):
    """No found beat serves twice, no pair is too far apart, and counts add up."""
    pairs = match(reference, found)
    used = pairs[pairs >= 0]
    assert np.unique(used).size == used.size
    assert np.all(np.abs(reference[pairs >= 0] - found[used]) <= 0.15 + 1e-6)
    counts = detection(reference, found)
    assert counts.tp + counts.fn == reference.size
    assert counts.tp + counts.fp == found.size


@given(TIMES)
def test_a_reference_scored_against_itself_is_perfect(times):
    """Identical times give no miss and no invented beat."""
    assert detection(times, times) == Counts(times.size, 0, 0)


def test_it_agrees_with_wfdb_where_beats_are_far_apart():
    """`wfdb.processing.compare_annotations` counts the same when no beat has two possible partners."""
    processing = pytest.importorskip("wfdb.processing")
    rng = np.random.default_rng(3)
    reference = np.cumsum(rng.integers(300, 500, 300))
    kept = reference[rng.random(300) > 0.1]
    found = np.sort(np.concatenate((kept + rng.integers(-45, 46, kept.size), reference[::17] + 150)))
    other = processing.compare_annotations(reference, found, 38)
    own = detection(reference / 250, found / 250, window=37.5 / 250)
    assert (own.tp, own.fn, own.fp) == (other.tp, other.fn, other.fp)


def test_the_learning_period_and_flutter_are_left_out():
    """Beats before the start, after the end or in an excluded episode count neither way."""
    reference, found = [1.0, 10.0, 20.0, 30.0], [1.5, 10.0, 20.5, 31.0]
    assert detection(reference, found) == Counts(1, 3, 3)
    assert detection(reference, found, start=5.0) == Counts(1, 2, 2)
    assert detection(reference, found, start=5.0, end=29.0) == Counts(1, 1, 1)
    assert detection(reference, found, start=5.0, end=29.0, excluded=[(19.0, 21.0)]) == Counts(1, 0, 0)


def test_the_confusion_matrix_holds_missed_and_invented_beats():
    """Rows are the reference, columns the verdict, the sixth of each the missing partner."""
    matrix = confusion([1, 2, 3, 4], [0, 1, 2, 2], [1.0, 2.0, 3.05, 5.0], [0, 2, 2, 1], start=0.0)
    assert matrix[0, 0] == 1
    assert matrix[1, 2] == 1
    assert matrix[2, 2] == 1
    assert matrix[2, OTHER] == 1
    assert matrix[OTHER, 1] == 1
    assert matrix.sum() == 5


def test_fusion_and_paced_beats_taken_for_ventricular_are_forgiven():
    """EC57: F and Q called V are no false positives of VEB, Q called S is none of SVEB."""
    matrix = np.zeros((6, 6), np.int64)
    matrix[:, 2] = [1, 2, 40, 8, 16, 4]
    matrix[2, 0], matrix[2, OTHER] = 5, 3
    assert veb(matrix) == Counts(40, 8, 7)
    matrix = np.zeros((6, 6), np.int64)
    matrix[:, 1] = [1, 50, 2, 4, 16, 8]
    matrix[1, 0], matrix[1, OTHER] = 7, 2
    assert sveb(matrix) == Counts(50, 9, 15)


def test_gross_and_average_differ_as_they_should():
    """Gross weighs beats, average weighs records and leaves out those without the statistic."""
    records = [Counts(90, 10, 0), Counts(1, 1, 1), Counts(0, 0, 0)]
    assert gross(records) == Counts(91, 11, 1)
    assert average(records, lambda c: c.sensitivity) == pytest.approx(0.7)
    assert math.isnan(average(records[2:], lambda c: c.sensitivity))
    assert Counts(3, 1, 2).f1 == pytest.approx(6 / 9)


def test_the_interval_holds_the_figure_and_shrinks_with_equal_records():
    """The interval is ordered, holds the gross figure, and is a point where all records are equal."""
    records = [Counts(90, 10, 3), Counts(50, 0, 9), Counts(70, 20, 0), Counts(99, 1, 1)]
    low, high = interval(records, lambda c: c.sensitivity)
    assert low < gross(records).sensitivity < high
    assert (low, high) == interval(records, lambda c: c.sensitivity)
    low, high = interval([Counts(9, 1, 0)] * 5, lambda c: c.sensitivity)
    assert low == pytest.approx(0.9)
    assert high == pytest.approx(0.9)


def test_mistakes_of_the_caller_are_named():
    """Descending times, a group too few and no records raise."""
    with pytest.raises(ValueError, match="must ascend"):
        match([2.0, 1.0], [1.0])
    with pytest.raises(ValueError, match="one group a beat"):
        confusion([1.0], [0, 1], [1.0], [0])
    with pytest.raises(ValueError, match="no records"):
        interval([], lambda c: c.sensitivity)
