"""One verdict on a whole short recording: normal, atrial fibrillation, another rhythm, or too noisy to say.

A pure function of what the pipeline said of the recording: RR intervals of all beats, class probabilities, rhythm
scores, and the mean of the rhythm stage's own features. The classes are those of the AF challenge 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from dsp.layout import FS
from inference.beats import CLASSES
from inference.contract import check
from inference.rhythm import AF_FEATURES, Rows, Scores
from inference.rhythm_decision import NOISE_SHARE
from inference.rhythm_pattern import EARLY, LATE, NEAR
from inference.rhythm_state import F1, SHOCK_NAMES
from inference.runtime import Model
from inference.shipped import shipped

MODEL: Final = "recording"
"""Name of the model in its contract, and of its file."""

LABELS: Final = ("N", "A", "O", "~")
"""Normal sinus rhythm, atrial fibrillation, another rhythm, too noisy."""

INTERVAL_FEATURES: Final = (
    "rate",
    "mean_rate",
    "spread",
    "step_rms",
    "step_50",
    "step_75",
    "step_90",
    "step_most",
    "shortest",
    "longest",
    "second_shortest",
    "second_longest",
    "lag_2",
    "lag_3",
    "modal_share",
    "modal_length",
    "early_share",
    "late_share",
    "very_early_a_minute",
    "pauses_a_minute",
    "slowest",
    "fastest",
    "turning",
    "steps_over_6",
    "steps_over_12",
    "big_steps_a_minute",
    "matches",
    "correlation_1",
    "correlation_2",
    "range",
    "early_then_late",
    "early_a_minute",
)
"""Of RR intervals; lengths are relative to the median or to the basic interval, rates in 1/min."""

ECTOPY: Final = ("A", "V", "F")
BEAT_FEATURES: Final = (
    *(f"share_{code}" for code in CLASSES),
    *(f"{code}_a_minute" for code in ECTOPY),
    "most_A",
    "second_A",
    "third_A",
    "most_V",
    "second_V",
    "most_F",
    "found_A_a_minute",
    "found_V_a_minute",
    "doubtful",
    "certainty",
)
"""Of class probabilities."""

SCORE_FEATURES: Final = (
    "af_mean",
    "af_most",
    "af_least",
    "af_median",
    "af_share",
    "af_known",
    "shock_mean",
    "shock_most",
    "noise_share",
    "seconds",
)
"""Of rhythm scores."""

FEATURES: Final = (
    *INTERVAL_FEATURES,
    *BEAT_FEATURES,
    *SCORE_FEATURES,
    *(f"mean_{name}" for name in AF_FEATURES),
    *(f"median_{name}" for name in SHOCK_NAMES),
)
"""Columns of a recording's row."""

FEWEST: Final = 5
"""Beats without which intervals say nothing."""


def interval_features(times: NDArray[np.float64], seconds: float) -> NDArray[np.float32]:
    """Describe the RR intervals of a recording.

    Parameters
    ----------
    times : ndarray of float64, shape (b,)
        R peaks, s.
    seconds : float
        Length of the recording.

    Returns
    -------
    ndarray of float32, shape (len(INTERVAL_FEATURES),)
        Zeros where there are too few beats.
    """
    rr = np.diff(times)
    rr = rr[(rr > 0.2) & (rr < 3.0)]
    n = rr.size
    if n < FEWEST - 1:
        return np.zeros(len(INTERVAL_FEATURES), np.float32)
    median = float(np.median(rr))
    ordered = np.sort(rr)
    change = np.diff(rr)
    step = np.abs(change) / median
    a_minute = 60.0 / max(seconds, 1.0)
    group = np.searchsorted(ordered, ordered * (1 + 2 * NEAR), side="right") - np.arange(n)
    first = int(group.argmax())
    basic = float(ordered[first : first + group[first]].mean())
    four = np.convolve(rr, np.full(4, 0.25), "valid")
    agree = np.abs(rr[:, None] - rr[None, :]) < 0.03 * median
    away = rr - rr.mean()
    power = float(away @ away) + 1e-6
    early = rr[:-1] < EARLY * basic
    values = [
        60 / median, 60 / rr.mean(), rr.std() / median, np.sqrt((step**2).mean()),
        *np.percentile(step, [50, 75, 90]), step.max(),
        ordered[0] / median, ordered[-1] / median, ordered[1] / median, ordered[-2] / median,
        np.median(np.abs(rr[2:] - rr[:-2])) / median, np.median(np.abs(rr[3:] - rr[:-3])) / median,
        group[first] / n, basic / median, (rr < EARLY * basic).mean(), (rr > LATE * basic).mean(),
        (rr < 0.75 * basic).sum() * a_minute, (rr > 1.4 * basic).sum() * a_minute,
        60 / four.max(), 60 / four.min(), (change[1:] * change[:-1] < 0).mean(),
        (step > 0.06).mean(), (step > 0.12).mean(), (step > 0.2).sum() * a_minute,
        (agree.sum() - n) / (n * (n - 1)), away[1:] @ away[:-1] / power, away[2:] @ away[:-2] / power,
        np.percentile(rr, 95) / np.percentile(rr, 5),
        (rr[1:][early] > basic).mean() if early.any() else 0.0, early.sum() * a_minute,
    ]  # fmt: skip
    return np.array(values, np.float32)


def beat_features(probabilities: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    """Describe the class probabilities of a recording's beats.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (b, len(CLASSES))
    seconds : float
        Length of the recording.

    Returns
    -------
    ndarray of float32, shape (len(BEAT_FEATURES),)
    """
    if not len(probabilities):
        return np.zeros(len(BEAT_FEATURES), np.float32)
    p = probabilities.astype(np.float64)
    a_minute = 60.0 / max(seconds, 1.0)
    a, v, f = (CLASSES.index(code) for code in ECTOPY)
    top = np.zeros((3, p.shape[1]))
    most = np.sort(p, axis=0)[::-1][:3]
    top[: len(most)] = most
    best = p.argmax(axis=1)
    values = [
        *p.mean(axis=0), *(p[:, [a, v, f]].sum(axis=0) * a_minute), *top[:, a], *top[:2, v], top[0, f],
        (best == a).sum() * a_minute, (best == v).sum() * a_minute, (p.max(axis=1) < 0.6).mean(), p.max(axis=1).mean(),
    ]  # fmt: skip
    return np.array(values, np.float32)


def recording_features(
    r: NDArray[np.int64], probabilities: NDArray[np.float32], rows: Rows, scores: Scores, seconds: float
) -> NDArray[np.float32]:
    """Sum a recording up.

    Parameters
    ----------
    r : ndarray of int64, shape (b,)
        R peaks, index at 250 Hz.
    probabilities : ndarray of float32, shape (b, len(CLASSES))
        Of these beats.
    rows, scores : Rows, Scores
        Of the rhythm stage, one patient, all of the recording.
    seconds : float
        Its length.

    Returns
    -------
    ndarray of float32, shape (len(FEATURES),)
    """
    inside = rows.end <= seconds * FS
    due, whole = rows.af_due & inside, rows.shock_due & inside
    af = scores.af[due] if due.any() else np.zeros(1, np.float32)
    shock = scores.shock[whole] if whole.any() else np.zeros(1, np.float32)
    blind = (rows.noisy >= NOISE_SHARE) | ~rows.shock_due
    said = [
        af.mean(), af.max(), af.min(), np.median(af), (af > 0.5).mean(), due.sum() * 3 / max(seconds, 1.0),
        shock.mean(), shock.max(), blind[inside].mean() if inside.any() else 1.0, seconds,
    ]  # fmt: skip
    parts = (
        interval_features(r / FS, seconds),
        beat_features(probabilities, seconds),
        np.array(said, np.float32),
        rows.af[due].mean(axis=0) if due.any() else np.zeros(len(AF_FEATURES), np.float32),
        np.median(rows.shock[whole][:, :F1], axis=0) if whole.any() else np.zeros(F1, np.float32),
    )
    return np.concatenate(parts).astype(np.float32)


@dataclass(frozen=True, slots=True)
class RecordingVerdict:
    """Rhythm of a whole recording.

    Attributes
    ----------
    label : str
        Of `LABELS`.
    probabilities : tuple of float
        One each of `LABELS`.
    """

    label: str
    probabilities: tuple[float, ...]


class RecordingModel:
    """The model of whole recordings.

    Parameters
    ----------
    model : Model
        With the contract of this version.

    Raises
    ------
    inference.contract.ContractError
        The model asks for other features.
    """

    __slots__ = ("_model",)

    def __init__(self, model: Model) -> None:
        check(model.contract, model=MODEL, rate=FS, classes=LABELS, features=FEATURES)
        self._model = model

    @classmethod
    def load(cls, folder: Path | None = None) -> Self:
        """Read ``recording.onnx`` of a folder, the shipped one without it.

        Raises
        ------
        inference.contract.ContractError
            The file is missing or is not such a model.
        """
        where = shipped() if folder is None else folder
        return cls(Model(where / f"{MODEL}.onnx"))

    def classify(self, features: NDArray[np.float32]) -> RecordingVerdict:
        """Judge one recording.

        Parameters
        ----------
        features : ndarray of float32, shape (len(FEATURES),)
            See `recording_features`.
        """
        p = self._model.run(features[None, :])[0][0]
        return RecordingVerdict(LABELS[int(p.argmax())], tuple(float(value) for value in p))
