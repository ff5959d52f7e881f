"""Verdicts on whole recordings: features on known rhythms, the shipped model, its trainer, and the command's output."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from dsp.layout import FS
from inference import qrs_model, rhythm, runtime
from inference.beats import CLASSES, BeatModel
from inference.contract import Contract, ContractError
from inference.recording import (
    BEAT_FEATURES,
    FEATURES,
    INTERVAL_FEATURES,
    LABELS,
    MODEL,
    RecordingModel,
    beat_features,
    interval_features,
    recording_features,
)
from inference.rhythm import AF_FEATURES, SHOCK_FEATURES, RhythmModel, Rows, Scores
from inference.training import recording as trainer
from inference.training import splits
from inference.training.records import Record, challenge_labels, read_challenge
from inference.training.trees import fit, predict, save
from ingest.recordings import Recording
from rhythmwatch.cli import app
from rhythmwatch.listening import SHORT_S, analyze_whole, listen
from rhythmwatch.models import load_models

AT = {name: k for k, name in enumerate(FEATURES)}
SETTINGS = {"trees": 8, "leaves": 4, "rate": 0.3, "feature_fraction": 1.0, "least": 5, "l2": 1.0}


def intervals(rr: list[float]) -> NDArray[np.float32]:
    times = np.cumsum([0.5, *rr])
    return interval_features(times, float(times[-1]) + 0.5)


def silent_rows(m: int) -> Rows:
    return Rows(
        np.array([0, m]), FS * np.arange(1, m + 1), np.zeros((m, len(SHOCK_FEATURES)), np.float32),
        np.arange(m) >= 3, np.zeros((m, len(AF_FEATURES)), np.float32), np.arange(1, m + 1) % 3 == 0,
        np.ones(m, np.float32), np.zeros(m, np.float32), np.full(m, 5, np.float32),
    )  # fmt: skip


def heart(rr: list[float], rate: float) -> NDArray[np.float32]:
    """Make a lead with a P wave, a QRS and a T wave at these intervals, mV."""
    times = np.cumsum([0.4, *rr])
    t = np.arange(round((times[-1] + 0.4) * rate)) / rate
    mv = np.zeros(t.size)
    for at in times:
        for height, away, width in ((0.12, -0.16, 0.025), (1.2, 0.0, 0.012), (-0.2, 0.03, 0.012), (0.3, 0.27, 0.05)):
            mv += height * np.exp(-(((t - at - away) / width) ** 2) / 2)
    return np.asarray(mv, np.float32)


def recording_of(rr: list[float], rate: float = 300.0) -> Recording:
    return Recording("x", rate, ("ECG",), 1000.0, np.rint(heart(rr, rate) * 1000).astype(np.int16)[:, None])


def test_intervals_of_a_regular_heart() -> None:
    """At 75/min without variation there is one basic interval, no step, nothing early."""
    found = intervals([0.8] * 30)
    assert found[AT["rate"]] == pytest.approx(75, abs=0.01)
    assert found[AT["modal_share"]] == 1.0
    for name in ("spread", "step_most", "early_share", "late_share", "early_a_minute"):
        assert found[AT[name]] == pytest.approx(0, abs=1e-5)


def test_intervals_with_premature_beats() -> None:
    """Three early beats with their pauses are counted by the minute; the basic interval stays."""
    found = intervals(([0.8] * 6 + [0.5, 1.1]) * 3 + [0.8] * 4)
    assert found[AT["early_share"]] == pytest.approx(3 / 28, abs=1e-4)
    assert found[AT["early_then_late"]] == 1.0
    assert found[AT["modal_length"]] == pytest.approx(1.0, abs=1e-3)


@given(st.lists(st.floats(0.05, 5.0), max_size=40), st.floats(1.0, 60.0))
def test_features_are_finite_for_any_beats(rr: list[float], seconds: float) -> None:
    """No rhythm, however odd or short, gives a division by nothing."""
    times = np.cumsum(np.array(rr, np.float64)) if rr else np.zeros(0)
    assert np.isfinite(interval_features(times, seconds)).all()
    p = np.full((len(rr), len(CLASSES)), 1 / len(CLASSES), np.float32)
    assert np.isfinite(beat_features(p, seconds)).all()


def test_beats_are_summed_by_class() -> None:
    """Probabilities become shares, expected numbers a minute, and the surest ectopic beats."""
    p = np.zeros((10, len(CLASSES)), np.float32)
    p[:, 0] = 1.0
    p[4, [0, CLASSES.index("V")]] = 0.2, 0.8
    found = dict(zip(BEAT_FEATURES, beat_features(p, 30.0).tolist(), strict=True))
    assert found["most_V"] == pytest.approx(0.8)
    assert found["second_V"] == 0.0
    assert found["V_a_minute"] == pytest.approx(1.6)
    assert found["found_V_a_minute"] == pytest.approx(2.0)


def test_seconds_after_the_end_do_not_count() -> None:
    """Rows beyond the recording's length change nothing."""
    r = np.arange(100, 20 * FS, 200)
    p = np.tile(np.eye(len(CLASSES), dtype=np.float32)[:1], (r.size, 1))
    short, long = silent_rows(20), silent_rows(24)
    scores = Scores(np.zeros(24, np.float32), np.where(np.arange(24) < 20, 0.1, 0.9).astype(np.float32))
    first = recording_features(r, p, short, Scores(scores.shock[:20], scores.af[:20]), 20.0)
    assert first.tobytes() == recording_features(r, p, long, scores, 20.0).tobytes()
    assert first[AT["af_most"]] == pytest.approx(0.1)


def test_a_recording_without_anything_has_a_row() -> None:
    """No beats and no due second: zeros where nothing is known, all of it noise."""
    rows = replace(silent_rows(3), shock_due=np.zeros(3, np.bool_), af_due=np.zeros(3, np.bool_))
    none = Scores(np.zeros(3, np.float32), np.zeros(3, np.float32))
    found = recording_features(np.zeros(0, np.int64), np.zeros((0, len(CLASSES)), np.float32), rows, none, 3.0)
    assert found[AT["noise_share"]] == 1.0
    assert not found[: len(INTERVAL_FEATURES)].any()


def test_onnx_says_what_the_booster_says(tmp_path: Path) -> None:
    """Trees of four classes keep their probabilities in the file, and these sum to one."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(400, len(FEATURES))).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64) + 2 * (x[:, 1] > 0)
    booster = fit(x, y, np.ones(400), {**SETTINGS, "classes": 4}, 1)
    save(tmp_path / "recording.onnx", [booster], Contract(MODEL, "t", FS, LABELS, FEATURES))
    found = runtime.Model(tmp_path / "recording.onnx").run(x)[0]
    np.testing.assert_allclose(found, np.asarray(booster.predict(x)), atol=1e-5)
    verdict = RecordingModel.load(tmp_path).classify(x[0])
    assert sum(verdict.probabilities) == pytest.approx(1, abs=1e-5)
    assert verdict.label == LABELS[y[0]]
    two = fit(x, y > 1, np.ones(400), SETTINGS, 1)
    save(tmp_path / "two.onnx", [two], Contract("af", "t", FS, ("af",), FEATURES))
    np.testing.assert_allclose(runtime.Model(tmp_path / "two.onnx").run(x)[0][:, 0], predict([two], x), atol=1e-5)


def test_another_contract_is_refused(tmp_path: Path) -> None:
    """A model of other features gives one clear line."""
    (tmp_path / "recording.onnx").write_bytes((Path(rhythm.__file__).parent / "models" / "af.onnx").read_bytes())
    with pytest.raises(ContractError, match="asks for model"):
        RecordingModel.load(tmp_path)


def test_shipped_model_parts_sinus_from_fibrillation() -> None:
    """A plain regular heart is hardly AF; one without order in its beats is not normal."""
    models = load_models()
    rng = np.random.default_rng(4)
    regular = listen(recording_of([0.85 + 0.02 * float(v) for v in rng.standard_normal(36)]), models)
    chaos = listen(recording_of(rng.uniform(0.4, 1.1, 44).tolist()), models)
    assert regular.whole.probabilities[1] < 0.1
    assert chaos.whole.label in ("A", "O")
    assert chaos.whole.probabilities[1] > regular.whole.probabilities[1]


def test_only_short_recordings_get_a_verdict() -> None:
    """The model has learnt from about half a minute: a long recording gets none."""
    models = load_models()
    assert analyze_whole(recording_of([0.8] * 30), models).whole is not None
    assert analyze_whole(recording_of([0.8] * int(SHORT_S / 0.8 + 3), 125.0), models).whole is None


def test_training_hears_what_the_pipeline_hears() -> None:
    """Beats, classes and features of the trainer are those of the live pipeline."""
    recording = recording_of([0.8] * 12 + [0.5, 1.1] * 4 + [0.8] * 12)
    models = load_models()
    none = np.zeros(0, np.int64)
    mv = (recording.samples / 1000).astype(np.float32)
    record = Record("x", "cinc2017", recording.rate, ("ECG",), mv, none, np.zeros(0, "U1"), none, (), (), "N")
    heard = trainer.hear(record, qrs_model.load(), BeatModel.load(), RhythmModel.load())
    live = listen(recording, models)
    assert len(heard.r) == len(live.analysis.beats)
    np.testing.assert_allclose(heard.probabilities, live.probabilities, atol=1e-4)
    seconds = int(heard.seconds)
    assert heard.example.rows.end[:seconds].tolist() == live.verdicts.end[:seconds].tolist()


def test_analyze_tells_the_verdict_on_a_short_record(tmp_path: Path) -> None:
    """``analyze --json`` gives label and probabilities of a record of half a minute."""
    mv = heart([0.8] * 36, 250.0).astype(np.float64)
    wfdb.wrsamp("short", 250, ["mV"], ["MLII"], mv[:, None], fmt=["16"], write_dir=str(tmp_path))
    arguments = ["analyze", "short", "--database", str(tmp_path), "--out", str(tmp_path / "out"), "--json"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    (row,) = json.loads(outcome.stdout.splitlines()[-1])["records"]
    assert row["recording"]["verdict"] in LABELS
    assert sum(row["recording"]["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_figures_are_those_of_the_table() -> None:
    """F1 by label, and the mean without noise."""
    found = trainer.figures(np.array([0, 0, 1, 2, 3]), np.array([0, 2, 1, 2, 2]))
    assert found["f1"] == {"N": 0.6667, "A": 1.0, "O": 0.5, "~": 0.0}
    assert found["mean_f1"] == pytest.approx((2 / 3 + 1 + 0.5) / 3, abs=1e-4)


@pytest.mark.data
def test_shipped_model_on_training_recordings(data_dir: Path) -> None:
    """On training recordings (which it knows) the shipped model is nearly always right: a guard against a mix-up."""
    archive = data_dir / "cinc2017.tar"
    wanted = [name for name in sorted(challenge_labels(archive)) if not splits.challenge_test(name)][::100]
    models = load_models()
    right = 0
    for record in read_challenge(archive, wanted):
        units = np.rint(record.mv * 1000).astype(np.int16)
        right += listen(Recording(record.name, record.rate, record.leads, 1000.0, units), models).whole.label == (
            record.label
        )
    assert right >= 0.8 * len(wanted)
