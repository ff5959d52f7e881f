"""Synthetic patients for the beat model: real beats of one patient, put together as rarer rhythms.

Recordings hold few patients whose supraventricular beats are the majority or come in runs, and a model that has seen
none takes the majority for normal. Two kinds are made: records thinned of normal beats that stand beside no S, and runs
of S at a steady rate that end in a pause (sick sinus). Each beat is cut 270 ms before its R peak, P wave and all.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import signal as sps

from dsp.layout import BLIND, BLOCK, FS, Flag
from inference.training.beat_data import Strip

LEAD_IN: Final = 68
"""Samples before R where a beat begins."""
BLEND: Final = 20
"""Samples over which a step at a seam fades."""
S_BIT: Final = 1 << 3
FEWEST: Final = 15
"""S beats that a patient must give."""
_UNSURE: Final = int(BLIND | Flag.NOISY)


def thinned(source: Strip, rng: np.random.Generator, share: float = 0.08) -> Strip | None:
    """Leave out most normal beats that stand beside no S.

    Parameters
    ----------
    source : Strip
    rng : Generator
    share : float
        Of those normal beats that stay.

    Returns
    -------
    Strip or None
        None where the patient has too few S.
    """
    is_s = source.allowed == S_BIT
    if is_s.sum() < FEWEST:
        return None
    beside = is_s.copy()
    beside[1:] |= is_s[:-1]
    beside[:-1] |= is_s[1:]
    keep = beside | (source.allowed & ~np.uint8(7) > 0) | (rng.random(is_s.size) < share)
    keep[-1] = False
    index = np.flatnonzero(keep)
    return _spliced(source, index, np.diff(source.beats)[index], "thinned")


def runs(source: Strip, rng: np.random.Generator, mean_run: float, count: int = 400) -> Strip | None:
    """Splice runs of S, each after one normal beat and followed by a pause.

    Parameters
    ----------
    source : Strip
    rng : Generator
    mean_run : float
        S in a run, on average.
    count : int
        Beats to make.

    Returns
    -------
    Strip or None
        None where the patient has too few S or too few undisturbed normal beats.
    """
    rr = np.diff(source.beats)
    clean = (source.flags[np.minimum(source.beats[:-1] // BLOCK, source.flags.size - 1)] & _UNSURE) == 0
    clean &= (rr > 0.3 * FS) & (source.beats[:-1] > LEAD_IN)
    s = np.flatnonzero(clean & (source.allowed[:-1] == S_BIT))
    usual = np.median(rr)
    n = np.flatnonzero(clean & (source.allowed[:-1] & 7 > 0) & (rr > 0.9 * usual))
    if s.size < FEWEST or n.size < FEWEST:
        return None
    sinus = float(np.clip(usual * rng.uniform(0.95, 1.5), 0.5 * FS, 1.5 * FS))
    fast = sinus * rng.uniform(0.55, 0.8)
    index: list[int] = []
    following: list[float] = []
    while len(index) < count:
        run = 1 + rng.geometric(1 / mean_run)
        index += [int(rng.choice(n)), *rng.choice(s, run).tolist()]
        steady = fast * rng.uniform(0.9, 1.1)
        following += [*(steady * rng.normal(1, 0.03, run)).tolist(), sinus * rng.uniform(1.0, 1.8)]
    return _spliced(source, np.array(index), np.array(following).astype(np.int64), f"runs{mean_run:g}")


def _spliced(source: Strip, index: NDArray[np.int64], following: NDArray[np.int64], kind: str) -> Strip:
    """Put beats one behind the other, `following` samples from R peak to R peak."""
    sos = sps.butter(2, 0.5, "highpass", fs=FS, output="sos")
    x = sps.sosfiltfilt(sos, source.x)
    ends = np.append(source.beats[1:], x.size) - LEAD_IN
    fade = np.linspace(1, 0, BLEND)
    parts: list[NDArray[np.float64]] = []
    beats, at, level = [], 0, 0.0
    for beat, length in zip(index, following, strict=True):
        first = max(0, int(source.beats[beat]) - LEAD_IN)
        part = x[first : min(int(ends[beat]), first + int(length))].copy()
        if part.size < BLEND:
            continue
        part[:BLEND] += (level - part[0]) * fade
        if part.size < length:
            part = np.concatenate([part, np.full(int(length) - part.size, part[-5:].mean())])
        beats.append(at + int(source.beats[beat]) - first)
        parts.append(part)
        at += part.size
        level = float(part[-1])
    whole = np.concatenate(parts).astype(np.float32)
    whole = whole[: whole.size // BLOCK * BLOCK]
    r = np.array(beats, np.int64)
    inside = r < whole.size
    flags = np.zeros(whole.size // BLOCK, np.uint8)
    return Strip(
        f"{source.name}+{kind}", source.patient, whole, flags, r[inside], source.allowed[index][: r.size][inside]
    )
