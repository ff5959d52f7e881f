"""Rhythm verdicts from scores: they have a memory, and claim nothing where nothing can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hearts import AF, ONE, SHOCK, names_of
from numpy.typing import NDArray

from dsp.layout import FS
from inference import rhythm
from inference.rhythm import Rows, Scores, Verdicts


def rows_like(m: int, **changed: NDArray[Any]) -> Rows:
    """Rows of one patient in which all is due and nothing is conspicuous."""
    plain = {
        "offsets": np.array([0, m]),
        "end": FS * np.arange(1, m + 1),
        "shock": np.zeros((m, len(SHOCK)), np.float32),
        "shock_due": np.ones(m, np.bool_),
        "af": np.zeros((m, len(AF)), np.float32),
        "af_due": np.arange(1, m + 1) % 3 == 0,
        "quiet": np.full(m, 0.5, np.float32),
        "noisy": np.zeros(m, np.float32),
        "beats": np.full(m, 5.0, np.float32),
    }
    return Rows(**{**plain, **changed})


def decided(rows: Rows, shock: Sequence[float], af: Sequence[float] | None = None) -> Verdicts:
    """Verdicts of one patient."""
    other = np.zeros(len(shock), np.float32) if af is None else np.array(af, np.float32)
    return rhythm.decide(rhythm.new_states(1), ONE, rows, Scores(np.array(shock, np.float32), other))


def test_shockable_verdicts_have_hysteresis() -> None:
    """On above a mean of 0.5, kept above 0.3, off below."""
    verdicts = decided(rows_like(8), [0.1, 1.0, 0.5, 0.2, 0.1, 0.3, 0.55, 0.6])
    assert names_of(verdicts) == ["N", "VFL", "VFL", "VFL", "N", "N", "N", "VFL"]
    assert verdicts.probability[1] == pytest.approx(0.55)


def test_complexes_are_named_tachycardia() -> None:
    """A wave that the VF filter doesn't cancel is tachycardia, and one odd second doesn't rename a run."""
    features = np.zeros((6, len(SHOCK)), np.float32)
    features[:, SHOCK["leakage"]] = [0.7, 0.7, 0.7, 0.2, 0.7, 0.7]
    assert names_of(decided(rows_like(6, shock=features), [0.9] * 6)) == ["VT"] * 6


def test_slow_regular_sine_is_named_tachycardia() -> None:
    """A regular wave below 190/min is tachycardia even where it looks like a sine."""
    features = np.zeros((3, len(SHOCK)), np.float32)
    features[:, SHOCK["periodicity"]] = 0.95
    features[:, SHOCK["peak_hz"]] = 2.5
    assert names_of(decided(rows_like(3, shock=features), [0.9] * 3)) == ["VT"] * 3


def test_blind_second_ends_a_shockable_verdict() -> None:
    """Nothing is claimed where nothing can be seen, and the memory starts afresh."""
    due = np.array([True, True, False, True])
    assert names_of(decided(rows_like(4, shock_due=due), [0.9, 0.9, 0.9, 0.3])) == ["VFL", "VFL", "NOISE", "N"]


def test_asystole_needs_quiet_and_no_beats() -> None:
    """A quiet window without beats is asystole, with beats it is not, whatever the model says."""
    quiet = np.array([0.5, 0.01, 0.01], np.float32)
    beats = np.array([0.0, 3.0, 0.0], np.float32)
    verdicts = decided(rows_like(3, quiet=quiet, beats=beats), [0.0, 0.0, 0.9])
    assert names_of(verdicts) == ["N", "N", "ASYS"]


def test_noise_is_said_but_gates_no_shockable_verdict() -> None:
    """Flagged blocks make noise of a plain second, not of fibrillation."""
    noisy = np.full(4, 0.8, np.float32)
    assert names_of(decided(rows_like(4, noisy=noisy), [0.0, 0.2, 0.9, 0.9])) == ["NOISE", "NOISE", "VFL", "VFL"]


def test_af_is_a_mean_of_three_with_hysteresis() -> None:
    """AF comes on with the mean of three scores above 0.6, holds between, and goes off below 0.4."""
    af = np.zeros(21)
    af[2::3] = [0.2, 0.9, 0.9, 0.3, 0.3, 0.1, 0.1]
    verdicts = decided(rows_like(21), [0.0] * 21, af)
    assert names_of(verdicts) == ["N"] * 8 + ["AFIB"] * 9 + ["N"] * 4
    assert verdicts.decided.tolist() == verdicts.end.tolist()


def test_af_without_new_scores_goes_stale() -> None:
    """Fifteen seconds without a score end AF: what beats can't show any more is not claimed."""
    af = np.zeros(30)
    due = np.zeros(30, np.bool_)
    due[2:9:3] = True
    af[due] = 0.9
    verdicts = decided(rows_like(30, af_due=due), [0.0] * 30, af)
    assert names_of(verdicts) == ["N"] * 2 + ["AFIB"] * 21 + ["N"] * 7
    assert verdicts.af[-1] == 0.0


def test_record_verdict_is_the_majority_since_the_first_score() -> None:
    """Half a minute of AF counts as AF although its first seconds could not be judged."""
    af = np.zeros(12)
    af[8::3] = 0.9
    due = np.zeros(12, np.bool_)
    due[8::3] = True
    assert rhythm.record_verdict(decided(rows_like(12, af_due=due), [0.0] * 12, af)) == "AFIB"
    assert rhythm.record_verdict(decided(rows_like(12), [0.0] * 12)) == "N"
    blind = rows_like(3, shock_due=np.zeros(3, np.bool_))
    assert rhythm.record_verdict(decided(blind, [0.0] * 3)) == "NOISE"
