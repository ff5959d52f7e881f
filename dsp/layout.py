"""Shared conventions of the signal rooms: rate, blocks, flags, and how a batch of patients lies in memory.

A batch is *ragged*: the samples of all patients of a call lie behind one another in one array, and
``offsets`` (int64, n + 1) cuts them, patient ``i`` being ``x[offsets[i]:offsets[i + 1]]``. State is one numpy record a
patient; a call gets the whole store of records and ``slots`` (int64, n), the rows it is about. Kernels change the
records in place and keep nothing elsewhere, so a record's bytes are its checkpoint.

After `dsp.frontend` every stage runs at `FS` and in whole blocks of `BLOCK` samples, aligned to the sample index, so
that decisions never depend on how the input was cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntFlag
from typing import Final

import numpy as np
from numpy.typing import NDArray

FS: Final = 250
"""Analysis rate, Hz. Index k at this rate is the device's sample ``k * rate / FS``."""

BLOCK: Final = 50
"""Samples in a block (0.2 s at `FS`)."""


class Flag(IntFlag):
    """What is wrong with a block of the analysed lead (uint8; 0 is good)."""

    MISSING = 1
    """Some samples never came, or the device marked them as not valid."""
    FLAT = 2
    """No change over the last second or more."""
    SATURATED = 4
    """At the rail of the converter."""
    LEAD_OFF = 8
    """No plausible contact: flat, saturated or implausibly large for longer than a moment."""
    NOISY = 16
    """Usable for QRS detection with doubt; nothing is to be learnt from it."""
    SWITCHED = 32
    """The analysed lead changed at the start of this block: forget shapes and levels."""


BLIND: Final = int(Flag.MISSING | Flag.FLAT | Flag.SATURATED | Flag.LEAD_OFF)
"""A block with any of these holds no beat: none may be reported in it."""


@dataclass(frozen=True, slots=True)
class Signal:
    """The analysed lead of a batch of patients, in whole blocks.

    Attributes
    ----------
    x : ndarray of float32, shape (total,)
        mV at `FS`; never NaN (missing samples hold the last value and their block is flagged).
    flags : ndarray of uint8, shape (total / BLOCK,)
        `Flag` bits of each block.
    offsets : ndarray of int64, shape (n + 1,)
        Cuts `x` by patient; multiples of `BLOCK`.
    start : ndarray of int64, shape (n,)
        Index at `FS` in the epoch of each patient's first sample here.
    leads : ndarray of float32, shape (L, total)
        All leads looked at, as `x`; left out: `x` alone.
    lead_flags : ndarray of uint8, shape (L, total / BLOCK)
        Their flags, as `flags`.
    lead : ndarray of int8, shape (total / BLOCK,)
        Row of `leads` that is analysed.
    counts : ndarray of int64, shape (n,)
        Leads of each patient; the other rows hold nothing.
    """

    x: NDArray[np.float32]
    flags: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    start: NDArray[np.int64]
    leads: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    lead_flags: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0), np.uint8))
    lead: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if self.leads.shape[0]:
            return
        object.__setattr__(self, "leads", self.x[None])
        object.__setattr__(self, "lead_flags", self.flags[None])
        object.__setattr__(self, "lead", np.zeros(self.flags.shape[0], np.int8))
        object.__setattr__(self, "counts", np.ones(self.start.shape[0], np.int64))


@dataclass(frozen=True, slots=True)
class Peaks:
    """R peaks that became final in a call: never taken back, ascending within a patient.

    Attributes
    ----------
    offsets : ndarray of int64, shape (n + 1,)
        Cuts the other columns by patient.
    r : ndarray of int64, shape (m,)
        R peak, index at `FS` in the epoch.
    decided : ndarray of int64, shape (m,)
        Index of the last sample that was needed to accept it (the end of a block, exclusive).
    strength : ndarray of float32, shape (m,)
        Acceptance probability of the detector.
    horizon : ndarray of int64, shape (n,)
        Each patient's beats before this index are all known now.
    beside_offsets : ndarray of int64, shape (n + 1,)
        Cuts `beside` by patient.
    beside : ndarray of int64, shape (k,)
        R peaks that a lead which is not analysed showed, in the order of their decisions; complete before the horizon.
    beside_decided : ndarray of int64, shape (k,)
        As `decided`, of these.
    """

    offsets: NDArray[np.int64]
    r: NDArray[np.int64]
    decided: NDArray[np.int64]
    strength: NDArray[np.float32]
    horizon: NDArray[np.int64]
    beside_offsets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    beside: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    beside_decided: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
