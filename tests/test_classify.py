"""Files are judged exactly as live, pictures from elsewhere with a warning, and wrong files get one line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ingest.recordings import RecordingError, read_record
from rhythmwatch.classify import classify_bytes, classify_file, heat_png, judged
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
