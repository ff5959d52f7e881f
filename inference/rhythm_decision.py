"""From scores to verdicts, with memory: what is on stays on a little longer than it takes to come on.

Ventricular tachycardia and fibrillation are one score, because labels don't part them; a rule names it. Fibrillation
and flutter are sine-like (the VF filter cancels them) or fast, tachycardia has complexes or is slow and regular.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp.kernel import kernel
from inference.rhythm_state import SHOCK_NAMES

CODES: Final = ("N", "AFIB", "VT", "VFL", "ASYS", "NOISE")
"""Rhythm of a verdict; VFL is flutter or fibrillation of the ventricles, N anything not told apart here."""

N: Final = 0
AFIB: Final = 1
VT: Final = 2
VFL: Final = 3
ASYS: Final = 4
NOISE: Final = 5

SHOCK_ON: Final = 0.50
"""Mean of two shockable scores from which a verdict comes on."""

SHOCK_OFF: Final = 0.30
"""Mean of two at which it goes off."""

AF_ON: Final = 0.60
"""Mean of three AF scores from which a verdict comes on."""

AF_OFF: Final = 0.40
"""Mean of three at which it goes off."""

AF_KEPT: Final = 3

AF_STALE: Final = 15
"""Seconds without an AF score after which the last ones say nothing any more."""

ASYS_SHARE: Final = 0.02
"""Share of samples beyond `inference.rhythm_window.SMALL` under which the wave is flat (1-99 percentile < 0.2 mV)."""

NOISE_SHARE: Final = 0.5
"""Share of blocks with a quality flag from which a second is called noise."""

SINE_LEAKAGE: Final = 0.50
"""VF-filter leakage from which the wave has complexes."""

REGULAR: Final = 0.85
SLOW_HZ: Final = 3.1
NAME_GAIN: Final = 0.25
"""Weight of a new second in the name of a run."""

_LEAKAGE: Final = SHOCK_NAMES.index("leakage")
_PERIODICITY: Final = SHOCK_NAMES.index("periodicity")
_PEAK_HZ: Final = SHOCK_NAMES.index("peak_hz")


@kernel
def decide_kernel(
    states: NDArray[np.void],
    slots: NDArray[np.int64],
    cuts: NDArray[np.int64],
    features: NDArray[np.float32],
    shock_due: NDArray[np.bool_],
    af_due: NDArray[np.bool_],
    quiet: NDArray[np.float32],
    noisy: NDArray[np.float32],
    beats: NDArray[np.float32],
    shock: NDArray[np.float32],
    af: NDArray[np.float32],
    code: NDArray[np.int8],
    probability: NDArray[np.float32],
    shock_mean: NDArray[np.float32],
    af_mean: NDArray[np.float32],
) -> None:
    """Decide all rows of a batch in order; see `inference.rhythm.decide` for the columns."""
    for p in range(len(slots)):
        state = states[slots[p]]
        for i in range(cuts[p], cuts[p + 1]):
            mean = 0.0
            if shock_due[i]:
                mean = float(shock[i])
                if state.shock_known == 1:
                    mean = 0.5 * (mean + state.shock_last)
                state.shock_last = shock[i]
                state.shock_known = 1
                was = state.shock_on == 1
                state.shock_on = mean > (SHOCK_OFF if was else SHOCK_ON)
                row = features[i]
                organised = row[_LEAKAGE] >= SINE_LEAKAGE
                if row[_PERIODICITY] >= REGULAR and row[_PEAK_HZ] <= SLOW_HZ:
                    organised = True
                value = 1.0 if organised else 0.0
                if was:
                    value = state.named + NAME_GAIN * (value - state.named)
                state.named = value
            else:
                state.shock_known = 0
                state.shock_on = 0
            if af_due[i]:
                state.af_scores[state.af_known % AF_KEPT] = af[i]
                state.af_known += 1
                kept = min(state.af_known, AF_KEPT)
                total = 0.0
                for k in range(kept):
                    total += state.af_scores[k]
                state.af_mean = total / kept
                state.af_on = state.af_mean > (AF_OFF if state.af_on == 1 else AF_ON)
                state.af_missed = 0
            else:
                state.af_missed += 1
                if state.af_missed >= AF_STALE:
                    state.af_known = 0
                    state.af_mean = 0.0
                    state.af_on = 0
            shock_mean[i] = mean
            af_mean[i] = state.af_mean
            asystole = shock_due[i] and beats[i] == 0 and quiet[i] < ASYS_SHARE
            if state.shock_on == 1 and not asystole:
                code[i] = VT if state.named >= 0.5 else VFL
                probability[i] = mean
            elif asystole:
                code[i] = ASYS
                probability[i] = 1.0
            elif noisy[i] >= NOISE_SHARE or not shock_due[i]:
                code[i] = NOISE
                probability[i] = noisy[i]
            elif state.af_on == 1:
                code[i] = AFIB
                probability[i] = state.af_mean
            else:
                code[i] = N
                probability[i] = 1.0 - max(mean, state.af_mean)
