"""The signal stages of many patients as one object: samples of the leads in, beats and rhythm verdicts out.

Order: `dsp.frontend` (by sampling rate), `dsp.qrs`, `dsp.spectrogram`, `inference.features`, the beat network,
`inference.rhythm`. All state is numpy records, one row a patient and stage; rows of different patients never meet, so
results do not depend on who shares a batch. Pieces are at most `PIECE_S` long, so that the ring of columns holds
what every pending beat needs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from alerts.model import Peak, Rhythm
from dsp import frontend, qrs, spectrogram
from dsp.layout import BLOCK, Peaks, Signal
from dsp.squeeze import WORD, restore, squeeze
from inference import features, rhythm
from rhythmwatch.models import Models
from rhythmwatch.quantise import loudness, wave_units

PIECE_S: Final = 1.2
"""Longest stretch that passes the stages in one go, seconds; `features.MAX_CHUNK` bounds it."""

DELAY: Final = features.WAIT + BLOCK
"""Samples at `FS` that all classified beats lie behind the newest sample at most."""

PEAK_DELAY: Final = qrs.DELAY + BLOCK
"""Samples at `FS` that all R peaks lie behind the newest sample at most."""


class Chunk(msgspec.Struct, frozen=True, eq=False, gc=False):
    """New samples of one patient.

    Attributes
    ----------
    slot : int
        Row of the patient, from `Stages.admit`.
    rate : float
        Hz.
    mv : ndarray of float32, shape (n, leads)
        mV, NaN where there is no valid sample.
    """

    slot: int
    rate: float
    mv: NDArray[np.float32]


class ClassifiedBeat(msgspec.Struct, frozen=True, gc=False):
    """A beat with its likeliest and second class (indices into `inference.beats.CLASSES`).

    Attributes
    ----------
    p : float
        Probability of the likeliest class.
    shown_p, shown_second_p : float
        Probabilities of both, rounded to four digits.
    """

    r: int
    decided: int
    best: int
    p: float
    shown_p: float
    second: int
    shown_second_p: float
    rr_ms: int
    shape: int
    map: bytes


class Stretch(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What a piece of one patient's signal gave.

    Attributes
    ----------
    start, end : int
        Indices at `FS` of its first sample and after its last one.
    flags, lead : bytes
        `dsp.layout.Flag` bits and column of the analysed lead, one a block.
    wave, loud : bytes
        Analysed lead and new spectrogram columns as the wall gets them (`rhythmwatch.views`).
    column0 : int
        Number of the first of these columns.
    peaks : sequence of Peak
        R peaks, known before their beats are classified.
    rhythms : sequence of Rhythm
        The smoothed verdict of each second.
    """

    start: int
    end: int
    flags: bytes
    lead: bytes
    wave: bytes
    loud: bytes
    column0: int
    peaks: Sequence[Peak]
    beats: Sequence[ClassifiedBeat]
    rhythms: Sequence[Rhythm]


class Stages:
    """State and networks of all signal stages.

    Parameters
    ----------
    models : Models
        The networks.
    capacity : int
        Rows to begin with; the stores double when they are full.
    views : bool
        Whether stretches carry what the wall gets: waveform, spectrogram, and the maps of beats that are not normal.
    clock : callable, optional
        Seconds; with it `spent` sums up what each stage took.
    """

    def __init__(
        self, models: Models, capacity: int = 16, *, views: bool = True, clock: Callable[[], float] | None = None
    ) -> None:
        self.models = models
        self.spent: dict[str, float] = {}
        self._clock = clock
        self._views = views
        self._lap_at = 0.0
        self._stores: dict[str, NDArray[Any]] = {
            "frontend": frontend.new_states(capacity),
            "qrs": qrs.new_states(capacity),
            "spectrogram": spectrogram.new_states(capacity),
            "features": features.new_states(capacity),
            "rhythm": rhythm.new_states(capacity),
        }
        self._free = list(range(capacity - 1, -1, -1))
        self._words = _words(self._stores)
        text = repr([(name, store.dtype.descr) for name, store in self._stores.items()]) + models.version
        self.layout_hash = hashlib.sha256(text.encode()).hexdigest()[:16]
        """Names the layout of the records and the networks; a checkpoint of another one is not loaded."""

    def admit(self) -> int:
        """Reserve a row."""
        if not self._free:
            size = len(self._stores["frontend"])
            for name, store in self._stores.items():
                # Rows that nobody has yet take no memory.
                self._stores[name] = np.zeros(2 * size, store.dtype)
                self._stores[name][:size] = store
            self._words = _words(self._stores)
            self._free = list(range(2 * size - 1, size - 1, -1))
        return self._free.pop()

    def release(self, slot: int) -> None:
        """Give a row back."""
        self._free.append(slot)

    def reset(self, slot: int, leads: int, start: int) -> None:
        """Begin a row anew.

        Parameters
        ----------
        slot : int
            The row.
        leads : int
            Leads that will come, in order of preference.
        start : int
            Index at `FS` of the first sample to come, a multiple of `FS`.
        """
        rows = np.array([slot], np.int64)
        frontend.reset(self._stores["frontend"], rows, np.array([leads], np.int64), np.array([start], np.int64))
        for name, stage in (("qrs", qrs), ("spectrogram", spectrogram), ("features", features), ("rhythm", rhythm)):
            stage.reset(self._stores[name], rows, np.array([start], np.int64))

    def dump(self, slot: int) -> dict[str, bytes]:
        """Copy the records of a row; what can be made again and what is zero is left out."""
        return {name: squeeze(words[slot]) for name, words in self._words.items()}

    def load(self, slot: int, records: dict[str, bytes]) -> None:
        """Put back what `dump` gave; `ValueError` when a record does not fit."""
        for name, words in self._words.items():
            restore(records[name], words[slot])
        spectrogram.rebuild(self._stores["spectrogram"], np.array([slot], np.int64))

    def run(self, chunks: Sequence[Chunk]) -> list[list[Stretch]]:
        """Pass new samples through all stages.

        Parameters
        ----------
        chunks : sequence of Chunk
            At most one a row.

        Returns
        -------
        list of list of Stretch
            For each chunk its pieces, in order.
        """
        results: list[list[Stretch]] = [[] for _ in chunks]
        pieces = [_pieces(chunk) for chunk in chunks]
        for turn in range(max(map(len, pieces), default=0)):
            # One call of the front end a rate; everything after it runs at the analysis rate.
            batch = [
                (chunk, parts[turn], found)
                for chunk, parts, found in zip(chunks, pieces, results, strict=True)
                if turn < len(parts)
            ]
            batch.sort(key=_rate)
            slots = np.array([chunk.slot for chunk, _, _ in batch], np.int64)
            for (_, _, found), stretch in zip(batch, self._pass(slots, batch), strict=True):
                found.append(stretch)
        return results

    def _pass(self, slots: NDArray[np.int64], batch: Sequence[_Piece]) -> list[Stretch]:
        self._lap()
        signal = self._front(slots, batch)
        self._lap("front end")
        peaks = qrs.step(self._stores["qrs"], slots, signal, self.models.qrs)
        self._lap("qrs")
        columns = spectrogram.step(self._stores["spectrogram"], slots, signal)
        self._lap("spectrogram")
        rows = features.step(self._stores["features"], slots, self._stores["spectrogram"], signal, peaks)
        self._lap("beat features")
        maps = [b""] * len(rows.r)
        if self._views:
            probabilities, maps = self.models.beats.explain(rows)
        else:
            probabilities = self.models.beats.classify(rows)
        self._lap("beat network")
        windows = rhythm.step(self._stores["rhythm"], slots, signal, peaks)
        self._lap("rhythm features")
        scores = self.models.rhythm.classify(windows)
        self._lap("rhythm network")
        verdicts = rhythm.decide(self._stores["rhythm"], slots, windows, scores)
        stretches = self._stretches(signal, columns, peaks, rows, probabilities, maps, verdicts, windows.quiet)
        self._lap("results")
        return stretches

    def _lap(self, name: str = "") -> None:
        if self._clock is not None:
            now = self._clock()
            if name:
                self.spent[name] = self.spent.get(name, 0.0) + now - self._lap_at
            self._lap_at = now

    def _stretches(
        self,
        signal: Signal,
        columns: spectrogram.Columns,
        peaks: Peaks,
        rows: features.Rows,
        probabilities: NDArray[np.float32],
        maps: list[bytes],
        verdicts: rhythm.Verdicts,
        activities: NDArray[np.float32],
    ) -> list[Stretch]:
        beats_of = _beats(rows, probabilities, maps)
        peaks_of = _peaks(peaks)
        codes = [rhythm.CODES[code] for code in verdicts.code.tolist()]
        rhythms = list(map(Rhythm, verdicts.end.tolist(), codes, verdicts.probability.tolist(), activities.tolist()))
        wave = wave_units(signal).tobytes() if self._views else b""
        loud = loudness(columns.re, columns.im).tobytes() if self._views else b""
        flags, lead = signal.flags.tobytes(), signal.lead.tobytes()
        bins = columns.re.shape[1]
        edges = zip(
            signal.start.tolist(),
            pairs(signal.offsets),
            columns.first.tolist(),
            pairs(columns.offsets),
            pairs(rows.offsets),
            pairs(verdicts.offsets),
            peaks_of,
            strict=True,
        )
        return [
            Stretch(
                start,
                start + b - a,
                flags[a // BLOCK : b // BLOCK],
                lead[a // BLOCK : b // BLOCK],
                wave[2 * a : 2 * b],
                loud[bins * ca : bins * cb],
                column0,
                found,
                beats_of[ba:bb],
                rhythms[va:vb],
            )
            for start, (a, b), column0, (ca, cb), (ba, bb), (va, vb), found in edges
        ]

    def _front(self, slots: NDArray[np.int64], batch: Sequence[_Piece]) -> Signal:
        width = min(max(mv.shape[1] for _, mv, _ in batch), frontend.MAX_ANALYSED)
        parts: list[Signal] = []
        begin = 0
        for rate, same in groupby(batch, _rate):
            pieces = [mv for _, mv, _ in same]
            end = begin + len(pieces)
            offsets = np.zeros(len(pieces) + 1, np.int64)
            np.cumsum([len(mv) for mv in pieces], out=offsets[1:])
            raw = np.ascontiguousarray(np.concatenate([_of_width(mv, width) for mv in pieces]))
            parts.append(frontend.step(self._stores["frontend"], slots[begin:end], raw, offsets, rate).signal)
            begin = end
        if len(parts) == 1:
            return parts[0]
        shift = np.cumsum([0] + [int(part.offsets[-1]) for part in parts])
        return Signal(
            x=np.concatenate([part.x for part in parts]),
            flags=np.concatenate([part.flags for part in parts]),
            offsets=np.concatenate(
                [part.offsets[:-1] + by for part, by in zip(parts, shift, strict=False)] + [shift[-1:]]
            ),
            start=np.concatenate([part.start for part in parts]),
            leads=np.concatenate([part.leads for part in parts], axis=1),
            lead_flags=np.concatenate([part.lead_flags for part in parts], axis=1),
            lead=np.concatenate([part.lead for part in parts]),
            counts=np.concatenate([part.counts for part in parts]),
        )


_Piece: TypeAlias = tuple[Chunk, NDArray[np.float32], list[Stretch]]
"""Of which chunk, its samples, and where their stretch belongs."""


def _words(stores: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.uint64]]:
    """View what a checkpoint needs of each store, a row a patient."""
    found = {}
    for name, store in stores.items():
        known = spectrogram.KNOWN if name == "spectrogram" else store.dtype.itemsize
        found[name] = store.view(np.uint64).reshape(len(store), -1)[:, : known // WORD]
    return found


def _rate(piece: _Piece) -> float:
    return piece[0].rate


def _pieces(chunk: Chunk) -> list[NDArray[np.float32]]:
    mv, most = chunk.mv, max(1, math.floor(PIECE_S * chunk.rate))
    if 0 < len(mv) <= most:
        return [mv]
    return [mv[at : at + most] for at in range(0, len(mv), most)]


def _of_width(mv: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Bring samples to a number of leads: cut off, or as never valid."""
    if mv.shape[1] == width:
        return mv
    if mv.shape[1] > width:
        return mv[:, :width]
    wide = np.full((len(mv), width), np.nan, np.float32)
    wide[:, : mv.shape[1]] = mv
    return wide


def pairs(offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Begin and end of each patient's part of a ragged batch."""
    edges = offsets.tolist()
    return list(pairwise(edges))


def _peaks(peaks: Peaks) -> Sequence[Sequence[Peak]]:
    own = list(map(Peak, peaks.r.tolist(), peaks.decided.tolist()))
    found = [own[a:b] for a, b in pairs(peaks.offsets)]
    if len(peaks.beside):
        beside = [Peak(r, at, True) for r, at in zip(peaks.beside.tolist(), peaks.beside_decided.tolist(), strict=True)]
        for mine, (a, b) in zip(found, pairs(peaks.beside_offsets), strict=True):
            mine += beside[a:b]
    return found


def _beats(rows: features.Rows, probabilities: NDArray[np.float32], maps: list[bytes]) -> list[ClassifiedBeat]:
    if not len(rows.r):
        return []
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    p = np.take_along_axis(probabilities, order, axis=1)
    # As `round` does, digit for digit: of single precision, so that the product is exact.
    shown = np.rint(p.astype(np.float64) * 1e4) / 1e4
    rr_ms = np.rint(rows.rr_ms).astype(np.int64)
    columns = (
        rows.r, rows.decided, order[:, 0], p[:, 0], shown[:, 0], order[:, 1], shown[:, 1], rr_ms, rows.cluster + 1,
    )  # fmt: skip
    return list(map(ClassifiedBeat, *(column.tolist() for column in columns), maps))
