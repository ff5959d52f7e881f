"""Waveform and spectrogram in the small integers that the wall gets."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp.layout import BLOCK, Flag, Signal

UNIT_MV: Final = 0.005
"""One unit of the waveform, mV."""
NO_SAMPLE: Final = -32_768
QUIET_DB: Final = -60.0
"""Magnitude, dB of 1 mV, that becomes 0."""
LOUD_DB: Final = 0.0
"""Magnitude that becomes 255."""


def wave_units(signal: Signal) -> NDArray[np.int16]:
    """Waveform in units of `UNIT_MV`.

    Returns
    -------
    ndarray of little-endian int16, shape of ``signal.x``
        Clipped; `NO_SAMPLE` in blocks with missing samples.
    """
    units: NDArray[np.int16]
    units = np.clip(np.rint(signal.x / np.float32(UNIT_MV)), NO_SAMPLE + 1, -NO_SAMPLE - 1).astype("<i2")
    missing = (signal.flags & int(Flag.MISSING)) != 0
    if missing.any():
        units[np.repeat(missing, BLOCK)] = NO_SAMPLE
    return units


def loudness(re: NDArray[np.float32], im: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Spectrogram columns as 0 (quiet) to 255 (loud), linear in dB to within a step."""
    power = re * re
    power += im * im
    loud: NDArray[np.uint8] = _LOUD[power.view(np.uint32) >> _CUT]
    return loud


def _loud_by_front() -> NDArray[np.uint8]:
    """Loudness by the front of a power's bits, which tells 0.03 dB: to look it up costs a quarter of a logarithm."""
    fronts = np.arange(1 << (32 - int(_CUT)), dtype=np.uint32) << _CUT
    with np.errstate(invalid="ignore"):
        power = (fronts + np.uint32(1 << (int(_CUT) - 1))).view(np.float32).astype(np.float64)
    loud = np.zeros(len(power), np.uint8)
    # No power is below 0, and what is no number (its sign may be either) is no sound.
    known = power > 0
    scale = 255.0 / (LOUD_DB - QUIET_DB)
    loud[known] = np.clip((10.0 * np.log10(power[known]) - QUIET_DB) * scale, 0, 255)
    return loud


_CUT: Final = np.uint32(16)
_LOUD: Final = _loud_by_front()
