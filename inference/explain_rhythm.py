"""Why a rhythm was called what it was: what its score would be had a part of the evidence been different.

The rhythm models are boosted trees, which have no activations to look into, so the evidence itself is changed and
judged again ("occlusion", Zeiler and Fergus 2014): for the shockable score one band of half a second of the wave is
taken out at a time; for the fibrillation score the beats of three seconds are not heard. Beside it each feature is put
to its value at a quieter second of the same patient, alone. Effects are steps of the log-odds; they show on what the
model leans and need not add up.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp.layout import BLOCK, FS, Peaks, Signal
from inference import rhythm
from inference.rhythm import AF_FEATURES, SHOCK_FEATURES, RhythmModel, Rows
from inference.rhythm_decision import REGULAR, SINE_LEAKAGE, SLOW_HZ
from inference.rhythm_state import SHOCK_NAMES

BANDS: Final = ((0.7, 4.0), (4.0, 8.0), (8.0, 16.0), (16.0, 30.0))
"""Hz, of the cells of the shockable map."""

PIECE: Final = FS // 2
"""Samples of a cell of the shockable map; a verdict is the mean of two windows of 4 s, so ten make it."""

PIECES: Final = 10
HIDDEN: Final = 3 * FS
"""Samples whose beats are not heard, in a cell of the fibrillation map: no RR interval reaches over it."""

HIDDEN_PIECES: Final = 9
"""Nine of them are the 20 s of three scores that lie 3 s apart."""

QUIET_SCORE: Final = 0.2
"""A second below it may stand for the patient as usual."""

LEAST: Final = 1e-4
"""Scores are kept this far from 0 and 1, where the log-odds end."""

SHOWN: Final = 6
"""Features that are named."""


@dataclass(frozen=True, slots=True)
class FeatureEffect:
    """What one feature did.

    Attributes
    ----------
    name : str
    value, usual : float
        At the verdict; at the second that it is compared with.
    effect : float
        Log-odds that the verdict's score loses when this feature alone is as at that second.
    """

    name: str
    value: float
    usual: float
    effect: float


@dataclass(frozen=True, slots=True, eq=False)
class RhythmReason:
    """Why a rhythm verdict is what it is.

    Attributes
    ----------
    code, second : str
        `inference.rhythm.CODES` of the verdict, and of what it would be next.
    p, second_p : float
        Their scores; the models are apart, so scores need not sum to 1.
    score : str
        What the map is of: ``shock``, ``af``, or empty where a rule decided (asystole, noise).
    begin, end : int
        Samples at `dsp.layout.FS` that the map spans, `end` exclusive.
    bands : tuple of (float, float)
        Hz of the map's rows; one pair of zeros where its cells are stretches of beats.
    map : ndarray of float32, shape (len(bands), pieces)
        -1 (against the verdict) to 1 (for it), over the largest effect.
    strongest : float
        That effect, log-odds; 0: nothing that was taken away mattered.
    features : tuple of FeatureEffect
        Largest first; empty without a quiet second to compare with.
    compared : int
        End of that second at `dsp.layout.FS`, -1 without one.
    rule : str
        One sentence on what was decided by rule.
    """

    code: str
    p: float
    second: str
    second_p: float
    score: str
    begin: int
    end: int
    bands: tuple[tuple[float, float], ...]
    map: NDArray[np.float32]
    strongest: float
    features: tuple[FeatureEffect, ...]
    compared: int
    rule: str


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    rows: Rows
    shock: NDArray[np.float32]
    af: NDArray[np.float32]
    verdicts: rhythm.Verdicts


def explain_rhythm(model: RhythmModel, signal: Signal, peaks: Peaks, at: int) -> RhythmReason:
    """Judge a stretch again, as a whole and with parts of it taken away.

    Parameters
    ----------
    model : RhythmModel
    signal : Signal
        Of one patient; best with 30 s or more before the verdict. The patient's slow averages begin at its first
        sample, so scores can differ a little from those of the live run.
    peaks : Peaks
        Its beats.
    at : int
        End of the verdict's window at `dsp.layout.FS`; the last full second up to it is explained.

    Returns
    -------
    RhythmReason

    Raises
    ------
    ValueError
        There is no full second before `at`, or the signal does not begin on a full second.
    """
    start = int(signal.start[0])
    if start % FS:
        raise ValueError(f"the signal begins at {start}: it must begin on a full second of {FS} samples")
    end = min(at, start + len(signal.x)) // FS * FS
    if end <= start:
        raise ValueError(f"there is no full second of signal before {at}: give what lies before the verdict")
    signal, peaks = _until(signal, peaks, end)
    plain = _judge(model, [signal.x], [np.ones(len(peaks.r), bool)], signal, peaks)
    code = rhythm.CODES[int(plain.verdicts.code[-1])]
    shock, af = float(plain.verdicts.shock[-1]), float(plain.verdicts.af[-1])
    organised, naming = _naming(plain.rows.shock[-1])
    options = {"VT" if organised else "VFL": shock, "AFIB": af, "N": 1 - max(shock, af)}
    if code in ("VT", "VFL"):
        options = {code: shock, "AFIB": af, "N": 1 - max(shock, af)}
    p = float(plain.verdicts.probability[-1])
    second = max((name for name in options if name != code), key=lambda name: options[name])
    if code in ("ASYS", "NOISE"):
        rule = (
            f"no beat, and {100 * plain.rows.quiet[-1]:.1f} % of the last 4 s beyond 0.1 mV"
            if code == "ASYS"
            else f"{100 * plain.rows.noisy[-1]:.0f} % of the last 4 s flagged as noisy or missing"
        )
        none = np.zeros((0, 0), np.float32)
        return RhythmReason(code, p, second, options[second], "", end - 4 * FS, end, (), none, 0.0, (), -1, rule)
    of = "shock" if code in ("VT", "VFL") or (code == "N" and shock >= af) else "af"
    sign = -1.0 if code == "N" else 1.0
    cells = _shock_cells(model, signal, peaks) if of == "shock" else _af_cells(model, signal, peaks, end)
    effects = sign * cells
    strongest = float(np.abs(effects).max(initial=0.0))
    span = PIECE * PIECES if of == "shock" else HIDDEN * HIDDEN_PIECES
    named, compared = _features(model, plain, of) if code != "N" else ((), -1)
    return RhythmReason(
        code, p, second, options[second], of, end - span, end, BANDS if of == "shock" else ((0.0, 0.0),),
        np.asarray(effects / max(strongest, 1e-9), np.float32), strongest, named, compared,
        naming if code in ("VT", "VFL") else "",
    )  # fmt: skip


def _until(signal: Signal, peaks: Peaks, end: int) -> tuple[Signal, Peaks]:
    size = end - int(signal.start[0])
    known = peaks.decided <= end
    cut = np.array([0, int(known.sum())], np.int64)
    return (
        replace(signal, x=signal.x[:size], flags=signal.flags[: size // BLOCK], offsets=np.array([0, size], np.int64)),
        Peaks(cut, peaks.r[known], peaks.decided[known], peaks.strength[known], np.array([end], np.int64)),
    )


def _judge(
    model: RhythmModel, waves: list[NDArray[np.float32]], heard: list[NDArray[np.bool_]], signal: Signal, peaks: Peaks
) -> _Judged:
    """Rows, scores and verdicts of variants of one stretch; each as a patient of its own."""
    n, size = len(waves), len(signal.x)
    states, slots = rhythm.new_states(n), np.arange(n)
    rhythm.reset(states, slots, np.full(n, signal.start[0]))
    batch = Signal(
        np.concatenate(waves), np.tile(signal.flags, n), size * np.arange(n + 1), np.full(n, signal.start[0])
    )
    counts = np.array([0, *(int(item.sum()) for item in heard)])
    beats = Peaks(
        np.cumsum(counts), np.concatenate([peaks.r[item] for item in heard]),
        np.concatenate([peaks.decided[item] for item in heard]),
        np.concatenate([peaks.strength[item] for item in heard]), np.repeat(peaks.horizon, n),
    )  # fmt: skip
    rows = rhythm.step(states, slots, batch, beats)
    scores = model.classify(rows)
    return _Judged(rows, scores.shock, scores.af, rhythm.decide(states, slots, rows, scores))


def _odds(p: NDArray[np.floating] | float) -> NDArray[np.float64]:
    inside = np.clip(np.asarray(p, np.float64), LEAST, 1 - LEAST)
    return np.asarray(np.log(inside / (1 - inside)))


def _last(values: NDArray[np.float32], variants: int) -> NDArray[np.float32]:
    return values.reshape(variants, -1)[:, -1]


def _shock_cells(model: RhythmModel, signal: Signal, peaks: Peaks) -> NDArray[np.float64]:
    """Log-odds that the shockable score loses without each band of each half second, shape (bands, pieces)."""
    x = signal.x
    spectrum, hz = np.fft.rfft(x), np.fft.rfftfreq(len(x), 1 / FS)
    waves = [x]
    for low, high in BANDS:
        part = np.fft.irfft(np.where((hz >= low) & (hz < high), spectrum, 0), len(x)).astype(np.float32)
        for piece in range(PIECES):
            first = len(x) - PIECE * (PIECES - piece)
            keep = np.zeros(len(x), np.float32)
            keep[max(first, 0) : max(first + PIECE, 0)] = 1.0
            waves.append(x - part * _eased(keep))
    heard = [np.ones(len(peaks.r), bool)] * len(waves)
    shock = _odds(_last(_judge(model, waves, heard, signal, peaks).verdicts.shock, len(waves)))
    return np.asarray((shock[0] - shock[1:]).reshape(len(BANDS), PIECES))


def _eased(gate: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round the edges of a gate over 0.1 s, so that taking a band out makes no step."""
    kernel = np.hanning(27)[1:-1]
    return np.asarray(np.convolve(gate, kernel / kernel.sum(), "same"), np.float32)


def _af_cells(model: RhythmModel, signal: Signal, peaks: Peaks, end: int) -> NDArray[np.float64]:
    """Log-odds that the fibrillation score loses when the beats of each 3 s are not heard, shape (1, pieces)."""
    heard = [np.ones(len(peaks.r), bool)]
    for piece in range(HIDDEN_PIECES):
        first = end - HIDDEN * (HIDDEN_PIECES - piece)
        heard.append((peaks.r < first) | (peaks.r >= first + HIDDEN))
    af = _odds(_last(_judge(model, [signal.x] * len(heard), heard, signal, peaks).verdicts.af, len(heard)))
    return np.asarray((af[0] - af[1:])[None])


def _features(model: RhythmModel, plain: _Judged, of: str) -> tuple[tuple[FeatureEffect, ...], int]:
    """Effects of single features against the patient's quietest second, and the end of that second."""
    rows = plain.rows
    due, score = (rows.shock_due, plain.shock) if of == "shock" else (rows.af_due, plain.af)
    table = rows.shock if of == "shock" else rows.af
    names = SHOCK_NAMES if of == "shock" else AF_FEATURES
    known = np.flatnonzero(due)
    if not known.size:
        return (), -1
    mine = int(known[-1])
    quiet = known[score[known] < QUIET_SCORE]
    if not quiet.size or mine in quiet:
        return (), -1
    other = int(quiet[np.argmin(score[quiet])])
    changed = np.repeat(table[mine][None], len(names), axis=0)
    for k in range(len(names)):
        # A feature and its step from the patient's average are one thing seen twice.
        for column in (k, k + len(names)) if of == "shock" and len(SHOCK_FEATURES) == 2 * len(names) else (k,):
            changed[k, column] = table[other, column]
    variant = _rows_of(rows, of, changed)
    scored = model.classify(variant)
    after = scored.shock if of == "shock" else scored.af
    effects = _odds(float(score[mine])) - _odds(after)
    order = np.argsort(-np.abs(effects), kind="stable")[:SHOWN]
    return tuple(
        FeatureEffect(names[k], float(table[mine, k]), float(table[other, k]), float(effects[k]))
        for k in order.tolist()
        if abs(effects[k]) > 1e-6
    ), int(rows.end[other])


def _rows_of(rows: Rows, of: str, table: NDArray[np.float32]) -> Rows:
    """Rows of the same kind that hold one model's features only."""
    m = len(table)
    blank = {
        field.name: np.zeros((m, *getattr(rows, field.name).shape[1:]), getattr(rows, field.name).dtype)
        for field in fields(Rows)
    }
    blank["offsets"] = np.array([0, m], np.int64)
    blank[of], blank[f"{of}_due"] = table, np.ones(m, np.bool_)
    return Rows(**blank)


def _naming(row: NDArray[np.float32]) -> tuple[bool, str]:
    """Whether a shockable second has complexes, as the decision's rule sees it, and the rule in a sentence."""
    leakage, regular, hz = (float(row[SHOCK_NAMES.index(name)]) for name in ("leakage", "periodicity", "peak_hz"))
    if leakage >= SINE_LEAKAGE:
        return True, f"called VT: the wave has complexes (VF-filter leakage {leakage:.2f}, at least {SINE_LEAKAGE:.2f})"
    if regular >= REGULAR and hz <= SLOW_HZ:
        return True, f"called VT: slow and regular (periodicity {regular:.2f}, {hz:.1f} Hz)"
    return False, f"called VFL: sine-like or irregular (VF-filter leakage {leakage:.2f}, {hz:.1f} Hz)"
