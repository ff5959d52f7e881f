"""Recordings of a channel for a time as WFDB records of an hour each, to be handed out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alerts.archive import Archive, Strip
from alerts.archive_files import MISSING, header, mit_annotations

HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Record:
    """A WFDB record.

    Attributes
    ----------
    name : str
        Of its files.
    files : dict of str to bytes
        Content by file name.
    from_ms : int
        Wall time of the first sample.
    """

    name: str
    files: dict[str, bytes]
    from_ms: int


def records(
    archive: Archive, patient: str, from_ms: int, to_ms: int, prefix: str, shift_ms: int = 0
) -> Iterator[Record]:
    """Cut what was recorded of a channel in a time into records; hours without a sample are left out.

    Parameters
    ----------
    archive : Archive
    patient : str
        The channel.
    from_ms, to_ms : int
        Wall time, ms; the end is left out.
    prefix : str
        Of the names.
    shift_ms : int
        Added to the times in the headers.
    """
    spoken = archive.span(patient)
    if spoken is None:
        return
    begin, end = max(from_ms, spoken[0]), min(to_ms, spoken[1])
    number = 0
    while begin < end:
        until = min(begin + HOUR_MS, end)
        strip = archive.read(patient, begin, until)
        if strip.fs and (strip.units != MISSING).any():
            name = f"{prefix}{number:05d}"
            yield Record(name, _files(name, strip, archive.beats(patient, begin, until), shift_ms), begin)
            number += 1
        begin = until


def _files(name: str, strip: Strip, beats: NDArray[Any], shift_ms: int) -> dict[str, bytes]:
    there = strip.units != MISSING
    narrow = bool((np.abs(strip.units[there]) < 2**15).all())
    kind = np.dtype("<i2") if narrow else np.dtype("<i4")
    units = np.where(there, strip.units, np.iinfo(kind).min).astype(kind)
    bits = 8 * kind.itemsize
    marks = sorted(
        {round((int(beat["ms"]) - strip.from_ms) * strip.fs / 1000): beat["code"].decode() for beat in beats}.items()
    )
    return {
        f"{name}.hea": header(
            name, strip.fs, strip.gain, strip.leads, bits, len(units), strip.from_ms + shift_ms
        ).encode(),
        f"{name}.dat": units.tobytes(),
        f"{name}.atr": mit_annotations([(sample, code, "") for sample, code in marks if sample >= 0]),
    }
