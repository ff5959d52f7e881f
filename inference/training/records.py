"""Recordings with their labels, read from WFDB files (FLAC format 516 too) or from the tar of the AF challenge 2017."""

from __future__ import annotations

import csv
import io
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import wfdb
from numpy.typing import NDArray

CLASSES: Final = ("N", "L", "R", "A", "V", "F", "/", "Q")
"""Beat classes of the network, in the order of its outputs, named by MIT code."""

CLASS_OF: Final = {
    **dict.fromkeys("Njen", 0),
    **dict.fromkeys("LB", 1),
    "R": 2,
    **dict.fromkeys("AaJS", 3),
    **dict.fromkeys("VEr", 4),
    "F": 5,
    **dict.fromkeys("/f", 6),
    **dict.fromkeys("Q?", 7),
}
"""Class index of every MIT code that marks a beat; codes that are not here mark no beat."""

GROUP_OF_CLASS: Final = (0, 0, 0, 1, 2, 3, 4, 4)
"""AAMI group (index into `inference.training.scoring.GROUPS`) of each class."""


@dataclass(frozen=True, slots=True)
class Record:
    """One recording and its labels.

    Attributes
    ----------
    name, database : str
        As in ``100`` of ``mitdb``.
    rate : float
        Hz.
    leads : tuple of str
        Names of the columns of `mv`.
    mv : ndarray of float32, shape (n, leads)
        mV; NaN where the file marks a sample as not valid.
    beats : ndarray of int64, shape (b,)
        Sample of each annotated beat, ascending.
    codes : ndarray of str, shape (b,)
        MIT code of each beat, one character.
    rhythms : ndarray of int64, shape (r,)
        Sample where each annotated rhythm begins.
    rhythm_codes : tuple of str, length r
        As in ``(AFIB``.
    flutter : tuple of (int, int)
        First and last sample of each episode of ventricular flutter/fibrillation (``[`` to ``]``).
    label : str
        Label of the whole recording (cinc2017: N, A, O or ~), else empty.
    """

    name: str
    database: str
    rate: float
    leads: tuple[str, ...]
    mv: NDArray[np.float32]
    beats: NDArray[np.int64]
    codes: NDArray[np.str_]
    rhythms: NDArray[np.int64]
    rhythm_codes: tuple[str, ...]
    flutter: tuple[tuple[int, int], ...]
    label: str = ""

    @property
    def classes(self) -> NDArray[np.int64]:
        """Index into `CLASSES` of each beat."""
        return np.array([CLASS_OF[code] for code in self.codes], np.int64)

    @property
    def groups(self) -> NDArray[np.int64]:
        """AAMI group of each beat."""
        return np.array(GROUP_OF_CLASS, np.int64)[self.classes]

    @property
    def beat_times(self) -> NDArray[np.float64]:
        """Time of each beat, s."""
        return self.beats / self.rate

    @property
    def excluded(self) -> tuple[tuple[float, float], ...]:
        """Episodes of ventricular flutter/fibrillation, s: they are left out of beat scores."""
        return tuple((first / self.rate, last / self.rate) for first, last in self.flutter)

    def lead(self, name: str | None = None) -> int:
        """Column of a lead: the one named, else MLII, else the first.

        Raises
        ------
        KeyError
            If the named lead is not in the record.
        """
        if name is None:
            return self.leads.index("MLII") if "MLII" in self.leads else 0
        if name not in self.leads:
            msg = f"{self.database}/{self.name} has no lead {name}; it has {', '.join(self.leads)}"
            raise KeyError(msg)
        return self.leads.index(name)


def names(data_dir: Path, database: str) -> list[str]:
    """Names of the records of a database's folder, sorted.

    Raises
    ------
    FileNotFoundError
        If there is no record.
    """
    found = sorted(path.stem for path in (data_dir / database).glob("*.hea"))
    if not found:
        msg = f"no WFDB records in {data_dir / database}; run `rhythmwatch data fetch {database}`"
        raise FileNotFoundError(msg)
    return found


def read(data_dir: Path, database: str, name: str) -> Record:
    """Read a record and its reference annotations (``.atr``, where there are any).

    Parameters
    ----------
    data_dir : Path
        Folder that holds a folder a database.
    database, name : str
        As in ``mitdb`` and ``100``.

    Returns
    -------
    Record
        In mV, whatever unit the header names.

    Raises
    ------
    FileNotFoundError
        If there is no such record.
    """
    path = data_dir / database / name
    if not path.with_name(f"{name}.hea").exists():
        msg = f"no record {path}; run `rhythmwatch data fetch {database}`"
        raise FileNotFoundError(msg)
    signals = wfdb.rdrecord(str(path))
    annotations = wfdb.rdann(str(path), "atr") if path.with_name(f"{name}.atr").exists() else None
    return _record(database, name, signals, annotations)


def read_challenge(archive: Path, wanted: Iterable[str] | None = None) -> Iterator[Record]:
    """Read recordings of the AF challenge 2017 straight from the tar.

    Parameters
    ----------
    archive : Path
        ``cinc2017.tar`` with ``REFERENCE.csv`` in it.
    wanted : iterable of str, optional
        Names to read; all without it.

    Yields
    ------
    Record
        Without beats; `Record.label` from ``REFERENCE.csv``; in the order of the archive.

    Raises
    ------
    FileNotFoundError
        If the archive is not there.
    """
    if not archive.exists():
        msg = f"no {archive}; run `rhythmwatch data fetch cinc2017`"
        raise FileNotFoundError(msg)
    labels = challenge_labels(archive)
    chosen = set(labels) if wanted is None else set(wanted)
    parts: dict[str, dict[str, bytes]] = {}
    with tarfile.open(archive) as tar, tempfile.TemporaryDirectory() as folder:
        for member in tar:
            path = Path(member.name)
            if path.stem not in chosen or path.suffix not in (".hea", ".dat"):
                continue
            stream = tar.extractfile(member)
            if stream is None:
                continue
            record = parts.setdefault(path.stem, {})
            record[path.suffix] = stream.read()
            if len(record) < 2:
                continue
            for suffix, content in parts.pop(path.stem).items():
                (Path(folder) / f"{path.stem}{suffix}").write_bytes(content)
            signals = wfdb.rdrecord(str(Path(folder) / path.stem))
            for suffix in record:
                (Path(folder) / f"{path.stem}{suffix}").unlink()
            yield _record("cinc2017", path.stem, signals, None, labels.get(path.stem, ""))


def challenge_labels(archive: Path) -> dict[str, str]:
    """Label of every recording of the AF challenge 2017: N, A, O or ~."""
    with tarfile.open(archive) as tar:
        stream = tar.extractfile("cinc2017/REFERENCE.csv")
        if stream is None:
            msg = f"no cinc2017/REFERENCE.csv in {archive}"
            raise FileNotFoundError(msg)
        rows = csv.reader(io.TextIOWrapper(stream, "ascii"))
        return {row[0]: row[1] for row in rows if len(row) >= 2}


def _record(database: str, name: str, signals: Any, annotations: Any, label: str = "") -> Record:
    scale = np.array([_TO_MV[unit] for unit in signals.units])
    mv = np.ascontiguousarray(signals.p_signal * scale, np.float32)
    symbols = np.array(annotations.symbol if annotations else [], "U1")
    samples = np.array(annotations.sample if annotations else [], np.int64)
    notes = [note.rstrip("\0") for note in annotations.aux_note] if annotations else []
    is_beat = np.array([symbol in CLASS_OF for symbol in symbols], bool)
    rhythm = [i for i, note in enumerate(notes) if symbols[i] == "+" and note.startswith("(")]
    opened = samples[symbols == "["].tolist()
    closed = samples[symbols == "]"].tolist()
    return Record(
        name=name,
        database=database,
        rate=float(signals.fs),
        leads=tuple(signals.sig_name),
        mv=mv,
        beats=samples[is_beat],
        codes=symbols[is_beat],
        rhythms=samples[rhythm],
        rhythm_codes=tuple(notes[i] for i in rhythm),
        flutter=tuple(zip(opened, closed, strict=False)),
        label=label,
    )


_TO_MV: Final = {"mV": 1.0, "uV": 1e-3, "V": 1e3, "NU": 1.0, "adu": 1.0}
