"""The signal stages of many patients as one object: samples of the leads in, beats and rhythm verdicts out.

Order: `dsp.frontend` (by sampling rate), `dsp.qrs`, `dsp.spectrogram`, `inference.features`, the beat network,
`inference.rhythm`. All state is numpy records, one row a patient and stage; rows of different patients never meet, so
results do not depend on who shares a batch. Pieces are at most `PIECE_S` long, so that the ring of columns holds
what every pending beat needs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsp import frontend, qrs, spectrogram
from dsp.layout import BLOCK, Peaks, Signal
from inference import features, rhythm
from rhythmwatch.models import Models
from rhythmwatch.quantise import loudness, wave_units

PIECE_S: Final = 1.2
"""Longest stretch that passes the stages in one go, seconds; `features.MAX_CHUNK` bounds it."""

DELAY: Final = features.WAIT + BLOCK
"""Samples at `FS` that all classified beats lie behind the newest sample at most."""

PEAK_DELAY: Final = qrs.DELAY + BLOCK
"""Samples at `FS` that all R peaks lie behind the newest sample at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
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


@dataclass(frozen=True, slots=True)
class ClassifiedBeat:
    """A beat with its likeliest and second class (indices into `inference.beats.CLASSES`)."""

    r: int
    decided: int
    best: int
    p: float
    second: int
    second_p: float
    rr_ms: float
    shape: int
    map: bytes


@dataclass(frozen=True, slots=True)
class RPeak:
    """An R peak, known before its beat is classified; `beside`: seen on a lead that is not analysed."""

    r: int
    decided: int
    beside: bool


@dataclass(frozen=True, slots=True)
class RhythmVerdict:
    """The smoothed rhythm verdict at the end of one second."""

    end: int
    code: str
    probability: float
    activity: float


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """What a piece of one patient's signal gave.

    Attributes
    ----------
    start : int
        Index at `FS` of the first sample of `x`.
    x : ndarray of float32, shape (k,)
        Analysed lead, mV.
    flags, lead : ndarray, shape (k / BLOCK,)
        `dsp.layout.Flag` bits and column of the analysed lead, by block.
    wave, loud : bytes
        `x` and the new spectrogram columns as the wall gets them (`rhythmwatch.views`).
    column0 : int
        Number of the first of these columns.
    """

    start: int
    x: NDArray[np.float32]
    flags: NDArray[np.uint8]
    lead: NDArray[np.int8]
    wave: bytes
    loud: bytes
    column0: int
    peaks: tuple[RPeak, ...]
    beats: tuple[ClassifiedBeat, ...]
    rhythms: tuple[RhythmVerdict, ...]

    @property
    def end(self) -> int:
        """Index at `FS` after the last sample."""
        return self.start + len(self.x)


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
        text = repr([(name, store.dtype.descr) for name, store in self._stores.items()]) + models.version
        self.layout_hash = hashlib.sha256(text.encode()).hexdigest()[:16]
        """Names the layout of the records and the networks; a checkpoint of another one is not loaded."""

    def admit(self) -> int:
        """Reserve a row."""
        if not self._free:
            size = len(self._stores["frontend"])
            for name, store in self._stores.items():
                self._stores[name] = np.concatenate([store, np.zeros_like(store)])
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
        """Copy the records of a row."""
        return {name: store[slot].tobytes() for name, store in self._stores.items()}

    def load(self, slot: int, records: dict[str, bytes]) -> None:
        """Put back what `dump` gave; `ValueError` when a record does not fit."""
        for name, store in self._stores.items():
            store[slot] = np.frombuffer(records[name], store.dtype, count=1)[0]

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
        done = [0] * len(chunks)
        while True:
            batch: list[tuple[int, NDArray[np.float32]]] = []
            for number, chunk in enumerate(chunks):
                size = min(len(chunk.mv) - done[number], max(1, math.floor(PIECE_S * chunk.rate)))
                if size > 0:
                    batch.append((number, chunk.mv[done[number] : done[number] + size]))
                    done[number] += size
            if not batch:
                return results
            # One call of the front end a rate; everything after it runs at the analysis rate.
            batch.sort(key=lambda item: chunks[item[0]].rate)
            slots = np.array([chunks[number].slot for number, _ in batch], np.int64)
            for (number, _), stretch in zip(batch, self._pass(slots, batch, chunks), strict=True):
                results[number].append(stretch)

    def _pass(
        self, slots: NDArray[np.int64], batch: list[tuple[int, NDArray[np.float32]]], chunks: Sequence[Chunk]
    ) -> list[Stretch]:
        self._lap()
        signal, leads = self._front(slots, batch, chunks)
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
        stretches = self._stretches(signal, leads, columns, peaks, rows, probabilities, maps, verdicts, windows.quiet)
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
        leads: NDArray[np.int8],
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
        rhythms_of = [
            RhythmVerdict(end, rhythm.CODES[code], p, activity)
            for end, code, p, activity in zip(
                verdicts.end.tolist(),
                verdicts.code.tolist(),
                verdicts.probability.tolist(),
                activities.tolist(),
                strict=True,
            )
        ]
        wave = wave_units(signal).tobytes() if self._views else b""
        loud = loudness(columns.re, columns.im).tobytes() if self._views else b""
        bins = columns.re.shape[1]
        stretches = []
        edges = zip(
            pairs(signal.offsets), pairs(columns.offsets), pairs(rows.offsets), pairs(verdicts.offsets), strict=True
        )
        for i, ((a, b), (ca, cb), (ba, bb), (va, vb)) in enumerate(edges):
            stretches.append(
                Stretch(
                    start=int(signal.start[i]),
                    x=signal.x[a:b],
                    flags=signal.flags[a // BLOCK : b // BLOCK],
                    lead=leads[a // BLOCK : b // BLOCK],
                    wave=wave[2 * a : 2 * b],
                    loud=loud[bins * ca : bins * cb],
                    column0=int(columns.first[i]),
                    peaks=peaks_of[i],
                    beats=beats_of[ba:bb],
                    rhythms=tuple(rhythms_of[va:vb]),
                )
            )
        return stretches

    def _front(
        self, slots: NDArray[np.int64], batch: list[tuple[int, NDArray[np.float32]]], chunks: Sequence[Chunk]
    ) -> tuple[Signal, NDArray[np.int8]]:
        parts: list[frontend.Output] = []
        begin = 0
        while begin < len(batch):
            rate = chunks[batch[begin][0]].rate
            end = begin
            while end < len(batch) and chunks[batch[end][0]].rate == rate:
                end += 1
            pieces = [mv for _, mv in batch[begin:end]]
            offsets = np.zeros(len(pieces) + 1, np.int64)
            np.cumsum([len(mv) for mv in pieces], out=offsets[1:])
            raw = np.full((int(offsets[-1]), frontend.MAX_ANALYSED), np.nan, np.float32)
            for mv, a in zip(pieces, offsets[:-1], strict=True):
                width = min(mv.shape[1], frontend.MAX_ANALYSED)
                raw[a : a + len(mv), :width] = mv[:, :width]
            parts.append(frontend.step(self._stores["frontend"], slots[begin:end], raw, offsets, rate))
            begin = end
        if len(parts) == 1:
            return parts[0].signal, parts[0].lead
        shift = np.cumsum([0] + [int(part.signal.offsets[-1]) for part in parts])
        signal = Signal(
            x=np.concatenate([part.signal.x for part in parts]),
            flags=np.concatenate([part.signal.flags for part in parts]),
            offsets=np.concatenate(
                [part.signal.offsets[:-1] + by for part, by in zip(parts, shift, strict=False)] + [shift[-1:]]
            ),
            start=np.concatenate([part.signal.start for part in parts]),
            leads=np.concatenate([part.signal.leads for part in parts], axis=1),
            lead_flags=np.concatenate([part.signal.lead_flags for part in parts], axis=1),
            lead=np.concatenate([part.lead for part in parts]),
            counts=np.concatenate([part.signal.counts for part in parts]),
        )
        return signal, np.concatenate([part.lead for part in parts])


def pairs(offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Begin and end of each patient's part of a ragged batch."""
    edges = offsets.tolist()
    return list(pairwise(edges))


def _peaks(peaks: Peaks) -> list[tuple[RPeak, ...]]:
    own = [RPeak(r, decided, False) for r, decided in zip(peaks.r.tolist(), peaks.decided.tolist(), strict=True)]
    beside = [
        RPeak(r, decided, True) for r, decided in zip(peaks.beside.tolist(), peaks.beside_decided.tolist(), strict=True)
    ]
    cuts = zip(pairs(peaks.offsets), pairs(peaks.beside_offsets), strict=True)
    return [(*own[a:b], *beside[ba:bb]) for (a, b), (ba, bb) in cuts]


def _beats(rows: features.Rows, probabilities: NDArray[np.float32], maps: list[bytes]) -> tuple[ClassifiedBeat, ...]:
    if not len(rows.r):
        return ()
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    p = np.take_along_axis(probabilities, order, axis=1)
    columns = (rows.r, rows.decided, order[:, 0], p[:, 0], order[:, 1], p[:, 1], rows.rr_ms, rows.cluster + 1)
    return tuple(map(ClassifiedBeat, *(column.tolist() for column in columns), maps))
