"""Wavelet images of beats, to compare with the short-time Fourier images that ship: same size, channels and look-ahead.

A continuous wavelet transform of the lead round each R peak: 24 frequencies from 2 to 45 Hz, evenly in octaves, against
the same 48 columns. The Morlet wavelet is a Gaussian times a complex exponential (Torrence and Compo 1998, "A practical
guide to wavelet analysis"), the Ricker wavelet the second derivative of a Gaussian and real. What lies outside of the
samples that the shipped image uses counts as absent: the kernel is cut there, and its weights make up for it.

All beats of a strip are transformed by one matrix, which a training run can afford and a stream can't: each column is
computed anew for each beat, where the streaming transform computes it once.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import signal as sps

from dsp.layout import FS
from dsp.spectrogram import BASELINE_HZ, BINS, HALF, HOP
from inference.features_image import AFTER, BEFORE, CHANNELS, COLUMNS, FLOOR, RATE

KINDS: Final = ("morlet", "ricker")

CYCLES: Final = 4.0
"""``2 pi sigma`` of the Morlet wavelet's Gaussian times its frequency: as sharp in time as the STFT near 12 Hz."""

FREQUENCIES: Final = np.geomspace(2.0, 45.0, BINS)

LEFT: Final = HOP * BEFORE + HALF
"""Samples before R that an image uses."""
RIGHT: Final = HOP * (AFTER - 1) + HALF
"""Samples from R on that an image uses."""

QRS: Final = slice(LEFT - 22, LEFT + 40)
"""Samples of the QRS in a segment: its peak to peak is a beat's amplitude."""
LEAST_MV: Final = 0.05
BATCH: Final = 512


@cache
def kernels(kind: str, cycles: float = CYCLES) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Make the transform as a matrix.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    cycles : float
        Of the Morlet wavelet.

    Returns
    -------
    re, im : ndarray of float32, shape (LEFT + RIGHT, COLUMNS * BINS)
        Weights of the samples from `LEFT` before R on; a sine of 1 mV on a frequency has magnitude 1. The phase counts
        from the middle of the column, as in the shipped image.

    Raises
    ------
    ValueError
        If there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"images of kind {kind!r}: one of stft, {', '.join(KINDS)}")
    t = np.arange(-LEFT, RIGHT)[:, None, None] / FS
    centre = ((np.arange(COLUMNS) - BEFORE) * HOP / FS)[None, :, None]
    omega = 2 * np.pi * FREQUENCIES[None, None, :]
    if kind == "morlet":
        weight = np.exp(-0.5 * ((t - centre) * omega / cycles) ** 2)
        wave = weight * np.exp(-1j * omega * (t - centre))
        wave *= 2 / weight.sum(axis=0)
    else:
        # The Ricker wavelet's spectrum peaks at sqrt(2) / (2 pi sigma).
        u = ((t - centre) * omega / np.sqrt(2)) ** 2
        wave = (1 - u) * np.exp(-0.5 * u) + 0j
        response = np.abs((wave * np.exp(-1j * omega * t)).sum(axis=0))
        wave /= np.maximum(response, 0.25 * response.max(axis=0))
    flat = wave.reshape(LEFT + RIGHT, -1)
    return np.ascontiguousarray(flat.real, np.float32), np.ascontiguousarray(flat.imag, np.float32)


def wavelet_images(
    x: NDArray[np.float32], r: NDArray[np.int64], usual: NDArray[np.bool_], kind: str, cycles: float = CYCLES
) -> NDArray[np.float16]:
    """Make the images of a strip's beats, with the channels of `inference.features_image`.

    Parameters
    ----------
    x : ndarray of float32, shape (n,)
        Analysed lead, mV at `FS`.
    r : ndarray of int64, shape (m,)
        R peaks, ascending.
    usual : ndarray of bool, shape (m,)
        Beats that the patient's mean image and amplitude learn from.
    kind : str
        One of `KINDS`.
    cycles : float
        Of the Morlet wavelet.

    Returns
    -------
    ndarray of float16, shape (m, CHANNELS, COLUMNS, BINS)
        Of each beat, with mean and amplitude as they were before it.
    """
    re, im = kernels(kind, cycles)
    flat = sps.sosfilt(sps.butter(2, BASELINE_HZ, "highpass", fs=FS, output="sos"), x - x[:1]).astype(np.float32)
    padded = np.concatenate([np.zeros(LEFT, np.float32), flat, np.zeros(RIGHT, np.float32)])
    segments = np.lib.stride_tricks.sliding_window_view(padded, LEFT + RIGHT)
    images = np.empty((r.size, CHANNELS, COLUMNS, BINS), np.float16)
    mean, amplitude, learnt = np.zeros(COLUMNS * BINS, np.float32), 0.0, 0
    for at in range(0, r.size, BATCH):
        part = segments[r[at : at + BATCH]]
        heights = np.ptp(part[:, QRS], axis=1)
        u, v = part @ re, part @ im
        for i, height in enumerate(heights.tolist()):
            unit = 1.0 / max(LEAST_MV, amplitude if learnt else height)
            log = 0.5 * np.log((u[i] ** 2 + v[i] ** 2) * unit**2 + FLOOR)
            roots = [np.copysign(np.sqrt(np.abs(part * unit)), part) for part in (u[i], v[i])]
            difference = log - mean if learnt else np.zeros_like(log)
            images[at + i] = np.stack([log, difference, *roots]).reshape(CHANNELS, COLUMNS, BINS)
            if usual[at + i]:
                learnt += 1
                rate = max(1.0 / learnt, RATE)
                amplitude += rate * (height - amplitude)
                mean += np.float32(rate) * (log - mean)
    return images
