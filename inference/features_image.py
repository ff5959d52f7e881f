"""The spectral image of a beat: columns of the sliding spectrogram round its R peak, against the patient's mean image.

Channels: logarithm of the magnitude over the patient's amplitude; the same less the patient's running mean image; the
signed square roots of the real and imaginary part. Phases are turned to count from the R peak, not from the grid of
columns, so that equal beats give equal images wherever R lies between two columns.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsp.kernel import kernel
from dsp.spectrogram import BINS, HOP, POINTS
from inference.contract import Image

BEFORE: Final = 30
AFTER: Final = 18
COLUMNS: Final = BEFORE + AFTER
"""Columns from 0.96 s before to 0.54 s after the R peak."""
CHANNELS: Final = 4
FLOOR: Final = 1e-5
"""Added to the squared ratio under the logarithm: what is smaller than 0.003 of the amplitude is noise."""
RATE: Final = 0.03

FIELDS: Final = [("image", np.float32, (COLUMNS, BINS)), ("images", np.int64)]

CONTRACT: Final = Image(
    hop=HOP,
    window=64,
    bins=BINS,
    before=BEFORE,
    after=AFTER,
    channels=("log", "log - mean", "root re", "root im"),
    scaling="mV over the patient's QRS amplitude; log = 0.5 ln(m^2 + 1e-5)",
)

BANDS: Final = ((0, 3), (3, 7), (7, 13), (13, 24))
ZONES: Final = (("p", 22, 28), ("qrs", 28, 34), ("t", 34, 46))
NAMES: Final = tuple(f"image_{zone[0]}_{low}" for zone in ZONES for low, _ in BANDS)


def _turns() -> NDArray[np.float32]:
    """Cosine and sine that move the phase reference by -4 to 3 samples, shape (HOP, 2, BINS)."""
    angle = 2 * np.pi * (np.arange(HOP)[:, None] - HOP // 2) * np.arange(BINS)[None, :] / POINTS
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


TURNS: Final = _turns()


@kernel
def half_log(values: Any, out: Any) -> None:
    """Half the natural logarithm of positive numbers, within 1e-4; plain arithmetic, so that it vectorises.

    Parameters
    ----------
    values : ndarray of float32, shape (n,)
        Positive; overwritten by their mantissas.
    out : ndarray of float32, shape (n,)
        Written.
    """
    bits = values.view(np.int32)
    for i in range(values.size):
        b = bits[i]
        out[i] = np.float32((b >> np.int32(23)) - np.int32(127))
        bits[i] = (b & np.int32(0x7FFFFF)) | np.int32(0x3F800000)
    for i in range(values.size):
        m = values[i]
        p = np.float32(-0.056570851)
        p = p * m + np.float32(0.44717955)
        p = p * m - np.float32(1.4699568)
        p = p * m + np.float32(2.8212026)
        p = p * m - np.float32(1.7417939)
        out[i] = np.float32(0.34657359) * out[i] + np.float32(0.5) * p


@kernel
def first_column(r: int) -> int:
    """First column of the image of an R peak."""
    return (r + HOP // 2) // HOP - BEFORE


@kernel
def end_needed(r: int) -> int:
    """Index after the last sample that the image of an R peak needs."""
    return HOP * (first_column(r) + COLUMNS - 1) + 32


@kernel
def image_features(
    s: Any,
    re: Any,
    im: Any,
    r: int,
    amplitude: float,
    work: Any,
    image: Any,
    out: Any,
    turns: Any,
    bands: Any,
    zones: Any,
) -> int:
    """Write the image of a beat and its mean difference from the patient's in bands and zones.

    Parameters
    ----------
    s : record
        The patient, as before the beat.
    re, im : ndarray of float32, shape (COLUMNS, BINS)
        Columns from `dsp.spectrogram.image_slice`, mV.
    r : int
        Index of the R peak.
    amplitude : float
        mV that the magnitudes are divided by.
    work : ndarray of float32, shape (COLUMNS * BINS,)
        Overwritten.
    image : ndarray of float32, shape (CHANNELS, COLUMNS, BINS)
        Written.
    out : ndarray of float32
        Written from the front.
    turns, bands, zones : ndarray
        `TURNS`, and `BANDS` and `ZONES` as arrays.

    Returns
    -------
    int
        Features written, ``len(NAMES)``.
    """
    shift = (r + HOP // 2) % HOP
    cosine, sine = turns[shift, 0], turns[shift, 1]
    unit = np.float32(1.0 / amplitude)
    floor, zero = np.float32(FLOOR), np.float32(0.0)
    for c in range(COLUMNS):
        for b in range(BINS):
            x, y = re[c, b] * unit, im[c, b] * unit
            work[c * BINS + b] = x * x + y * y + floor
            u = x * cosine[b] - y * sine[b]
            v = x * sine[b] + y * cosine[b]
            image[2, c, b] = np.copysign(np.sqrt(abs(u)), u)
            image[3, c, b] = np.copysign(np.sqrt(abs(v)), v)
    log, difference = image[0].reshape(-1), image[1].reshape(-1)
    half_log(work, log)
    mean = s["image"].reshape(-1)
    if s["images"] > 0:
        for i in range(COLUMNS * BINS):
            difference[i] = log[i] - mean[i]
    else:
        for i in range(COLUMNS * BINS):
            difference[i] = zero
    k = 0
    for z in range(zones.shape[0]):
        for q in range(bands.shape[0]):
            total = 0.0
            for c in range(zones[z, 0], zones[z, 1]):
                for b in range(bands[q, 0], bands[q, 1]):
                    total += image[1, c, b]
            out[k] = total / ((zones[z, 1] - zones[z, 0]) * (bands[q, 1] - bands[q, 0]))
            k += 1
    return k


@kernel
def image_update(s: Any, image: Any) -> None:
    """Move the patient's mean image towards a usual beat's."""
    s["images"] += 1
    rate = np.float32(max(1.0 / s["images"], RATE))
    mean, log = s["image"].reshape(-1), image[0].reshape(-1)
    for i in range(COLUMNS * BINS):
        mean[i] += rate * (log[i] - mean[i])
