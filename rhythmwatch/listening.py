"""An analysis that keeps what the networks said: all class probabilities and scores, not only what became an event."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from dsp.layout import FS
from inference import features, rhythm
from inference.beats import BeatModel
from inference.recording import RecordingVerdict, recording_features
from inference.rhythm import RhythmModel
from inference.training.records import CLASSES
from ingest.recordings import Recording
from rhythmwatch.analyze import Analysis, analyze_recording
from rhythmwatch.models import Models

_SHARED: Final = ("offsets",)

SHORT_S: Final = 120.0
"""Recordings up to this length get one verdict on the whole; its model has learnt from 9 to 61 s."""


class _Ear:
    """A model that notes what passes through `classify`, and else is the model itself."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.heard: list[tuple[Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def classify(self, rows: Any) -> Any:
        result = self._model.classify(rows)
        self.heard.append((rows, result))
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """One recording's analysis with what stood behind it.

    Attributes
    ----------
    analysis : Analysis
        As `rhythmwatch.analyze` gives it.
    probabilities : ndarray of float32, shape (b, 8)
        Of all classes, one row a beat.
    verdicts : Verdicts
        Of the rhythm stage, one a second.
    whole : RecordingVerdict
        On the recording as a whole.
    """

    analysis: Analysis
    probabilities: NDArray[np.float32]
    verdicts: rhythm.Verdicts
    whole: RecordingVerdict


def listen(recording: Recording, models: Models) -> Heard:
    """Analyse a recording through the live pipeline and keep the networks' outputs.

    Parameters
    ----------
    recording : Recording
        Leads in order of preference.
    models : Models
        The networks.

    Returns
    -------
    Heard

    Raises
    ------
    RuntimeError
        If the beats of the analysis are not those that the network saw.
    """
    beats, rhythms = _Ear(models.beats), _Ear(models.rhythm)
    # The pipeline only calls `classify`: an ear passes for the model that it wraps.
    heard = replace(models, beats=cast(BeatModel, beats), rhythm=cast(RhythmModel, rhythms))
    analysis = analyze_recording(recording, heard)
    probabilities = _probabilities(analysis, beats.heard)
    rows, scores = _joined(rhythms.heard)
    r = np.rint(np.array([beat.sample for beat in analysis.beats]) * FS / analysis.rate).astype(np.int64)
    summary = recording_features(r, probabilities, rows, scores, analysis.length / analysis.rate)
    return Heard(analysis, probabilities, _verdicts(rows, scores), models.recording.classify(summary))


def analyze_whole(recording: Recording, models: Models) -> Analysis:
    """Analyse a recording; one of up to `SHORT_S` seconds gets a verdict on the whole, too.

    Parameters
    ----------
    recording : Recording
        Leads in order of preference.
    models : Models
        The networks.
    """
    if len(recording.samples) > SHORT_S * recording.rate:
        return analyze_recording(recording, models)
    heard = listen(recording, models)
    return replace(heard.analysis, whole=heard.whole)


def _probabilities(analysis: Analysis, heard: list[tuple[features.Rows, NDArray[np.float32]]]) -> NDArray[np.float32]:
    parts = [(rows.r, p) for rows, p in heard if len(rows.r)]
    if not parts:
        return np.zeros((0, len(CLASSES)), np.float32)
    samples = np.rint(np.concatenate([r for r, _ in parts]) * analysis.rate / FS)
    kept = np.concatenate([p for _, p in parts])[samples < analysis.length]
    if len(kept) != len(analysis.beats):
        raise RuntimeError(f"{analysis.name}: {len(kept)} beats passed the network, {len(analysis.beats)} came out")
    return np.asarray(kept, np.float32)


def _joined(heard: list[tuple[rhythm.Rows, rhythm.Scores]]) -> tuple[rhythm.Rows, rhythm.Scores]:
    rows = rhythm.Rows(
        offsets=np.array([0, sum(len(part.end) for part, _ in heard)], np.int64),
        **{
            field.name: np.concatenate([getattr(part, field.name) for part, _ in heard])
            for field in fields(rhythm.Rows)
            if field.name not in _SHARED
        },
    )
    scores = rhythm.Scores(*(np.concatenate([getattr(s, f.name) for _, s in heard]) for f in fields(rhythm.Scores)))
    return rows, scores


def _verdicts(rows: rhythm.Rows, scores: rhythm.Scores) -> rhythm.Verdicts:
    """Decide the rows of a whole recording at once; a second's verdict does not depend on how the stream was cut."""
    states, slot = rhythm.new_states(1), np.zeros(1, np.int64)
    rhythm.reset(states, slot, np.zeros(1, np.int64))
    return rhythm.decide(states, slot, rows, scores)
