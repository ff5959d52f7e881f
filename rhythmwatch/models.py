"""The networks of a process: loaded once, checked against what the stages give them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dsp.qrs import QrsWeights
from inference import qrs_model
from inference.beats import BeatModel
from inference.contract import ContractError
from inference.recording import RecordingModel
from inference.rhythm import RhythmModel
from inference.shipped import shipped


class ModelError(Exception):
    """A model can't be used; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Models:
    """All networks that the stages run.

    Attributes
    ----------
    version : str
        Hash of the model files; part of each checkpoint.
    """

    qrs: QrsWeights
    beats: BeatModel
    rhythm: RhythmModel
    recording: RecordingModel
    version: str


def load_models(folder: Path | None = None) -> Models:
    """Load the models of a folder, the shipped ones by default.

    Raises
    ------
    ModelError
        If one is missing or its contract is not the one that the stages meet.
    """
    place = folder or shipped()
    digest = hashlib.sha256()
    for path in sorted(place.glob("*.onnx")):
        digest.update(path.name.encode() + path.read_bytes())
    return _load(place, digest.hexdigest()[:16])


@lru_cache(maxsize=1)
def _load(place: Path, version: str) -> Models:
    """Load files of this hash; the same ones again, as a process asks for that a spare forked, are the same object."""
    try:
        qrs = qrs_model.load(place / qrs_model.FILE)
        beats = BeatModel.load(place)
        rhythm = RhythmModel.load(place)
        recording = RecordingModel.load(place)
    except (ContractError, FileNotFoundError, OSError) as error:
        raise ModelError(f"models in {place} can't be used: {error}") from error
    return Models(qrs, beats, rhythm, recording, version)
