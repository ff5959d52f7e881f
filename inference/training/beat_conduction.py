"""Synthetic bundle branch blocks and paced beats: normal beats of one patient with another way of depolarisation.

Two patients of DS1 have left and three have right bundle branch block, none is paced, so that a network learns those
patients and not the classes. From each patient with normal beats a stretch is made over, every beat in the same way,
with a shape that is drawn once: P waves, rhythm, noise and amplitude stay the patient's.

- Left: a wide QRS in one direction, with a notch or a plateau, no Q; ST and T against it (Surawicz et al. 2009,
  "AHA/ACCF/HRS recommendations for the standardization and interpretation of the electrocardiogram, part III").
- Right: the first 40 to 60 ms as they were, then a slurred terminal wave against R; T against that (ibid.).
- Paced: a stimulus of one or two samples, then a wide QRS of either direction, and T against it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp.layout import BLOCK, FS
from inference.training.beat_data import Strip, piece

L_BIT: Final = 1 << 1
R_BIT: Final = 1 << 2
PACED_BIT: Final = 1 << 6
KINDS: Final = (L_BIT, R_BIT, PACED_BIT)

STRETCH_S: Final = 100.0
FEWEST: Final = 40
"""Normal beats that a stretch must hold."""

BEFORE: Final = 60
AFTER: Final = 130
"""Samples round R that are made over."""


def conducted(source: Strip, rng: np.random.Generator, kind: int, share: float = 1.0) -> Strip | None:
    """Make a stretch of a patient's normal beats over into another class.

    Parameters
    ----------
    source : Strip
    rng : Generator
    kind : int
        One of `KINDS`.
    share : float
        Of the normal beats, in runs: the others stay as they are and keep their label (intermittent block, demand
        pacing).

    Returns
    -------
    Strip or None
        None where the stretch that was drawn holds too few normal beats.
    """
    blocks = int(STRETCH_S * FS) // BLOCK
    first = int(rng.integers(0, max(1, source.flags.size - blocks)))
    cut = piece(source, first, min(source.flags.size, first + blocks))
    normal = (cut.allowed & 1 > 0) & (cut.beats >= BEFORE + 5) & (cut.beats < cut.x.size - AFTER)
    if normal.sum() < FEWEST:
        return None
    chosen = np.flatnonzero(normal & _in_runs(normal.size, share, rng))
    if not chosen.size:
        return None
    r = cut.beats[chosen]
    window = cut.x[r[:, None] + np.arange(-BEFORE, AFTER)].astype(np.float64)
    level = np.median(window[:, BEFORE - 20 : BEFORE - 12], axis=1)
    height = float(np.median(np.ptp(window[:, BEFORE - 15 : BEFORE + 15], axis=1)))
    keep, added = _shape(rng, kind, height)
    # A beat's own size and length vary a little, as breathing and rate make them.
    made = level[:, None] + (window - level[:, None]) * keep + added * rng.normal(1.0, 0.05, (r.size, 1))
    x = cut.x.astype(np.float64)
    for at, wave in zip(r.tolist(), made, strict=True):
        x[at - BEFORE : at + AFTER] = wave
    allowed = cut.allowed.copy()
    allowed[chosen] = kind
    name = {L_BIT: "left", R_BIT: "right", PACED_BIT: "paced"}[kind]
    return replace(cut, name=f"{source.name}+{name}{first}", x=x.astype(np.float32), allowed=allowed)


def _in_runs(size: int, share: float, rng: np.random.Generator, length: int = 20) -> NDArray[np.bool_]:
    if share >= 1.0:
        return np.ones(size, bool)
    return np.repeat(rng.random(size // length + 1) < share, length)[:size]


def _shape(rng: np.random.Generator, kind: int, height: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw what stays of the old wave (0 to 1) and what is added (mV), by sample from `BEFORE` before R on."""
    ms = 1000.0 * np.arange(-BEFORE, AFTER) / FS

    def bump(centre: float, width: float) -> NDArray[np.float64]:
        return np.asarray(np.exp(-0.5 * ((ms - centre) / width) ** 2))

    def step(at: float, width: float) -> NDArray[np.float64]:
        return np.asarray(1.0 / (1.0 + np.exp(-(ms - at) / width)))

    if kind == R_BIT:
        size = rng.uniform(0.25, 0.9) * height
        sign = -1.0 if rng.random() < 0.85 else 1.0
        late, width = rng.uniform(60, 85), rng.uniform(17, 26)
        added = sign * size * (bump(late, width) - rng.uniform(0.1, 0.35) * bump(late + rng.uniform(180, 230), 45))
        return np.ones(ms.size), added
    old_t = rng.uniform(0.0, 0.6)
    quiet = 1.0 - step(-70.0, 6.0) * (1.0 - old_t * step(130.0, 20.0))
    size = height * rng.uniform(0.8, 1.6)
    sign = 1.0 if rng.random() < (0.85 if kind == L_BIT else 0.35) else -1.0
    begin, apart, width = rng.uniform(-15, 10), rng.uniform(35, 75), rng.uniform(15, 24)
    wave = bump(begin, width) + rng.uniform(0.6, 1.15) * bump(begin + apart, width * rng.uniform(0.9, 1.2))
    wave += rng.uniform(0.0, 0.3) * bump(begin + 0.5 * apart, 1.5 * width)
    wave /= wave.max()
    discord = rng.uniform(0.1, 0.4) * bump(rng.uniform(260, 330), rng.uniform(40, 65))
    sag = rng.uniform(0.0, 0.12) * bump(170, 40)
    added = sign * size * (wave - discord - sag)
    if kind == PACED_BIT:
        at = int(np.argmin(np.abs(ms - (begin - rng.uniform(2.0, 3.0) * width))))
        spike = height * np.exp(rng.uniform(np.log(0.08), np.log(1.5))) * (1 if rng.random() < 0.5 else -1)
        added[at] += spike
        added[at + 1] += rng.uniform(-0.5, 0.6) * spike
        added[at + 2 :] -= rng.uniform(0.0, 0.15) * spike * np.exp(-np.arange(ms.size - at - 2) / rng.uniform(2, 8))
    # Both ends of the window must meet the signal that stays.
    return quiet, added * step(-200.0, 5.0) * (1.0 - step(485.0, 8.0))
