"""Rhythm of a patient, one verdict a second: features here, trees in ONNX, then a decision with memory.

`step` turns signal and beats into rows, `RhythmModel` scores rows, `decide` turns scores into verdicts. A verdict at
second t rests on the wave before t and on beats that were final by then, so it never depends on how the input was cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from dsp.layout import FS, Peaks, Signal
from inference.contract import check
from inference.rhythm_af import AF_FEATURES
from inference.rhythm_decision import AFIB, CODES, NOISE, decide_kernel
from inference.rhythm_state import SHOCK_FEATURES, STATE, new_states, reset
from inference.rhythm_step import step_kernel
from inference.runtime import Model
from inference.shipped import shipped

__all__ = [
    "AF_FEATURES",
    "CODES",
    "SHOCK_FEATURES",
    "STATE",
    "RhythmModel",
    "Rows",
    "Scores",
    "Verdicts",
    "decide",
    "new_states",
    "record_verdict",
    "reset",
    "step",
]

SHOCK_MODEL: Final = "rhythm"
"""Name of the shockable model in its contract, and of its file."""

AF_MODEL: Final = "af"
"""Name of the AF model in its contract, and of its file."""

RECORD_AF: Final = 0.5
"""AF score that counts for a whole recording: higher than for an alarm, which may be late but must not be missed."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known at each full second.

    Attributes
    ----------
    offsets : ndarray of int64, shape (n + 1,)
        Cuts the other columns by patient.
    end : ndarray of int64, shape (m,)
        Index at 250 Hz of the end of the window, exclusive; multiples of 250.
    shock : ndarray of float32, shape (m, len(SHOCK_FEATURES))
        Features of the last 4 s, zeros before there are 4 s.
    shock_due : ndarray of bool, shape (m,)
        A full window without a block in `dsp.layout.BLIND`.
    af : ndarray of float32, shape (m, len(AF_FEATURES))
        RR statistics of the last 20 s, zeros where none are due.
    af_due : ndarray of bool, shape (m,)
        Each third second, if there are enough intervals.
    quiet : ndarray of float32, shape (m,)
        Share of samples of the window beyond 0.1 mV.
    noisy : ndarray of float32, shape (m,)
        Share of blocks of the window with any quality flag.
    beats : ndarray of float32, shape (m,)
        Beats in the window.
    """

    offsets: NDArray[np.int64]
    end: NDArray[np.int64]
    shock: NDArray[np.float32]
    shock_due: NDArray[np.bool_]
    af: NDArray[np.float32]
    af_due: NDArray[np.bool_]
    quiet: NDArray[np.float32]
    noisy: NDArray[np.float32]
    beats: NDArray[np.float32]


def step(states: NDArray[np.void], slots: NDArray[np.int64], signal: Signal, peaks: Peaks) -> Rows:
    """Advance the patients of `slots` by `signal`.

    Parameters
    ----------
    states : ndarray of STATE
        Changed in place.
    slots : ndarray of int64, shape (n,)
        Rows of `states`, in the order of the batch.
    signal : Signal
        The next blocks of each patient.
    peaks : Peaks
        Beats that became final in these blocks.

    Returns
    -------
    Rows

    Raises
    ------
    ValueError
        The signal doesn't continue where a patient's state ends.
    """
    if not np.array_equal(states["next"][slots], signal.start):
        raise ValueError("the signal must continue where the state ends; reset the state for a new start")
    first = signal.start // FS
    last = (signal.start + np.diff(signal.offsets)) // FS
    offsets = np.concatenate([[0], np.cumsum(last - first)]).astype(np.int64)
    m = int(offsets[-1])
    rows = Rows(
        offsets,
        np.zeros(m, np.int64),
        np.zeros((m, len(SHOCK_FEATURES)), np.float32),
        np.zeros(m, np.bool_),
        np.zeros((m, len(AF_FEATURES)), np.float32),
        np.zeros(m, np.bool_),
        np.zeros(m, np.float32),
        np.zeros(m, np.float32),
        np.zeros(m, np.float32),
    )
    step_kernel(
        states,
        slots,
        signal.x,
        signal.flags,
        signal.offsets,
        peaks.offsets,
        peaks.r,
        peaks.decided,
        peaks.strength,
        rows.offsets,
        rows.end,
        rows.shock,
        rows.shock_due,
        rows.af,
        rows.af_due,
        rows.quiet,
        rows.noisy,
        rows.beats,
    )
    return rows


@dataclass(frozen=True, slots=True)
class Scores:
    """Probabilities of rows.

    Attributes
    ----------
    shock : ndarray of float32, shape (m,)
        Ventricular tachycardia, flutter or fibrillation; 0 where none is due.
    af : ndarray of float32, shape (m,)
        Atrial fibrillation or flutter; 0 where none is due.
    """

    shock: NDArray[np.float32]
    af: NDArray[np.float32]


class RhythmModel:
    """The two models of the rhythm stage.

    Parameters
    ----------
    shock, af : Model
        With the contracts of this version.

    Raises
    ------
    inference.contract.ContractError
        A model asks for what `step` doesn't deliver.
    """

    __slots__ = ("_af", "_shock")

    def __init__(self, shock: Model, af: Model) -> None:
        for model, name, features in ((shock, SHOCK_MODEL, SHOCK_FEATURES), (af, AF_MODEL, AF_FEATURES)):
            check(model.contract, model=name, rate=FS, classes=(name,), features=features)
        self._shock = shock
        self._af = af

    @classmethod
    def load(cls, folder: Path | None = None) -> Self:
        """Read ``rhythm.onnx`` and ``af.onnx``.

        Parameters
        ----------
        folder : Path, optional
            Where they lie; the shipped ones without it.

        Returns
        -------
        RhythmModel

        Raises
        ------
        inference.contract.ContractError
            A file is missing or is not such a model.
        """
        where = shipped() if folder is None else folder
        return cls(Model(where / f"{SHOCK_MODEL}.onnx"), Model(where / f"{AF_MODEL}.onnx"))

    @property
    def version(self) -> str:
        """Versions of both models, for records of verdicts."""
        return f"{self._shock.contract.version}+{self._af.contract.version}"

    def classify(self, rows: Rows) -> Scores:
        """Score the rows that are due.

        Parameters
        ----------
        rows : Rows

        Returns
        -------
        Scores
            A row's bits don't depend on the other rows.
        """
        return Scores(
            _scored(self._shock, rows.shock, rows.shock_due),
            _scored(self._af, rows.af, rows.af_due),
        )


def _scored(model: Model, features: NDArray[np.float32], due: NDArray[np.bool_]) -> NDArray[np.float32]:
    scores = np.zeros(len(due), np.float32)
    if due.any():
        scores[due] = model.run(features[due])[0][:, 0]
    return scores


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Rhythm of each second.

    Attributes
    ----------
    offsets : ndarray of int64, shape (n + 1,)
        Cuts the other columns by patient.
    end : ndarray of int64, shape (m,)
        Index at 250 Hz of the end of the window, exclusive; nothing after it was needed.
    code : ndarray of int8, shape (m,)
        Index into `CODES`.
    probability : ndarray of float32, shape (m,)
        Of the code: its mean score, 1 for asystole, the share of flagged blocks for noise.
    shock, af : ndarray of float32, shape (m,)
        Mean scores behind it, whatever the code says.
    """

    offsets: NDArray[np.int64]
    end: NDArray[np.int64]
    code: NDArray[np.int8]
    probability: NDArray[np.float32]
    shock: NDArray[np.float32]
    af: NDArray[np.float32]

    @property
    def decided(self) -> NDArray[np.int64]:
        """Index of the last sample that was needed, exclusive."""
        return self.end


def decide(states: NDArray[np.void], slots: NDArray[np.int64], rows: Rows, scores: Scores) -> Verdicts:
    """Decide the rows of a call.

    Parameters
    ----------
    states : ndarray of STATE
        Changed in place.
    slots : ndarray of int64, shape (n,)
        As in the `step` that gave `rows`.
    rows : Rows
    scores : Scores
        Of `rows`.

    Returns
    -------
    Verdicts
        One a row.
    """
    m = len(rows.end)
    code = np.zeros(m, np.int8)
    probability = np.zeros(m, np.float32)
    shock = np.zeros(m, np.float32)
    af = np.zeros(m, np.float32)
    decide_kernel(
        states,
        slots,
        rows.offsets,
        rows.shock,
        rows.shock_due,
        rows.af_due,
        rows.quiet,
        rows.noisy,
        rows.beats,
        scores.shock,
        scores.af,
        code,
        probability,
        shock,
        af,
    )
    return Verdicts(rows.offsets, rows.end, code, probability, shock, af)


def record_verdict(verdicts: Verdicts, patient: int = 0) -> str:
    """Rhythm of a whole short recording, as the AF challenge 2017 asks for it.

    Parameters
    ----------
    verdicts : Verdicts
        All of the recording.
    patient : int
        Position in the batch.

    Returns
    -------
    str
        ``AFIB`` if the AF score was above `RECORD_AF` in more than half of the seconds since the first one, else the
        most frequent of the other codes; ``NOISE`` for a recording without a verdict.
    """
    part = slice(int(verdicts.offsets[patient]), int(verdicts.offsets[patient + 1]))
    code = verdicts.code[part]
    af = verdicts.af[part]
    known = af[(af > 0.0) & (code != NOISE)]
    if 2 * np.count_nonzero(known > RECORD_AF) > known.size:
        return CODES[AFIB]
    others = code[(code != NOISE) & (code != AFIB)]
    return CODES[int(np.bincount(others).argmax())] if others.size else CODES[NOISE]
