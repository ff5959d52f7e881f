"""Labelled images in class folders: of beats and of rhythm windows, parted by patient or at random."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import wfdb
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

from ingest.recordings import RecordingError
from rhythmwatch.classify import classify_bytes
from rhythmwatch.cli import app
from rhythmwatch.imaging import write_images
from rhythmwatch.models import Models, load_models
from rhythmwatch.pictures import PictureError, read_window


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models()


def cut(data_dir: Path, record: str, to: Path, first_s: int, last_s: int, name: str | None = None) -> str:
    """Write a stretch of a record with its annotations and the rhythm in force, as a record of its own."""
    source = data_dir / record
    header = wfdb.rdheader(str(source))
    rate = header.fs
    a, b = first_s * rate, last_s * rate
    signals, fields = wfdb.rdsamp(str(source), sampfrom=a, sampto=b)
    notes = wfdb.rdann(str(source), "atr")
    name = name or source.name
    to.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(name, rate, fields["units"], fields["sig_name"], p_signal=signals, fmt=["16"] * signals.shape[1],
                write_dir=str(to))  # fmt: skip
    before = [note for sample, note in zip(notes.sample, notes.aux_note, strict=True) if sample < a and note[:1] == "("]
    inside = (notes.sample >= a) & (notes.sample < b)
    samples = np.concatenate([[1], notes.sample[inside] - a + 2])
    symbols = ["+", *np.array(notes.symbol)[inside]]
    aux = [before[-1] if before else "(N", *np.array(notes.aux_note, dtype=object)[inside]]
    wfdb.wrann(name, "atr", samples, symbols, aux_note=aux, write_dir=str(to))
    return str(to / name)


@pytest.mark.data
def test_beats_are_parted_by_patient(models: Models, data_dir: Path, tmp_path: Path) -> None:
    """A record of DS2 tests, one of DS1 trains; each image carries its label and classifies as live."""
    records = [cut(data_dir, f"mitdb/{name}", tmp_path / "data", 0, 40) for name in ("208", "200")]
    done: list[str] = []
    counts = write_images(records, None, tmp_path / "out", models, split="patient", done=done.append)
    assert done == ["208", "200"]
    assert {"train/N", "train/V", "test/N", "test/V"} <= set(counts)
    for part, record in (("train", "208"), ("test", "200")):
        files = list((tmp_path / "out" / part).rglob("*.png"))
        assert files
        assert all(path.name.startswith(record) for path in files)
    path = sorted((tmp_path / "out/test/V").glob("*.png"))[2]
    result = classify_bytes(path.name, path.read_bytes(), models)
    assert (result["about"]["label"], result["about"]["record"], result["rr_known"]) == ("V", "200", True)
    assert result["class"] == "V"


@pytest.mark.data
def test_beats_at_random_mix_patients_alike_each_time(models: Models, data_dir: Path, tmp_path: Path) -> None:
    """One image in five tests, of either record; the same seed parts alike, another one otherwise."""
    records = [cut(data_dir, f"mitdb/{name}", tmp_path / "data", 0, 40) for name in ("208", "200")]
    parts = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_images(records, None, tmp_path / name, models, split="random", seed=seed)
        parts[name] = sorted(path.name for path in (tmp_path / name / "test").rglob("*.png"))
    assert parts["a"] == parts["b"] != parts["c"]
    assert {path[:3] for path in parts["a"]} == {"200", "208"}
    total = len(list((tmp_path / "a").rglob("*.png")))
    assert 0.08 < len(parts["a"]) / total < 0.35


@pytest.mark.data
def test_windows_of_tachycardia_come_out_as_vt(models: Models, data_dir: Path, tmp_path: Path) -> None:
    """The image of a window of VT, from a vfdb training record, is called VT by the rhythm network, with its reason."""
    record = cut(data_dir, "vfdb/615", tmp_path / "data", 560, 640)
    counts = write_images([record], None, tmp_path / "out", models, split="patient", of="windows")
    assert counts["train/VT"] == 3
    results = [
        classify_bytes(p.name, p.read_bytes(), models) for p in sorted((tmp_path / "out/train/VT").glob("*.png"))
    ]
    called = [item for item in results if item["study"] == "VT"]
    assert len(called) >= len(results) / 2
    assert called[0]["kind"] == "window"
    assert called[0]["second"] != "VT"
    assert called[0]["reason"]["score"] == "shock"
    assert np.shape(called[0]["picture"])[0] == 24
    others = [classify_bytes("x.png", p.read_bytes(), models) for p in (tmp_path / "out/train/AFIB").glob("*.png")]
    assert not any(item["study"] == "VT" for item in others)


@pytest.mark.data
def test_a_window_whose_text_was_changed_is_refused(models: Models, data_dir: Path, tmp_path: Path) -> None:
    """Numbers that are not a wave of that length are no window of ours."""
    record = cut(data_dir, "mitdb/100", tmp_path / "data", 0, 20)
    write_images([record], None, tmp_path / "out", models, split="patient", of="windows")
    data = next((tmp_path / "out").rglob("*.png")).read_bytes()
    assert read_window(data) is not None
    with Image.open(io.BytesIO(data)) as image:
        text = PngImagePlugin.PngInfo()
        for key, value in image.info.items():
            text.add_text(key, value.replace('"samples": ', '"samples": 250') if key == "rhythmwatch" else value)
        out = io.BytesIO()
        image.save(out, "PNG", pnginfo=text)
    with pytest.raises(PictureError, match="damaged"):
        read_window(out.getvalue())


@pytest.mark.data
def test_records_without_labels_or_with_one_name_are_refused(models: Models, data_dir: Path, tmp_path: Path) -> None:
    """No annotation: one line; two records of one name would overwrite each other's images."""
    a = cut(data_dir, "mitdb/100", tmp_path / "a", 0, 10)
    b = cut(data_dir, "mitdb/100", tmp_path / "b", 0, 10)
    with pytest.raises(RecordingError, match="same name"):
        write_images([a, b], None, tmp_path / "out", models, split="patient")
    Path(b + ".atr").unlink()
    with pytest.raises(RecordingError, match=r"no annotation \.atr"):
        write_images([b], None, tmp_path / "out", models, split="patient")


@pytest.mark.data
def test_the_command_shows_its_progress_and_a_table(data_dir: Path, tmp_path: Path) -> None:
    """`images` ends with the images by folder; a record that is not there is one line."""
    record = cut(data_dir, "mitdb/119", tmp_path / "data", 0, 20)
    done = CliRunner().invoke(app, ["images", record, "--out", str(tmp_path / "out"), "--split", "random"])
    assert done.exit_code == 0, done.output
    assert "train/N" in done.stdout
    assert "119" in done.stderr
    done = CliRunner().invoke(app, ["images", str(tmp_path / "none"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "none" in done.stderr
