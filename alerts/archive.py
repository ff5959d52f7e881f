"""Reading the recordings: strips, beats, trends by wall time, from the segments on disk and their index.

Calls block: run them in a thread.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select

from alerts.archive_files import BEAT, MISSING, Segment, read_beats, read_units
from alerts.archive_index import MINUTES, SEGMENTS, to_segment
from alerts.database import open_engine, upgrade, writing
from alerts.sweeping import delete_old
from alerts.tables import RhythmRow, table_of

JOIN_MS: Final = 1_000.0
"""Samples that follow each other are drawn so, until the clock of the wall differs by more than this."""
MINUTE_MS: Final = 60_000
_FUZZ: Final = 1e-6
RHYTHMS: Final = table_of(RhythmRow)
TIMED_BEAT: Final = np.dtype([("ms", "<i8"), ("epoch", "<i8"), *BEAT.descr[:-1]])
"""A beat with its wall time."""


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """A stretch of a patient's recording on one even grid of time.

    Attributes
    ----------
    from_ms : int
        Wall time of the first row.
    fs : float
        Rows a second; 0 where nothing was recorded.
    leads : tuple of str
    gain : float
        Units per mV.
    units : ndarray of int32, shape (n, leads)
        As the device sent them; `alerts.archive_files.MISSING` where there is no sample.
    """

    patient: str
    from_ms: int
    fs: float
    leads: tuple[str, ...]
    gain: float
    units: NDArray[np.int32]

    @property
    def mv(self) -> NDArray[np.float32]:
        """Millivolts, shape (n, leads); NaN where there is no sample."""
        mv = self.units / np.float32(self.gain)
        mv[self.units == MISSING] = np.nan
        return mv.astype(np.float32)

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """Stretches (from_ms, to_ms) without a sample on any lead."""
        absent = np.ones(len(self.units), bool)
        for column in range(self.units.shape[1]):
            absent &= self.units[:, column] == MISSING
        edges = np.flatnonzero(np.diff(absent.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
        return [(self.ms(begin), self.ms(end)) for begin, end in edges.tolist()]

    def ms(self, row: float) -> int:
        """Wall time of a row."""
        return self.from_ms + round(row * 1000 / self.fs)


@dataclass(frozen=True, slots=True, eq=False)
class Minutes:
    """Trends, one value a minute in which something was recorded; NaN where a value is not known.

    Attributes
    ----------
    ms : ndarray of int64
        Begin of each minute.
    beats, pvc, sveb : ndarray of int64
    hr : ndarray of float64
        Mean rate, 1/min: 60 over the mean RR interval.
    hr_min, hr_max : ndarray of float64
        Least and greatest mean of 4 RR intervals, 1/min.
    af : ndarray of float64
        Share of the analysed time in atrial fibrillation.
    quality : ndarray of float64
        Share of the minute with a signal that is not noisy.
    af_ms, signal_ms : ndarray of int64
        Time in fibrillation, and time that was analysed.
    rr_ms, rr_count : ndarray of int64
        Sum and number of the RR intervals behind `hr`.
    """

    ms: NDArray[np.int64]
    beats: NDArray[np.int64]
    pvc: NDArray[np.int64]
    sveb: NDArray[np.int64]
    hr: NDArray[np.float64]
    hr_min: NDArray[np.float64]
    hr_max: NDArray[np.float64]
    af: NDArray[np.float64]
    quality: NDArray[np.float64]
    af_ms: NDArray[np.int64]
    signal_ms: NDArray[np.int64]
    rr_ms: NDArray[np.int64]
    rr_count: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Run:
    """Samples `begin` to `end` of a segment, the first of them on row `row` of the grid (in the segment's own rate)."""

    segment: Segment
    begin: int
    end: int
    row: float


class Archive:
    """The recordings of all patients.

    Parameters
    ----------
    url : str
        Of the history database, which holds the index.
    folder : Path
        Of the segments.

    Raises
    ------
    StoreError
        If the URL can't be used.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._engine = open_engine(url)
        self._writer = writing(self._engine)
        self.folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def upgrade(self) -> None:
        """Bring the schema up to date."""
        upgrade(self._engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def segments(self, patient: str, from_ms: int = 0, to_ms: int = 2**62) -> list[Segment]:
        """List the segments that may touch a stretch of time, in the order of epochs and samples."""
        wanted = (SEGMENTS.c.patient == patient, SEGMENTS.c.to_ms > from_ms, SEGMENTS.c.from_ms < to_ms)
        order = (SEGMENTS.c.epoch, SEGMENTS.c.first, SEGMENTS.c.bits)
        with self._engine.connect() as connection:
            return [to_segment(row) for row in connection.execute(select(SEGMENTS).where(*wanted).order_by(*order))]

    def read(self, patient: str, from_ms: int, to_ms: int, lead: str | None = None) -> Strip:
        """Read a stretch.

        Parameters
        ----------
        patient : str
            The monitoring channel.
        from_ms, to_ms : int
            Wall time, ms; the end is left out.
        lead : str, optional
            Only this one; a lead that was not recorded is all missing.

        Returns
        -------
        Strip
            At the rate, gain and leads of the newest segment in it; samples of another rate are held to the nearest.
        """
        runs = self._runs(patient, from_ms, to_ms)
        if not runs:
            none = np.empty((0, 1 if lead else 0), np.int32)
            return Strip(patient, from_ms, 0.0, (lead,) if lead else (), 1.0, none)
        newest = runs[-1].segment
        fs, gain = newest.fs, newest.gain
        names = list(newest.leads)
        for run in runs:
            names += [name for name in run.segment.leads if name not in names]
        leads = (lead,) if lead else tuple(names)
        units = np.full((max(0, round((to_ms - from_ms) * fs / 1000)), len(leads)), MISSING, np.int32)
        for run in runs:
            self._put(units, run, leads, fs, gain)
        return Strip(patient, from_ms, fs, leads, gain, units)

    def beats(self, patient: str, from_ms: int, to_ms: int) -> NDArray[Any]:
        """Read the beats of a stretch, by the clock of the strip that `read` gives for the same stretch.

        Returns
        -------
        ndarray of TIMED_BEAT
            Ascending.
        """
        parts = [np.empty(0, TIMED_BEAT)]
        kept: dict[str, NDArray[Any]] = {}
        for run in self._runs(patient, from_ms, to_ms):
            segment = run.segment
            if segment.path not in kept:
                kept[segment.path] = read_beats(self.folder / f"{segment.path}.beats")
            found = kept[segment.path]
            low, high = np.searchsorted(found["sample"], (run.begin, run.end))
            part = np.zeros(high - low, TIMED_BEAT)
            for name in BEAT.names[:-1] if BEAT.names else ():
                part[name] = found[name][low:high]
            rows = run.row + (part["sample"] - run.begin)
            part["ms"] = from_ms + np.rint(rows * 1000 / segment.fs).astype(np.int64)
            part["epoch"] = segment.epoch
            parts.append(part)
        beats = np.concatenate(parts)
        return beats[np.argsort(beats["ms"], kind="stable")]

    def minutes(self, patient: str, from_ms: int, to_ms: int) -> Minutes:
        """Read the trends of the minutes that begin in a stretch."""
        wanted = (MINUTES.c.patient == patient, MINUTES.c.ms >= from_ms, MINUTES.c.ms < to_ms)
        names = ("ms", "beats", "pvc", "sveb", "rr_count", "rr_ms", "af_ms", "good_ms", "signal_ms")
        with self._engine.connect() as connection:
            rows = connection.execute(select(MINUTES).where(*wanted).order_by(MINUTES.c.ms)).all()
        whole = {name: np.array([getattr(row, name) for row in rows], np.int64) for name in names}
        low, high = (
            np.array([math.nan if value is None else value for value in (getattr(row, name) for row in rows)], float)
            for name in ("hr_min", "hr_max")
        )
        return Minutes(
            ms=whole["ms"],
            beats=whole["beats"],
            pvc=whole["pvc"],
            sveb=whole["sveb"],
            hr=_ratio(60_000.0 * whole["rr_count"], whole["rr_ms"]),
            hr_min=low,
            hr_max=high,
            af=_ratio(whole["af_ms"], whole["signal_ms"]),
            quality=np.minimum(1.0, whole["good_ms"] / MINUTE_MS),
            af_ms=whole["af_ms"],
            signal_ms=whole["signal_ms"],
            rr_ms=whole["rr_ms"],
            rr_count=whole["rr_count"],
        )

    def rhythms(self, patient: str, from_ms: int, to_ms: int) -> list[tuple[int, str]]:
        """List the changes of rhythm in a stretch as (ms, code), after the one that was in force at its begin."""
        mine = RHYTHMS.c.patient == patient
        columns = select(RHYTHMS.c.ms, RHYTHMS.c.code)
        with self._engine.connect() as connection:
            before = connection.execute(
                columns.where(mine, RHYTHMS.c.ms <= from_ms).order_by(RHYTHMS.c.ms.desc(), RHYTHMS.c.sample.desc())
            ).first()
            after = connection.execute(
                columns.where(mine, RHYTHMS.c.ms > from_ms, RHYTHMS.c.ms < to_ms).order_by(
                    RHYTHMS.c.ms, RHYTHMS.c.sample
                )
            ).all()
        return [(int(ms), str(code)) for ms, code in ([before] if before else []) + list(after)]

    def span(self, patient: str) -> tuple[int, int] | None:
        """First and last time that may be recorded, None where nothing is."""
        segments = self.segments(patient)
        if not segments:
            return None
        return min(item.from_ms for item in segments), max(item.to_ms for item in segments)

    # --- taking away ---------------------------------------------------------------------------------------------

    def expire(self, before_ms: int) -> int:
        """Delete the segments and minutes that ended before a time; returns the number of segments."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(SEGMENTS).where(SEGMENTS.c.to_ms < before_ms)).all()
        segments = [to_segment(row) for row in rows]
        self._delete(segments)
        delete_old(self._engine, MINUTES.c.ms, before_ms - MINUTE_MS)
        return len(segments)

    def erase(self, patient: str, from_ms: int = 0, to_ms: int = 2**62) -> int:
        """Erase what was recorded of a channel in a stretch of time: samples, beats and trends.

        Segments that lie whole in the stretch are deleted; of others, and of the newest, which the recorder may hold
        open, the samples and beats are overwritten.

        Returns
        -------
        int
            Segments touched.
        """
        segments = self.segments(patient, from_ms, to_ms)
        newest = max((item.epoch, item.first) for item in self.segments(patient)) if segments else (0, 0)
        whole = [
            item
            for item in segments
            if from_ms <= item.from_ms and item.to_ms <= to_ms and (item.epoch, item.first) != newest
        ]
        for run in self._runs(patient, from_ms, to_ms):
            if run.segment not in whole:
                self._blank(run)
        self._delete(whole)
        with self._writer.begin() as connection:
            mine = (MINUTES.c.patient == patient, MINUTES.c.ms > from_ms - MINUTE_MS, MINUTES.c.ms < to_ms)
            connection.execute(delete(MINUTES).where(*mine))
        return len(segments)

    def _delete(self, segments: Sequence[Segment]) -> None:
        for segment in segments:
            for suffix in (".dat", ".beats", ".atr", ".hea"):
                (self.folder / f"{segment.path}{suffix}").unlink(missing_ok=True)
            for folder in list((self.folder / segment.path).parents)[:2]:
                with contextlib.suppress(OSError):
                    folder.rmdir()
        with self._writer.begin() as connection:
            for segment in segments:
                connection.execute(delete(SEGMENTS).where(SEGMENTS.c.path == segment.path))

    def _blank(self, run: _Run) -> None:
        segment = run.segment
        place = self.folder / segment.path
        held = read_units(self.folder, segment, run.begin, run.end)
        if held.size:
            with place.with_suffix(".dat").open("r+b") as file:
                file.seek((run.begin - segment.first) * len(segment.leads) * segment.dtype.itemsize)
                file.write(np.full_like(held, segment.missing).tobytes())
        with contextlib.suppress(FileNotFoundError), place.with_suffix(".beats").open("r+b") as file:
            data = file.read()
            beats = np.frombuffer(data, BEAT, len(data) // BEAT.itemsize).copy()
            beats[(beats["sample"] >= run.begin) & (beats["sample"] < run.end)] = np.zeros(1, BEAT)
            file.seek(0)
            file.write(beats.tobytes())
        place.with_suffix(".atr").unlink(missing_ok=True)

    # --- layout in time ------------------------------------------------------------------------------------------

    def _runs(self, patient: str, from_ms: int, to_ms: int) -> list[_Run]:
        """List runs of samples and where they begin on the grid, in the order of epochs and samples."""
        runs: list[_Run] = []
        for segment in self.segments(patient, from_ms, to_ms):
            ends = [sample for sample, _ in segment.anchors[1:]] + [segment.first + segment.length]
            for number, ((at, ms), end) in enumerate(zip(segment.anchors, ends, strict=True)):
                step = 1000 / segment.fs
                begin = max(segment.first if number == 0 else at, at + math.ceil((from_ms - ms) / step - _FUZZ))
                end = min(end, at + math.ceil((to_ms - ms) / step - _FUZZ))
                if begin >= end:
                    continue
                row = float(math.floor((ms + (begin - at) * step - from_ms) / step + _FUZZ))
                for before in reversed(runs[-2:]):
                    joined = before.row + (begin - before.begin)
                    same = before.segment.epoch == segment.epoch and before.segment.fs == segment.fs
                    if same and abs(joined - row) * step <= JOIN_MS:
                        row = joined
                        break
                runs.append(_Run(segment, begin, end, row))
        return runs

    def _put(self, units: NDArray[np.int32], run: _Run, leads: Sequence[str], fs: float, gain: float) -> None:
        segment = run.segment
        held = read_units(self.folder, segment, run.begin, run.end)
        row = int(run.row)
        if segment.fs != fs:
            row = round(run.row * fs / segment.fs)
            pick = np.arange(round(len(held) * fs / segment.fs)) * segment.fs / fs
            held = held[np.minimum(np.rint(pick).astype(np.int64), len(held) - 1)]
        low, high = max(0, row), min(len(units), row + len(held))
        if low >= high:
            return
        for column, lead in enumerate(leads):
            if lead not in segment.leads:
                continue
            source = held[low - row : high - row, segment.leads.index(lead)]
            there = source != segment.missing
            if segment.gain != gain:
                source = np.rint(source * (gain / segment.gain)).astype(np.int64)
            np.copyto(units[low:high, column], source, where=there, casting="same_kind")


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> NDArray[np.float64]:
    share: NDArray[np.float64] = np.full(len(below), np.nan)
    np.divide(above, below, out=share, where=below > 0)
    return share
