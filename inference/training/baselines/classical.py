"""Classical baseline: RR intervals and samples of the wave as de Chazal's set has them, with boosted trees.

de Chazal, O'Dwyer, Reilly: Automatic classification of heartbeats using ECG morphology and heartbeat interval features,
IEEE Trans. Biomed. Eng. 51, 2004. Fixed intervals about R stand for their delineation.
"""

from __future__ import annotations

from typing import Any, Final

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from inference.training.baselines.beats import BEFORE, Beats

QRS: Final = tuple(round(BEFORE + 250 * t) for t in np.linspace(-0.05, 0.10, 10))
T: Final = tuple(round(BEFORE + 250 * t) for t in np.linspace(0.15, 0.49, 9))
P: Final = tuple(round(BEFORE + 250 * t) for t in np.linspace(-0.24, -0.07, 9))
"""Samples of the window: ten of the QRS, nine of the T wave, nine of the P wave."""

NAMES: Final = (
    *("rr before", "rr after", "rr local", "rr record", "rr before / local", "rr after / before", "rr before / record"),
    *(f"{wave}{i}" for wave, at in (("q", QRS), ("t", T), ("p", P)) for i in range(len(at))),
    *(f"{wave}{i} scaled" for wave, at in (("q", QRS), ("t", T), ("p", P)) for i in range(len(at))),
    *("amplitude", "width", "area", "p amplitude"),
)
"""Names of the columns."""


def features(beats: Beats) -> NDArray[np.float32]:
    """Compute the columns `NAMES`, shape (m, len(NAMES)).

    Parameters
    ----------
    beats : Beats

    Returns
    -------
    ndarray of float32
    """
    x, rr = beats.windows, beats.rr
    before, after, local, record = (rr[:, i] for i in range(4))
    level = np.median(x, axis=1, keepdims=True)
    qrs = np.abs(x[:, BEFORE - 25 : BEFORE + 38] - level)
    amplitude = qrs.max(axis=1)
    scale = 1 / np.maximum(amplitude, 1e-2)
    points = x[:, [*QRS, *T, *P]] - level
    p_zone = x[:, P[0] : P[-1]]
    return np.column_stack(
        [
            rr,
            before / local,
            after / np.maximum(before, 0.1),
            before / record,
            points,
            points * scale[:, None],
            amplitude,
            (qrs > 0.5 * amplitude[:, None]).sum(axis=1) / 250,
            qrs.sum(axis=1) / 250,
            p_zone.max(axis=1) - p_zone.min(axis=1),
        ]
    ).astype(np.float32)


def fit(x: NDArray[np.float32], target: NDArray[np.int64], classes: int, settings: dict[str, Any], seed: int) -> Any:
    """Fit boosted trees.

    Parameters
    ----------
    x : ndarray of float32, shape (m, len(NAMES))
    target : ndarray of int64, shape (m,)
    classes : int
    settings : dict
        ``trees`` (rounds), ``leaves``, ``rate``, ``least`` (rows of a leaf).
    seed : int

    Returns
    -------
    lightgbm.Booster
        Its ``predict`` gives probabilities, shape (m, classes).
    """
    parameters = {
        "objective": "multiclass",
        "num_class": classes,
        "num_leaves": settings["leaves"],
        "learning_rate": settings["rate"],
        "min_data_in_leaf": settings["least"],
        "feature_fraction": 0.5,
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "seed": seed,
        "verbose": -1,
    }
    return lgb.train(parameters, lgb.Dataset(x, target, params={"verbose": -1}), settings["trees"])
