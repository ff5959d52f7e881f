"""Labelled spectral images of annotated records in class folders, as the source study made them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from dsp.layout import FS
from inference.training.records import CLASS_OF, CLASSES
from inference.training.scoring import match
from inference.training.splits import DS2, VFDB_TEST
from ingest.recordings import Recording, RecordingError, find_record, read_record
from rhythmwatch.classify import VENTRICULAR, judged
from rhythmwatch.models import Models
from rhythmwatch.pictures import SHOWN, Window, to_png, window_to_png
from rhythmwatch.reasons import BEFORE_S, hear, stretch

FOLDERS: Final = {"N": "N", "L": "L", "R": "R", "A": "A", "V": "V", "F": "F", "/": "P", "Q": "Q"}
"""Folder of each class; ventricular beats in ventricular tachycardia go to `TACHYCARDIA`."""

TACHYCARDIA: Final = "VT"

RHYTHM_FOLDERS: Final = {
    "N": "N", "NSR": "N", "AFIB": "AFIB", "AF": "AFIB", "AFL": "AFIB", "VT": "VT", "VFL": "VFL", "VF": "VFL",
    "VFIB": "VFL", "ASYS": "ASYS", "NOISE": "NOISE",
}  # fmt: skip
"""Folder of each reference rhythm; all else goes to `OTHER`."""

OTHER: Final = "other"
HELD_OUT: Final = 0.2
FIFTH: Final = 5


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image with its folder and name."""

    folder: str
    name: str
    png: bytes


def write_images(
    records: Sequence[str],
    data: Path | None,
    out: Path,
    models: Models,
    *,
    split: str,
    of: str = "beats",
    seed: int = 1,
    done: Callable[[str], None] = lambda name: None,
) -> dict[str, int]:
    """Write an image of every beat that the detector found and an annotation names, or of windows of one rhythm.

    Parameters
    ----------
    records : sequence of str
        WFDB records with ``.atr`` beats or rhythms.
    data : Path, optional
        Folder to find them in.
    out : Path
        Gets ``train/CLASS`` and ``test/CLASS``.
    models : Models
    split : str
        ``patient``: DS2 and the test records of vfdb (or every fifth record where none is named) test; ``random``: one
        image in five does, which mixes patients and flatters every figure.
    of : str
        ``beats``, or ``windows``: of `rhythmwatch.pictures.SHOWN` seconds that lie within one reference rhythm.
    seed : int
        Of the random split.
    done : callable
        Told the name of each record that is done.

    Returns
    -------
    dict of str to int
        Images by folder.

    Raises
    ------
    RecordingError
        A record that can't be read or has no annotation, or a name that comes twice.
    """
    rng = np.random.default_rng(seed)
    paths = [find_record(name, data) for name in records]
    if len({path.name for path in paths}) < len(paths):
        raise RecordingError("two records have the same name: make their images in folders of their own")
    known = set(DS2) | set(VFDB_TEST)
    named = any(path.name in known for path in paths)
    counts: dict[str, int] = {}
    for number, path in enumerate(paths):
        recording = read_record(path)
        notes = _notes(path)
        tests = path.name in known if named else number % FIFTH == FIFTH - 1
        for image in _beats(recording, notes, models) if of == "beats" else _windows(recording, notes, models):
            if split == "random":
                tests = bool(rng.random() < HELD_OUT)
            folder = f"{'test' if tests else 'train'}/{image.folder}"
            place = out / folder
            place.mkdir(parents=True, exist_ok=True)
            (place / image.name).write_bytes(image.png)
            counts[folder] = counts.get(folder, 0) + 1
        done(path.name)
    return counts


def _notes(path: Path) -> Any:
    import wfdb

    try:
        return wfdb.rdann(str(path), "atr")
    except (OSError, ValueError) as error:
        raise RecordingError(f"record {path.name} has no annotation .atr: images need labels") from error


def rhythms(notes: Any) -> tuple[list[int], list[str]]:
    """Give the samples where the reference rhythm changes, and its codes without the bracket."""
    marks = [
        (int(sample), note.strip("\x00")[1:])
        for sample, note in zip(notes.sample.tolist(), notes.aux_note, strict=True)
        if note.startswith("(")
    ]
    return [sample for sample, _ in marks], [code for _, code in marks]


def _beats(recording: Recording, notes: Any, models: Models) -> Iterator[Labelled]:
    samples = np.array([s for s, c in zip(notes.sample, notes.symbol, strict=True) if c in CLASS_OF], np.int64)
    labels = [CLASSES[CLASS_OF[c]] for c in notes.symbol if c in CLASS_OF]
    analysis, keeping = judged(recording, models)
    found = np.array([r / FS for r, *_ in keeping.kept])
    starts, codes = rhythms(notes)
    verdicts, said = [sample for sample, _ in analysis.marks], [code for _, code in analysis.marks]
    for true, label, at in zip(samples.tolist(), labels, match(samples / recording.rate, found).tolist(), strict=True):
        if at < 0:
            continue
        r, features, image, _, _ = keeping.kept[at]
        sample = round(r * recording.rate / FS)
        reference = _at(true, starts, codes)
        about = {"record": recording.name, "r": sample, "rate": recording.rate, "label": label,
                 "reference_rhythm": reference, "rhythm": _at(sample, verdicts, said)}  # fmt: skip
        folder = TACHYCARDIA if label == "V" and reference in VENTRICULAR else FOLDERS[label]
        yield Labelled(folder, f"{recording.name}_{sample:08d}.png", to_png(image, features, about))


def _windows(recording: Recording, notes: Any, models: Models) -> Iterator[Labelled]:
    signal, peaks = hear(recording, models)
    starts, codes = rhythms(notes)
    edges = [*(start / recording.rate for start in starts), len(recording.samples) / recording.rate]
    for code, begin, end in zip(codes, edges[:-1], edges[1:], strict=True):
        for last in range(int(np.ceil(begin)) + SHOWN, int(end) + 1, SHOWN):
            cut = stretch(signal, peaks, (last - round(BEFORE_S)) * FS, last * FS)
            about = {"record": recording.name, "end_s": last, "label": code}
            if len(cut[0].x) < SHOWN * FS:
                continue
            name = f"{recording.name}_{last:06d}s.png"
            yield Labelled(RHYTHM_FOLDERS.get(code, OTHER), name, window_to_png(Window(*cut, about)))


def _at(sample: int, starts: Sequence[int], codes: Sequence[str]) -> str:
    """Code in force at a sample, empty before the first."""
    place = int(np.searchsorted(starts, sample, "right")) - 1
    return codes[place] if place >= 0 else ""
