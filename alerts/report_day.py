"""The summary of a day: figures, trends, and a strip for each thing worth a look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alerts.archive import Strip
from alerts.archive_view import Trends
from alerts.care_model import Person, Stay
from alerts.day_summary import LISTED, RUN_BEATS, RUN_RATE, Summary
from alerts.paper import COARSE, FAINT, HEIGHT, INK, SPEED, Colour, draw_beats, draw_grid, draw_trace
from alerts.report_event import who
from alerts.report_page import LEFT, RIGHT, Page, clock, render, span, zone_name

STRIP_MS: Final = 10_000
BAND: Final = 40.0
"""mm of paper a strip."""
BLUE: Final[Colour] = (0, 84, 150)
PALE: Final[Colour] = (186, 212, 232)
ORANGE: Final[Colour] = (178, 60, 0)
GREY: Final[Colour] = (120, 120, 128)
HOUR_MS: Final = 3_600_000
_TICKS: Final = tuple(minutes * 60_000 for minutes in (1, 5, 10, 15, 30, 60, 120, 180, 240, 360))


@dataclass(frozen=True, slots=True)
class Example:
    """A strip to show."""

    title: str
    strip: Strip
    beats: NDArray[Any]


@dataclass(frozen=True, slots=True)
class DayReport:
    """What the report says.

    Attributes
    ----------
    trends : Trends
        Of the stretch, in steps of some minutes.
    examples : sequence of Example
        See `wanted_strips`.
    alarms : sequence of (str, int)
        Kind in words and how many there were.
    lead : str
        That the strips show.
    """

    patient: str
    summary: Summary
    trends: Trends
    examples: Sequence[Example]
    alarms: Sequence[tuple[str, int]]
    lead: str
    made_ms: int
    made_by: str
    stay: Stay | None = None
    person: Person | None = None


def wanted_strips(summary: Summary) -> list[tuple[str, int]]:
    """Give title and begin (ms) of the strips that show what the figures say, each time once."""
    found: list[tuple[str, int]] = []
    half = STRIP_MS // 2
    if summary.slowest:
        found.append((f"Lowest rate, {summary.slowest.rate:.0f}/min", summary.slowest.ms - half))
    if summary.fastest:
        found.append((f"Highest rate, {summary.fastest.rate:.0f}/min", summary.fastest.ms - half))
    if summary.wild:
        worst = summary.wild[0]
        found.append((f"Ventricular fibrillation or flutter, {span(worst.to_ms - worst.ms)}", worst.ms - half))
    if summary.episodes:
        first = summary.episodes[0]
        found.append((f"Longest atrial fibrillation, {span(first.to_ms - first.ms)}", first.ms))
    if summary.runs:
        longest = summary.runs[0]
        found.append((f"Longest run, {longest.beats} beats at {longest.rate:.0f}/min", longest.ms - half // 2))
        fastest = max(summary.runs, key=lambda run: run.rate)
        if fastest is not longest:
            found.append((f"Fastest run, {fastest.beats} beats at {fastest.rate:.0f}/min", fastest.ms - half // 2))
    if summary.pauses:
        longest_pause = summary.pauses[0]
        found.append((f"Longest pause, {longest_pause.seconds:.1f} s", longest_pause.ms - half // 2))
    if summary.first_pvc_ms is not None:
        found.append(("First ventricular beat", summary.first_pvc_ms - half))
    return [
        (title, min(max(ms, summary.from_ms), max(summary.from_ms, summary.to_ms - STRIP_MS))) for title, ms in found
    ]


def day_report(content: DayReport, zone: tzinfo | None) -> bytes:
    """Make the PDF of a stretch; times are in `zone`, None for that of this machine."""

    def draw(page: Page) -> None:
        summary = content.summary
        page.pen.text(
            LEFT,
            page.y + 3.0,
            f"{clock(summary.from_ms, zone)} to {clock(summary.to_ms, zone)}, {zone_name(summary.to_ms, zone)}",
            3.2,
        )
        page.y += 6.5
        _figures(page, content)
        _trends(page, content.trends, zone)
        _lists(page, summary, zone)
        _examples(page, content.examples, zone)

    length = span(content.summary.to_ms - content.summary.from_ms)
    made = f"{clock(content.made_ms, zone)} {zone_name(content.made_ms, zone)} by {content.made_by}"
    return render(f"Summary of {length}", who(content.stay, content.person, content.patient), made, draw)


def _figures(page: Page, content: DayReport) -> None:
    summary = content.summary

    def rate(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f}/min"

    share = summary.af_share
    per_hour = summary.pvc * HOUR_MS / summary.recorded_ms if summary.recorded_ms else 0.0
    of = f" ({summary.pvc / summary.beats:.1%} of beats)" if summary.beats else ""
    longest_run = f", longest {summary.runs[0].beats} beats" if summary.runs else ""
    slow = f"; {summary.slow_runs} below {RUN_RATE:g}/min" if summary.slow_runs else ""
    longest_pause = f", longest {summary.pauses[0].seconds:.1f} s" if summary.pauses else ""
    longest_wild = f", longest {span(summary.wild[0].to_ms - summary.wild[0].ms)}" if summary.wild else ""
    missing = max(0, summary.to_ms - summary.from_ms - summary.recorded_ms)
    columns = (
        [
            ("HR mean", rate(summary.hr_mean)),
            ("HR lowest", rate(summary.slowest.rate if summary.slowest else None)),
            ("HR highest", rate(summary.fastest.rate if summary.fastest else None)),
            ("Beats", f"{summary.beats}"),
        ],
        [
            ("PVC", f"{summary.pvc}{of}, {per_hour:.1f} an hour"),
            ("PVC pairs", f"{summary.pairs}"),
            ("Runs", f"{len(summary.runs)}{longest_run}{slow}"),
            ("SVEB", f"{summary.sveb}"),
        ],
        [
            ("AF burden", "-" if share is None else f"{share:.1%} ({span(summary.af_ms)})"),
            ("AF episodes", f"{len(summary.episodes)}"),
            ("VF or flutter", f"{len(summary.wild)}{longest_wild}"),
            ("Pauses", f"{len(summary.pauses)} over {summary.pause_s:g} s{longest_pause}"),
            ("Analysed", f"{span(summary.recorded_ms)}, missing or blind {span(missing)}"),
        ],
    )
    top = page.y
    for number, rows in enumerate(columns):
        page.y = max(page.y, page.facts(rows, LEFT + number * 84.0, top, 82.0, label=22.0))
    alarms = ", ".join(f"{name} {count}" for name, count in content.alarms) or "none"
    page.y = page.facts([("Alarms", alarms)], LEFT, page.y, RIGHT - LEFT, label=22.0) + 3.0


def _trends(page: Page, made: Trends, zone: tzinfo | None) -> None:
    """Draw rate, ventricular beats and share of fibrillation over one axis of time."""
    if not made.ms.size:
        return
    begin, end = int(made.ms[0]), int(made.ms[-1]) + made.step_ms
    width = RIGHT - LEFT - 12.0

    def x(ms: float) -> float:
        return LEFT + 12.0 + (ms - begin) / (end - begin) * width

    step_min = made.step_ms // 60_000
    pvc = made.pvc * (60.0 / step_min)
    _axis(page, "HR /min", 40.0, _top(made.hr_max, 40.0), x, made, lambda y: _rates(page, made, x, y))
    _axis(page, "PVC /h", 18.0, _top(pvc, 10.0), x, made, lambda y: _bars(page, made, pvc, x, y, ORANGE))
    _axis(page, "AF %", 14.0, 100.0, x, made, lambda y: _bars(page, made, 100 * made.af, x, y, BLUE))
    _axis(page, "Good %", 10.0, 100.0, x, made, lambda y: _bars(page, made, 100 * made.quality, x, y, GREY))
    every = next((step for step in _TICKS if (end - begin) / step <= 12), _TICKS[-1])
    for ms in range(begin - begin % every + every, end, every):
        page.pen.text(x(ms), page.y + 2.4, clock(ms, zone, day=False)[:5], 2.6, FAINT, align="m")
    page.y += 7.0


def _top(values: NDArray[np.float64], least: float) -> float:
    known = values[~np.isnan(values)]
    return max(least, float(np.ceil(known.max() / 20) * 20)) if known.size else least


def _axis(
    page: Page,
    name: str,
    height: float,
    top: float,
    x: Callable[[float], float],
    made: Trends,
    draw: Callable[[Callable[[float], float]], None],
) -> None:
    page.need(height + 3.0)
    base = page.y + height
    left, right = x(float(made.ms[0])), x(float(made.ms[-1]) + made.step_ms)
    for value in (0.0, top / 2, top):
        y = base - value / top * height
        page.pen.lines(((left, y), (right, y)), 0.1, COARSE)
        if height >= 14.0 or value:
            page.pen.text(left - 1.0, y + 0.9, f"{value:g}", 2.4, FAINT, align="r")
    page.pen.text(LEFT - 8.0, base - height / 2 + 0.9, name, 2.6, INK)
    draw(lambda value: base - min(value, top) / top * height)
    page.y = base + 3.0


def _rates(page: Page, made: Trends, x: Callable[[float], float], y: Callable[[float], float]) -> None:
    wide = x(made.step_ms) - x(0.0)
    for ms, low, high in zip(made.ms.tolist(), made.hr_min.tolist(), made.hr_max.tolist(), strict=True):
        if low == low and high == high:
            page.pen.box(x(ms), y(high), wide, max(0.2, y(low) - y(high)), PALE)
    line: list[tuple[float, float]] = []
    for ms, rate in [*zip(made.ms.tolist(), made.hr.tolist(), strict=True), (0, float("nan"))]:
        if rate == rate:
            line.append((x(ms + made.step_ms / 2), y(rate)))
        elif line:
            page.pen.lines(line if len(line) > 1 else [line[0], line[0]], 0.3, BLUE)
            line = []


def _bars(
    page: Page,
    made: Trends,
    values: NDArray[np.float64],
    x: Callable[[float], float],
    y: Callable[[float], float],
    colour: Colour,
) -> None:
    wide = x(made.step_ms) - x(0.0)
    for ms, value in zip(made.ms.tolist(), values.tolist(), strict=True):
        if value == value and value > 0:
            page.pen.box(x(ms), y(value), wide * 0.9, y(0.0) - y(value), colour)


def _lists(page: Page, summary: Summary, zone: tzinfo | None) -> None:
    lists = (
        (
            f"Runs of {RUN_BEATS} or more PVC",
            len(summary.runs),
            [f"{clock(run.ms, zone)}  {run.beats} beats at {run.rate:.0f}/min" for run in summary.runs[:LISTED]],
        ),
        (
            f"Pauses over {summary.pause_s:g} s",
            len(summary.pauses),
            [f"{clock(pause.ms, zone)}  {pause.seconds:.1f} s" for pause in summary.pauses[:LISTED]],
        ),
        (
            "Atrial fibrillation",
            len(summary.episodes),
            [f"{clock(item.ms, zone)}  {span(item.to_ms - item.ms)}" for item in summary.episodes[:LISTED]],
        ),
    )
    page.need(12.0 + 4.5 * max(len(lines) for _, _, lines in lists))
    top = page.y
    for number, (name, count, lines) in enumerate(lists):
        left = LEFT + number * 84.0
        more = f", longest {LISTED} of {count}" if count > LISTED else ""
        page.pen.text(left, top + 3.0, name + more, 3.0, bold=True)
        for row, line in enumerate(lines or ["none"]):
            page.pen.text(left, top + 7.8 + 4.5 * row, line, 2.9)
    page.y = top + 10.0 + 4.5 * max(1, *(len(lines) for _, _, lines in lists))


def _examples(page: Page, examples: Sequence[Example], zone: tzinfo | None) -> None:
    for example in examples:
        page.need(BAND + 13.0)
        strip = example.strip
        page.pen.text(LEFT, page.y + 3.0, example.title, 3.4, bold=True)
        scale = f"{clock(strip.from_ms, zone, tenths=True)}   {SPEED:g} mm/s, {HEIGHT:g} mm/mV, lead {strip.leads[0]}"
        page.pen.text(RIGHT, page.y + 3.0, scale, 2.6, FAINT, align="r")
        top = page.y + 7.5
        width = min(STRIP_MS / 1000, len(strip.units) / strip.fs) * SPEED
        draw_grid(page.pen, LEFT, top, width, BAND)
        draw_trace(page.pen, LEFT, top, BAND, strip.mv[:, 0], strip.fs)
        marks = [
            ((ms - strip.from_ms) / 1000, code.decode())
            for ms, code in zip(example.beats["ms"].tolist(), example.beats["code"].tolist(), strict=True)
        ]
        draw_beats(page.pen, LEFT, top - 0.2, marks)
        page.y = top + BAND + 5.0
