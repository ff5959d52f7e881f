"""From R peaks to rows for the beat model: RR, shape and P-wave features and the spectral image of each beat, in time.

A patient is a fold over its beats. A beat's row is due at a block's end that depends on sample indices alone:

- its image's columns are complete (0.54 s after R), and
- the next R peak is decided, or `WAIT` samples have passed since R.

A next peak that is decided later is not used, so that the row is the same live and in a recording.

Blocks flagged ``NOISY`` or blind teach nothing, an RR across a blind block is not known, ``SWITCHED`` forgets shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsp import spectrogram
from dsp.kernel import kernel
from dsp.layout import BLIND, BLOCK, FS, Flag, Peaks, Signal
from inference import features_image, features_rr, features_shape
from inference.features_clusters import LIKE
from inference.features_image import (
    CHANNELS,
    COLUMNS,
    end_needed,
    first_column,
    image_features,
    image_update,
)
from inference.features_rr import median_rr, rr_features, rr_update
from inference.features_segment import POINTS, segment
from inference.features_shape import WORK, forget, shape_features, shape_update

NAMES: Final = features_rr.NAMES + features_shape.NAMES + features_image.NAMES
"""Names of the feature columns, in order."""

WAIT: Final = 350
"""Samples after R at which a beat no longer waits for its next R peak: an RR of 1 s, and 0.4 s for the detector."""

MAX_CHUNK: Final = 350
"""Samples a patient in one call (1.4 s): a longer chunk would push columns out of the ring before they are used."""

LATEST: Final = 440
"""Samples after R: a peak decided later than this finds no image (zeros) and teaches nothing."""

RING: Final = 1024
"""Samples of the lead kept a patient."""
BLOCKS: Final = 32
"""Flags of blocks kept a patient."""
PENDING: Final = 64
"""R peaks that can wait; they lie at least 0.1 s apart, so 30 are the most that do."""

STATE: Final = np.dtype(
    [
        ("first", np.int64),  # first sample since the reset
        ("end", np.int64),  # index after the last sample
        ("x", np.float32, (RING,)),
        ("flags", np.uint8, (BLOCKS,)),
        ("due", np.int64),  # when the last row was
        ("last_r", np.int64),  # -1: none
        ("waiting", np.int64),
        ("r", np.int64, (PENDING,)),
        ("decided", np.int64, (PENDING,)),
        *features_rr.FIELDS,
        *features_shape.FIELDS,
        *features_image.FIELDS,
    ],
    align=True,
)

_UNSURE: Final = int(BLIND | Flag.NOISY)
_BLIND: Final = int(BLIND)
_SWITCHED: Final = int(Flag.SWITCHED)


@dataclass(frozen=True, slots=True)
class Rows:
    """Beats that became decidable in a call, ascending within a patient.

    Attributes
    ----------
    offsets : ndarray of int64, shape (n + 1,)
        Cuts the other columns by patient.
    r : ndarray of int64, shape (m,)
        R peak, index at `FS` in the epoch.
    decided : ndarray of int64, shape (m,)
        Index of the last sample that the row needed (the end of a block, exclusive).
    features : ndarray of float32, shape (m, len(NAMES))
        Columns `NAMES`.
    images : ndarray of float32, shape (m, CHANNELS, bins, columns)
        See `inference.features_image`. Columns are contiguous bin by bin: memory order is (m, channel, column, bin).
    rr_ms : ndarray of float32, shape (m,)
        Interval to the previous beat; 0 where not known.
    width_ms : ndarray of float32, shape (m,)
        Duration of the QRS (its area squared over its power), comparable within a patient.
    cluster : ndarray of int64, shape (m,)
        Cluster of shapes that the beat belongs to (0 to 7, reused over time); -1 where the signal was too poor to say.
    flags : ndarray of uint8, shape (m,)
        `Flag` bits of the R peak's block.
    """

    offsets: NDArray[np.int64]
    r: NDArray[np.int64]
    decided: NDArray[np.int64]
    features: NDArray[np.float32]
    images: NDArray[np.float32]
    rr_ms: NDArray[np.float32]
    width_ms: NDArray[np.float32]
    cluster: NDArray[np.int64]
    flags: NDArray[np.uint8]


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
    states = np.zeros(n, STATE)
    states["last_r"] = states["last_cluster"] = -1
    return states


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
    states[slots] = new_states(1)
    for name in ("first", "end", "due"):
        states[name][slots] = start


@kernel
def _any_flag(s: Any, first: int, last: int, wanted: int) -> bool:
    """Whether a block that holds a sample of ``first .. last`` (as far as known) has one of the flags."""
    for block in range(max(first // BLOCK, s["end"] // BLOCK - BLOCKS), last // BLOCK + 1):
        if s["flags"][block % BLOCKS] & wanted:
            return True
    return False


@kernel
def _block_end(index: int) -> int:
    return -(-index // BLOCK) * BLOCK


@kernel
def _due(s: Any) -> int:
    """When the first waiting beat's row is due, as far as known: a later peak can't make it earlier than `end`."""
    r: int = s["r"][0]
    base: int = max(s["due"], max(s["decided"][0], _block_end(end_needed(r))))
    wait: int = _block_end(r + WAIT)
    if s["waiting"] > 1:
        wait = min(wait, s["decided"][1])
    return max(base, wait)


@kernel
def _pop(s: Any) -> None:
    for i in range(1, s["waiting"]):
        s["r"][i - 1] = s["r"][i]
        s["decided"][i - 1] = s["decided"][i]
    s["waiting"] -= 1
    s["r"][s["waiting"]] = s["decided"][s["waiting"]] = 0


@kernel
def _row(
    s: Any, spectrum: Any, due: int, k: int, w: Any, work: Any, scratch: Any, re: Any, im: Any, features: Any,
    images: Any, r_out: Any, decided: Any, rr_ms: Any, width_ms: Any, cluster: Any, flags: Any, turns: Any, bands: Any,
    zones: Any,
) -> None:  # fmt: skip
    r, last_r = s["r"][0], s["last_r"]
    out, image = features[k], images[k]
    rr, rr_next = 0.0, 0.0
    if last_r >= 0:
        if _any_flag(s, last_r + BLOCK, r, _SWITCHED):
            forget(s)
            s["images"] = 0
        if not _any_flag(s, last_r, r, _BLIND):
            rr = (r - last_r) / FS
    if s["waiting"] > 1 and s["decided"][1] <= due:
        rr_next = (s["r"][1] - r) / FS
    late = due - r > LATEST
    quiet = not late and not _any_flag(s, r - 25, r + 49, _UNSURE)

    n = rr_features(s, rr, rr_next, WAIT / FS, work[0], out)
    usual_rr = median_rr(s, 32, work[0])
    seg = work[0]
    rough = segment(s["x"], r, s["first"], seg)
    n += shape_features(s, seg, rr, rough, w, work[1:], out[n:])
    if late:
        image[:] = np.float32(0.0)
        out[n:] = np.float32(0.0)
    else:
        spectrogram.image_slice(spectrum, first_column(r), COLUMNS, re, im)
        amplitude = np.float64(s["amplitude"]) if s["amplitude"] > 0.0 else w["amplitude"]
        image_features(s, re, im, r, max(0.05, amplitude), scratch, image, out[n:], turns, bands, zones)

    like = w["first"] or w["main_corr"] > LIKE
    pure = like and s["last_like"] > LIKE
    if quiet:
        if shape_update(s, seg, rr, rr_next, usual_rr, w):
            image_update(s, image)
    else:
        s["last_cluster"] = -1
        s["last_like"] = 0.0
    rr_update(s, rr, pure)
    s["last_r"] = r
    s["due"] = due

    r_out[k] = r
    decided[k] = due
    rr_ms[k] = rr * 1000.0
    width_ms[k] = w["width"]
    cluster[k] = s["last_cluster"]
    flags[k] = s["flags"][(r // BLOCK) % BLOCKS]


@kernel
def _step(
    states: Any, slots: Any, spectra: Any, x: Any, x_flags: Any, x_offsets: Any, peaks: Any, peaks_decided: Any,
    peak_offsets: Any, offsets: Any, features: Any, images: Any, r_out: Any, decided: Any, rr_ms: Any, width_ms: Any,
    cluster: Any, flags: Any, works: Any, turns: Any, bands: Any, zones: Any,
) -> int:  # fmt: skip
    work = np.empty((5, POINTS))
    scratch = np.empty(COLUMNS * turns.shape[2], np.float32)
    re = np.empty((COLUMNS, turns.shape[2]), np.float32)
    im = np.empty((COLUMNS, turns.shape[2]), np.float32)
    w = works[0]
    k = 0
    for i in range(slots.size):
        s, spectrum = states[slots[i]], spectra[slots[i]]
        ring, end = s["x"], s["end"]
        for j in range(x_offsets[i], x_offsets[i + 1]):
            ring[end & (RING - 1)] = x[j]
            end += 1
        for b in range(x_offsets[i] // BLOCK, x_offsets[i + 1] // BLOCK):
            s["flags"][(s["end"] // BLOCK + b - x_offsets[i] // BLOCK) % BLOCKS] = x_flags[b]
        s["end"] = end
        if s["waiting"] + peak_offsets[i + 1] - peak_offsets[i] > PENDING:
            return -1
        for j in range(peak_offsets[i], peak_offsets[i + 1]):
            s["r"][s["waiting"]] = peaks[j]
            s["decided"][s["waiting"]] = peaks_decided[j]
            s["waiting"] += 1
        while s["waiting"] > 0:
            due = _due(s)
            if due > end:
                break
            _row(
                s, spectrum, due, k, w, work, scratch, re, im, features, images, r_out, decided, rr_ms, width_ms,
                cluster, flags, turns, bands, zones,
            )  # fmt: skip
            _pop(s)
            k += 1
        offsets[i + 1] = k
    return k


def step(states: NDArray[Any], slots: NDArray[np.int64], spectra: NDArray[Any], signal: Signal, peaks: Peaks) -> Rows:
    """Take in new blocks and R peaks and give the rows that they make due.

    Parameters
    ----------
    states : ndarray of `STATE`
        Store of records, changed.
    slots : ndarray of int64, shape (n,)
        Rows of the patients, in `states` and in `spectra`, each once.
    spectra : ndarray of `dsp.spectrogram.STATE`
        Store that has already taken in `signal`.
    signal : Signal
        Blocks that follow those of the last call, at most `MAX_CHUNK` samples a patient.
    peaks : Peaks
        What the detector made final with these blocks.

    Returns
    -------
    Rows

    Raises
    ------
    ValueError
        A chunk that is too long or doesn't follow the last one, or more R peaks than a heart can give.
    """
    lengths = np.diff(signal.offsets)
    if np.any(lengths > MAX_CHUNK):
        raise ValueError(f"a chunk of {int(lengths.max())} samples: at most {MAX_CHUNK} a patient at a time")
    if np.any((signal.start != states["end"][slots]) & (lengths > 0)):
        raise ValueError("blocks do not follow the last ones: reset the patient at a break")
    most = int(states["waiting"][slots].sum()) + peaks.r.size
    offsets = np.zeros(slots.size + 1, np.int64)
    features = np.empty((most, len(NAMES)), np.float32)
    images = np.empty((most, CHANNELS, COLUMNS, spectrogram.BINS), np.float32)
    r, decided, cluster = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    rr_ms, width_ms, flags = np.empty(most, np.float32), np.empty(most, np.float32), np.empty(most, np.uint8)
    m = _step(
        states, slots, spectra, signal.x, signal.flags, signal.offsets, peaks.r, peaks.decided, peaks.offsets, offsets,
        features, images, r, decided, rr_ms, width_ms, cluster, flags, np.zeros(1, WORK), features_image.TURNS,
        _BANDS, _ZONES,
    )  # fmt: skip
    if m < 0:
        raise ValueError(f"more than {PENDING} R peaks wait: they are closer than any heart beats")
    return Rows(
        offsets,
        r[:m],
        decided[:m],
        features[:m],
        images[:m].transpose(0, 1, 3, 2),
        rr_ms[:m],
        width_ms[:m],
        cluster[:m],
        flags[:m],
    )


_BANDS: Final = np.array(features_image.BANDS, np.int64)
_ZONES: Final = np.array([zone[1:] for zone in features_image.ZONES], np.int64)
