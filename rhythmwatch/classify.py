"""Classify a file: a spectral image of one beat, or a recording with every beat of it."""

from __future__ import annotations

import base64
import dataclasses
import io
import tempfile
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsp.layout import FS
from dsp.spectrogram import HOP, POINTS
from inference.beats import CLASSES, BeatModel
from inference.explain import heat, image_share
from inference.features import Rows
from ingest.files import KINDS, read_file
from ingest.recordings import Recording, RecordingError
from rhythmwatch.analyze import Analysis, analyze_recording
from rhythmwatch.models import Models
from rhythmwatch.picture_model import PictureModel
from rhythmwatch.pictures import Picture, PictureError, Window, grey, is_picture, read_picture, read_window
from rhythmwatch.reasons import hear, reason_at

STUDY: Final = {"N": "normal", "L": "LBBB", "R": "RBBB", "A": "PAC", "V": "PVC"}
"""Five of the source study's classes by MIT code; the sixth, VT, is a ventricular beat in ventricular tachycardia."""

VENTRICULAR: Final = ("VT", "VFL")

LARGEST_PICTURE: Final = 64 << 20
"""Bytes."""

PICTURED: Final = 3000
"""Beats of a recording that come with the spectral image of each."""

REASONED: Final = 24
"""Rhythms of a recording that come with a reason."""


@dataclass(frozen=True, slots=True)
class Keeping(BeatModel):
    """The beat model, keeping each row that it judged with its verdict and its map.

    Attributes
    ----------
    kept : list of (r, features, image, probabilities, map)
        In order of the beats.
    """

    kept: list[tuple[int, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], bytes]] = field(
        default_factory=list
    )

    def classify(self, rows: Rows) -> NDArray[np.float32]:
        """Classify beats, as the pipeline asks for it, and keep them."""
        # Called by name: a dataclass with slots is made anew, and super() would mean the old one.
        p, maps = BeatModel.explain(self, rows, normal=True)
        for i, r in enumerate(rows.r.tolist()):
            image = rows.images[i].transpose(0, 2, 1).copy()
            self.kept.append((r, rows.features[i].copy(), image, p[i].copy(), maps[i]))
        return p


def judged(recording: Recording, models: Models) -> tuple[Analysis, Keeping]:
    """Run a recording through the live pipeline and keep what the beat model saw.

    Parameters
    ----------
    recording : Recording
    models : Models

    Returns
    -------
    (Analysis, Keeping)
    """
    keeping = Keeping(models.beats.model, models.beats.explainer)
    return analyze_recording(recording, dataclasses.replace(models, beats=keeping)), keeping


def classify_recording(recording: Recording, models: Models) -> dict[str, Any]:
    """Judge every beat and the rhythm of a recording, as live.

    Parameters
    ----------
    recording : Recording
    models : Models

    Returns
    -------
    dict
        ``kind`` "recording", ``record``, ``rate``, ``seconds``, ``lead``, ``summary`` (beats by class), ``beats`` (the
        first `PICTURED` with ``picture``: base64 of COLUMNS x BINS bytes), ``pictured``, ``rhythms`` (with ``reason``,
        see `rhythmwatch.reasons`), ``last`` (reason of the verdict at the end), ``alarms``.
    """
    analysis, keeping = judged(recording, models)
    kept = {round(r * recording.rate / FS): (p, mark, image) for r, _, image, p, mark in keeping.kept}
    marks = analysis.marks
    starts = [sample for sample, _ in marks]
    beats: list[dict[str, Any]] = []
    for number, beat in enumerate(analysis.beats):
        at = bisect_right(starts, beat.sample) - 1
        rhythm = marks[at][1] if at >= 0 else ""
        p, mark, image = kept[beat.sample]
        item = {
            "sample": beat.sample, "seconds": round(beat.sample / recording.rate, 3), "class": beat.code,
            "study": study_name(beat.code, rhythm), "p": beat.p, "second": beat.second, "second_p": beat.second_p,
            "rr_ms": beat.rr_ms, "rhythm": rhythm, "probabilities": _named(p), "image_share": image_share(mark),
            "map": base64.b64encode(mark).decode(),
        }  # fmt: skip
        if number < PICTURED:
            item["picture"] = base64.b64encode(grey(image[0])[::-1].T.tobytes()).decode()
        beats.append(item)
    counts = Counter(beat["study"] or beat["class"] for beat in beats)
    return {
        "kind": "recording", "record": recording.name, "rate": recording.rate, "seconds": round(recording.seconds, 3),
        "lead": analysis.lead, "summary": dict(counts.most_common()), "pictured": min(len(beats), PICTURED),
        "beats": beats, **_rhythms(recording, models, analysis),
        "alarms": [dataclasses.asdict(alarm) for alarm in analysis.alarms],
    }  # fmt: skip


def _rhythms(recording: Recording, models: Models, analysis: Analysis) -> dict[str, Any]:
    """List changes of the rhythm, the first `REASONED` that are not plain N with their reason, and that of the end."""
    rhythms: list[dict[str, Any]] = []
    signal, peaks = hear(recording, models)
    reasons = 0
    for sample, code in analysis.marks:
        item: dict[str, Any] = {"seconds": round(sample / recording.rate, 3), "code": code}
        # A mark looks back to where the rhythm changed; the verdict itself came later.
        verdict = next((e.sample for e in analysis.rhythms if e.code == code and e.sample >= sample), None)
        if code != "N" and verdict is not None and verdict >= recording.rate and reasons < REASONED:
            reasons += 1
            item["reason"] = reason_at(signal, peaks, models, verdict / recording.rate)
        rhythms.append(item)
    last = reason_at(signal, peaks, models, len(signal.x) / FS) if len(signal.x) >= FS else None
    return {"rhythms": rhythms, "last": last}


def study_name(code: str, rhythm: str) -> str | None:
    """Class of the source study: a ventricular beat in ventricular tachycardia, as the rhythm network says, is VT."""
    return "VT" if code == "V" and rhythm in VENTRICULAR else STUDY.get(code)


def classify_picture(picture: Picture, models: Models) -> dict[str, Any]:
    """Judge the spectral image of one beat.

    Parameters
    ----------
    picture : Picture
    models : Models

    Returns
    -------
    dict
        ``kind`` "image", ``class``, ``study``, ``p``, ``second``, ``second_p``, ``probabilities``, ``about``,
        ``rr_known`` (whether RR and the other features came with the image), ``warnings``, ``image_share`` (percent of
        the network's verdict), ``map`` (packed, base64), ``heat`` and ``picture`` (rows of bins from the lowest).
    """
    p, maps = models.beats.explain(picture.rows(), normal=True)
    best, second = np.argsort(-p[0], kind="stable")[:2].tolist()
    return {
        "kind": "image", "class": CLASSES[best],
        "study": study_name(CLASSES[best], str(picture.about.get("rhythm", ""))), "p": round(float(p[0, best]), 4),
        "second": CLASSES[second], "second_p": round(float(p[0, second]), 4), "probabilities": _named(p[0]),
        "about": picture.about, "rr_known": picture.exact, "warnings": list(picture.warnings),
        "image_share": image_share(maps[0]), "map": base64.b64encode(maps[0]).decode(),
        "heat": np.round(heat(maps[0]), 3).tolist(), "picture": grey(picture.image[0])[::-1].tolist(),
    }  # fmt: skip


def classify_window(window: Window, models: Models) -> dict[str, Any]:
    """Judge the image of a rhythm window by the rhythm network.

    Parameters
    ----------
    window : Window
    models : Models

    Returns
    -------
    dict
        ``kind`` "window", ``class`` (`inference.rhythm.CODES`), ``study`` ("VT" or None), ``p``, ``second``,
        ``second_p``, ``about``, ``reason`` (`rhythmwatch.reasons`), ``warnings``, ``picture`` (rows of bins from the
        lowest).
    """
    end = int(window.signal.start[0]) + len(window.signal.x)
    reason = reason_at(window.signal, window.peaks, models, end / FS)
    return {
        "kind": "window", "class": reason["code"], "study": "VT" if reason["code"] == "VT" else None,
        "p": reason["p"], "second": reason["second"], "second_p": reason["second_p"], "about": window.about,
        "reason": reason, "warnings": [], "picture": window.drawn()[::-1].tolist(),
    }  # fmt: skip


def classify_bytes(name: str, data: bytes, models: Models, images: PictureModel | None = None) -> dict[str, Any]:
    """Classify the content of a file.

    Parameters
    ----------
    name : str
        Its name, of which the suffix counts.
    data : bytes
    models : Models
    images : PictureModel, optional
        Judges the images instead of the shipped models.

    Raises
    ------
    RecordingError, PictureError
        One line: what is wrong with the file and what to do.
    """
    if not data:
        raise RecordingError("the file is empty: give the whole file")
    if is_picture(name, data):
        if images is not None:
            return images.classify(data)
        window = read_window(data)
        if window is not None:
            return classify_window(window, models)
        return classify_picture(read_picture(data, np.array(models.beats.contract.mean, np.float32)), models)
    if Path(name).suffix.lower() in (".hea", ".dat"):
        raise RecordingError("a WFDB record is two files: use `rhythmwatch classify RECORD`, or give EDF, CSV or JSON")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("recording" + Path(name).suffix)
        path.write_bytes(data)
        return classify_recording(read_file(path), models)


def classify_file(path: Path, models: Models, images: PictureModel | None = None) -> dict[str, Any]:
    """Classify a file, or a WFDB record by its path; errors as `classify_bytes`."""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(8)
        if is_picture(path.name, head):
            if path.stat().st_size > LARGEST_PICTURE:
                raise PictureError(f"{path.name} is too large for a picture: {LARGEST_PICTURE >> 20} MiB are the most")
            return classify_bytes(path.name, path.read_bytes(), models, images)
    return classify_recording(read_file(path), models)


def heat_png(result: dict[str, Any], zoom: int = 8) -> bytes:
    """Draw an image's heat map over its spectrogram: orange for the class, blue against it.

    Parameters
    ----------
    result : dict
        Of an image or a window; of a window where a rule decided, the spectrogram alone.
    zoom : int
        Pixels a cell.
    """
    value = _heat(result)[::-1, :, None]
    base = np.array(result["picture"], np.float32)[::-1, :, None] * 0.75
    paint = np.where(value > 0, np.array([255, 154, 31]), np.array([63, 140, 255]))
    share = 0.85 * np.abs(value)
    drawn = np.clip((1 - share) * base + share * paint, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    size = (drawn.shape[1] * zoom, drawn.shape[0] * zoom)
    Image.fromarray(drawn).resize(size, Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def _heat(result: dict[str, Any]) -> NDArray[np.float32]:
    """Heat of each cell of the result's picture, rows of bins from the lowest."""
    if result["kind"] == "image":
        return np.array(result["heat"], np.float32)
    reason, shape = result["reason"], np.shape(result["picture"])
    value = np.zeros(shape, np.float32)
    seconds = np.arange(shape[1]) * HOP / FS + reason["end_s"] - shape[1] * HOP / FS
    hz = np.arange(shape[0]) * FS / POINTS
    for (low, high), row in zip(reason["bands"], reason["map"], strict=True):
        rows = (hz >= low) & (hz < high) if high else np.ones(shape[0], bool)
        length = (reason["end_s"] - reason["begin_s"]) / len(row)
        cells = np.floor((seconds - reason["begin_s"]) / length).astype(int).clip(0, len(row) - 1)
        value[rows] = np.array(row, np.float32)[cells]
    return value


def _named(p: NDArray[np.float32]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in zip(CLASSES, p, strict=True)}


ACCEPTED: Final = f"PNG or JPEG; {KINDS}"
