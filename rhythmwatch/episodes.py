"""Rhythm verdicts and alarms against reference rhythms: by second, by 4-s window and by episode.

Episodes are scored as EC57 asks (4.5; `epicmp` of the WFDB applications): an episode is found if any part of it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from inference.training.records import CLASSES, Record
from inference.training.scoring import Counts
from rhythmwatch.analyze import Analysis
from rhythmwatch.annotations import AlarmLine

VF: Final = ("VF", "VFIB", "VFL")
VT: Final = ("VT",)
AF: Final = ("AFIB", "AFL")
SHOCKABLE: Final = (*VF, *VT)
DISPUTED: Final = ("HGEA", "VER", "IVR")
"""Rhythms of ventricular origin that need no shock: they count as not shockable, and once more without them."""

LETHAL: Final = ("ASYSTOLE", "VFIB", "VTACH")
WINDOW_S: Final = 4
EPISODE_S: Final = 8.0
"""An episode counts for the delay of alarms from this length."""

AFTER_S: Final = 5.0
"""An alarm raised up to this long after the end of an episode still belongs to it."""

RUN: Final = 5
RUN_RR_S: Final = 0.6
"""Five ventricular beats at 100/min or more are a ventricular tachycardia (limits of the alarm VTACH)."""

PAUSE_S: Final = 4.0
"""An interval between beats from which there is asystole."""

Span = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Reference rhythm and verdict of each full second of a record, and its alarms.

    Attributes
    ----------
    name : str
        Of the record.
    reference : ndarray of str, shape (n,)
        Rhythm that holds through all of the second, as in ``VFL``; empty where none does.
    verdict : ndarray of str, shape (n,)
        Verdict in force at the end of the second; empty before the first.
    marked : ndarray of str, shape (n,)
        Rhythm at the middle of the second by the marks of the annotation file, which look back.
    alarms : tuple of AlarmLine
    episodes : dict of str to tuple of (float, float)
        Reference episodes (s): ``shock`` (VT, VF and flutter, joined), ``af``, ``lethal`` (what may raise a lethal
        alarm, see `lethal_spans`).
    """

    name: str
    reference: NDArray[np.str_]
    verdict: NDArray[np.str_]
    marked: NDArray[np.str_]
    alarms: tuple[AlarmLine, ...]
    episodes: dict[str, tuple[Span, ...]]

    @property
    def hours(self) -> float:
        """Length, h."""
        return len(self.reference) / 3600


def timeline(analysis: Analysis, record: Record) -> Timeline:
    """Lay verdicts and reference beside each other.

    Parameters
    ----------
    analysis : Analysis
        From `rhythmwatch.analyze`.
    record : Record
        The same recording with its reference annotations.

    Returns
    -------
    Timeline
    """
    count = int(len(record.mv) / record.rate)
    spans = rhythm_spans(record)
    ends = np.rint(np.arange(1, count + 1) * analysis.rate)
    return Timeline(
        name=record.name,
        reference=by_second(spans, count),
        verdict=in_force([(event.sample, event.code) for event in analysis.rhythms], ends),
        marked=in_force(analysis.marks, ends - round(analysis.rate / 2)),
        alarms=analysis.alarms,
        episodes={
            "shock": joined(spans, SHOCKABLE),
            "af": joined(spans, AF),
            "lethal": lethal_spans(record),
        },
    )


def in_force(changes: Sequence[tuple[int, str]], samples: NDArray[np.float64]) -> NDArray[np.str_]:
    """Look up the code that is in force at each sample; empty before the first change."""
    codes = np.array(["", *(code for _, code in changes)], np.str_)
    return codes[np.searchsorted([sample for sample, _ in changes], samples, side="right")]


def rhythm_spans(record: Record) -> list[tuple[str, float, float]]:
    """List reference rhythms as (code without bracket, begin, end), s; ``[`` to ``]`` is VFL, above the others."""
    ends = [*record.rhythms[1:].tolist(), len(record.mv)]
    spans = [
        (code.strip("("), first / record.rate, last / record.rate)
        for code, first, last in zip(record.rhythm_codes, record.rhythms.tolist(), ends, strict=True)
    ]
    return spans + [("VFL", first / record.rate, last / record.rate) for first, last in record.flutter]


def by_second(spans: Sequence[tuple[str, float, float]], count: int) -> NDArray[np.str_]:
    """Code of each second that lies in one span as a whole; a later span stands above an earlier one.

    Parameters
    ----------
    spans : sequence of (str, float, float)
        Code, begin and end, s.
    count : int
        Seconds.

    Returns
    -------
    ndarray of str, shape (count,)
    """
    grid = 20
    fine = np.full(count * grid, "", "U8")
    for code, first, last in spans:
        fine[round(first * grid) : round(last * grid)] = code
    seconds = fine.reshape(count, grid)
    same = (seconds == seconds[:, :1]).all(axis=1)
    return np.where(same, seconds[:, 0], "")


def joined(spans: Sequence[tuple[str, float, float]], codes: Sequence[str], gap: float = 0.1) -> tuple[Span, ...]:
    """Join touching spans of the named codes into episodes, ascending."""
    wanted = sorted((first, last) for code, first, last in spans if code in codes and last > first)
    episodes: list[Span] = []
    for first, last in wanted:
        if episodes and first - episodes[-1][1] <= gap:
            episodes[-1] = (episodes[-1][0], max(last, episodes[-1][1]))
        else:
            episodes.append((first, last))
    return tuple(episodes)


def lethal_spans(record: Record) -> tuple[Span, ...]:
    """Stretches of a record whose reference annotations justify a lethal alarm.

    Returns
    -------
    tuple of (float, float)
        Rhythms VT, VF and VFL; runs of `RUN` or more V beats at 100/min or more; intervals of `PAUSE_S` without a
        beat outside flutter; s, ascending.
    """
    spans = [span for span in rhythm_spans(record) if span[0] in SHOCKABLE]
    times = record.beat_times
    ventricular = record.classes == CLASSES.index("V")
    spans += [
        ("VT", float(times[i]), float(times[i + RUN - 1]))
        for i in range(len(times) - RUN + 1)
        if ventricular[i : i + RUN].all() and times[i + RUN - 1] - times[i] <= (RUN - 1) * RUN_RR_S
    ]
    spans += [("VT", float(times[i]), float(times[i + 1])) for i in np.flatnonzero(np.diff(times) >= PAUSE_S)]
    return joined(spans, SHOCKABLE)


def windows(item: Timeline, *, verdicts: Sequence[str] = ("VT", "VFL")) -> dict[str, tuple[int, int]]:
    """Count windows of `WINDOW_S` that end at each second and lie in one class, and those with a shockable verdict.

    Parameters
    ----------
    item : Timeline
    verdicts : sequence of str
        Verdicts that count.

    Returns
    -------
    dict of str to (int, int)
        ``vf``, ``vt``, ``noise``, ``disputed`` and ``other``: windows with such a verdict at their end, and all.
    """
    groups: tuple[tuple[str, Callable[[NDArray[np.str_]], NDArray[np.bool_]]], ...] = (
        ("vf", lambda code: np.isin(code, VF)),
        ("vt", lambda code: np.isin(code, VT)),
        ("noise", lambda code: code == "NOISE"),
        ("disputed", lambda code: np.isin(code, DISPUTED)),
        ("other", lambda code: (code != "") & ~np.isin(code, (*SHOCKABLE, *DISPUTED, "NOISE"))),
    )
    said = np.isin(item.verdict, verdicts)[WINDOW_S - 1 :]
    counts = {}
    for name, belongs in groups:
        inside = belongs(item.reference).astype(np.int64)
        whole = np.convolve(inside, np.ones(WINDOW_S, np.int64), "valid") == WINDOW_S
        counts[name] = (int((said & whole).sum()), int(whole.sum()))
    return counts


def named(item: Timeline) -> dict[str, tuple[int, int]]:
    """Count shockable windows that bear the right name: VFL in ``vf``, VT in ``vt``, of those found."""
    found = windows(item)
    return {
        "vf": (windows(item, verdicts=("VFL",))["vf"][0], found["vf"][0]),
        "vt": (windows(item, verdicts=("VT",))["vt"][0], found["vt"][0]),
    }


def delays(item: Timeline) -> list[float | None]:
    """Delay of the first VFIB or VTACH alarm of each shockable episode of `EPISODE_S` or more.

    Returns
    -------
    list of float or None
        From the reference's onset to `AlarmLine.raised_s`, s; 0 where such an alarm stood already; None where none
        came until `AFTER_S` after the end.
    """
    found: list[float | None] = []
    shocks = [alarm for alarm in item.alarms if alarm.kind in ("VFIB", "VTACH")]
    for first, last in item.episodes["shock"]:
        if last - first < EPISODE_S:
            continue
        times = [
            max(alarm.raised_s - first, 0.0)
            for alarm in shocks
            if alarm.raised_s <= last + AFTER_S and (alarm.cleared_s is None or alarm.cleared_s > first)
        ]
        found.append(min(times) if times else None)
    return found


def false_lethal(item: Timeline, slack: float = 10.0) -> list[AlarmLine]:
    """Lethal alarms of a record that touch no episode of ``lethal``, within `slack` seconds."""
    return [
        alarm
        for alarm in item.alarms
        if alarm.kind in LETHAL
        and not any(
            first - slack <= alarm.raised_s and alarm.onset_s <= last + slack for first, last in item.episodes["lethal"]
        )
    ]


def af_seconds(item: Timeline) -> Counts:
    """Seconds of AF (with atrial flutter) found, missed and invented, over all labelled seconds."""
    real, said, known = np.isin(item.reference, AF), item.marked == "AFIB", item.reference != ""
    return Counts(int((real & said).sum()), int((real & ~said).sum()), int((known & ~real & said).sum()))


def af_negative(item: Timeline) -> int:
    """Labelled seconds without AF."""
    return int(((item.reference != "") & ~np.isin(item.reference, AF)).sum())


def spans_of(said: NDArray[np.bool_]) -> tuple[Span, ...]:
    """List runs of true seconds as (begin, end), s."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], said.astype(np.int8), [0]])))
    return tuple((float(first), float(last)) for first, last in edges.reshape(-1, 2))


def episode_scores(reference: Sequence[Span], found: Sequence[Span]) -> dict[str, tuple[float, float]]:
    """Episodes of one record as EC57 counts them.

    Parameters
    ----------
    reference, found : sequence of (float, float)
        Episodes, s.

    Returns
    -------
    dict of str to (float, float)
        Numerator and denominator of ``episode_se``, ``episode_ppv`` (episodes that the other side touches) and
        ``duration_se``, ``duration_ppv`` (seconds that both hold).
    """

    def overlap(a: Span, others: Sequence[Span]) -> float:
        return sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for b in others)

    both = sum(overlap(span, found) for span in reference)
    return {
        "episode_se": (sum(overlap(span, found) > 0 for span in reference), len(reference)),
        "episode_ppv": (sum(overlap(span, reference) > 0 for span in found), len(found)),
        "duration_se": (both, sum(last - first for first, last in reference)),
        "duration_ppv": (both, sum(last - first for first, last in found)),
    }


def summed(parts: Sequence[dict[str, tuple[float, float]]]) -> dict[str, float]:
    """Gross percentages of counts of (numerator, denominator) by name; NaN where a denominator is 0."""
    names = parts[0] if parts else {}
    return {name: percent(sum(part[name][0] for part in parts), sum(part[name][1] for part in parts)) for name in names}


def percent(part: float, whole: float) -> float:
    """Percentage, NaN of nothing."""
    return 100.0 * part / whole if whole else float("nan")


def shock_figures(items: Sequence[Timeline]) -> dict[str, Any]:
    """Figures of a set of vfdb records.

    Returns
    -------
    dict
        Percent of windows: ``vf``, ``vt`` (sensitivity), ``specificity`` (not shockable, disputed ones with them),
        ``specificity_undisputed``, ``noise`` (shockable verdicts in noise), ``named_vf``, ``named_vt``; ``windows``
        their numbers; ``episodes``, ``missed``, ``delay_median``, ``delay_90`` (s, where no alarm stood before).
    """
    parts = [windows(item) for item in items]
    counts = {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}
    right = [named(item) for item in items]
    every = [delay for item in items for delay in delays(item)]
    fresh = [delay for delay in every if delay is not None and delay > 0]
    other, disputed = counts["other"], counts["disputed"]
    return {
        "records": [item.name for item in items],
        "vf": percent(*counts["vf"]),
        "vt": percent(*counts["vt"]),
        "specificity": 100 - percent(other[0] + disputed[0], other[1] + disputed[1]),
        "specificity_undisputed": 100 - percent(*other),
        "noise": percent(*counts["noise"]),
        "named_vf": percent(*np.sum([part["vf"] for part in right], axis=0)),
        "named_vt": percent(*np.sum([part["vt"] for part in right], axis=0)),
        "windows": {name: [int(value) for value in pair] for name, pair in counts.items()},
        "episodes": len(every),
        "missed": sum(delay is None for delay in every),
        "delay_median": float(np.median(fresh)) if fresh else float("nan"),
        "delay_90": float(np.percentile(fresh, 90)) if fresh else float("nan"),
    }
