"""What a day (or any stretch) held: rates, ectopic beats, runs, pauses, fibrillation, and where to look for each.

Pure: arrays in, figures out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alerts.archive import Minutes

RATE_BEATS: Final = 4
"""RR intervals that the least and greatest rate are means of, as on the wall."""
RUN_BEATS: Final = 3
"""Ventricular beats in a row that are a run, if they come at `RUN_RATE`."""
RUN_RATE: Final = 100.0
WILD: Final = ("VFL", "VF")
"""Rhythms without beats that could be counted."""
WILD_BEFORE_MS: Final = 6_000
"""So long before its verdict such a rhythm may have begun."""
LISTED: Final = 8
_VENTRICULAR: Final = (b"V", b"E")
_SUPRAVENTRICULAR: Final = (b"A", b"a", b"J", b"S")


@dataclass(frozen=True, slots=True)
class Extreme:
    """A rate and when it was."""

    ms: int
    rate: float


@dataclass(frozen=True, slots=True)
class Run:
    """Ventricular beats in a row."""

    ms: int
    beats: int
    rate: float
    """1/min, of the intervals between them."""


@dataclass(frozen=True, slots=True)
class Pause:
    """An RR interval longer than the limit; it begins at `ms`."""

    ms: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch of one rhythm."""

    ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of a stretch.

    Attributes
    ----------
    recorded_ms : int
        Time with a signal that was analysed.
    hr_mean : float or None
        60 over the mean RR interval.
    slowest, fastest : Extreme or None
        Over `RATE_BEATS` intervals, outside ventricular fibrillation.
    runs : tuple of Run
        Longest first.
    slow_runs : int
        As many ventricular beats in a row, at a lower rate.
    pairs : int
        Two ventricular beats in a row.
    pauses : tuple of Pause
        Longest first; over `pause_s`, outside ventricular fibrillation.
    af_ms : int
        Time in atrial fibrillation.
    episodes, wild : tuple of Episode
        Of atrial fibrillation, and of ventricular fibrillation or flutter; longest first.
    """

    from_ms: int
    to_ms: int
    recorded_ms: int
    beats: int
    hr_mean: float | None
    slowest: Extreme | None
    fastest: Extreme | None
    pvc: int
    sveb: int
    pairs: int
    runs: tuple[Run, ...]
    slow_runs: int
    pauses: tuple[Pause, ...]
    pause_s: float
    af_ms: int
    episodes: tuple[Episode, ...]
    wild: tuple[Episode, ...]
    first_pvc_ms: int | None

    @property
    def af_share(self) -> float | None:
        """Share of the analysed time in fibrillation."""
        return self.af_ms / self.recorded_ms if self.recorded_ms else None


def summarise(
    from_ms: int,
    to_ms: int,
    minutes: Minutes,
    beats: NDArray[Any],
    rhythms: Sequence[tuple[int, str]],
    pause_s: float,
) -> Summary:
    """Sum a stretch up.

    Parameters
    ----------
    from_ms, to_ms : int
        The stretch.
    minutes : Minutes
        Of it.
    beats : ndarray of TIMED_BEAT
        Of it, ascending; an RR interval of 0 is not known (a gap before the beat).
    rhythms : sequence of (ms, code)
        Changes, after the one in force at the begin.
    pause_s : float
        Limit above which an RR interval is a pause.
    """
    rr = beats["rr_ms"].astype(np.int64)
    wild = _episodes(from_ms, to_ms, rhythms, WILD)
    counted = ~_within(beats["ms"], rr, wild)
    slowest, fastest = _extremes(beats["ms"], np.where(counted, rr, 0))
    ventricular = np.isin(beats["code"], _VENTRICULAR)
    runs, pairs = _runs(beats["ms"], rr, ventricular)
    fast = [run for run in runs if run.rate >= RUN_RATE]
    long = np.flatnonzero((rr > 1000 * pause_s) & counted)
    pauses = [Pause(int(beats["ms"][at] - rr[at]), float(rr[at]) / 1000) for at in long]
    count, total = int(minutes.rr_count.sum()), int(minutes.rr_ms.sum())
    return Summary(
        from_ms=from_ms,
        to_ms=to_ms,
        recorded_ms=int(minutes.signal_ms.sum()),
        beats=len(beats),
        hr_mean=60_000 * count / total if total else None,
        slowest=slowest,
        fastest=fastest,
        pvc=int(ventricular.sum()),
        sveb=int(np.isin(beats["code"], _SUPRAVENTRICULAR).sum()),
        pairs=pairs,
        runs=tuple(sorted(fast, key=lambda run: (-run.beats, -run.rate, run.ms))),
        slow_runs=len(runs) - len(fast),
        pauses=tuple(sorted(pauses, key=lambda pause: (-pause.seconds, pause.ms))),
        pause_s=pause_s,
        af_ms=int(minutes.af_ms.sum()),
        episodes=_episodes(from_ms, to_ms, rhythms, ("AFIB",)),
        wild=wild,
        first_pvc_ms=int(beats["ms"][ventricular][0]) if ventricular.any() else None,
    )


def _extremes(ms: NDArray[Any], rr: NDArray[np.int64]) -> tuple[Extreme | None, Extreme | None]:
    if len(rr) < RATE_BEATS:
        return None, None
    windows = np.lib.stride_tricks.sliding_window_view(rr, RATE_BEATS)
    known = np.flatnonzero((windows > 0).all(axis=1))
    if not known.size:
        return None, None
    sums = windows[known].sum(axis=1)
    ends = known + RATE_BEATS - 1
    found = [
        Extreme(int(ms[ends[at]] - sums[at] // 2), float(60_000 * RATE_BEATS / sums[at]))
        for at in (int(sums.argmax()), int(sums.argmin()))
    ]
    return found[0], found[1]


def _runs(ms: NDArray[Any], rr: NDArray[np.int64], ventricular: NDArray[np.bool_]) -> tuple[list[Run], int]:
    """Find runs and count pairs; an unknown interval ends a run."""
    # A beat behind a gap begins anew: it is parted from the beat before it by a beat that is not there.
    edges = np.flatnonzero(np.diff(ventricular.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    runs: list[Run] = []
    pairs = 0
    for begin, end in edges.tolist():
        cuts = [begin, *(begin + 1 + np.flatnonzero(rr[begin + 1 : end] == 0)).tolist(), end]
        for first, last in itertools.pairwise(cuts):
            count = last - first
            pairs += count == RUN_BEATS - 1
            if count >= RUN_BEATS:
                span = int(ms[last - 1] - ms[first])
                runs.append(Run(int(ms[first]), count, 60_000 * (count - 1) / span if span else 0.0))
    return runs, pairs


def _within(ms: NDArray[Any], rr: NDArray[np.int64], wild: Sequence[Episode]) -> NDArray[np.bool_]:
    """Whether the interval before each beat touches a rhythm without beats."""
    inside = np.zeros(len(ms), bool)
    for episode in wild:
        inside |= (ms > episode.ms - WILD_BEFORE_MS) & (ms - rr < episode.to_ms)
    return inside


def _episodes(
    from_ms: int, to_ms: int, rhythms: Sequence[tuple[int, str]], codes: Sequence[str]
) -> tuple[Episode, ...]:
    changes = [(max(from_ms, ms), code) for ms, code in rhythms] + [(to_ms, "")]
    found: list[Episode] = []
    for (ms, code), (end, _) in itertools.pairwise(changes):
        if code not in codes or end <= ms:
            continue
        if found and found[-1].to_ms == ms:
            found[-1] = Episode(found[-1].ms, end)
        else:
            found.append(Episode(ms, end))
    return tuple(sorted(found, key=lambda episode: (episode.ms - episode.to_ms, episode.ms)))
