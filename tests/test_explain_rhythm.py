"""Reasons of rhythm verdicts: the part of the evidence that made them, named features, and honest gaps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dsp.layout import FS, Peaks, Signal
from inference import explain, explain_rhythm
from ingest.recordings import Recording, read_record
from rhythmwatch import reasons
from rhythmwatch.models import Models, load_models


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models()


def part(recording: Recording, first_s: float, last_s: float) -> Recording:
    """Cut seconds out of a recording."""
    a, b = round(first_s * recording.rate), round(last_s * recording.rate)
    return Recording(recording.name, recording.rate, recording.leads, recording.gain, recording.samples[a:b])


def flat(seconds: int, beats: bool) -> tuple[Signal, Peaks]:
    """Make a signal of nothing, with or without a beat a second."""
    n = seconds * FS
    r = np.arange(FS // 2, n - FS, FS) if beats else np.zeros(0, np.int64)
    x = np.zeros(n, np.float32)
    for at in r:
        x[at - 5 : at + 5] = np.hanning(10)
    return (
        Signal(x, np.zeros(n // 50, np.uint8), np.array([0, n]), np.zeros(1, np.int64)),
        Peaks(np.array([0, len(r)]), r, (r // 50 + 3) * 50, np.ones(len(r), np.float32), np.array([n])),
    )


@pytest.mark.data
def test_a_flutter_is_explained_by_what_came_with_it(models: Models, data_dir: Path) -> None:
    """In ventricular flutter of 207 the wave speaks for it, and features differ from the patient's quiet seconds."""
    recording = part(read_record(data_dir / "mitdb" / "207"), 0, 60)
    found = reasons.explain_evidence(recording, models, 60)
    assert found["code"] in ("VT", "VFL")
    assert found["score"] == "shock"
    assert found["second"] in ("N", "AFIB")
    assert np.shape(found["map"]) == (len(explain_rhythm.BANDS), explain_rhythm.PIECES)
    assert np.abs(found["map"]).max() == 1.0
    assert found["features"][0]["effect"] > 0
    assert found["compared_s"] < 60
    assert "called V" in found["rule"]
    assert json.loads(json.dumps(found)) == found


@pytest.mark.data
def test_a_sinus_rhythm_is_explained_against_the_next_best(models: Models, data_dir: Path) -> None:
    """N names what it would be next and has a map, but no features: there is nothing unusual to name."""
    found = reasons.explain_evidence(part(read_record(data_dir / "mitdb" / "100"), 0, 40), models, 40)
    assert found["code"] == "N"
    assert found["second"] != "N"
    assert not found["features"]
    assert np.size(found["map"]) > 0


@pytest.mark.data
def test_fibrillation_is_explained_by_its_beats(models: Models, data_dir: Path) -> None:
    """In an AF record the reason is one row of stretches of beats, and irregularity is among the named features."""
    recording = part(read_record(data_dir / "mitdb" / "203"), 0, 60)
    reason = reasons.explain_evidence(recording, models, 60)
    assert reason["code"] == "AFIB"
    assert reason["score"] == "af"
    assert np.shape(reason["map"]) == (1, explain_rhythm.HIDDEN_PIECES)
    assert reason["end_s"] - reason["begin_s"] == 27


def test_rules_are_named_as_rules(models: Models) -> None:
    """A flat line is asystole by rule: no map is drawn, and the sentence says what the rule saw."""
    signal, peaks = flat(20, beats=False)
    reason = explain_rhythm.explain_rhythm(models.rhythm, signal, peaks, 20 * FS)
    assert (reason.code, reason.score, reason.map.size) == ("ASYS", "", 0)
    assert "no beat" in reason.rule
    noisy = Signal(signal.x, np.full(len(signal.flags), 1, np.uint8), signal.offsets, signal.start)
    reason = explain_rhythm.explain_rhythm(models.rhythm, noisy, peaks, 20 * FS)
    assert reason.code == "NOISE"
    assert "100 %" in reason.rule


def test_too_little_signal_is_said(models: Models) -> None:
    """Without a full second there is nothing to explain, and a begin off the grid is refused."""
    signal, peaks = flat(5, beats=True)
    with pytest.raises(ValueError, match="no full second"):
        explain_rhythm.explain_rhythm(models.rhythm, signal, peaks, 100)
    with pytest.raises(ValueError, match="full second of 250"):
        explain_rhythm.explain_rhythm(models.rhythm, Signal(signal.x, signal.flags, signal.offsets, np.array([50])),
                                      peaks, 500)  # fmt: skip


def test_what_comes_after_the_verdict_does_not_matter(models: Models) -> None:
    """A reason at 12 s is the same with 12 s and with 20 s of signal."""
    signal, peaks = flat(20, beats=True)
    whole = explain_rhythm.explain_rhythm(models.rhythm, signal, peaks, 12 * FS)
    cut = explain_rhythm.explain_rhythm(models.rhythm, *reasons.stretch(signal, peaks, 0, 12 * FS), 12 * FS)
    assert (whole.code, whole.p, whole.end) == (cut.code, cut.p, cut.end)
    assert np.array_equal(whole.map, cut.map)


def test_occlusion_finds_the_cell_that_matters() -> None:
    """A judge that looks at one cell only gets a map with that cell and nothing else."""
    picture = np.zeros((1, 48, 24), np.float32)
    picture[0, 20:28, 4:12] = 1.0

    def judge(pictures: np.ndarray) -> np.ndarray:
        lit = pictures[:, 0, 20:28, 4:12].mean(axis=(1, 2))
        return np.stack([0.1 + 0.8 * lit, 0.9 - 0.8 * lit], axis=1).astype(np.float32)

    p, cells = explain.occlusion(judge, picture)
    assert p.tolist() == pytest.approx([0.9, 0.1])
    assert np.argwhere(np.abs(cells) > 1e-3).tolist() == [[3, 1]]
    assert cells[3, 1] > 4
