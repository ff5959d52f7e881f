"""QRS detector: candidates, a small network on each, and a second one that accepts or rejects them in order.

Design: Pan and Tompkins' band-pass and envelope (IEEE Trans. Biomed. Eng. 32, 1985), with their thresholds replaced by
two multilayer perceptrons. Everything is sequential per tick and candidate, so the cut of the input changes no bit.
A beat is final `DELAY` samples after it at the latest and is never taken back. Every lead is followed all the time,
each with a state of its own, so that the detector knows the shapes of a lead by the time it is analysed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsp.kernel import kernel
from dsp.layout import BLOCK, Peaks, Signal
from dsp.qrs_candidates import CANDIDATES, end_block, find_candidate, follow
from dsp.qrs_features import (
    FIRST_DELAY,
    FIRST_NAMES,
    SECOND_DELAY,
    SECOND_NAMES,
    first_row,
    learn,
    perceptron,
    second_row,
)
from dsp.qrs_lead import BLOCKS, DEAD, LEAD, r_peak, take

DELAY: Final = 150
"""Once sample ``h + DELAY`` has been seen, all R peaks before ``h`` are known (0.6 s)."""

CERTAIN: Final = 2.0
"""Logit from which an accepted beat teaches shapes."""

LEADS: Final = 3
"""Leads followed at most."""

EDGE: Final = 12
"""Samples by which the marks of one beat on two leads may differ: so far from a change of leads, both may give it."""

STATE: Final = np.dtype(
    [
        ("position", np.int64),  # index of the next sample
        ("origin", np.int64),  # first index of the epoch that was seen
        ("lead", LEAD, (LEADS,)),
        ("analysed", np.int8, (BLOCKS,)),  # lead of each of the last blocks
        ("told", np.int64),  # R peaks reported
        ("last", np.int64),  # the last of them
        ("last_lead", np.int64),
    ],
    align=True,
)
"""State of one patient."""


@dataclass(frozen=True, slots=True)
class QrsWeights:
    """Weights of the two networks; each a multilayer perceptron with rectified hidden layers and one output.

    Attributes
    ----------
    first, second : tuple of ndarray of float32
        ``(w1, b1, w2, b2, w3, b3)``, matrices as (inputs, outputs); the last of shape (hidden, 1) and (1,).
    threshold : float
        Logit of the second network from which a candidate is a beat.
    """

    first: tuple[NDArray[np.float32], ...]
    second: tuple[NDArray[np.float32], ...]
    threshold: float

    def __post_init__(self) -> None:
        for name, layers, width in (
            ("first", self.first, len(FIRST_NAMES)),
            ("second", self.second, len(SECOND_NAMES)),
        ):
            shapes = [layer.shape for layer in layers]
            ok = (
                len(shapes) == 6
                and shapes[0][0] == width
                and shapes[1] == shapes[0][1:]
                and shapes[2] == (*shapes[1], *shapes[3])
                and shapes[4] == (*shapes[3], 1)
                and shapes[5] == (1,)
            )
            if not ok or any(layer.dtype != np.float32 or not layer.flags.c_contiguous for layer in layers):
                msg = f"{name} network: weights do not fit {width} inputs, got {shapes}"
                raise ValueError(msg)


def new_states(n: int) -> NDArray[np.void]:
    """Make the records of `n` patients; `reset` each before use.

    Parameters
    ----------
    n : int
        Number of records.

    Returns
    -------
    ndarray of `STATE`, shape (n,)
    """
    return np.zeros(n, STATE)


def reset(states: NDArray[np.void], slots: NDArray[np.int64], start: NDArray[np.int64]) -> None:
    """Start epochs.

    Parameters
    ----------
    states : ndarray of `STATE`
        The whole store; changed in place.
    slots : ndarray of int64, shape (n,)
        Rows to reset.
    start : ndarray of int64, shape (n,)
        Index at `dsp.layout.FS` of the first sample to come; multiples of `dsp.layout.BLOCK`.

    Raises
    ------
    ValueError
        If a start is not a multiple of `dsp.layout.BLOCK`.
    """
    if np.any(np.asarray(start) % BLOCK):
        msg = f"an epoch starts at a multiple of {BLOCK} samples"
        raise ValueError(msg)
    states[slots] = np.zeros((), STATE)
    states["position"][slots] = start
    states["origin"][slots] = start
    states["lead"]["position"][slots] = np.asarray(start)[:, None]


def step(states: NDArray[np.void], slots: NDArray[np.int64], signal: Signal, weights: QrsWeights) -> Peaks:
    """Take the next blocks of a batch of patients and report the beats that became final.

    Parameters
    ----------
    states : ndarray of `STATE`
        The whole store; changed in place.
    slots : ndarray of int64, shape (n,)
        The patients' rows.
    signal : Signal
        From `dsp.frontend`; blocks without a gap in the index.
    weights : QrsWeights
        See `inference.qrs_model`.

    Returns
    -------
    Peaks
        Final beats, and each patient's horizon: samples seen minus `DELAY`, not before the epoch's first.

    Raises
    ------
    ValueError
        If blocks don't follow what was seen before.
    """
    peaks, _ = walk(states, slots, signal, weights, rows=False)
    return peaks


@dataclass(frozen=True, slots=True)
class Rows:
    """What the networks saw, one row a candidate in order, for training.

    Attributes
    ----------
    patient : ndarray of int64, shape (m,)
        Index into the batch.
    tick : ndarray of int64, shape (m,)
        Candidate, at half of `dsp.layout.FS`.
    first, second : ndarray of float32, shape (m, features)
        Rows of the two networks.
    logit : ndarray of float32, shape (m, 2)
        Outputs of the two networks.
    accepted : ndarray of bool, shape (m,)
        The decisions.
    """

    patient: NDArray[np.int64]
    tick: NDArray[np.int64]
    first: NDArray[np.float32]
    second: NDArray[np.float32]
    logit: NDArray[np.float32]
    accepted: NDArray[np.bool_]


def walk(
    states: NDArray[np.void],
    slots: NDArray[np.int64],
    signal: Signal,
    weights: QrsWeights,
    *,
    rows: bool,
) -> tuple[Peaks, Rows]:
    """Do `step`, and tell what the networks saw where `rows` asks for it (training, explanation).

    Parameters
    ----------
    states, slots, signal, weights
        As in `step`.
    rows : bool
        Whether to keep rows; whole recordings then, as a candidate is told in the call that decides it.

    Returns
    -------
    Peaks
    Rows
        Empty where `rows` is false.

    Raises
    ------
    ValueError
        If blocks don't follow what was seen before.
    """
    n = slots.shape[0]
    if not np.array_equal(states["position"][slots], signal.start):
        msg = "blocks do not follow the samples seen before; reset the patient at the start of an epoch"
        raise ValueError(msg)
    blocks = signal.flags.shape[0]
    offsets = np.zeros(n + 1, np.int64)
    r = np.empty(2 * blocks, np.int64)
    decided = np.empty(2 * blocks, np.int64)
    strength = np.empty(2 * blocks, np.float32)
    horizon = np.empty(n, np.int64)
    beside_offsets = np.zeros(n + 1, np.int64)
    beside = np.empty((2, 2 * blocks * (signal.leads.shape[0] - 1)), np.int64)
    room = signal.leads.shape[0] * (3 * blocks + 8 * n) if rows else 0
    first = np.empty((room, len(FIRST_NAMES)), np.float32)
    second = np.empty((room, len(SECOND_NAMES)), np.float32)
    told = np.empty((room, 3), np.int64)
    logit = np.empty((room, 2), np.float32)
    count, kept = _walk(
        states,
        slots,
        signal.leads,
        signal.lead_flags,
        signal.lead,
        signal.counts,
        signal.offsets,
        weights.first,
        weights.second,
        np.float32(weights.threshold),
        offsets,
        r,
        decided,
        strength,
        horizon,
        beside_offsets,
        beside,
        first,
        second,
        told,
        logit,
    )
    return (
        Peaks(
            offsets,
            r[:count],
            decided[:count],
            strength[:count],
            horizon,
            beside_offsets,
            beside[0, : beside_offsets[-1]],
            beside[1, : beside_offsets[-1]],
        ),
        Rows(told[:kept, 0], told[:kept, 1], first[:kept], second[:kept], logit[:kept], told[:kept, 2] == 1),
    )


@kernel
def _reports(state: Any, lead: int, place: int) -> bool:
    """Tell whether the R peak `place` of `lead` is to be reported: on the analysed lead, and not told by another."""
    near = (
        state.analysed[((place - EDGE) // BLOCK) % BLOCKS] == lead
        or state.analysed[((place + EDGE) // BLOCK) % BLOCKS] == lead
    )
    return bool(near and (state.told == 0 or state.last_lead == lead or place - state.last >= 2 * DEAD))


@kernel
def _walk(
    states: Any,
    slots: Any,
    x: Any,
    flags: Any,
    analysed: Any,
    counts: Any,
    cuts: Any,
    first: Any,
    second: Any,
    threshold: Any,
    offsets: Any,
    r: Any,
    decided: Any,
    strength: Any,
    horizon: Any,
    beside_offsets: Any,
    beside: Any,
    first_out: Any,
    second_out: Any,
    told: Any,
    logits: Any,
) -> tuple[int, int]:
    row1 = np.empty(first[0].shape[0], np.float32)
    row2 = np.empty(second[0].shape[0], np.float32)
    hidden = np.empty(max(first[1].shape[0], second[1].shape[0]), np.float32)
    hidden2 = np.empty(max(first[3].shape[0], second[3].shape[0]), np.float32)
    count = kept = aside = 0
    waiting = np.empty((LEADS, CANDIDATES, first_out.shape[1]), np.float32)
    for p in range(slots.shape[0]):
        state = states[slots[p]]
        begun = state.position
        for b in range(cuts[p] // BLOCK, cuts[p + 1] // BLOCK):
            state.analysed[(state.position // BLOCK) % BLOCKS] = analysed[b]
            for lead in range(counts[p]):
                take(state.lead[lead], x[lead], b * BLOCK, flags[lead, b])
            begin = state.position >> 1
            state.position += BLOCK
            for t in range(begin, state.position >> 1):
                for lead in range(counts[p]):
                    own = state.lead[lead]
                    follow(own, t)
                    find_candidate(own, t)
                    if own.first_n < own.candidates_n and own.tick[own.first_n % CANDIDATES] + FIRST_DELAY == t:
                        index = own.first_n
                        first_row(own, index, row1)
                        own.logit[index % CANDIDATES] = perceptron(row1, first, hidden, hidden2)
                        own.first_n = index + 1
                        if first_out.shape[0] > 0:
                            waiting[lead, index % CANDIDATES, :] = row1
                    if own.second_n >= own.first_n or own.tick[own.second_n % CANDIDATES] + SECOND_DELAY != t:
                        continue
                    index = own.second_n
                    c = own.tick[index % CANDIDATES]
                    second_row(own, index, row2)
                    logit = perceptron(row2, second, hidden, hidden2)
                    own.second_n = index + 1
                    place = r_peak(own, c, state.origin) if logit >= threshold else -1
                    accepted = place >= 0
                    if first_out.shape[0] > 0:
                        first_out[kept] = waiting[lead, index % CANDIDATES]
                        second_out[kept] = row2
                        told[kept, 0] = p
                        told[kept, 1] = c
                        told[kept, 2] = accepted
                        logits[kept, 0] = own.logit[index % CANDIDATES]
                        logits[kept, 1] = logit
                        kept += 1
                    learn(own, index, accepted, logit >= CERTAIN)
                    if not accepted:
                        continue
                    if state.analysed[(place // BLOCK) % BLOCKS] != lead:
                        beside[0, aside] = place
                        beside[1, aside] = (b + 1) * BLOCK - cuts[p] + begun
                        aside += 1
                    if _reports(state, lead, place):
                        r[count] = place
                        decided[count] = (b + 1) * BLOCK - cuts[p] + begun
                        strength[count] = np.float32(1.0 / (1.0 + np.exp(-logit)))
                        count += 1
                        state.told += 1
                        state.last = place
                        state.last_lead = lead
            for lead in range(counts[p]):
                end_block(state.lead[lead])
        offsets[p + 1] = count
        beside_offsets[p + 1] = aside
        horizon[p] = max(state.origin, state.position - DELAY)
    return count, kept
