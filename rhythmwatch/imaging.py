"""Labelled spectral images of annotated records in class folders, as the source study made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from dsp.layout import FS
from inference.training.records import CLASSES
from inference.training.scoring import match
from inference.training.splits import DS2
from ingest.recordings import RecordingError, find_record, read_record
from rhythmwatch.classify import judged
from rhythmwatch.models import Models
from rhythmwatch.pictures import to_png

FOLDERS: Final = {"N": "N", "L": "L", "R": "R", "A": "A", "V": "V", "F": "F", "/": "P", "Q": "Q"}
"""Folder of each class."""

HELD_OUT: Final = 0.2


def write_images(
    records: Sequence[str], data: Path | None, out: Path, models: Models, *, split: str, seed: int = 1
) -> dict[str, int]:
    """Write an image of every beat that the detector found and an annotation names.

    Parameters
    ----------
    records : sequence of str
        WFDB records with ``.atr`` beats.
    data : Path, optional
        Folder to find them in.
    out : Path
        Gets ``train/CLASS`` and ``test/CLASS``.
    models : Models
    split : str
        ``patient``: DS2 (or every fifth record where none is of mitdb) tests; ``random``: one beat in five does, which
        mixes patients and flatters every figure.
    seed : int
        Of the random split.

    Returns
    -------
    dict of str to int
        Images by folder.

    Raises
    ------
    RecordingError
        A record that can't be read or has no annotation.
    """
    import wfdb

    rng = np.random.default_rng(seed)
    counts: dict[str, int] = {}
    mitdb = any(Path(record).name in DS2 for record in records)
    for number, name in enumerate(records):
        path = find_record(name, data)
        recording = read_record(path)
        try:
            notes: Any = wfdb.rdann(str(path), "atr")
        except (OSError, ValueError) as error:
            raise RecordingError(f"record {recording.name} has no annotation .atr: images need labels") from error
        codes = {"e": "A", "j": "A", "a": "A", "J": "A", "S": "A", "E": "V", "f": "Q"}
        true = [(s, codes.get(c, c)) for s, c in zip(notes.sample.tolist(), notes.symbol, strict=True)]
        true = [(s, c) for s, c in true if c in CLASSES]
        _, keeping = judged(recording, models)
        found = np.array([r / FS for r, *_ in keeping.kept])
        partner = match(np.array([s / recording.rate for s, _ in true]), found)
        tests = (recording.name in DS2) if mitdb else number % 5 == 4
        for (_, label), at in zip(true, partner.tolist(), strict=True):
            if at < 0:
                continue
            r, features, image, _, _ = keeping.kept[at]
            if split == "random":
                tests = bool(rng.random() < HELD_OUT)
            folder = f"{'test' if tests else 'train'}/{FOLDERS[label]}"
            sample = round(r * recording.rate / FS)
            about = {"record": recording.name, "r": sample, "rate": recording.rate, "label": label}
            place = out / folder
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{recording.name}_{sample:08d}.png").write_bytes(to_png(image, features, about))
            counts[folder] = counts.get(folder, 0) + 1
    return counts
