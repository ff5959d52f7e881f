"""Beats of the baselines: windows about reference R peaks, RR intervals, labels, and the draws that train.

The preprocessing is what papers do (zero-phase filter over the whole record), which a live system cannot: the baselines
are given that advantage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import signal as sps

from inference.training.qrs_data import plain
from inference.training.records import CLASSES, Record, challenge_labels, read_challenge
from inference.training.splits import challenge_test

RATE: Final = 250
"""Hz, of windows."""

BEFORE: Final = 175
"""Samples before R (0.7 s)."""

SIZE: Final = 300
"""Samples of a window (1.2 s)."""

BAND: Final = (0.5, 40.0)
"""Hz, of the band-pass."""

RR_NAMES: Final = ("before", "after", "local mean", "record mean")
"""Columns of `Beats.rr`, s: de Chazal's four (mean of ten, mean of the record)."""

RHYTHMS: Final = ("N", "A", "O", "~")
"""Labels of cinc2017."""


@dataclass(frozen=True, slots=True)
class Beats:
    """Beats of any number of records, m in all.

    Attributes
    ----------
    record : ndarray of str, shape (m,)
        As in ``mitdb/100``.
    time : ndarray of float64, shape (m,)
        R peak, s.
    classes : ndarray of int64, shape (m,)
        Index into `inference.training.records.CLASSES`.
    vt : ndarray of bool, shape (m,)
        A ventricular beat in an episode of ventricular tachycardia.
    windows : ndarray of float32, shape (m, SIZE)
        mV at `RATE`, band-passed.
    rr : ndarray of float32, shape (m, 4)
        `RR_NAMES`, s.
    """

    record: NDArray[np.str_]
    time: NDArray[np.float64]
    classes: NDArray[np.int64]
    vt: NDArray[np.bool_]
    windows: NDArray[np.float32]
    rr: NDArray[np.float32]

    def take(self, index: NDArray[Any]) -> Beats:
        """Give the beats at an index or mask."""
        return Beats(*(getattr(self, field.name)[index] for field in fields(self)))

    def of(self, database: str) -> NDArray[np.bool_]:
        """Whether each is of a database's records, shape (m,)."""
        return np.asarray(np.char.startswith(self.record, f"{database}/"), bool)

    @property
    def open_labels(self) -> NDArray[np.bool_]:
        """Which of the eight classes each may be called, shape (m, 8): svdb's N may be N, L or R."""
        allowed = np.eye(len(CLASSES), dtype=bool)[self.classes]
        allowed[(self.classes == 0) & self.of("svdb"), 1:3] = True
        return allowed


def join(parts: Sequence[Beats]) -> Beats:
    """Lay beats of several records behind one another."""
    return Beats(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Beats)))


def filtered(mv: NDArray[np.float32], rate: float) -> NDArray[np.float32]:
    """Resample a lead to `RATE` and band-pass it without delay; missing samples count as 0 mV."""
    step = np.gcd(round(rate), RATE)
    x = sps.resample_poly(np.nan_to_num(mv).astype(np.float64), RATE // step, round(rate) // step)
    return np.asarray(sps.sosfiltfilt(sps.butter(2, BAND, "bandpass", fs=RATE, output="sos"), x), np.float32)


def windows(x: NDArray[np.float32], r: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cut windows, 0 beyond the ends: from samples ``r - BEFORE`` on, shape (len(r), SIZE)."""
    padded = np.concatenate([np.zeros(BEFORE, np.float32), x, np.zeros(SIZE, np.float32)])
    return np.asarray(padded[np.clip(r, 0, x.size)[:, None] + np.arange(SIZE)], np.float32)


def intervals(times: NDArray[np.float64]) -> NDArray[np.float32]:
    """RR columns (`RR_NAMES`, s) of all beats of a record, shape (m, 4); 0.8 s where there is no neighbour."""
    rr = np.diff(times)
    before, after = np.append(0.8, rr), np.append(rr, 0.8)
    edge = np.pad(before, 5, mode="reflect" if before.size > 5 else "edge")
    local = np.convolve(edge, np.full(10, 0.1), "valid")[: before.size]
    mean = np.full(before.size, before.mean() if before.size else 0.8)
    return np.stack([before, after, local, mean], axis=1).astype(np.float32)


def beats_of(record: Record, keep: NDArray[Any] | None = None) -> Beats:
    """Give the annotated beats of a record (of those, the ones at `keep`), lead MLII else the first."""
    index = np.arange(record.beats.size) if keep is None else np.arange(record.beats.size)[keep]
    x = filtered(record.mv[:, record.lead()], record.rate)
    current = np.searchsorted(record.rhythms, record.beats, "right") - 1
    vt = np.array([at >= 0 and record.rhythm_codes[at] == "(VT" for at in current], bool) & (record.classes == 4)
    return Beats(
        np.full(index.size, f"{record.database}/{record.name}"),
        record.beat_times[index],
        record.classes[index],
        vt[index],
        windows(x, np.round(record.beat_times[index] * RATE).astype(np.int64)),
        intervals(record.beat_times)[index],
    )


def draw(labels: NDArray[np.int64], limits: Sequence[int], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw at most ``limits[c]`` rows of each class, without putting back.

    Parameters
    ----------
    labels : ndarray of int64, shape (m,)
        Class of each row.
    limits : sequence of int
        One a class.
    rng : Generator

    Returns
    -------
    ndarray of int64
        Rows, ascending.
    """
    pools = [np.flatnonzero(labels == c) for c in range(len(limits))]
    drawn = [rng.choice(pool, min(pool.size, most), replace=False) for pool, most in zip(pools, limits, strict=True)]
    return np.sort(np.concatenate(drawn))


def challenge_windows(
    data_dir: Path, records: int, per_record: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
    """Windows about the beats of cinc2017's training records, with the label of their recording.

    Parameters
    ----------
    data_dir : Path
    records : int
        How many records, of all labels alike as far as there are any.
    per_record : int
        Windows of each, at most.
    rng : Generator

    Returns
    -------
    (ndarray of float32, ndarray of int64, list of str)
        Windows, shape (m, SIZE); index into `RHYTHMS`, shape (m,); names of the records.
    """
    archive = data_dir / "cinc2017.tar"
    labels = {name: label for name, label in challenge_labels(archive).items() if not challenge_test(name)}
    names = np.array(sorted(labels))
    of_name = np.array([RHYTHMS.index(labels[name]) for name in names])
    chosen = names[draw(of_name, [records // len(RHYTHMS)] * len(RHYTHMS), rng)]
    parts, targets = [], []
    for record in read_challenge(archive, chosen):
        x = filtered(record.mv[:, 0], record.rate)
        r = np.round(plain(x) * RATE).astype(np.int64)
        r = r[(r >= BEFORE) & (r < x.size - SIZE + BEFORE)]
        r = np.sort(rng.choice(r, min(r.size, per_record), replace=False))
        parts.append(windows(x, r))
        targets.append(np.full(r.size, RHYTHMS.index(record.label)))
    return np.concatenate(parts), np.concatenate(targets), [f"cinc2017/{name}" for name in chosen]
