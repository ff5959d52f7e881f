"""Files are judged exactly as live, pictures from elsewhere with a warning, and wrong files get one line."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import edfio
import numpy as np
import pytest
import wfdb
from PIL import Image
from typer.testing import CliRunner

from dsp.spectrogram import BINS
from inference.explain import SIZE
from inference.features import NAMES
from inference.features_image import CHANNELS, COLUMNS
from ingest import files
from ingest.recordings import Recording, RecordingError, read_record
from rhythmwatch import classify, pictures
from rhythmwatch.classify import classify_bytes, classify_file, classify_recording, heat_png, judged
from rhythmwatch.cli import app
from rhythmwatch.models import Models, load_models
from rhythmwatch.pictures import PictureError, to_png


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models()


def picture(width: int = 64, height: int = 64, kind: str = "PNG") -> bytes:
    """Draw noise in grey."""
    noise = np.random.default_rng(1).integers(0, 255, (height, width)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, kind)
    return out.getvalue()


@pytest.mark.data
def test_an_image_of_ours_gets_exactly_the_live_verdict(models: Models, data_dir: Path) -> None:
    """The PNG of a beat gives bit for bit the probabilities that the pipeline gave the beat, and a heat map."""
    recording = read_record(data_dir / "mitdb" / "200")
    part = type(recording)("200", recording.rate, recording.leads, recording.gain, recording.samples[: 360 * 20])
    _, keeping = judged(part, models)
    assert len(keeping.kept) > 20
    for r, features, image, p, mark in keeping.kept[::7]:
        data = to_png(image, features, {"record": "200", "r": r, "rate": 360.0, "label": "V"})
        result = classify_bytes("beat.png", data, models)
        assert result["probabilities"] == {k: round(float(v), 4) for k, v in zip("NLRAVF/Q", p, strict=True)}
        assert result["rr_known"]
        assert not result["warnings"]
        assert len(result["heat"]) == 24
        assert Image.open(io.BytesIO(heat_png(result))).size == (384, 192)
        assert mark


@pytest.mark.data
def test_a_recording_gives_every_beat(models: Models, data_dir: Path) -> None:
    """A CSV made of a WFDB record gives beats with probabilities that sum to one, and a summary that counts them."""
    recording = read_record(data_dir / "mitdb" / "208")
    mv = recording.samples[: 360 * 20, 0] / recording.gain
    text = "# rate = 360\nMLII\n" + "\n".join(f"{v:.4f}" for v in mv)
    result = classify_bytes("a.csv", text.encode(), models)
    assert sum(result["summary"].values()) == len(result["beats"]) > 20
    assert all(abs(sum(beat["probabilities"].values()) - 1) < 0.001 for beat in result["beats"])
    assert "PVC" in result["summary"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_from_elsewhere_is_judged_with_a_warning(models: Models, kind: str) -> None:
    """It is resized, and the result says that RR context is absent."""
    result = classify_bytes("x", picture(kind=kind), models)
    assert not result["rr_known"]
    assert "resized from 64 x 64" in result["warnings"][0]
    assert "no RR interval" in result["warnings"][1]
    assert abs(sum(result["probabilities"].values()) - 1) < 0.001


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.png", b"", "empty"),
        ("a.png", b"abc", "no PNG or JPEG"),
        ("a.png", picture()[:200], "damaged"),
        ("a.png", picture(4, 4), "8 x 8"),
        ("a.dat", b"abc", "two files"),
        ("a.doc", b"abc", "no recording"),
    ],
)
def test_wrong_files_get_one_line(models: Models, name: str, data: bytes, says: str) -> None:
    """What is wrong, in one line."""
    with pytest.raises((RecordingError, PictureError), match=says) as caught:
        classify_bytes(name, data, models)
    assert "\n" not in str(caught.value)


def test_numbers_in_the_text_that_are_damaged_are_refused(models: Models) -> None:
    """A PNG of ours with other numbers than a beat's is no image of ours."""
    data = to_png(np.zeros((4, 48, 23), np.float32), np.zeros(3, np.float32), {"record": "x"})
    with pytest.raises(PictureError, match="damaged"):
        classify_bytes("a.png", data, models)


def test_the_command_prints_a_table_and_the_heat_map(tmp_path: Path, models: Models) -> None:
    """`classify` on a picture: probabilities, a warning, the heat map as a file; a missing file is one line."""
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    done = CliRunner().invoke(app, ["classify", str(path), "--heat", str(tmp_path / "heat.png")])
    assert done.exit_code == 0, done.output
    assert "probability" in done.output
    assert (tmp_path / "heat.png").is_file()
    assert CliRunner().invoke(app, ["classify", str(tmp_path / "none.csv")]).exit_code == 2
    with pytest.raises(RecordingError, match="no file"):
        classify_file(tmp_path / "none.csv", models)


@pytest.mark.data
def test_the_studys_six_classes_come_out_of_recordings(models: Models, data_dir: Path) -> None:
    """Normal, LBBB, RBBB, PAC and PVC from mitdb training records, VT by the rhythm network from a vfdb one."""
    seen: set[str] = set()
    for name, first, last in (("109", 0, 30), ("118", 0, 40), ("209", 0, 60), ("208", 0, 30)):
        recording = read_record(data_dir / "mitdb" / name)
        cut = recording.samples[round(first * 360) : round(last * 360)]
        part = Recording(name, recording.rate, recording.leads, recording.gain, cut)
        seen |= set(classify_recording(part, models)["summary"])
    recording = read_record(data_dir / "vfdb" / "615")
    part = Recording("615", 250.0, recording.leads, recording.gain, recording.samples[560 * 250 : 640 * 250])
    result = classify_recording(part, models)
    assert result["summary"]["VT"] >= 10
    assert all(45 < beat["seconds"] < 65 for beat in result["beats"] if beat["study"] == "VT")
    reasons = [rhythm["reason"] for rhythm in result["rhythms"] if rhythm["code"] == "VT"]
    assert reasons
    assert reasons[0]["score"] == "shock"
    assert seen | {"VT"} >= {"normal", "LBBB", "RBBB", "PAC", "PVC", "VT"}


@pytest.mark.data
def test_every_beat_comes_with_its_picture_and_map(models: Models, data_dir: Path) -> None:
    """Normal beats too have a map, a second-best class and the spectral image that the map lies over."""
    recording = read_record(data_dir / "mitdb" / "100")
    part = Recording("100", recording.rate, recording.leads, recording.gain, recording.samples[: 360 * 10])
    beats = classify_recording(part, models)["beats"]
    assert len(beats) > 8
    for beat in beats:
        assert len(base64.b64decode(beat["map"])) == SIZE
        assert len(base64.b64decode(beat["picture"])) == COLUMNS * BINS
        assert beat["second"] != beat["class"]
        assert 0 <= beat["image_share"] <= 100


@pytest.mark.data
@pytest.mark.parametrize("kind", ["edf", "csv", "json", "hea", "dat", ""])
def test_each_kind_of_recording_is_classified(data_dir: Path, tmp_path: Path, kind: str) -> None:
    """`classify` takes EDF, CSV, JSON and WFDB by header, data file or name, and finds the same beats in each."""
    recording = read_record(data_dir / "mitdb" / "119")
    mv = recording.samples[: 360 * 20, 0] / recording.gain
    path = tmp_path / f"a.{kind}"
    if kind == "edf":
        signal = edfio.EdfSignal(mv * 1000, 360, label="ECG MLII", physical_dimension="uV")
        edfio.Edf([signal]).write(path)
    elif kind == "csv":
        path.write_text("# rate = 360\nMLII\n" + "\n".join(f"{v:.4f}" for v in mv))
    elif kind == "json":
        path.write_text(json.dumps({"rate": 360, "leads": ["MLII"], "samples": {"MLII": np.round(mv, 4).tolist()}}))
    else:
        wfdb.wrsamp("a", 360, ["mV"], ["MLII"], p_signal=mv[:, None], fmt=["16"], write_dir=str(tmp_path))
        path = tmp_path / ("a" if not kind else f"a.{kind}")
    done = CliRunner().invoke(app, ["classify", str(path), "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    codes = "".join(beat["class"] for beat in result["beats"])
    assert 18 <= len(codes) <= 24
    assert 2 <= codes.count("V") <= 8


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.png", b"", "empty"),
        ("a.csv", b"", "empty"),
        ("a.jpg", b"abc", "no PNG or JPEG"),
        ("a.png", picture()[:100], "damaged"),
        ("a.doc", b"abc", "no recording that is known here"),
        ("a.dat", b"abc", "a"),
        ("a.edf", b"abc", "no EDF"),
        ("a.json", b"{", "no JSON"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    """Exit 2 and one line that begins with the program's name."""
    (tmp_path / name).write_bytes(data)
    done = CliRunner().invoke(app, ["classify", str(tmp_path / name)])
    assert done.exit_code == 2
    assert done.stderr.startswith("rhythmwatch: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_pictures_and_recordings_that_are_too_large_are_refused(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By bytes before they are read, by pixels before they are unpacked."""
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    monkeypatch.setattr(classify, "LARGEST_PICTURE", 10)
    with pytest.raises(PictureError, match="too large"):
        classify_file(path, models)
    monkeypatch.setattr(pictures, "PIXELS", 10)
    with pytest.raises(PictureError, match="make it smaller"):
        classify_bytes("a.png", picture(), models)
    monkeypatch.setattr(files, "LARGEST", 3)
    (tmp_path / "a.csv").write_text("# rate = 250\n1\n")
    with pytest.raises(RecordingError, match="cut it into parts"):
        classify_file(tmp_path / "a.csv", models)


def test_an_image_of_other_parameters_is_refused(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that was drawn for other features than this version's is to be made again."""
    monkeypatch.setattr(pictures, "_FEATURES", "other")
    data = to_png(np.zeros((CHANNELS, COLUMNS, BINS), np.float32), np.zeros(len(NAMES), np.float32), {"record": "x"})
    monkeypatch.undo()
    with pytest.raises(PictureError, match="make it again"):
        classify_bytes("a.png", data, models)
