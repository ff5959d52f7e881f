"""Recordings in files that people have: WFDB, EDF, CSV and JSON, told apart by name and content."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingest.frame import MAX_LEADS, RATE_MAX_HZ, RATE_MIN_HZ
from ingest.recordings import FIRST_LEAD, Recording, RecordingError, read_record

LARGEST: Final = 256 * 1024 * 1024
"""Bytes of a file that is still read."""

MOST_MISSING: Final = 1 << 25
"""Missing samples that are filled in: a small file may say that very many are."""

GAIN: Final = 1000.0
"""Units per mV of what is read from files in mV: 1 uV."""

KINDS: Final = ".hea or .dat with its .hea (WFDB), .edf, .csv, .json"

_TIME: Final = ("time", "t", "seconds", "s", "ms")
_PER_MV: Final = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "v": 1e3, "nv": 1e-6}


def read_file(path: Path) -> Recording:
    """Read a recording of any known kind.

    Parameters
    ----------
    path : Path
        A WFDB record (with or without ``.hea`` or ``.dat``), EDF, CSV (`read_csv`) or JSON (`read_json`).

    Returns
    -------
    Recording

    Raises
    ------
    RecordingError
        No such file, empty, too large, none of these, or damaged: one line that says which, and what to do.
    """
    if not path.is_file():
        if path.with_name(path.name + ".hea").is_file():
            return read_record(path)
        raise RecordingError(f"no file {path}: check the name")
    size = path.stat().st_size
    if size == 0:
        raise RecordingError(f"{path.name} is empty: give the whole file")
    if size > LARGEST:
        raise RecordingError(f"{path.name} has {size >> 20} MiB, at most {LARGEST >> 20} are read: cut it into parts")
    kind = path.suffix.lower()
    if kind in (".hea", ".dat"):
        return read_record(path.with_suffix(""))
    if kind == ".edf":
        return read_edf(path)
    if kind in (".csv", ".tsv", ".txt"):
        return read_csv(path)
    if kind in (".json", ".jsonl"):
        return read_json(path)
    raise RecordingError(f"{path.name} is no recording that is known here: give {KINDS}")


def read_edf(path: Path) -> Recording:
    """Read the voltages of an EDF or EDF+ file that share the rate of the first one.

    Raises
    ------
    RecordingError
        No EDF, or no signal in volts.
    """
    import edfio

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            edf = edfio.read_edf(path)
            signals = [item for item in edf.signals if item.physical_dimension.strip().lower() in _PER_MV]
            if not signals:
                units = ", ".join(sorted({item.physical_dimension for item in edf.signals})) or "none"
                raise RecordingError(f"{path.name} has no lead in volts: its units are {units}")
            ecg = [item for item in signals if "ecg" in item.label.lower() or "ekg" in item.label.lower()] or signals
            rate = float(ecg[0].sampling_frequency)
            kept = [item for item in ecg if item.sampling_frequency == rate]
            leads = [item.label.strip() or f"lead {i + 1}" for i, item in enumerate(kept)]
            mv = [np.asarray(item.data) * _PER_MV[item.physical_dimension.strip().lower()] for item in kept]
    except RecordingError:
        raise
    except Exception as error:  # the reader raises almost any type on a damaged file
        raise RecordingError(f"{path.name} is no EDF file, or a damaged one ({_first_line(error)})") from error
    return recording(path.stem, rate, leads, np.stack(mv, axis=1))


def read_csv(path: Path) -> Recording:
    """Read a table of samples.

    The rate comes from a first column of time (named time, t, seconds, s or ms) or a first line ``# rate = 360``. The
    other columns are leads in mV, named by the header line if there is one; an empty cell is a missing sample.

    Raises
    ------
    RecordingError
        No such table, or no rate in it.
    """
    text = _text(path)
    rate = 0.0
    lines = text.splitlines()
    while lines and (not lines[0].strip() or lines[0].lstrip().startswith("#")):
        name, _, value = lines.pop(0).lstrip("# ").replace(":", "=").partition("=")
        if name.strip().lower() in ("rate", "fs", "frequency"):
            rate = _number(path, value.lower().replace("hz", ""))
    if not lines:
        raise RecordingError(f"{path.name} holds no samples: give one line a sample, leads in columns, in mV")
    delimiter = max(",;\t", key=lines[0].count)
    try:
        rows = [row for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter) if any(row)]
    except csv.Error as error:
        raise RecordingError(f"{path.name} is no table ({error})") from error
    if not rows:
        raise RecordingError(f"{path.name} holds nothing but empty cells")
    header = [] if all(_is_number(cell) for cell in rows[0]) else [cell.strip() for cell in rows.pop(0)]
    width = len(header) or (len(rows[0]) if rows else 0)
    if not rows or any(len(row) != width for row in rows):
        raise RecordingError(
            f"{path.name}: every line needs the same number of columns, and there must be one at least"
        )
    try:
        table = np.array([[float(cell) if cell.strip() else math.nan for cell in row] for row in rows])
    except ValueError as error:
        raise RecordingError(f"{path.name} holds something that is no number ({error})") from error
    if header and header[0].lower() in _TIME:
        step = float(np.median(np.diff(table[:, 0]))) if len(table) > 1 else 0.0
        if not step > 0:
            raise RecordingError(f"{path.name}: the time column must grow from line to line")
        rate = rate or round((1000.0 if header[0].lower() == "ms" else 1.0) / step, 3)
        header, table = header[1:], table[:, 1:]
    if rate == 0.0:
        raise RecordingError(
            f"{path.name} says no sampling rate: begin it with a line '# rate = 360', or a time column"
        )
    return recording(path.stem, rate, header or [f"lead {i + 1}" for i in range(table.shape[1])], table)


def read_json(path: Path) -> Recording:
    """Read frames in the JSON of ``rw/v1``, one object, a list, or one a line; or ``{"rate": 360, "samples": ...}``.

    ``samples`` are mV, or units with ``gain`` (units per mV): a list for each lead by its name, or one list of numbers;
    null is a missing sample.
    Missing numbers of samples between frames become missing samples.

    Raises
    ------
    RecordingError
        No such JSON.
    """
    text = _text(path)
    try:
        whole = json.loads(text)
    except ValueError:
        try:
            whole = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError) as error:
            raise RecordingError(f"{path.name} is no JSON ({error})") from error
    except RecursionError as error:
        raise RecordingError(f"{path.name} is no JSON of ours (too deep)") from error
    frames = whole if isinstance(whole, list) else [whole]
    parts: list[NDArray[np.float64]] = []
    leads: list[str] = []
    rate, end, missing = 0.0, 0, 0
    try:
        for frame in frames:
            rate = rate or float(frame["rate"])
            if not RATE_MIN_HZ <= rate <= RATE_MAX_HZ:
                raise ValueError(f"a rate of {rate:g} Hz")
            given = frame["samples"]
            if isinstance(given, dict):
                leads = leads or [str(name) for name in given]
                given = list(zip(*(given[name] for name in leads), strict=True))
            values = np.array(given, np.float64) / float(frame.get("gain", 1.0))
            values = values[:, None] if values.ndim == 1 else values
            first = int(frame.get("sample", end))
            if parts and 0 < first - end < 60 * rate:
                missing += (first - end) * values.shape[1]
                if missing > MOST_MISSING:
                    raise ValueError("more is missing than can be filled")
                parts.append(np.full((first - end, values.shape[1]), np.nan))
            parts.append(values)
            end = first + len(values)
        table = np.concatenate(parts)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RecordingError(
            f'{path.name} holds no frames: each needs "rate" and "samples" ({_first_line(error)})'
        ) from error
    return recording(path.stem, rate, leads or [f"lead {i + 1}" for i in range(table.shape[1])], table)


def recording(name: str, rate: float, leads: list[str], mv: NDArray[np.float64]) -> Recording:
    """Make a recording of samples in mV.

    Parameters
    ----------
    name : str
    rate : float
        Hz.
    leads : list of str
    mv : ndarray of float, shape (n, leads)
        NaN where a sample is missing.

    Raises
    ------
    RecordingError
        A rate, a number of leads or samples that can't be.
    """
    if not RATE_MIN_HZ <= rate <= RATE_MAX_HZ:
        raise RecordingError(f"{name}: a rate of {rate:g} Hz is not one of {RATE_MIN_HZ:g} to {RATE_MAX_HZ:g} Hz")
    if mv.ndim != 2 or not mv.size or mv.shape[1] != len(leads):
        raise RecordingError(f"{name} holds no samples, or another number of leads than names")
    if len(set(leads)) != len(leads):
        leads = [f"{lead} ({i + 1})" for i, lead in enumerate(leads)]
    order = sorted(range(len(leads)), key=lambda i: (leads[i] != FIRST_LEAD, i))[:MAX_LEADS]
    values = mv[:, order] * GAIN
    good = np.isfinite(values)
    if not good.any():
        raise RecordingError(f"{name} holds no valid sample")
    limit = 2**31 - 2
    units = np.where(good, np.clip(np.rint(np.where(good, values, 0.0)), -limit, limit), -(2**31)).astype(np.int32)
    return Recording(name, rate, tuple(leads[i] for i in order), GAIN, units)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path.name} is no text, as {path.suffix} files are: give {KINDS}") from error


def _number(path: Path, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise RecordingError(f"{path.name}: rate {text.strip()!r} is no number") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text.strip()
    return True


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
