"""Noise stress: the noisy parts of ``nstdb``, and an hour of record 118 under electrode motion at 0 dB."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inference.training import scoring
from inference.training.records import Record
from inference.training.rhythm_data import MOTION_TEST
from inference.training.scoring import Counts
from ingest.recordings import Recording, read_record
from rhythmwatch.analyze import Analysis

LEVELS: Final = {"118e24": "24 dB", "118e12": "12 dB", "118e00": "0 dB", "118e_6": "-6 dB"}
"""Records of ``nstdb`` and their signal-to-noise ratio."""

HOUR: Final = "118 with electrode motion at 0 dB, 1 h"
HOUR_S: Final = 3600
_SHIFT_S: Final = 37
_FADE_S: Final = 0.5
_SIX_DB: Final = 10 ** (-6 / 20)


def noisy_counts(analysis: Analysis, record: Record) -> Counts:
    """QRS complexes in the noisy parts that train nothing (`MOTION_TEST`), match window 150 ms."""
    found = np.array([beat.sample for beat in analysis.beats], np.float64) / analysis.rate
    return scoring.gross(
        [scoring.detection(record.beat_times, found, start=first, end=last) for first, last in MOTION_TEST]
    )


def motion_hour(data: Path) -> Recording:
    """Make one hour of record 118 with electrode motion at 0 dB throughout.

    The noise is ``118e_6`` minus ``118`` in the stretches `MOTION_TEST` (360 s, both leads, no model saw them), each
    faded in and out over 0.5 s, at half the amplitude (-6 dB to 0 dB), repeated with its begin moved on by 37 s each
    time. Record 118 is played twice.

    Parameters
    ----------
    data : Path
        Folder of the databases.

    Returns
    -------
    Recording
    """
    clean, loud = read_record(data / "mitdb" / "118"), read_record(data / "nstdb" / "118e_6")
    rate, gain = clean.rate, clean.gain
    noise = _millivolts(loud) - _millivolts(clean)[: len(loud.samples)]
    stretches = [noise[round(first * rate) : round(last * rate)] for first, last in MOTION_TEST]
    loop = np.concatenate([_faded(stretch, round(_FADE_S * rate)) for stretch in stretches])
    size = round(HOUR_S * rate)
    rounds = -(-size // len(loop))
    whole = np.concatenate([np.roll(loop, -round(k * _SHIFT_S * rate), axis=0) for k in range(rounds)])[:size]
    heart = np.tile(_millivolts(clean), (-(-size // len(clean.samples)), 1))[:size]
    samples = np.clip(np.rint((heart + _SIX_DB * whole) * gain), -(2**15) + 1, 2**15 - 1).astype(np.int16)
    return Recording("118-motion-hour", rate, clean.leads, gain, samples)


def _millivolts(recording: Recording) -> NDArray[np.float64]:
    return recording.samples.astype(np.float64) / recording.gain


def _faded(stretch: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(size) + 0.5) / size)
    window = np.ones(len(stretch))
    window[:size], window[-size:] = ramp, ramp[::-1]
    return np.asarray((stretch - stretch.mean(axis=0)) * window[:, None], np.float64)
