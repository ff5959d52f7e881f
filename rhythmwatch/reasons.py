"""Why a rhythm verdict was given: a stretch of recording heard again, for files, alarms and the patient page."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from dsp import frontend, qrs
from dsp.layout import BLOCK, FS, Peaks, Signal
from inference.explain_rhythm import RhythmReason, explain_rhythm
from ingest.recordings import Recording
from rhythmwatch.models import Models

BEFORE_S: Final = 60.0
"""Seconds of signal before a verdict that are heard again: the patient's slow averages have settled by then."""


def hear(recording: Recording, models: Models) -> tuple[Signal, Peaks]:
    """Run the front end and the QRS detector over a recording.

    Parameters
    ----------
    recording : Recording
        Leads in order of preference.
    models : Models

    Returns
    -------
    (Signal, Peaks)
        Of one patient, from sample 0.
    """
    least = np.iinfo(recording.samples.dtype).min
    units = recording.samples[:, : frontend.MAX_ANALYSED]
    mv = np.where(units == least, np.nan, units / recording.gain).astype(np.float32)
    leads = mv.shape[1]
    raw = np.full((len(mv), frontend.MAX_ANALYSED), np.nan, np.float32)
    raw[:, :leads] = mv
    slot, zero = np.zeros(1, np.int64), np.zeros(1, np.int64)
    fronts, detectors = frontend.new_states(1), qrs.new_states(1)
    frontend.reset(fronts, slot, np.array([leads], np.int64), zero)
    qrs.reset(detectors, slot, zero)
    signals: list[Signal] = []
    peaks: list[Peaks] = []
    size = max(1, int(recording.rate))
    for at in range(0, len(raw), size):
        part = raw[at : at + size]
        signal = frontend.step(fronts, slot, part, np.array([0, len(part)], np.int64), recording.rate).signal
        signals.append(signal)
        peaks.append(qrs.step(detectors, slot, signal, models.qrs))
    x = np.concatenate([part.x for part in signals])
    r = np.concatenate([part.r for part in peaks])
    return (
        Signal(x, np.concatenate([part.flags for part in signals]), np.array([0, len(x)], np.int64), zero),
        Peaks(
            np.array([0, len(r)], np.int64), r, np.concatenate([part.decided for part in peaks]),
            np.concatenate([part.strength for part in peaks]), np.array([len(x)], np.int64),
        ),
    )  # fmt: skip


def stretch(signal: Signal, peaks: Peaks, first: int, end: int) -> tuple[Signal, Peaks]:
    """Cut a stretch out; `first` is moved back to a full second.

    Parameters
    ----------
    signal : Signal
    peaks : Peaks
    first, end : int
        Samples at `dsp.layout.FS`.
    """
    start = int(signal.start[0])
    first = max(first // FS * FS, start)
    end = min(end // FS * FS, start + len(signal.x) // FS * FS)
    known = (peaks.r >= first) & (peaks.decided <= end)
    return (
        Signal(
            signal.x[first - start : end - start], signal.flags[(first - start) // BLOCK : (end - start) // BLOCK],
            np.array([0, end - first], np.int64), np.array([first], np.int64),
        ),
        Peaks(
            np.array([0, int(known.sum())], np.int64), peaks.r[known], peaks.decided[known], peaks.strength[known],
            np.array([end], np.int64),
        ),
    )  # fmt: skip


def reason_at(signal: Signal, peaks: Peaks, models: Models, at_s: float) -> dict[str, Any]:
    """Explain the rhythm verdict of a second, from the minute before it.

    Parameters
    ----------
    signal, peaks
        From `hear`.
    models : Models
    at_s : float
        Seconds from the begin of the signal's recording.

    Returns
    -------
    dict
        See `as_json`.

    Raises
    ------
    ValueError
        There is no full second of signal before it.
    """
    at = round(at_s * FS)
    return as_json(explain_rhythm(models.rhythm, *stretch(signal, peaks, at - round(BEFORE_S * FS), at), at))


def explain_evidence(recording: Recording, models: Models, at_s: float) -> dict[str, Any]:
    """Explain the rhythm at a moment of a stretch of raw signal, for instance an alarm's evidence.

    Parameters
    ----------
    recording : Recording
        Best with 30 s or more before the moment.
    models : Models
    at_s : float
        Seconds from its begin.

    Returns
    -------
    dict
        See `as_json`.

    Raises
    ------
    ValueError
        There is no full second of signal before it.
    """
    return reason_at(*hear(recording, models), models, at_s)


def as_json(reason: RhythmReason) -> dict[str, Any]:
    """Give a reason as JSON knows it.

    Returns
    -------
    dict
        ``code``, ``p``, ``second``, ``second_p``, ``score`` (shock, af or empty), ``begin_s``, ``end_s``, ``bands``
        (Hz), ``map`` (a row for each band, -1 to 1), ``strongest`` (log-odds), ``features`` (``name``, ``value``,
        ``usual``, ``effect``), ``compared_s`` (or None), ``rule``, ``method`` in words.
    """
    return {
        "code": reason.code, "p": round(reason.p, 4), "second": reason.second, "second_p": round(reason.second_p, 4),
        "score": reason.score, "begin_s": reason.begin / FS, "end_s": reason.end / FS,
        "bands": [list(band) for band in reason.bands], "map": np.round(reason.map.astype(float), 3).tolist(),
        "strongest": round(reason.strongest, 3),
        "features": [
            {"name": f.name, "value": round(f.value, 4), "usual": round(f.usual, 4), "effect": round(f.effect, 3)}
            for f in reason.features
        ],
        "compared_s": None if reason.compared < 0 else reason.compared / FS, "rule": reason.rule,
        "method": {"shock": "each half second of each band taken out, judged again",
                   "af": "the beats of each 3 s not heard, judged again"}.get(reason.score, "decided by rule"),
    }  # fmt: skip
