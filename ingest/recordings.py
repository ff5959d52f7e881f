"""Recordings on disk: where they are, which there are, and their samples as the converter gave them.

Any WFDB record is read (FLAC format 516 as well). Samples keep the resolution of the file: a lead's value is the stored
number minus its baseline, in units of the record's own gain, so that a frame carries exactly what the file holds.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import wfdb
from numpy.typing import NDArray

from ingest.frame import MAX_LEADS, RATE_MAX_HZ, RATE_MIN_HZ, Samples

DATA_VARIABLE: Final = "RHYTHMWATCH_DATA"
FIRST_LEAD: Final = "MLII"
_PER_MV: Final = {"mv": 1.0, "uv": 1e3, "µv": 1e3, "v": 1e-3, "nv": 1e6}
# WFDB formats store "no valid sample" as their least value; offset binary ones stand here as wfdb returns them.
_INVALID: Final = {"80": -128, "310": -512, "311": -512, "212": -2048, "24": -(2**23), "524": -(2**23), "32": -(2**31)}
_INVALID_16: Final = -(2**15)


class RecordingError(Exception):
    """A recording that can't be found or read; the message is one line for people."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """The samples of one recording.

    Attributes
    ----------
    name : str
        Name of the record, without folder.
    rate : float
        Samples a second and lead, Hz.
    leads : tuple of str
        Lead names in column order, ``MLII`` first where the record has it; all different.
    gain : float
        Units per mV, the same for all leads.
    samples : ndarray of int16 or int32, shape (n, leads)
        Units, zero at 0 mV; the least value of the type means "no valid sample".
    """

    name: str
    rate: float
    leads: tuple[str, ...]
    gain: float
    samples: Samples

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate

    def only(self, *leads: str) -> Recording:
        """Keep the named leads, in the order named.

        Raises
        ------
        RecordingError
            If the record lacks one of them.
        """
        for lead in leads:
            if lead not in self.leads:
                raise RecordingError(f"record {self.name} has no lead {lead!r}; it has {', '.join(self.leads)}")
        columns = [self.leads.index(lead) for lead in leads]
        return Recording(self.name, self.rate, tuple(leads), self.gain, self.samples[:, columns].copy())


def data_folder(explicit: Path | None = None) -> Path | None:
    """Find the folder of recordings: `explicit`, else ``RHYTHMWATCH_DATA``, else ``data/`` below the working directory.

    Returns
    -------
    Path or None
        None when nobody named a folder and there is no ``data/``.

    Raises
    ------
    RecordingError
        If a folder was named and is not there.
    """
    named = explicit if explicit is not None else os.environ.get(DATA_VARIABLE)
    if named:
        folder = Path(named)
        if not folder.is_dir():
            source = "--data" if explicit is not None else DATA_VARIABLE
            raise RecordingError(f"{source} names {folder}, which is no folder: mend the path or leave it out")
        return folder
    here = Path("data")
    return here if here.is_dir() else None


def list_records(folder: Path) -> list[Path]:
    """List the records in a folder and its subfolders, sorted, as paths without suffix."""
    return sorted(header.with_suffix("") for header in folder.rglob("*.hea"))


def find_record(record: str, folder: Path | None = None) -> Path:
    """Find a record by path, by name in `folder`, or by name in one of the folder's subfolders.

    Parameters
    ----------
    record : str
        ``200``, ``mitdb/200``, ``some/where/200`` or ``200.hea``.
    folder : Path, optional
        Where to look first.

    Returns
    -------
    Path
        Path of the record without suffix.

    Raises
    ------
    RecordingError
        If it is not there, or if several subfolders have a record of that name.
    """
    bare = record.removesuffix(".hea")
    places = [] if folder is None else [folder / bare]
    for place in [*places, Path(bare)]:
        if _header(place).is_file():
            return place
    if folder is not None:
        below = sorted(header.with_suffix("") for header in folder.glob(f"*/{Path(bare).name}.hea"))
        below = [path for path in below if str(path).endswith(f"/{bare}")]
        if len(below) == 1:
            return below[0]
        if below:
            several = ", ".join(str(path.relative_to(folder)) for path in below)
            raise RecordingError(f"record {record} is ambiguous: say which of {several}")
    where = "" if folder is None else f" in {folder}"
    raise RecordingError(f"record {record} not found{where}: no file {Path(bare).name}.hea")


def read_record(path: Path | str, leads: Sequence[str] | None = None) -> Recording:
    """Read a WFDB record.

    Parameters
    ----------
    path : Path or str
        Path of the record, with or without ``.hea``.
    leads : sequence of str, optional
        Leads to keep, by name; without it all leads that hold a voltage (at most 12).

    Returns
    -------
    Recording
        int16 where the values fit, else int32.

    Raises
    ------
    RecordingError
        Missing record, unreadable header, a header whose rate or gain is no usable number, an empty or truncated
        signal, no lead with a voltage, a lead that is not there.

    Notes
    -----
    Leads with different gains are rescaled, rounded, to the finest of them; one gain means no change at all.
    """
    base = Path(str(path).removesuffix(".hea"))
    record = _load(base)
    columns = [i for i, unit in enumerate(record.units) if str(unit).lower() in _PER_MV]
    if not columns:
        raise RecordingError(
            f"record {base.name} has no lead in volts: its units are {', '.join(map(str, record.units))}"
        )
    names = _unique_names([record.sig_name[i] for i in columns])
    order = sorted(range(len(columns)), key=lambda k: (names[k] != FIRST_LEAD, k))
    if leads is None:
        order = order[:MAX_LEADS]
    gains = np.array([float(record.adc_gain[i]) * _PER_MV[str(record.units[i]).lower()] for i in columns])
    if not np.all(np.isfinite(gains)) or np.any(gains <= 0):
        raise RecordingError(f"record {base.name}: its header gives a gain that is no positive number")
    target = float(gains.max())
    values = np.empty((record.d_signal.shape[0], len(order)), dtype=np.int64)
    invalid = np.empty(values.shape, dtype=np.bool_)
    for to, k in enumerate(order):
        stored = record.d_signal[:, columns[k]]
        invalid[:, to] = stored == _INVALID.get(record.fmt[columns[k]], _INVALID_16)
        centred = stored.astype(np.int64) - int(record.baseline[columns[k]])
        values[:, to] = centred if gains[k] == target else np.rint(centred * (target / gains[k]))
    recording = Recording(base.name, float(record.fs), tuple(names[k] for k in order), target, _narrow(values, invalid))
    return recording if leads is None else recording.only(*leads)


def _header(path: Path) -> Path:
    return path.with_name(path.name + ".hea")


def _load(base: Path) -> Any:
    """Load a record through `wfdb`, which raises almost any type on a bad file; each becomes one sentence."""
    header = _header(base)
    if not header.is_file():
        raise RecordingError(
            f"record {base.name} not found: no file {header}; check its name and --data (or: rhythmwatch data fetch)"
        )
    try:
        _check_record_line(header.read_text(encoding="utf-8", errors="replace"))
        head: Any = wfdb.rdheader(str(base))
        rate, length, signals = float(head.fs), head.sig_len, int(head.n_sig)
    except Exception as error:
        raise RecordingError(f"record {base.name}: header {header} is unreadable ({_short(error)})") from error
    if not (math.isfinite(rate) and RATE_MIN_HZ <= rate <= RATE_MAX_HZ):
        raise RecordingError(
            f"record {base.name}: its rate of {rate:g} Hz is outside {RATE_MIN_HZ:g} to {RATE_MAX_HZ:g} Hz"
        )
    if signals < 1 or length == 0:
        raise RecordingError(f"record {base.name} holds no signal")
    for name in dict.fromkeys(getattr(head, "file_name", None) or ()):
        file = base.parent / name
        if not file.is_file():
            raise RecordingError(f"record {base.name}: its signal file {file} is missing")
        if file.stat().st_size == 0:
            raise RecordingError(f"record {base.name}: its signal file {file} is empty")
    try:
        record: Any = wfdb.rdrecord(str(base), physical=False, return_res=32)
        got = record.d_signal.shape[0]
    except Exception as error:
        raise RecordingError(f"record {base.name}: its signal is truncated or damaged ({_short(error)})") from error
    if got == 0:
        raise RecordingError(f"record {base.name} holds no signal")
    if length is not None and got < length:
        raise RecordingError(f"record {base.name} is truncated: {got} of {length} samples are there")
    return record


def _check_record_line(text: str) -> None:
    """Refuse numbers that `wfdb` would pass over in silence for its defaults: name, signals, rate, length."""
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines or len(lines[0]) < 2:
        raise ValueError("no record line")
    int(lines[0][1])
    for field in lines[0][2:4]:
        number = float(re.split(r"[/(]", field)[0])
        if not math.isfinite(number):
            raise ValueError(f"{field} is no number")


def _short(error: Exception) -> str:
    """Take the first line of an error's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def _unique_names(names: Iterable[str | None]) -> list[str]:
    """Give each lead a name that a frame can carry: printable, at most 16 characters, different from the others."""
    found: list[str] = []
    for number, raw in enumerate(names, start=1):
        clean = "".join(c for c in (raw or "").strip() if c.isprintable())[:16] or f"lead{number}"
        name, copy = clean, 2
        while name in found:
            name = f"{clean[:12]}.{copy}"
            copy += 1
        found.append(name)
    return found


def _narrow(values: NDArray[np.int64], invalid: NDArray[np.bool_]) -> Samples:
    """Choose the smallest sample type that holds the values, and mark what is not valid by its least value."""
    valid = values[~invalid]
    peak = int(np.abs(valid).max()) if valid.size else 0
    limit = np.iinfo(np.int16 if peak < 2**15 else np.int32)
    clipped = np.clip(values, limit.min + 1, limit.max)
    clipped[invalid] = limit.min
    return clipped.astype(np.int16) if peak < 2**15 else clipped.astype(np.int32)
