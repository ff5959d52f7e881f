"""A stretch of a recording as a file for other programs: WFDB (zipped), EDF+, CSV.

Samples are those that the device sent, in its units; a gap stays a gap in WFDB and CSV, and is marked in EDF+.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import edfio
import numpy as np
from numpy.typing import NDArray

from alerts.archive import Strip
from alerts.archive_files import MISSING, header, mit_annotations

NOTE: Final = "Not a medical device: not for diagnosis or treatment."
_LARGEST_16: Final = 2**15 - 1
_AT_ONCE: Final = 1 << 18


class ExportError(Exception):
    """A stretch can't be exported; the message says why and what to do."""


def checked(strip: Strip) -> Strip:
    """Give the strip back; `ExportError` where it holds nothing."""
    if strip.fs == 0 or not (strip.units != MISSING).any():
        raise ExportError("Nothing was recorded in this stretch. Choose another one.")
    return strip


def marks_of(strip: Strip, beats: NDArray[Any], rhythms: Sequence[tuple[int, str]]) -> list[tuple[int, str, str]]:
    """Give beats and rhythms as (row, code, text), ascending; a rhythm from before stands at the begin."""
    rows = np.rint((beats["ms"] - strip.from_ms) * strip.fs / 1000).astype(np.int64)
    codes = np.char.decode(beats["code"]).tolist() if beats.size else []
    marks = [(row, code, "") for row, code in zip(rows.tolist(), codes, strict=True)]
    marks += [(max(0, round((ms - strip.from_ms) * strip.fs / 1000)), "+", f"({code}") for ms, code in rhythms]
    return sorted(mark for mark in marks if 0 <= mark[0] < len(strip.units))


def wfdb_files(
    name: str,
    strip: Strip,
    beats: NDArray[Any],
    rhythms: Sequence[tuple[int, str]] = (),
    *,
    shift_ms: int = 0,
    note: str = "",
) -> dict[str, bytes | memoryview]:
    """Lay a WFDB record out: header, samples, annotations by file name.

    Parameters
    ----------
    name : str
        Of the record: letters, digits, ``_`` and ``-``.
    strip : Strip
    beats : ndarray of TIMED_BEAT
    rhythms : sequence of (ms, code)
    shift_ms : int
        Added to the time in the header.
    note : str
        A line of comment in it.
    """
    bits = 16 if _largest(strip.units) <= _LARGEST_16 else 32
    units = _as_kind(strip.units, "<i2" if bits == 16 else "<i4")
    text = header(name, strip.fs, strip.gain, strip.leads, bits, len(units), strip.from_ms + shift_ms, note)
    return {
        f"{name}.hea": text.encode(),
        f"{name}.dat": units.reshape(-1).view(np.uint8).data,
        f"{name}.atr": mit_annotations(marks_of(strip, beats, rhythms)),
    }


def wfdb_zip(name: str, strip: Strip, beats: NDArray[Any], rhythms: Sequence[tuple[int, str]]) -> bytes:
    """Pack a WFDB record; parameters as of `wfdb_files`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        for file, content in wfdb_files(name, strip, beats, rhythms, note=NOTE).items():
            out.writestr(file, content)
    return packed.getvalue()


def edf(strip: Strip, beats: NDArray[Any], rhythms: Sequence[tuple[int, str]]) -> bytes:
    """Write EDF+: one signal a lead in the units of the device, beats, rhythms and gaps as annotations.

    A gap holds the digital minimum, which no electrode gives, since EDF+ has no sign for "no sample". Samples beyond 16
    bits are rounded to the finest step that fits.
    """
    scale = max(1, -(-_largest(strip.units) // _LARGEST_16))
    gain = strip.gain / scale
    seconds, whole = _record_seconds(strip.fs)
    pad = -len(strip.units) % whole
    units = _as_kind(strip.units, "<i2", scale, pad)
    start = datetime.fromtimestamp(strip.from_ms / 1000, UTC)
    signals = [
        edfio.EdfSignal.from_digital(
            np.ascontiguousarray(units[:, column]),
            strip.fs,
            label=f"ECG {lead}"[:16].encode("ascii", "replace").decode(),
            physical_dimension="mV",
            physical_range=_range(gain),
            digital_range=(-_LARGEST_16 - 1, _LARGEST_16),
        )
        for column, lead in enumerate(strip.leads)
    ]
    notes = [
        edfio.EdfAnnotation(row / strip.fs, None, text.lstrip("(") if code == "+" else code)
        for row, code, text in marks_of(strip, beats, rhythms)
    ]
    gaps = [*strip.gaps, (strip.ms(len(strip.units)), strip.ms(len(units)))] if pad else strip.gaps
    notes += [
        edfio.EdfAnnotation((begin - strip.from_ms) / 1000, (end - begin) / 1000, "no signal recorded")
        for begin, end in gaps
    ]
    file = edfio.Edf(
        signals,
        recording=edfio.Recording(startdate=start.date(), equipment_code="RhythmWatch"),
        starttime=start.time(),
        data_record_duration=seconds,
        annotations=sorted(notes, key=lambda note: note.onset),
    )
    return file.to_bytes()


def csv(strip: Strip) -> bytes:
    """Write a table: UTC time, ms since 1970, mV of each lead; empty where there is no sample."""
    rows = np.arange(len(strip.units))
    ms = strip.from_ms + rows * 1000 / strip.fs
    times = np.datetime_as_string(np.rint(ms * 1000).astype("datetime64[us]"), timezone="UTC", unit="us")
    digits = max(3, len(str(round(strip.gain))))
    columns = [
        ["" if unit == MISSING else f"{unit / strip.gain:.{digits}f}" for unit in strip.units[:, column].tolist()]
        for column in range(len(strip.leads))
    ]
    lines = [",".join(("time", "ms", *(f'"{lead.replace(chr(34), chr(34) * 2)} (mV)"' for lead in strip.leads)))]
    lines += map(",".join, zip(times.tolist(), (f"{value:.3f}" for value in ms.tolist()), *columns, strict=True))
    return ("\n".join(lines) + "\n").encode()


def _largest(units: NDArray[np.int32]) -> int:
    """Largest size of a sample, missing ones apart."""
    tops = [int(np.abs(part[part != MISSING].astype(np.int64)).max(initial=0)) for part in _parts(units)]
    return max(tops, default=0)


def _as_kind(units: NDArray[np.int32], kind: str, scale: int = 1, pad: int = 0) -> NDArray[Any]:
    """Give samples over `scale` in another type, whose least value stands for a missing one and for `pad` rows more."""
    missing = np.iinfo(kind).min
    out = np.full((len(units) + pad, units.shape[1]), missing, kind)
    at = 0
    for part in _parts(units):
        there = part != MISSING
        scaled = part if scale == 1 else np.rint(part / scale).astype(np.int64)
        np.copyto(out[at : at + len(part)], scaled, where=there, casting="unsafe")
        at += len(part)
    return out


def _parts(units: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Give views of some rows each, so that a day needs no second copy of itself in memory."""
    return [units[begin : begin + _AT_ONCE] for begin in range(0, len(units), _AT_ONCE)]


def _record_seconds(fs: float) -> tuple[float, int]:
    """Length of a data record in s, and in samples: the shortest of whole seconds that holds whole samples."""
    for seconds in range(1, 61):
        samples = fs * seconds
        if abs(samples - round(samples)) < 1e-6:
            return float(seconds), round(samples)
    raise ExportError(f"A rate of {fs:g} Hz can't be written as EDF+. Choose WFDB or CSV.")


def _range(gain: float) -> tuple[float, float]:
    """Physical range of 16 bits, mV, as precise as the 8 characters of a header field."""
    low, high = -(_LARGEST_16 + 1) / gain, _LARGEST_16 / gain
    return float(f"{low:.8g}"[:8]), float(f"{high:.8g}"[:8])
