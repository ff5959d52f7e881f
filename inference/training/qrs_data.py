"""Training data of the QRS detector: pieces of recordings made worse in known ways, and the truth of candidates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import signal as sps

from dsp import frontend
from dsp.layout import FS, Signal
from dsp.qrs_lead import LAG
from inference.training.records import Record, read
from inference.training.scoring import match

MOTION_TRAIN: Final = ((1020, 1140), (1260, 1380), (1500, 1620), (1740, 1800))
"""Stretches (s) of the noise stress records whose electrode motion may train."""

MOTION_TEST: Final = ((300, 420), (540, 660), (780, 900))
"""Noisy stretches (s) of the noise stress records that test."""

LOUD_DB: Final = (-10.0, 4.0)
"""Signal to noise in loud stretches. 118 at the 0 dB of the noise stress records lies at -8 to 0 on this scale."""

USUAL_DB: Final = (-4.0, 26.0)
"""... and in the others."""

NEAR: Final = 20
"""A candidate within so many samples (80 ms) of a beat's mark may be the beat's own; the highest is."""

FAR: Final = 37
"""Else the nearest within so many samples (150 ms) is."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one lead of a recording.

    Attributes
    ----------
    patient : str
        ``database/name``.
    rate : float
        Hz.
    mv : ndarray of float32, shape (n,)
        mV; NaN where missing.
    beats : ndarray of float64, shape (b,)
        Beats, s from the piece's first sample.
    unsure : ndarray of float64, shape (u, 2)
        Stretches (s) whose candidates teach nothing.
    weight : float
        Of its candidates.
    main : bool
        Whether it is of the record's main lead.
    """

    patient: str
    rate: float
    mv: NDArray[np.float32]
    beats: NDArray[np.float64]
    unsure: NDArray[np.float64]
    weight: float
    main: bool = True


def whole(record: Record, lead: int, weight: float) -> Piece:
    """One lead of a record as a piece."""
    return Piece(
        f"{record.database}/{record.name}",
        record.rate,
        record.mv[:, lead],
        record.beat_times,
        np.array(record.excluded, np.float64).reshape(-1, 2),
        weight,
        lead == record.lead(),
    )


def cut(piece: Piece, rng: np.random.Generator, short: float) -> Iterator[Piece]:
    """Cut a piece into pieces that each start cold: a share `short` of 8 to 40 s, the others of 60 to 400 s."""
    n, at = piece.mv.shape[0], 0
    while at < n - 5 * piece.rate:
        seconds = rng.uniform(8, 40) if rng.random() < short else rng.uniform(60, 400)
        end = min(n, at + int(seconds * piece.rate))
        first, last = at / piece.rate, end / piece.rate
        keep = (piece.beats >= first) & (piece.beats < last)
        yield Piece(
            piece.patient,
            piece.rate,
            piece.mv[at:end],
            piece.beats[keep] - first,
            piece.unsure - first,
            piece.weight,
            piece.main,
        )
        at = end


class Noise:
    """Real and made noise at any rate.

    Parameters
    ----------
    data_dir : Path
        Folder with ``nstdb`` and ``mitdb``: electrode motion is ``118e_6`` minus ``118``.
    part, parts : int
        Which of so many equal parts of each kind of noise to draw from; all of it if not said.
    """

    def __init__(self, data_dir: Path, part: int = 0, parts: int = 1) -> None:
        motion = read(data_dir, "nstdb", "118e_6")
        difference = motion.mv - read(data_dir, "mitdb", "118").mv[: motion.mv.shape[0]]
        self._rate = motion.rate
        self._motion = [
            difference[int(first * self._rate) : int(last * self._rate), lead].astype(np.float64)
            for first, last in MOTION_TRAIN[part::parts]
            for lead in range(difference.shape[1])
        ]
        self._muscle = [np.array_split(column, parts)[part] for column in _columns(read(data_dir, "nstdb", "ma"))]
        self._wander = [np.array_split(column, parts)[part] for column in _columns(read(data_dir, "nstdb", "bw"))]

    def draw(self, rng: np.random.Generator, n: int, rate: float) -> NDArray[np.float64]:
        """Draw a stretch of `n` samples at `rate` of one kind of noise, with a standard deviation of 1 above 1 Hz."""
        kind = rng.choice(
            ["motion", "motions", "muscle", "wander", "white", "mains", "both"],
            p=[0.32, 0.2, 0.13, 0.06, 0.08, 0.05, 0.16],
        )
        if kind == "white":
            return rng.normal(size=n)
        if kind == "mains":
            turns = rng.choice([50.0, 60.0]) * np.arange(n) / rate + rng.random()
            return np.asarray(np.sqrt(2) * np.sin(2 * np.pi * turns))
        if kind == "both":
            return self._piece(rng, self._motion, n, rate) + rng.uniform(0.2, 1) * self._piece(
                rng, self._muscle, n, rate
            )
        if kind == "motions":
            pair = [self._piece(rng, self._motion, n, rate) for _ in range(2)]
            share = rng.uniform(0.3, 1.0)
            return np.asarray((pair[0] + share * pair[1]) / np.sqrt(1 + share**2))
        source = {"motion": self._motion, "muscle": self._muscle, "wander": self._wander}[str(kind)]
        return self._piece(rng, source, n, rate)

    def _piece(
        self, rng: np.random.Generator, sources: list[NDArray[np.float64]], n: int, rate: float
    ) -> NDArray[np.float64]:
        source = sources[rng.integers(len(sources))]
        speed = self._rate / rate * rng.uniform(0.8, 1.25)
        need = n * speed
        first = rng.uniform(0, max(1.0, source.size - need - 1))
        at = np.mod(first + speed * np.arange(n), source.size - 1)
        out = np.interp(at, np.arange(source.size), source)[:: 1 if rng.random() < 0.5 else -1]
        high = sps.sosfilt(sps.butter(1, 1.0, "highpass", fs=rate, output="sos"), out - out[0])
        return np.asarray((out - out.mean()) / max(float(high.std()), 1e-6) * rng.choice([-1.0, 1.0]))


def _columns(record: Record) -> list[NDArray[np.float64]]:
    return [record.mv[:, k].astype(np.float64) for k in range(record.mv.shape[1])]


def worsen(piece: Piece, rng: np.random.Generator, noise: Noise, data: dict[str, Any]) -> Piece:
    """Change gain, sign and speed of a piece, add noise in stretches, drop samples.

    Parameters
    ----------
    piece : Piece
    rng : Generator
    noise : Noise
    data : dict
        Shares ``noise``, ``loud``, ``flip``, ``stretch``, ``gap`` of the configuration.

    Returns
    -------
    Piece
    """
    x = piece.mv.astype(np.float64)
    beats, unsure, rate = piece.beats, piece.unsure, piece.rate
    if rng.random() < data["stretch"]:
        factor = float(np.exp(rng.uniform(-0.25, 0.6)))
        places = np.arange(int((x.size - 1) * factor)) / factor
        x = np.interp(places, np.arange(x.size), x)
        beats, unsure = beats * factor, unsure * factor
    high = sps.sosfilt(sps.butter(1, 1.0, "highpass", fs=rate, output="sos"), x - x[0])
    tall = float(np.quantile(np.abs(high), 0.985)) + 1e-3
    at = 0
    while at < x.size:
        end = min(x.size, at + int(rng.uniform(4, 90) * rate))
        if rng.random() < data["noise"]:
            size = (
                tall / 2 * 10 ** (-(rng.uniform(*LOUD_DB) if rng.random() < data["loud"] else rng.uniform(-4, 26)) / 20)
            )
            x[at:end] += size * noise.draw(rng, end - at, rate)
        if rng.random() < 0.1:
            x[at:] += rng.normal() * tall
        at = end
    if rng.random() < data["stop"]:
        last = int(rng.integers(x.size))
        x[last:] = x[last - 1] + rng.uniform(0.002, 0.08) * tall * noise.draw(rng, x.size - last, rate)
        beats = beats[beats * rate < last]
    gain = float(np.exp(rng.normal(0, 0.5))) * (-1.0 if rng.random() < data["flip"] else 1.0)
    x *= gain
    if rng.random() < data["gap"]:
        for _ in range(rng.integers(1, 5)):
            first = rng.integers(x.size)
            x[first : first + int(rng.uniform(0.05, 4) * rate)] = np.nan
    return Piece(piece.patient, rate, x.astype(np.float32), beats, unsure, piece.weight, piece.main)


def empty(rng: np.random.Generator, noise: Noise, rate: float) -> Piece:
    """Make a minute of noise without a heart."""
    n = int(60 * rate)
    x = noise.draw(rng, n, rate)
    if rng.random() < 0.4:
        keep = rng.uniform(0.3, 0.97)
        x = sps.lfilter([1 - keep], [1, -keep], rng.normal(size=n))
        x /= x.std()
    x *= np.exp(rng.uniform(np.log(0.01), np.log(1.0)))
    return Piece("noise", rate, x.astype(np.float32), np.zeros(0), np.zeros((0, 2)), 1.0)


def agreed(piece: Piece, found: NDArray[np.float64], signal: NDArray[np.float32]) -> Piece | None:
    """Take as beats those that a network and a plain threshold both find; where they differ teaches nothing.

    Parameters
    ----------
    piece : Piece
        A recording without labels.
    found : ndarray of float64, shape (b,)
        Beats of the network, s.
    signal : ndarray of float32, shape (n,)
        The recording at `FS`.

    Returns
    -------
    Piece or None
        None where they differ on more than a tenth of the beats.
    """
    other = plain(signal)
    pairs = match(found, other, 0.08)
    alone = np.concatenate((found[pairs < 0], np.delete(other, pairs[pairs >= 0])))
    if alone.size > 0.1 * found.size:
        return None
    unsure = np.stack([alone - 0.4, alone + 0.4], axis=1)
    return Piece(piece.patient, piece.rate, piece.mv, found, unsure, piece.weight, main=False)


def plain(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Find QRS complexes (s) by the energy of 8 to 20 Hz over 0.4 of its level, looking ahead."""
    band = sps.sosfiltfilt(sps.butter(2, [8, 20], "bandpass", fs=FS, output="sos"), x.astype(np.float64))
    energy = np.sqrt(np.convolve(band**2, np.ones(25) / 25, "same"))
    parts = energy[: energy.size // FS * FS].reshape(-1, FS).max(axis=1)
    peaks, _ = sps.find_peaks(energy, height=0.4 * float(np.median(parts)), distance=62)
    return np.asarray(peaks / FS)


def through_frontend(pieces: list[Piece]) -> Signal:
    """Run pieces of one rate through the live front end, each a patient of its own, with a second of nothing behind."""
    n = len(pieces)
    states = frontend.new_states(n)
    slots = np.arange(n)
    frontend.reset(states, slots, np.ones(n, np.int64), np.zeros(n, np.int64))
    nothing = np.full(int(pieces[0].rate), np.nan, np.float32)
    raw = np.concatenate([part for piece in pieces for part in (piece.mv, nothing)])[:, None]
    cuts = np.cumsum([0, *(piece.mv.size + nothing.size for piece in pieces)])
    return frontend.step(states, slots, np.ascontiguousarray(raw), cuts, pieces[0].rate).signal


def label(
    piece: Piece, ticks: NDArray[np.int64], heights: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Say which candidates of a piece are its beats, one a beat, and how much each counts.

    Parameters
    ----------
    piece : Piece
    ticks : ndarray of int64, shape (m,)
        Candidates, at half of `FS`.
    heights : ndarray of float32, shape (m,)
        Their envelope, in any unit.

    Returns
    -------
    truth : ndarray of bool, shape (m,)
    weight : ndarray of float32, shape (m,)
        0 in unsure stretches, halved for the others near a beat.
    """
    place = 2 * ticks - LAG
    truth = np.zeros(ticks.size, bool)
    weight = np.full(ticks.size, piece.weight, np.float32)
    for beat in np.round(piece.beats * FS):
        low, high = np.searchsorted(place, [beat - FAR, beat + FAR + 1])
        if low == high:
            continue
        own = np.arange(low, high)
        weight[own] *= np.where(truth[own], 1.0, 0.5)
        close = own[np.abs(place[own] - beat) <= NEAR]
        best = close[np.argmax(heights[close])] if close.size else own[np.argmin(np.abs(place[own] - beat))]
        truth[best] = True
        weight[best] = piece.weight
    for first, last in piece.unsure:
        weight[(place >= first * FS) & (place <= last * FS)] = 0.0
    return truth, weight
