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
    """Spectrogram columns as 0 (quiet) to 255 (loud), linear in dB."""
    power = np.maximum(re * re + im * im, np.float32(1e-12))
    scale = np.float32(255.0 / (LOUD_DB - QUIET_DB))
    loud: NDArray[np.uint8]
    loud = np.clip((np.float32(10.0) * np.log10(power) - np.float32(QUIET_DB)) * scale, 0, 255).astype(np.uint8)
    return loud
