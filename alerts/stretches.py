"""Recordings of a channel for a time as WFDB records of an hour each, to be handed out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from alerts.archive import Archive
from alerts.archive_files import MISSING
from alerts.export import wfdb_files

HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Record:
    """A WFDB record.

    Attributes
    ----------
    name : str
        Of its files.
    files : dict of str to bytes or memoryview
        Content by file name.
    from_ms : int
        Wall time of the first sample.
    """

    name: str
    files: dict[str, bytes | memoryview]
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
            beats = archive.beats(patient, begin, until)
            yield Record(name, wfdb_files(name, strip, beats, shift_ms=shift_ms), begin)
            number += 1
        begin = until
