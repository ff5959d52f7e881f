"""Training rows of the beat model: recordings run through the live stages, each row with what its beat may be called.

A `Strip` is one patient's analysed lead with its true beats; `rows` runs the streaming features over it, with R peaks
that the caller gives (annotated ones made unsure, or a detector's), so that training sees what the live chain sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import frontend, qrs, spectrogram
from dsp.layout import BLOCK, FS, Peaks, Signal
from inference import features
from inference.features_clusters import LIKE
from inference.training.beat_wavelet import wavelet_images
from inference.training.records import Record, read
from inference.training.scoring import WINDOW, match

CHUNK: Final = 300
"""Samples fed at a time; any number gives the same rows."""

DECISION: Final = 110
"""Samples after an annotated R peak at which a detector would have decided it."""

ANY_N: Final = 0b111
"""Classes N, L and R as bits: what a database that doesn't tell bundle branch blocks means by N."""

SHIPPED_IMAGE: Final = "stft"
"""Kind of image that the live pipeline makes; others are for comparison."""

_DOMINANT: Final = features.NAMES.index("corr_dominant")
_LEARNT: Final = features.NAMES.index("beats_learnt")


@dataclass(frozen=True, slots=True)
class Strip:
    """One patient's analysed lead and its true beats.

    Attributes
    ----------
    name : str
        ``database/record``, plus a suffix for synthetic ones.
    patient : str
        Whom it comes from: strips of one patient stay on one side of any split.
    x : ndarray of float32, shape (n,)
        mV at `FS`.
    flags : ndarray of uint8, shape (n / BLOCK,)
        Of the blocks.
    beats : ndarray of int64, shape (b,)
        True R peaks at `FS`.
    allowed : ndarray of uint8, shape (b,)
        Bit i: the beat may be called class i.
    excluded : tuple of (float, float)
        Stretches (s) that are not scored.
    weight : float
        Of its rows in training.
    """

    name: str
    patient: str
    x: NDArray[np.float32]
    flags: NDArray[np.uint8]
    beats: NDArray[np.int64]
    allowed: NDArray[np.uint8]
    excluded: tuple[tuple[float, float], ...] = ()
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one strip.

    Attributes
    ----------
    features : ndarray of float32, shape (m, len(features.NAMES))
    images : ndarray of float16, shape (m, channels, columns, bins)
    r : ndarray of int64, shape (m,)
    allowed : ndarray of uint8, shape (m,)
        0: no true beat is near.
    """

    features: NDArray[np.float32]
    images: NDArray[np.float16]
    r: NDArray[np.int64]
    allowed: NDArray[np.uint8]


def strip(record: Record, lead: int) -> Strip:
    """Resample and judge one lead of a record as the live front end does.

    Parameters
    ----------
    record : Record
    lead : int
        Column.

    Returns
    -------
    Strip
    """
    states, slots = frontend.new_states(1), np.zeros(1, np.int64)
    frontend.reset(states, slots, np.ones(1, np.int64), np.zeros(1, np.int64))
    raw = np.ascontiguousarray(record.mv[:, lead : lead + 1])
    out = frontend.step(states, slots, raw, np.array([0, len(raw)], np.int64), record.rate)
    allowed = (1 << record.classes).astype(np.uint8)
    if record.database == "svdb":
        allowed[allowed == 1] = ANY_N
    name = f"{record.database}/{record.name}"
    beats = np.round(record.beat_times * FS).astype(np.int64)
    keep = beats < out.signal.x.size
    return Strip(name, name, out.signal.x, out.signal.flags, beats[keep], allowed[keep], record.excluded)


def load(data_dir: Path, database: str, name: str) -> Strip:
    """Read a record and take the lead that `analyze` would (MLII, else the first).

    Parameters
    ----------
    data_dir : Path
    database, name : str

    Returns
    -------
    Strip
    """
    record = read(data_dir, database, name)
    return strip(record, record.lead())


def annotated(beats: NDArray[np.int64], size: int, rng: np.random.Generator | None = None) -> Peaks:
    """Make R peaks of true beats, as a detector would deliver them.

    Parameters
    ----------
    beats : ndarray of int64, shape (b,)
        True R peaks at `FS`.
    size : int
        Samples of the strip.
    rng : Generator, optional
        Shifts each by a few samples (standard deviation 2); as annotated without it.

    Returns
    -------
    Peaks
        Of one patient, all of them.
    """
    r = beats.copy()
    if rng is not None:
        r = np.maximum(0, r + np.round(rng.normal(0.0, 2.0, r.size)).astype(np.int64))
    r = np.unique(r)
    r = r[np.concatenate(([True], np.diff(r) > 25))] if r.size else r
    decided = -(-(r + DECISION) // BLOCK) * BLOCK
    keep = decided <= size
    return Peaks(
        np.array([0, int(keep.sum())], np.int64),
        r[keep],
        decided[keep],
        np.ones(int(keep.sum()), np.float32),
        np.array([size], np.int64),
    )


def detected(source: Strip, weights: qrs.QrsWeights) -> Peaks:
    """Find the R peaks of a strip with the live detector.

    Parameters
    ----------
    source : Strip
    weights : QrsWeights
        See `inference.qrs_model.load`.

    Returns
    -------
    Peaks
        Of one patient, all of them.
    """
    states, slots = qrs.new_states(1), np.zeros(1, np.int64)
    qrs.reset(states, slots, np.zeros(1, np.int64))
    lengths, none = np.array([0, source.x.size], np.int64), np.zeros(1, np.int64)
    return qrs.step(states, slots, Signal(source.x, source.flags, lengths, none), weights)


def piece(source: Strip, first: int, last: int) -> Strip:
    """Cut out a stretch that starts cold.

    Parameters
    ----------
    source : Strip
    first, last : int
        Blocks.

    Returns
    -------
    Strip
    """
    at, end = first * BLOCK, last * BLOCK
    inside = (source.beats >= at) & (source.beats < end)
    return replace(
        source,
        name=f"{source.name}+{first}",
        x=source.x[at:end],
        flags=source.flags[first:last],
        beats=source.beats[inside] - at,
        allowed=source.allowed[inside],
    )


def looped(record: Record, weights: qrs.QrsWeights, beats: int) -> tuple[Strip, Peaks] | None:
    """Repeat a short recording of atrial fibrillation until it holds `beats` beats, each called normal.

    Parameters
    ----------
    record : Record
        Without beats.
    weights : QrsWeights
    beats : int

    Returns
    -------
    (Strip, Peaks) or None
        None where the detector finds fewer than 8 beats.
    """
    once = strip(record, 0)
    found = detected(once, weights).r.size
    if found < 8:
        return None
    times = -(-beats // found)
    many = replace(once, x=np.tile(once.x, times), flags=np.tile(once.flags, times))
    peaks = detected(many, weights)
    return replace(many, beats=peaks.r, allowed=np.full(peaks.r.size, ANY_N, np.uint8)), peaks


def pieces(x: NDArray[np.float32], flags: NDArray[np.uint8], size: int = CHUNK) -> Iterator[Signal]:
    """Cut one patient's lead into chunks for the stages.

    Parameters
    ----------
    x, flags : ndarray
        As in `Strip`.
    size : int
        Samples, a multiple of `BLOCK`.

    Yields
    ------
    Signal
    """
    for at in range(0, x.size, size):
        end = min(x.size, at + size)
        yield Signal(
            x[at:end], flags[at // BLOCK : end // BLOCK], np.array([0, end - at], np.int64), np.array([at], np.int64)
        )


def rows(source: Strip, peaks: Peaks, keep: NDArray[np.bool_] | None = None, image: str = SHIPPED_IMAGE) -> Table:
    """Run the streaming features over a strip.

    Parameters
    ----------
    source : Strip
    peaks : Peaks
        All R peaks of the strip, ascending.
    keep : ndarray of bool, shape (b,), optional
        True beats whose rows are wanted (beats near none are dropped with it); all rows without it.
    image : str
        `SHIPPED_IMAGE`, or one of `inference.training.beat_wavelet.KINDS`.

    Returns
    -------
    Table
    """
    slots = np.zeros(1, np.int64)
    spectra, states = spectrogram.new_states(1), features.new_states(1)
    last = np.searchsorted(peaks.decided, np.arange(CHUNK, source.x.size + CHUNK, CHUNK), side="right")
    parts: list[features.Rows] = []
    at = 0
    pairs = match(source.beats / FS, peaks.r / FS, WINDOW)
    allowed = np.zeros(peaks.r.size, np.uint8)
    allowed[pairs[pairs >= 0]] = source.allowed[pairs >= 0]
    wanted = np.ones(peaks.r.size, bool)
    if keep is not None:
        wanted[:] = False
        wanted[pairs[(pairs >= 0) & keep]] = True
    done, chosen = 0, []
    images = []
    for signal, end in zip(pieces(source.x, source.flags), last, strict=True):
        spectrogram.step(spectra, slots, signal)
        some = Peaks(
            np.array([0, end - at], np.int64),
            peaks.r[at:end],
            peaks.decided[at:end],
            peaks.strength[at:end],
            peaks.horizon,
        )
        out = features.step(states, slots, spectra, signal, some)
        at = int(end)
        mask = wanted[done : done + out.r.size]
        chosen.append(mask)
        done += out.r.size
        if image == SHIPPED_IMAGE:
            images.append(out.images[mask].transpose(0, 1, 3, 2).astype(np.float16))
        parts.append(replace(out, images=out.images[:0]))
    mask = np.concatenate(chosen) if chosen else np.zeros(0, bool)
    columns = np.concatenate([part.features for part in parts])
    r = np.concatenate([part.r for part in parts])
    if image != SHIPPED_IMAGE:
        learnt = np.concatenate([part.cluster for part in parts]) >= 0
        like = (columns[:, _DOMINANT] > LIKE) | (columns[:, _LEARNT] == 0)
        images = [wavelet_images(source.x, r, learnt & like, image)[mask]]
    return Table(columns[mask], np.concatenate(images), r[mask], allowed[: mask.size][mask])
