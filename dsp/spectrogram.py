"""Short-time Fourier transform of the analysed lead, column by column as samples come; each column computed once.

Column ``c`` is centred on sample ``8 c``: Hann window of 64 samples (0.256 s), hop 8 (32 ms), a 128-point transform of
which bins 0 to 23 (0 to 45 Hz, 1.953 Hz apart) are kept. Phases count from the centre. Values are in mV: a sine of 1 mV
on a bin has magnitude 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import signal as sps

from dsp.kernel import kernel
from dsp.layout import BLOCK, FS, Flag, Signal

HOP: Final = 8
WINDOW: Final = 64
POINTS: Final = 128
BINS: Final = 24
RING: Final = 128
"""Columns kept a patient: 4.1 s."""
HALF: Final = WINDOW // 2
KEPT: Final = HOP * RING + WINDOW
"""Samples kept a patient: those that the columns of the ring were made of."""
BASELINE_HZ: Final = 0.5
_SWITCHED: Final = int(Flag.SWITCHED)

STATE: Final = np.dtype(
    [
        ("next", np.int64),  # column to come
        ("first", np.int64),  # first column since the reset
        ("seen", np.int64),  # index after the last sample
        ("primed", np.bool_),
        ("z1", np.float64),  # memory of the baseline filter
        ("z2", np.float64),
        ("x", np.float32, (KEPT,)),  # last samples, without baseline; sample i lies in i % KEPT
        ("re", np.float32, (RING, BINS)),  # column c lies in row c % RING
        ("im", np.float32, (RING, BINS)),
    ],
    align=True,
)
KNOWN: Final = int(STATE.fields["re"][1])  # type: ignore[index]
"""Bytes of a state that a checkpoint needs; `rebuild` makes the ring of columns again."""


def _tables() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Window times cosine and minus sine, for offsets 0 .. 31 from the centre (the window is even, and 0 at -32).

    They weigh sum and difference of the samples at either side; the centre is its own other side and counts half.
    """
    m = np.arange(HALF)[:, None]
    w = 0.5 + 0.5 * np.cos(2 * np.pi * m / WINDOW)
    angle = 2 * np.pi * m * np.arange(BINS)[None, :] / POINTS
    scale = np.where(m == 0, 0.5, 1.0) * 2.0 / HALF  # 2 over the sum of the window
    return (w * np.cos(angle) * scale).astype(np.float32), (-w * np.sin(angle) * scale).astype(np.float32)


COS, SIN = _tables()
_B, _A = sps.butter(2, BASELINE_HZ, "highpass", fs=FS)
B0, B1, B2 = (float(v) for v in _B)
A1, A2 = float(_A[1]), float(_A[2])


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns that became complete in a call.

    Attributes
    ----------
    offsets : ndarray of int64, shape (n + 1,)
        Cuts `re` and `im` by patient.
    first : ndarray of int64, shape (n,)
        Number of each patient's first column here (the next one to come where there is none).
    re, im : ndarray of float32, shape (total, BINS)
        mV; power is ``re**2 + im**2``.
    """

    offsets: NDArray[np.int64]
    first: NDArray[np.int64]
    re: NDArray[np.float32]
    im: NDArray[np.float32]


def new_states(n: int) -> NDArray[Any]:
    """Make records of `n` patients, as after a reset at 0.

    Parameters
    ----------
    n : int
        Patients.

    Returns
    -------
    ndarray of `STATE`, shape (n,)
    """
    return np.zeros(n, STATE)


def reset(states: NDArray[Any], slots: NDArray[np.int64], start: NDArray[np.int64]) -> None:
    """Forget everything; the next sample of each patient is `start`.

    Parameters
    ----------
    states : ndarray of `STATE`
        Store of records, changed.
    slots : ndarray of int64, shape (n,)
        Rows to reset.
    start : ndarray of int64, shape (n,)
        Index at `FS`, a multiple of `BLOCK`.
    """
    states[slots] = np.zeros(1, STATE)
    states["seen"][slots] = start
    states["next"][slots] = states["first"][slots] = -(-start // HOP)


@kernel
def _column(y: Any, mid: int, cosine: Any, sine: Any, out_re: Any, out_im: Any) -> None:
    for b in range(BINS):
        out_re[b] = np.float32(0.0)
        out_im[b] = np.float32(0.0)
    for m in range(0, HALF, 4):  # four at once: a load and a store of the sums for four products
        l0, l1, l2, l3 = y[mid - m], y[mid - m - 1], y[mid - m - 2], y[mid - m - 3]
        r0, r1, r2, r3 = y[mid + m], y[mid + m + 1], y[mid + m + 2], y[mid + m + 3]
        e0, e1, e2, e3 = r0 + l0, r1 + l1, r2 + l2, r3 + l3
        t0, t1, t2, t3 = cosine[m], cosine[m + 1], cosine[m + 2], cosine[m + 3]
        for b in range(BINS):
            out_re[b] += (e0 * t0[b] + e1 * t1[b]) + (e2 * t2[b] + e3 * t3[b])
        o0, o1, o2, o3 = r0 - l0, r1 - l1, r2 - l2, r3 - l3
        t0, t1, t2, t3 = sine[m], sine[m + 1], sine[m + 2], sine[m + 3]
        for b in range(BINS):
            out_im[b] += (o0 * t0[b] + o1 * t1[b]) + (o2 * t2[b] + o3 * t3[b])


@kernel
def _step(
    states: Any,
    slots: Any,
    x: Any,
    flags: Any,
    offsets: Any,
    columns: Any,
    re: Any,
    im: Any,
    cosine: Any,
    sine: Any,
) -> None:
    longest = 0
    for i in range(slots.size):
        longest = max(longest, offsets[i + 1] - offsets[i])
    y = np.empty(WINDOW + longest, np.float32)
    for i in range(slots.size):
        s = states[slots[i]]
        n = offsets[i + 1] - offsets[i]
        if n == 0:
            continue
        kept = s.x
        at = (s.seen - WINDOW) % KEPT
        for k in range(WINDOW):
            y[k] = kept[at]
            at = at + 1 if at + 1 < KEPT else 0
        z1, z2 = s.z1, s.z2
        for k in range(n):
            v = np.float64(x[offsets[i] + k])
            if k % BLOCK == 0 and (not s.primed or flags[(offsets[i] + k) // BLOCK] & _SWITCHED):
                s.primed = True
                z1, z2 = -B0 * v, B2 * v
            out = B0 * v + z1
            z1 = B1 * v - A1 * out + z2
            z2 = B2 * v - A2 * out
            y[WINDOW + k] = out
            kept[at] = y[WINDOW + k]
            at = at + 1 if at + 1 < KEPT else 0
        s.z1, s.z2 = z1, z2
        base = s.seen - WINDOW  # sample of y[0]
        ring_re, ring_im = s.re, s.im
        for j in range(columns[i + 1] - columns[i]):
            c = s.next + j
            mid = HOP * c - base
            row = columns[i] + j
            out_re, out_im = re[row], im[row]
            _column(y, mid, cosine, sine, out_re, out_im)
            ring_re[c % RING] = out_re
            ring_im[c % RING] = out_im
        s.next += columns[i + 1] - columns[i]
        s.seen += n


def step(states: NDArray[Any], slots: NDArray[np.int64], signal: Signal) -> Columns:
    """Take in new blocks and give the columns that they complete.

    The baseline goes first, by a causal high-pass of second order at 0.5 Hz that starts settled on the first sample
    (and afresh on a block flagged ``SWITCHED``). Samples before the start count as baseline.

    Parameters
    ----------
    states : ndarray of `STATE`
        Store of records, changed.
    slots : ndarray of int64, shape (n,)
        Rows of the patients of `signal`, each once.
    signal : Signal
        Blocks that follow those of the last call.

    Returns
    -------
    Columns

    Raises
    ------
    ValueError
        Blocks that do not follow the last ones.
    """
    seen = states["seen"][slots]
    lengths = np.diff(signal.offsets)
    if np.any((signal.start != seen) & (lengths > 0)):
        raise ValueError("blocks do not follow the last ones: reset the patient at a break")
    first = states["next"][slots]
    columns = np.zeros(slots.size + 1, np.int64)
    np.cumsum(np.maximum(0, (seen + lengths - HALF) // HOP + 1 - first), out=columns[1:])
    re = np.empty((int(columns[-1]), BINS), np.float32)
    im = np.empty_like(re)
    _step(states, slots, signal.x, signal.flags, signal.offsets, columns, re, im, COS, SIN)
    return Columns(columns, first, re, im)


@kernel
def _rebuild(states: Any, slots: Any, cosine: Any, sine: Any) -> None:
    y = np.empty(KEPT, np.float32)
    for i in range(slots.size):
        s = states[slots[i]]
        kept, ring_re, ring_im = s.x, s.re, s.im
        for k in range(KEPT):
            y[k] = kept[(s.seen + k) % KEPT]
        base = s.seen - KEPT  # sample of y[0]
        for c in range(max(s.first, s.next - RING), s.next):
            _column(y, HOP * c - base, cosine, sine, ring_re[c % RING], ring_im[c % RING])


def rebuild(states: NDArray[Any], slots: NDArray[np.int64]) -> None:
    """Make the columns of the ring from the samples that are kept, as they were.

    Parameters
    ----------
    states : ndarray of `STATE`
        Store of records, changed.
    slots : ndarray of int64, shape (n,)
        Rows of which the first `KNOWN` bytes are right.
    """
    _rebuild(states, slots, COS, SIN)


@kernel
def image_slice(state: Any, column0: int, count: int, out_re: NDArray[np.float32], out_im: NDArray[np.float32]) -> int:
    """Columns ``column0 .. column0 + count`` of one patient out of the ring; callable from kernels.

    Parameters
    ----------
    state : record of `STATE`
        The patient.
    column0, count : int
        First column and how many.
    out_re, out_im : ndarray of float32, shape (count, BINS)
        Written; 0 where a column is not there (not yet complete, before the start, or no longer in the ring).

    Returns
    -------
    int
        Columns that were there.
    """
    found = 0
    ring_re, ring_im = state.re, state.im
    for j in range(count):
        c = column0 + j
        if max(state.first, state.next - RING) <= c < state.next:
            out_re[j] = ring_re[c % RING]
            out_im[j] = ring_im[c % RING]
            found += 1
        else:
            out_re[j] = np.float32(0.0)
            out_im[j] = np.float32(0.0)
    return found
