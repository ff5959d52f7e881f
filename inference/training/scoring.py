"""Scoring of beat detectors and classifiers as `bxb` and ANSI/AAMI EC57 do it, as pure functions of arrays.

Times are seconds (float64), so that a reference at one sampling rate and a result at another meet without rounding.
Reference: ANSI/AAMI EC57:2012, 4.3; Moody, WFDB Applications Guide, ``bxb`` and ``sumstats``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsp.kernel import kernel

GROUPS: Final = ("N", "S", "V", "F", "Q")
"""AAMI groups, the order of the rows and columns of a confusion matrix."""

OTHER: Final = 5
"""Row of beats that were invented, column of beats that were missed."""

WINDOW: Final = 0.150
"""Match window of EC57, s."""

LEARNING: Final = 300.0
"""Learning period of `bxb`, s: nothing before it is counted."""


@dataclass(frozen=True, slots=True)
class Counts:
    """True positives, misses and false positives; of one record, or summed.

    Attributes
    ----------
    tp, fn, fp : int
        Counts of events.
    """

    tp: int
    fn: int
    fp: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fn + other.fn, self.fp + other.fp)

    @property
    def sensitivity(self) -> float:
        """``tp / (tp + fn)``; NaN where the reference holds no event."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def precision(self) -> float:
        """Positive predictive value ``tp / (tp + fp)``; NaN where nothing was reported."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def f1(self) -> float:
        """Harmonic mean of `sensitivity` and `precision`."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fn + self.fp)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


@kernel
def _pair(reference: NDArray[np.float64], found: NDArray[np.float64], window: float) -> NDArray[np.int64]:
    """Pair in one pass, the earlier one deciding whether its partner has a closer one behind it (`bxb`)."""
    n, m = reference.shape[0], found.shape[0]
    pairs = np.full(n, -1, np.int64)
    i = j = 0
    while i < n and j < m:
        gap = abs(found[j] - reference[i])
        if found[j] < reference[i]:
            closer_next = j + 1 < m and abs(found[j + 1] - reference[i]) < gap
            if gap <= window and not closer_next:
                pairs[i] = j
                i += 1
            j += 1
        else:
            closer_next = i + 1 < n and abs(reference[i + 1] - found[j]) < gap
            if gap <= window and not closer_next:
                pairs[i] = j
                j += 1
            i += 1
    return pairs


def match(reference: ArrayLike, found: ArrayLike, window: float = WINDOW) -> NDArray[np.int64]:
    """Match beats one to one within a window.

    Parameters
    ----------
    reference, found : array_like of float, shape (n,) and (m,)
        Times of beats, s, ascending.
    window : float
        Largest distance of a pair, s.

    Returns
    -------
    ndarray of int64, shape (n,)
        Index into `found` of each reference beat's partner, -1 where it has none.

    Raises
    ------
    ValueError
        If times descend.
    """
    ref, got = np.asarray(reference, np.float64), np.asarray(found, np.float64)
    for name, times in (("reference", ref), ("found", got)):
        if times.size and np.any(np.diff(times) < 0):
            msg = f"{name} times must ascend"
            raise ValueError(msg)
    return _pair(ref, got, window + 1e-9)


def _counted(
    times: NDArray[np.float64], start: float, end: float, excluded: Sequence[tuple[float, float]]
) -> NDArray[np.bool_]:
    keep = (times >= start) & (times < end)
    for first, last in excluded:
        keep &= ~((times >= first) & (times <= last))
    return keep


def confusion(
    reference: ArrayLike,
    reference_group: ArrayLike,
    found: ArrayLike,
    found_group: ArrayLike,
    *,
    window: float = WINDOW,
    start: float = LEARNING,
    end: float = float("inf"),
    excluded: Sequence[tuple[float, float]] = (),
) -> NDArray[np.int64]:
    """Confusion matrix of one record, beat by beat.

    A pair counts where its reference beat lies; an invented beat where it lies itself.

    Parameters
    ----------
    reference, found : array_like of float, shape (n,) and (m,)
        Times of beats, s, ascending.
    reference_group, found_group : array_like of int, shape (n,) and (m,)
        Index into `GROUPS` of each beat.
    window : float
        Match window, s.
    start, end : float
        Only ``start <= t < end`` counts, s.
    excluded : sequence of (float, float)
        Stretches that do not count, s, bounds included: the reference's episodes of ventricular flutter/fibrillation.

    Returns
    -------
    ndarray of int64, shape (6, 6)
        Rows the reference's group, `OTHER` for invented beats; columns the group found, `OTHER` for missed beats.

    Raises
    ------
    ValueError
        If times descend, or groups and times differ in number.
    """
    ref, got = np.asarray(reference, np.float64), np.asarray(found, np.float64)
    ref_group, got_group = np.asarray(reference_group, np.int64), np.asarray(found_group, np.int64)
    if ref.shape != ref_group.shape or got.shape != got_group.shape:
        msg = f"one group a beat: {ref.size} and {got.size} beats, {ref_group.size} and {got_group.size} groups"
        raise ValueError(msg)
    pairs = match(ref, got, window)
    paired = pairs >= 0
    keep = _counted(ref, start, end, excluded)
    invented = _counted(got, start, end, excluded)
    invented[pairs[paired]] = False
    verdict = np.full(ref.size, OTHER, np.int64)
    verdict[paired] = got_group[pairs[paired]]
    rows = np.concatenate((ref_group[keep], np.full(int(invented.sum()), OTHER, np.int64)))
    columns = np.concatenate((verdict[keep], got_group[invented]))
    matrix = np.zeros((OTHER + 1, OTHER + 1), np.int64)
    np.add.at(matrix, (rows, columns), 1)
    return matrix


def detection(
    reference: ArrayLike,
    found: ArrayLike,
    *,
    window: float = WINDOW,
    start: float = 0.0,
    end: float = float("inf"),
    excluded: Sequence[tuple[float, float]] = (),
) -> Counts:
    """Count found, missed and invented QRS complexes of one record; parameters as in `confusion`.

    Returns
    -------
    Counts
        Matched beats, missed beats, invented beats.
    """
    ref, got = np.asarray(reference, np.float64), np.asarray(found, np.float64)
    matrix = confusion(
        ref, np.zeros(ref.size), got, np.zeros(got.size), window=window, start=start, end=end, excluded=excluded
    )
    return Counts(int(matrix[0, 0]), int(matrix[0, OTHER]), int(matrix[OTHER, 0]))


def veb(matrix: NDArray[np.int64]) -> Counts:
    """Ventricular ectopic beats: F and Q taken for V are no false positives (EC57, table 4).

    Parameters
    ----------
    matrix : ndarray of int64, shape (6, 6)
        From `confusion`, of a record or summed.

    Returns
    -------
    Counts
        A missed V is a miss, an invented one a false positive.
    """
    tp = int(matrix[2, 2])
    return Counts(tp, int(matrix[2].sum()) - tp, int(matrix[[0, 1, OTHER], 2].sum()))


def sveb(matrix: NDArray[np.int64]) -> Counts:
    """Supraventricular ectopic beats: Q taken for S is no false positive (EC57, table 5).

    Parameters
    ----------
    matrix : ndarray of int64, shape (6, 6)
        From `confusion`, of a record or summed.

    Returns
    -------
    Counts
        A missed S is a miss, an invented one a false positive.
    """
    tp = int(matrix[1, 1])
    return Counts(tp, int(matrix[1].sum()) - tp, int(matrix[[0, 2, 3, OTHER], 1].sum()))


def gross(records: Sequence[Counts]) -> Counts:
    """Sum over records: every beat weighs the same."""
    return sum(records, Counts(0, 0, 0))


def average(records: Sequence[Counts], statistic: Callable[[Counts], float]) -> float:
    """Mean of a statistic over records: every record weighs the same; records where it is NaN are left out.

    Parameters
    ----------
    records : sequence of Counts
        One a record.
    statistic : callable
        For instance ``lambda c: c.sensitivity``.

    Returns
    -------
    float
        NaN where no record has the statistic.
    """
    values = [value for value in map(statistic, records) if value == value]
    return float(np.mean(values)) if values else float("nan")


def interval(
    records: Sequence[Counts],
    statistic: Callable[[Counts], float],
    *,
    rounds: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a gross statistic, drawing whole records.

    Beats of one record are not independent, so records are what is drawn (Efron and Tibshirani 1993, ch. 8).

    Parameters
    ----------
    records : sequence of Counts
        One a record; at least one.
    statistic : callable
        Of the summed counts.
    rounds : int
        Number of draws.
    level : float
        Coverage, 0 to 1.
    seed : int
        Of the draws.

    Returns
    -------
    (float, float)
        Lower and upper bound; NaN where the statistic is NaN in every draw.

    Raises
    ------
    ValueError
        If there is no record.
    """
    if not records:
        msg = "no records to draw from"
        raise ValueError(msg)
    table = np.array([(c.tp, c.fn, c.fp) for c in records], np.int64)
    draws = np.random.default_rng(seed).integers(0, len(records), (rounds, len(records)))
    sums = table[draws].sum(axis=1)
    values = np.array([statistic(Counts(*map(int, row))) for row in sums])
    values = values[~np.isnan(values)]
    if not values.size:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
