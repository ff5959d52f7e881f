"""Recordings through the live pipeline, as fast as it goes: framing, order, signal, networks, rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alerts.limits import KINDS
from alerts.model import Condition
from bus.messages import BeatEvent, Entry, Inbound, RhythmEvent
from dsp.layout import FS
from inference.recording import RecordingVerdict
from ingest.codecs import encode_frame
from ingest.recordings import Recording, RecordingError, find_record, read_record
from ingest.replay import frames_of
from rhythmwatch.annotations import AlarmLine, rhythm_marks, write_alarms, write_annotations
from rhythmwatch.models import Models
from rhythmwatch.pipeline import Output, Pipeline

FIRST_LEAD: Final = "MLII"
FRAME_S: Final = 1.2
_PATIENT: Final = "record"


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the pipeline said of one recording.

    Attributes
    ----------
    name : str
        Of the record.
    rate : float
        Hz.
    length : int
        Samples a lead.
    lead : str
        First choice of the analysed lead.
    beats : tuple of BeatEvent
        In order; samples at the record's rate.
    rhythms : tuple of RhythmEvent
        Changes of the verdict, in order; each at the end of its evidence.
    alarms : tuple of AlarmLine
        In the order in which they were raised.
    whole : RecordingVerdict or None
        On the recording as a whole, where it is short (`rhythmwatch.listening.analyze_whole`).
    """

    name: str
    rate: float
    length: int
    lead: str
    beats: tuple[BeatEvent, ...]
    rhythms: tuple[RhythmEvent, ...]
    alarms: tuple[AlarmLine, ...]
    whole: RecordingVerdict | None = None

    @property
    def marks(self) -> list[tuple[int, str]]:
        """Changes of the rhythm where they lie in the signal, as annotation files hold them: (sample, code)."""
        return rhythm_marks([(event.sample, event.code) for event in self.rhythms], self.rate)


def analyze_recording(recording: Recording, models: Models) -> Analysis:
    """Run one recording through the pipeline, frame by frame.

    Parameters
    ----------
    recording : Recording
        Leads in order of preference.
    models : Models
        The networks.

    Returns
    -------
    Analysis
    """
    pipeline = Pipeline(models, 1, views=False)
    output = Output()
    length = len(recording.samples)

    def collect(part: Output) -> None:
        output.events += part.events
        output.conditions += part.conditions

    ms = 0
    for frame in frames_of(recording, _PATIENT, 1, FRAME_S):
        ms = round((frame.sample + len(frame.samples)) * 1000 / recording.rate)
        collect(pipeline.step([(0, Inbound(Entry.FRAME, ms, _PATIENT, encode_frame(frame)))]))
    collect(pipeline.finish(_PATIENT, ms))
    events = [event for _, event in output.events]
    return Analysis(
        recording.name,
        recording.rate,
        length,
        recording.leads[0],
        tuple(event for event in events if isinstance(event, BeatEvent) and event.sample < length),
        tuple(event for event in events if isinstance(event, RhythmEvent) and event.sample < length),
        tuple(alarm_lines([condition for _, condition in output.conditions], length / recording.rate)),
    )


def alarm_lines(conditions: Sequence[Condition], seconds: float) -> list[AlarmLine]:
    """Join the beginnings and ends of conditions into alarms.

    Parameters
    ----------
    conditions : sequence of Condition
        In order.
    seconds : float
        Length of the recording; an alarm that was raised on what follows its end is said to be raised at its end.
    """
    raised: dict[tuple[str, int], Condition] = {}
    cleared: dict[tuple[str, int], int] = {}
    for condition in conditions:
        key = (condition.kind.value, condition.onset)
        if condition.on:
            raised.setdefault(key, condition)
        else:
            cleared[key] = condition.at
    lines = []
    for key, condition in raised.items():
        end = cleared.get(key, -1)
        cleared_s = None if end < 0 or end / FS > seconds else round(end / FS, 3)
        lines.append(
            AlarmLine(
                kind=condition.kind.value,
                priority=KINDS[condition.kind].priority.name.lower(),
                onset_s=round(condition.onset / FS, 3),
                raised_s=round(min(condition.at / FS, seconds), 3),
                cleared_s=cleared_s,
                detail=condition.detail,
            )
        )
    return [line for line in lines if line.onset_s < seconds]


def pick_leads(recording: Recording, lead: str | None) -> Recording:
    """Order the leads for analysis: the named one alone, else MLII before the others.

    Raises
    ------
    RecordingError
        If the record has no lead of that name.
    """
    return recording if lead is None else recording.only(lead)


def analyze_records(
    records: Sequence[str],
    database: Path,
    out: Path,
    models: Models,
    *,
    annotator: str = "rw",
    lead: str | None = None,
    examine: Callable[[Recording, Models], Analysis] = analyze_recording,
    done: Callable[[str, Analysis | None, str], None] = lambda name, analysis, error: None,
) -> int:
    """Analyse records and write ``OUT/RECORD.<annotator>`` and ``OUT/RECORD.alarms.jsonl``.

    Parameters
    ----------
    records : sequence of str
        Names in `database`, or paths.
    database, out : Path
        Folder of the records, folder of the results (made if it is not there).
    models : Models
        The networks.
    annotator : str
        Suffix of the annotation files, letters and digits.
    lead : str, optional
        Lead to analyse; without it MLII, else the first channel.
    examine : callable
        Analyses one recording.
    done : callable
        Called for each record with its name, result or None, and error or "".

    Returns
    -------
    int
        Number of records that could not be analysed.
    """
    failed = 0
    out.mkdir(parents=True, exist_ok=True)
    for name in records:
        try:
            recording = pick_leads(read_record(find_record(name, database)), lead)
            analysis = examine(recording, models)
            write_annotations(
                out / f"{recording.name}.{annotator}",
                analysis.rate,
                [(beat.sample, beat.code) for beat in analysis.beats],
                analysis.marks,
                analysis.length,
            )
            write_alarms(out / f"{recording.name}.alarms.jsonl", analysis.alarms)
        except (RecordingError, OSError) as error:
            failed += 1
            done(name, None, str(error))
            continue
        done(name, analysis, "")
    return failed
