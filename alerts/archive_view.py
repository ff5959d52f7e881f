"""What a page draws of recordings: the outline of many hours, trends in even steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alerts.archive import MINUTE_MS, Archive, Minutes
from alerts.archive_files import MISSING

LINE_MS: Final = 60_000
LINES_AT_ONCE: Final = 60


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """Least and greatest sample behind each point of lines of a minute.

    Attributes
    ----------
    ms : ndarray of int64, shape (lines,)
        Begin of each line in which something was recorded.
    low, high : ndarray of int32, shape (lines, width)
        uV; `MISSING` where nothing was recorded.
    """

    lead: str
    ms: NDArray[np.int64]
    low: NDArray[np.int32]
    high: NDArray[np.int32]


def outline(archive: Archive, patient: str, from_ms: int, to_ms: int, width: int, lead: str | None = None) -> Outline:
    """Outline a stretch as lines of a minute, so that no beat is lost between the points.

    Parameters
    ----------
    archive : Archive
    patient : str
    from_ms, to_ms : int
        Lines begin at whole minutes.
    width : int
        Points a line.
    lead : str, optional
        Else the first of the newest segment.
    """
    begin = from_ms - from_ms % LINE_MS
    if lead is None:
        segments = archive.segments(patient, begin, to_ms)
        lead = segments[-1].leads[0] if segments else ""
    parts: list[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]] = []
    while begin < to_ms and lead:
        end = min(begin + LINES_AT_ONCE * LINE_MS, to_ms + -to_ms % LINE_MS)
        lines = (end - begin) // LINE_MS
        strip = archive.read(patient, begin, end, lead)
        if strip.fs and len(strip.units) >= width * lines:
            # Points of one sample need no reduction; a fast one is one pass over the samples of the hour.
            edges = (np.arange(width * lines) * (len(strip.units) / (width * lines))).astype(np.int64)
            column = np.ascontiguousarray(strip.units[:, 0])
            high = np.maximum.reduceat(column, edges)
            column[column == MISSING] = -(MISSING + 1)
            low = np.minimum.reduceat(column, edges)
            absent = high == MISSING
            scale = 1000 / strip.gain
            low, high = (np.where(absent, MISSING, np.rint(part * scale)).astype(np.int32) for part in (low, high))
            low, high = low.reshape(lines, width), high.reshape(lines, width)
            there = (high != MISSING).any(axis=1)
            parts.append((begin + LINE_MS * np.flatnonzero(there), low[there], high[there]))
        begin = end
    none = np.empty((0, width), np.int32)
    if not parts:
        return Outline(lead, np.empty(0, np.int64), none, none)
    ms, low, high = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Outline(lead, ms, low, high)


@dataclass(frozen=True, slots=True, eq=False)
class Trends:
    """Trends in even steps; NaN where nothing is known.

    Attributes
    ----------
    ms : ndarray of int64
        Begin of each step.
    hr, hr_min, hr_max : ndarray of float64
        1/min.
    pvc, sveb : ndarray of float64
        Beats in the step.
    af, quality : ndarray of float64
        Shares, 0 to 1.
    """

    step_ms: int
    ms: NDArray[np.int64]
    hr: NDArray[np.float64]
    hr_min: NDArray[np.float64]
    hr_max: NDArray[np.float64]
    pvc: NDArray[np.float64]
    sveb: NDArray[np.float64]
    af: NDArray[np.float64]
    quality: NDArray[np.float64]


def trends(minutes: Minutes, from_ms: int, to_ms: int, step_ms: int) -> Trends:
    """Sum minutes up into even steps.

    Parameters
    ----------
    minutes : Minutes
        Of the stretch.
    from_ms, to_ms : int
        Steps begin at multiples of `step_ms`.
    step_ms : int
        A multiple of a minute.
    """
    first = from_ms - from_ms % step_ms
    steps = max(0, -(-(to_ms - first) // step_ms))
    place = (minutes.ms - first) // step_ms
    inside = (place >= 0) & (place < steps)
    place = place[inside]

    def summed(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(place, values[inside].astype(np.float64), steps).astype(np.float64)

    known = summed(np.ones(len(minutes.ms)))
    low, high = np.full(steps, np.inf), np.full(steps, -np.inf)
    np.fmin.at(low, place, minutes.hr_min[inside])
    np.fmax.at(high, place, minutes.hr_max[inside])
    return Trends(
        step_ms=step_ms,
        ms=first + step_ms * np.arange(steps),
        hr=_share(60_000.0 * summed(minutes.rr_count), summed(minutes.rr_ms)),
        hr_min=np.where(np.isfinite(low), low, np.nan),
        hr_max=np.where(np.isfinite(high), high, np.nan),
        pvc=np.where(known > 0, summed(minutes.pvc), np.nan),
        sveb=np.where(known > 0, summed(minutes.sveb), np.nan),
        af=_share(summed(minutes.af_ms), summed(minutes.signal_ms)),
        quality=_share(summed(minutes.quality), np.full(steps, step_ms / MINUTE_MS), known > 0),
    )


def _share(
    above: NDArray[np.float64], below: NDArray[np.float64], where: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    share: NDArray[np.float64] = np.full(len(below), np.nan)
    np.divide(above, below, out=share, where=below > 0 if where is None else where)
    return share
