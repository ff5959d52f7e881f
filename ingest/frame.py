"""The frame: one stretch of samples as a device sends it, before any codec."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.int16] | NDArray[np.int32]

DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_LEADS = 12
MAX_SAMPLES = 20_000
RATE_MIN_HZ, RATE_MAX_HZ = 50.0, 2_000.0
_MISSING = {np.dtype(kind): int(np.iinfo(kind).min) for kind in (np.int16, np.int32)}
"""By type of samples: the value that stands for "no valid sample"."""


class FrameError(ValueError):
    """A payload or a set of values that is no valid frame.

    Attributes
    ----------
    reason : str
        One short word from a closed list (``magic``, ``version``, ``length``, ``checksum``, ``device``, ``rate``,
        ``leads``, ``gain``, ``samples``, ``clock``, ``json``, ``oversize``, ``topic``, ``note``); it names
        the counter.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Consecutive samples of all leads of one device.

    The least value of the sample type (-32768 or -2**31) means "no valid sample here".

    Attributes
    ----------
    device : str
        Device id, as in the topic (see ``DEVICE_ID``).
    epoch : int
        Stream epoch, 0 .. 2**63-1; new and larger at each start of the device.
    seq : int
        Sequence number in the epoch, from 0, by 1.
    sample : int
        Index in the epoch of the first sample.
    device_ms : int
        Device clock at the first sample, ms since the Unix epoch.
    rate : float
        Samples a second and lead, Hz.
    leads : tuple of str
        Lead names in column order, for instance ``("MLII", "V5")``.
    gain : float
        Units per mV.
    samples : ndarray of int16 or int32, shape (n, leads)
        Units, zero at 0 mV.
    """

    device: str
    epoch: int
    seq: int
    sample: int
    device_ms: int
    rate: float
    leads: tuple[str, ...]
    gain: float
    samples: Samples

    def __post_init__(self) -> None:
        """Refuse what can't be a frame; `FrameError` names the reason."""
        _check_names(self.device, self.leads)
        if (self.epoch | self.seq | self.sample | self.device_ms) >> 63:
            raise FrameError("clock", "epoch, sequence number, sample index and clock must be in 0 .. 2**63-1")
        if not RATE_MIN_HZ <= self.rate <= RATE_MAX_HZ:
            raise FrameError("rate", f"rate {self.rate} Hz is outside {RATE_MIN_HZ:g} to {RATE_MAX_HZ:g}")
        if not 0 < self.gain < 1e9:
            raise FrameError("gain", f"gain {self.gain} units per mV must be positive")
        if self.samples.dtype not in _MISSING or self.samples.ndim != 2:
            raise FrameError("samples", "samples are int16 or int32 of shape (n, leads)")
        if self.samples.shape[1] != len(self.leads) or not 1 <= self.samples.shape[0] <= MAX_SAMPLES:
            raise FrameError("samples", f"shape {self.samples.shape} does not fit {len(self.leads)} leads")

    @property
    def missing(self) -> int:
        """The value that stands for "no valid sample"."""
        return _MISSING[self.samples.dtype]

    def millivolts(self) -> NDArray[np.float32]:
        """Convert the samples to mV.

        Returns
        -------
        ndarray of float32, shape (n, leads)
            NaN where the device had no valid sample.
        """
        mv = self.samples.astype(np.float32)
        mv /= np.float32(self.gain)
        mv[self.samples == self.missing] = np.nan
        return mv


@lru_cache(maxsize=65_536)
def _check_names(device: str, leads: tuple[str, ...]) -> None:
    """Refuse a bad device id or lead names; a device says the same in all its frames."""
    if DEVICE_ID.fullmatch(device) is None:
        raise FrameError("device", f"device id {device!r} must match {DEVICE_ID.pattern}")
    if not 1 <= len(leads) <= MAX_LEADS or len(set(leads)) != len(leads):
        raise FrameError("leads", f"1 to {MAX_LEADS} different lead names are needed, not {leads!r}")
    if any(not 1 <= len(lead) <= 16 or not lead.isprintable() for lead in leads):
        raise FrameError("leads", f"a lead name has 1 to 16 printable characters, not {leads!r}")
