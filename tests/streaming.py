"""The property that all streaming stages share: the way in which the input is cut changes no bit of the output.

A test writes an adapter: how a stage is fed with pieces of `n` patients, and which arrays of each patient come out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Piece = dict[str, NDArray[Any]]
"""Named output arrays of one patient; the pieces of successive calls are joined along the first axis."""
Feed = Callable[[NDArray[Any], NDArray[np.int64], Sequence[tuple[int, int]]], Sequence[Piece]]
"""``feed(states, slots, spans)``: give patient ``slots[i]`` its input ``spans[i]`` and return each one's outputs."""


def run_whole(feed: Feed, states: NDArray[Any], lengths: Sequence[int]) -> list[Piece]:
    """Give each patient, alone, its whole input in one call."""
    return [feed(states, np.array([slot]), [(0, n)])[0] for slot, n in enumerate(lengths)]


def run_cut(
    feed: Feed, states: NDArray[Any], lengths: Sequence[int], sizes: Sequence[int], seed: int, unit: int = 1
) -> list[Piece]:
    """Give all patients their input in pieces of `sizes` (times `unit`), drawn for each patient and call.

    Who takes part in a call, and in which order, is drawn too.
    """
    rng = np.random.default_rng(seed)
    at = np.zeros(len(lengths), np.int64)
    end = np.asarray(lengths, np.int64)
    pieces: list[list[Piece]] = [[] for _ in lengths]
    while (at < end).any():
        left = np.flatnonzero(at < end)
        slots = rng.permutation(left)[: rng.integers(1, left.size + 1)].astype(np.int64)
        take = np.minimum(rng.choice(np.asarray(sizes) * unit, slots.size), end[slots] - at[slots])
        spans = [(int(at[s]), int(at[s] + n)) for s, n in zip(slots, take, strict=True)]
        for slot, piece in zip(slots, feed(states, slots, spans), strict=True):
            pieces[slot].append(piece)
        at[slots] += take
    return [{name: np.concatenate([p[name] for p in parts]) for name in parts[0]} for parts in pieces]


def assert_same_bits(left: Sequence[Piece], right: Sequence[Piece]) -> None:
    """Compare all outputs of all patients, bit by bit."""
    assert len(left) == len(right)
    for patient, (a, b) in enumerate(zip(left, right, strict=True)):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype, name
            assert a[name].shape == b[name].shape, f"patient {patient}, {name}: {a[name].shape} and {b[name].shape}"
            assert a[name].tobytes() == b[name].tobytes(), f"patient {patient}, {name} differs"


def assert_same_state(left: NDArray[Any], right: NDArray[Any], name: str = "state") -> None:
    """Compare records field by field, bit by bit; the padding between fields holds nothing."""
    if left.dtype.names is None:
        assert left.tobytes() == right.tobytes(), f"{name} differs: {left} and {right}"
    for field in left.dtype.names or ():
        assert_same_state(left[field], right[field], f"{name}.{field}")


def assert_cut_invariant(
    feed: Feed,
    new_states: Callable[[], NDArray[Any]],
    lengths: Sequence[int],
    sizes: Sequence[int],
    seed: int = 0,
    unit: int = 1,
) -> list[Piece]:
    """Whole and cut runs give the same bits, and leave the same state.

    Parameters
    ----------
    feed : callable
        See `Feed`.
    new_states : callable
        Gives fresh records, one a patient, after any reset.
    lengths : sequence of int
        Input samples of each patient.
    sizes : sequence of int
        Sizes of pieces to draw from.
    seed : int
        Of the draw.
    unit : int
        Pieces come in multiples of this (`dsp.layout.BLOCK` for stages behind the front end).

    Returns
    -------
    list of dict
        Outputs of the whole run.
    """
    first, second = new_states(), new_states()
    whole = run_whole(feed, first, lengths)
    assert_same_bits(whole, run_cut(feed, second, lengths, sizes, seed, unit))
    assert_same_state(first, second)
    return whole
