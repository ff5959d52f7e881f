"""The report of one alarm: what it was, who did what, and the strip with spectrogram and map behind it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alerts.care_model import Person, Stay
from alerts.evidence import Evidence, EvidenceMap
from alerts.judging import Judgement
from alerts.paper import FAINT, HEIGHT, SPEED, draw_beats, draw_grid, draw_trace
from alerts.report_page import LEFT, RIGHT, Page, clock, render, span, zone_name
from alerts.words import PRIORITY_WORDS, kind_words
from bus.messages import AlarmEvent

ROW_S: Final = 10.0
ECG: Final = 30.0
LOUD: Final = 16.0
"""mm of paper for the trace, and for the spectrogram under it."""
BEAT_CELLS: Final = (6, 3)
"""Cells of a beat's map along time and frequency (`bus.messages.BeatEvent.map`)."""
BEAT_CELL_S: Final = 0.256
BEAT_FROM_S: Final = -0.96
"""Centre of the first cell against the R peak."""
FOR: Final = np.array((235, 110, 0), np.float64)
_DARK: Final = np.array((24, 32, 84), np.float64)
VERDICTS: Final = {"true": "true alarm", "false": "false alarm", "artefact": "artefact"}
REASONS: Final = {
    "raised": "raised",
    "value": "value changed",
    "worse": "became worse",
    "ended": "condition ended",
    "latched": "condition ended, waits for acknowledgement",
    "acknowledged": "acknowledged",
    "escalated": "not acknowledged in time, escalated",
    "reminded": "still on, reminded",
    "paused": "sound paused",
    "discharged": "patient discharged",
}


@dataclass(frozen=True, slots=True)
class EventReport:
    """What the report says.

    Attributes
    ----------
    changes : sequence of AlarmEvent
        In order.
    stay, person
        Who was there; None where nobody was admitted.
    made_ms, made_by
        When the report was made, and by whom.
    """

    alarm: AlarmEvent
    changes: Sequence[AlarmEvent]
    evidence: Evidence | None
    judgements: Sequence[Judgement]
    made_ms: int
    made_by: str
    stay: Stay | None = None
    person: Person | None = None
    labels: dict[int, str] = field(default_factory=dict)
    """Class that a person gave a beat, by its ms."""


def event_report(content: EventReport, zone: tzinfo | None) -> bytes:
    """Make the PDF of an alarm; times are in `zone`, None for that of this machine."""
    alarm = content.alarm

    def draw(page: Page) -> None:
        _facts(page, content, zone)
        _history(page, content, zone)
        if content.evidence is None or not content.evidence.fs:
            page.heading("No recording of this alarm is kept.")
            return
        _strip(page, content, content.evidence, zone)

    made = f"{clock(content.made_ms, zone)} {zone_name(content.made_ms, zone)} by {content.made_by}"
    return render(f"Alarm: {kind_words(alarm.kind)}", who(content.stay, content.person, alarm.patient), made, draw)


def who(stay: Stay | None, person: Person | None, patient: str) -> str:
    """Name a patient for the head of a page: person, bed, else the channel."""
    parts = []
    if person is not None:
        parts.append(person.name)
        parts += [f"born {person.born}"] if person.born else []
        parts += [f"no. {person.mrn}"] if person.mrn else []
    if stay is not None:
        parts.append(f"bed {stay.bed}, {stay.ward}" if stay.ward else f"bed {stay.bed}")
    return ", ".join(parts) or f"channel {patient} (nobody admitted)"


def _facts(page: Page, content: EventReport, zone: tzinfo | None) -> None:
    alarm, evidence = content.alarm, content.evidence
    limit = ""
    if alarm.value is not None:
        limit = f"{alarm.value:g}" + (f", limit {alarm.limit:g}" if alarm.limit is not None else "")
    ended = clock(alarm.cleared_ms, zone, day=False, tenths=True) if alarm.cleared_ms else "not yet"
    lasted = f" (lasted {span(alarm.cleared_ms - alarm.onset_ms)})" if alarm.cleared_ms else ""
    left = [
        ("Alarm", f"{kind_words(alarm.kind)}, {PRIORITY_WORDS.get(alarm.priority, '?')} priority"),
        ("Rule", (evidence.rule if evidence else "") or alarm.detail or "-"),
        ("Value", limit or "-"),
        ("Began", clock(alarm.onset_ms, zone, tenths=True)),
        ("Raised", f"{clock(alarm.raised_ms, zone, day=False, tenths=True)}"),
        ("Ended", ended + lasted),
    ]
    acked = f"by {alarm.acked_by}, {clock(alarm.acked_ms, zone)}" if alarm.acked_by and alarm.acked_ms else "by nobody"
    judged = "not yet"
    if content.judgements:
        last = content.judgements[-1]
        judged = f"{VERDICTS.get(last.verdict, last.verdict)}, by {last.who}, {clock(last.ms, zone)}"
        judged += f"\n{last.comment}" if last.comment else ""
    right = [
        ("Acknowledged", acked),
        ("Judged", judged),
        ("Device", alarm.device),
        ("Model", evidence.model if evidence else "-"),
    ]
    if evidence is not None and evidence.map is not None:
        said = evidence.map
        right.append(("Rhythm verdict", f"{said.code} {said.p:.0%}, next {said.second} {said.second_p:.0%}"))
    elif evidence is not None and evidence.probabilities:
        classes = ", ".join(f"{code} {p:.0%}" for code, p in list(evidence.probabilities.items())[:4])
        right.append(("Mean of beats", classes))
    middle = LEFT + 128.0
    page.y = (
        max(
            page.facts(left, LEFT, page.y, 124.0, label=18.0),
            page.facts(right, middle, page.y, RIGHT - middle, label=28.0),
        )
        + 2.0
    )


def _history(page: Page, content: EventReport, zone: tzinfo | None) -> None:
    shown = [change for change in content.changes if change.reason != "value"]
    if len(shown) > 4:
        shown = [*shown[:2], *shown[-2:]]
    if not shown:
        return
    words = []
    for change in shown:
        text = f"{clock(change.changed_ms, zone, day=False)} {REASONS.get(change.reason, change.reason)}"
        if change.reason == "acknowledged" and change.acked_by:
            text += f" by {change.acked_by}"
        words.append(text)
    page.y = page.facts([("History", "; ".join(words))], LEFT, page.y, RIGHT - LEFT, label=18.0) + 1.0


def _strip(page: Page, content: EventReport, evidence: Evidence, zone: tzinfo | None) -> None:
    mv = np.array([np.nan if value is None else value for value in evidence.samples_mv], np.float64)
    picture = spectrogram(evidence)
    low = 0.0 if picture is None else LOUD
    seconds = len(mv) / evidence.fs
    rows = max(1, int(np.ceil(seconds / ROW_S - 1e-6)))
    scale = f"{SPEED:g} mm/s, {HEIGHT:g} mm/mV, lead {evidence.lead}"
    note = f"; spectrogram 0 to {evidence.top_hz:.0f} Hz, orange: what spoke for the verdict" if low else ""
    for row in range(rows):
        page.need(9.0 + ECG + low)
        begin = row * ROW_S
        part = mv[round(begin * evidence.fs) : round((begin + ROW_S) * evidence.fs)]
        if not part.size:
            break
        width = min(ROW_S, len(part) / evidence.fs) * SPEED
        at_ms = evidence.from_ms + round(begin * 1000)
        page.pen.text(LEFT, page.y + 2.4, clock(at_ms, zone, tenths=True), 2.6, FAINT)
        page.pen.text(RIGHT, page.y + 2.4, scale + note, 2.6, FAINT, align="r")
        top = page.y + 6.2
        draw_grid(page.pen, LEFT, top, width, ECG)
        draw_trace(page.pen, LEFT, top, ECG, part, evidence.fs)
        beats = [
            ((beat.ms - at_ms) / 1000, content.labels.get(beat.ms, beat.code))
            for beat in evidence.beats
            if 0 <= beat.ms - at_ms < 1000 * len(part) / evidence.fs
        ]
        draw_beats(page.pen, LEFT, top - 0.2, beats)
        _mark(page, content.alarm, at_ms, width, top)
        if picture is not None:
            per_s = 1000 / evidence.column_ms
            cut = picture[:, round(begin * per_s) : int((begin + width / SPEED) * per_s)]
            if cut.shape[1]:
                page.pen.picture(LEFT, top + ECG + 0.6, min(width, cut.shape[1] / per_s * SPEED), LOUD, cut)
        page.y = top + ECG + low + 3.0


def _mark(page: Page, alarm: AlarmEvent, at_ms: int, width: float, top: float) -> None:
    """Mark on the paper where the condition began, was raised and ended."""
    for ms, name in ((alarm.onset_ms, "began"), (alarm.raised_ms, "raised"), (alarm.cleared_ms, "ended")):
        place = (ms - at_ms) / 1000 * SPEED if ms else -1.0
        if 0 <= place < width:
            page.pen.lines(((LEFT + place, top), (LEFT + place, top + ECG)), 0.3, (190, 0, 30))
            page.pen.text(LEFT + place + 0.8, top + ECG - 1.0, name, 2.4, (190, 0, 30))


def spectrogram(evidence: Evidence) -> NDArray[np.uint8] | None:
    """Picture of the spectrogram, dark where it is loud, orange over what spoke for the verdict.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3), or None
        Highest frequency first; None where none is kept.
    """
    flat = np.frombuffer(base64.b64decode(evidence.columns), np.uint8)
    if evidence.bins <= 0 or flat.size < evidence.bins:
        return None
    loud = flat[: flat.size // evidence.bins * evidence.bins].reshape(-1, evidence.bins).T.astype(np.float64) / 255
    weight = np.zeros(loud.shape)
    if evidence.map is not None:
        _weigh_rhythm(weight, evidence.map, evidence)
    else:
        _weigh_beats(weight, evidence)
    base = 255 - (255 - _DARK) * loud[:, :, None] ** 1.3
    tint = np.clip(weight, 0, 1)[:, :, None] * 0.65
    pixels: NDArray[np.uint8] = np.rint(base * (1 - tint) + FOR * tint).astype(np.uint8)[::-1]
    return np.ascontiguousarray(np.repeat(pixels, 4, axis=0))


def _weigh_rhythm(weight: NDArray[np.float64], said: EvidenceMap, evidence: Evidence) -> None:
    if not said.cells or not said.cells[0] or said.to_ms <= said.from_ms:
        return
    rows, columns = weight.shape
    times = evidence.from_ms + (np.arange(columns) + 0.5) * evidence.column_ms
    across = ((times - said.from_ms) / (said.to_ms - said.from_ms) * len(said.cells[0])).astype(np.int64)
    inside = (times >= said.from_ms) & (times < said.to_ms)
    hertz = (np.arange(rows) + 0.5) * evidence.top_hz / rows
    for (low, high), cells in zip(said.bands, said.cells, strict=True):
        for row in np.flatnonzero((hertz >= low) & (hertz < high)).tolist():
            weight[row, inside] = np.maximum(weight[row, inside], np.asarray(cells)[across[inside]])


def _weigh_beats(weight: NDArray[np.float64], evidence: Evidence) -> None:
    rows, columns = weight.shape
    tall = rows / BEAT_CELLS[1]
    for beat in evidence.beats:
        packed = base64.b64decode(beat.map)
        if len(packed) != 1 + BEAT_CELLS[0] * BEAT_CELLS[1]:
            continue
        cells = ((np.frombuffer(packed, np.uint8, offset=1).astype(np.float64) - 128) / 127).reshape(BEAT_CELLS)
        for number in range(BEAT_CELLS[0]):
            middle = (beat.ms - evidence.from_ms) / 1000 + BEAT_FROM_S + number * BEAT_CELL_S
            ends = [round((middle + half * BEAT_CELL_S / 2) * 1000 / evidence.column_ms) for half in (-1, 1)]
            low, high = max(0, ends[0]), min(columns, ends[1])
            for level in range(BEAT_CELLS[1]):
                # Cells are centred on bins 0, 8 and 16 of 24.
                bottom, top = (level - 0.5) * tall, (level + 0.5) * tall
                area: Any = (slice(max(0, round(bottom)), round(top)), slice(low, max(low, high)))
                weight[area] = np.maximum(weight[area], cells[number, level])
