"""Rhythm stage: no cut of the input changes a bit, and the shipped models know fibrillation from sinus rhythm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hearts import AF, ONE, analyse, beats_every, fibrillating, names_of, peaks_of, wave_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from streaming import Piece, assert_cut_invariant

from dsp.layout import BLOCK, FS, Peaks, Signal
from inference import rhythm
from inference.contract import ContractError
from inference.rhythm import RhythmModel, Scores
from inference.rhythm_state import F1
from inference.rhythm_step import step_kernel


def feeder(signals: Sequence[Signal], beats: Sequence[Peaks], model: RhythmModel | None) -> Any:
    """Adapter of the whole stage for `tests.streaming`."""

    def feed(states: NDArray[Any], slots: NDArray[np.int64], spans: Sequence[tuple[int, int]]) -> list[Piece]:
        x, flags, r, decided, strength = [], [], [], [], []
        for s, (a, b) in zip(slots, spans, strict=True):
            x.append(signals[s].x[a:b])
            flags.append(signals[s].flags[a // BLOCK : b // BLOCK])
            start = signals[s].start[0]
            own = (beats[s].decided > start + a) & (beats[s].decided <= start + b)
            r.append(beats[s].r[own])
            decided.append(beats[s].decided[own])
            strength.append(beats[s].strength[own])
        start = np.array([signals[s].start[0] + a for s, (a, _) in zip(slots, spans, strict=True)])
        cuts = np.cumsum([0, *map(len, x)])
        signal = Signal(np.concatenate(x), np.concatenate(flags), cuts, start)
        peak_cuts = np.cumsum([0, *map(len, r)])
        peaks = Peaks(
            peak_cuts, np.concatenate(r), np.concatenate(decided), np.concatenate(strength), start + np.diff(cuts)
        )
        rows = rhythm.step(states, slots, signal, peaks)
        m = len(rows.end)
        plain = Scores(np.full(m, 0.3, np.float32), np.full(m, 0.6, np.float32))
        verdicts = rhythm.decide(states, slots, rows, plain if model is None else model.classify(rows))
        columns: Piece = {
            name: getattr(rows, name)
            for name in ("end", "shock", "shock_due", "af", "af_due", "quiet", "noisy", "beats")
        }
        columns |= {
            f"verdict_{name}": getattr(verdicts, name) for name in ("end", "code", "probability", "shock", "af")
        }
        cut = rows.offsets
        return [{name: c[cut[i] : cut[i + 1]] for name, c in columns.items()} for i in range(slots.size)]

    return feed


@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4))
@settings(max_examples=8, deadline=None)
def test_cutting_changes_no_bit(seed: int, sizes: list[int]) -> None:
    """Blocks one by one or in any number, with any batch mates and flags: same rows, verdicts and state."""
    rng = np.random.default_rng(seed)
    lengths = [BLOCK * int(rng.integers(1, 250)) for _ in range(4)]
    starts = [BLOCK * int(rng.integers(0, 1000)) for _ in lengths]
    signals, beats = [], []
    for n, start in zip(lengths, starts, strict=True):
        flags = np.where(rng.random(n // BLOCK) < 0.03, rng.choice([1, 8, 16, 32, 48], n // BLOCK), 0).astype(np.uint8)
        x = np.cumsum(rng.normal(0, 0.05, n)).astype(np.float32)
        signals.append(Signal(x, flags, np.array([0, n]), np.array([start])))
        found = peaks_of(start + np.cumsum(rng.integers(60, 300, n // 60)), start + n)
        beats.append(replace(found, strength=rng.random(len(found.r)).astype(np.float32)))

    def fresh() -> NDArray[Any]:
        states = rhythm.new_states(len(lengths))
        rhythm.reset(states, np.arange(len(lengths)), np.array(starts))
        return states

    assert_cut_invariant(feeder(signals, beats, None), fresh, lengths, sizes, seed, BLOCK)


def test_scores_ignore_batch_mates() -> None:
    """With the shipped models too, verdicts are the same bits however rows are batched."""
    rng = np.random.default_rng(3)
    n = 40 * FS
    signals = [
        Signal(x.astype(np.float32), np.zeros(n // BLOCK, np.uint8), np.array([0, n]), ONE)
        for x in (fibrillating(rng, 40), wave_of(beats_every([0.8] * 45), 40), rng.normal(0, 0.2, n))
    ]
    beats = [peaks_of(beats_every([rr] * int(38 / rr)), n) for rr in (0.3, 0.8, 0.7)]
    model = RhythmModel.load()
    whole = assert_cut_invariant(
        feeder(signals, beats, model), lambda: rhythm.new_states(3), [n] * 3, [1, 3, 7, 40], 1, BLOCK
    )
    assert len(whole[0]["verdict_code"]) == 40


def test_a_gap_in_the_signal_is_refused() -> None:
    """A signal that doesn't follow the state is an error, not a wrong window."""
    signal = Signal(np.zeros(BLOCK, np.float32), np.zeros(1, np.uint8), np.array([0, BLOCK]), np.array([BLOCK]))
    with pytest.raises(ValueError, match="must continue"):
        rhythm.step(rhythm.new_states(1), ONE, signal, peaks_of(np.zeros(0, np.int64), 0))


def test_plain_python_gives_the_same() -> None:
    """The kernel and its uncompiled source agree to the last bit on a short stretch."""
    rng = np.random.default_rng(5)
    n = 6 * FS
    x = wave_of(beats_every([0.7] * 7), 6) + rng.normal(0, 0.01, n)
    peaks = peaks_of(beats_every([0.7] * 7), n)
    made = []
    for kernel, states in ((step_kernel, rhythm.new_states(1)), (step_kernel.py_func, None)):  # type: ignore[attr-defined]
        own = rhythm.new_states(1).view(np.recarray) if states is None else states
        end, shock, af = np.zeros(6, np.int64), np.zeros((6, 2 * F1), np.float32), np.zeros((6, len(AF)), np.float32)
        due, af_due = np.zeros(6, np.bool_), np.zeros(6, np.bool_)
        rules = np.zeros((3, 6), np.float32)
        kernel(
            own, ONE, x.astype(np.float32), np.zeros(n // BLOCK, np.uint8), np.array([0, n]), peaks.offsets, peaks.r,
            peaks.decided, peaks.strength, np.array([0, 6]), end, shock, due, af, af_due, *rules,
        )  # fmt: skip
        made.append((end, shock, due, af, af_due, rules))
    for compiled, plain in zip(*made, strict=True):
        np.testing.assert_array_equal(compiled, plain)


def test_shipped_models_know_fibrillation_from_sinus() -> None:
    """Sinus rhythm gives N; fibrillation after it is called within six seconds."""
    rng = np.random.default_rng(7)
    r = beats_every([0.8] * 74)
    x = np.concatenate([wave_of(r, 60), fibrillating(rng, 20)])
    rows = analyse(x, np.concatenate([r[r < 59.5 * FS], 60 * FS + np.arange(70, 20 * FS - 100, 70)]))
    verdicts = rhythm.decide(rhythm.new_states(1), ONE, rows, RhythmModel.load().classify(rows))
    codes = names_of(verdicts)
    assert set(codes[3:60]) == {"N"}
    assert {"VT", "VFL"} & set(codes[60:66])
    assert set(codes[67:]) <= {"VT", "VFL"}


def test_models_with_another_contract_are_refused(tmp_path: Path) -> None:
    """A missing file and swapped files each give one clear line."""
    with pytest.raises(ContractError, match="no model at"):
        RhythmModel.load(tmp_path)
    folder = Path(rhythm.__file__).parent / "models"
    (tmp_path / "rhythm.onnx").write_bytes((folder / "af.onnx").read_bytes())
    (tmp_path / "af.onnx").write_bytes((folder / "rhythm.onnx").read_bytes())
    with pytest.raises(ContractError, match="asks for model"):
        RhythmModel.load(tmp_path)
