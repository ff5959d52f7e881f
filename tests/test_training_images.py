"""Both networks from folders of images or a zip of them, to an ONNX file that classifies; wrong folders in one line."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from inference.features import NAMES
from inference.features_image import CHANNELS, COLUMNS, CONTRACT
from rhythmwatch import training_networks, unpacking
from rhythmwatch.classify import classify_bytes
from rhythmwatch.classifying import FileClassifier
from rhythmwatch.cli import app
from rhythmwatch.models import ModelError
from rhythmwatch.picture_model import PictureModel, load_both
from rhythmwatch.pictures import to_png
from rhythmwatch.training_images import markdown, train_images

OURS = {"epochs": 50, "batch": 8, "rate": 3e-3, "decay": 0.0, "balance": 0.5, "cycle": True}
STUDY = {"epochs": 30, "batch": 16, "rate": 1e-4, "decay": 0.0, "balance": 0.5, "cycle": False}


def picture(level: int, seed: int, size: tuple[int, int] = (24, 48), kind: str = "PNG") -> bytes:
    """Draw noise about a brightness."""
    noise = np.random.default_rng(seed).integers(level - 30, level + 30, size).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, kind)
    return out.getvalue()


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a picture."""
    with Image.open(path) as opened:
        return opened.size


def folders(root: Path, count: int = 8) -> Path:
    """Dark images of class N and bright ones of V."""
    for part in ("train", "test"):
        for name, level in (("N", 40), ("V", 200)):
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(count):
                kind = "JPEG" if i % 2 else "PNG"
                (place / f"{i}.{kind.lower()}").write_bytes(picture(level, i, kind=kind))
    return root


@pytest.mark.parametrize(("network", "settings"), [("ours", OURS), ("study", STUDY)])
def test_a_tiny_folder_and_its_zip_train_alike(tmp_path: Path, network: str, settings: dict[str, Any]) -> None:
    """Dark and bright images are told apart, the zip gives the same report, and the model judges a new image."""
    images = folders(tmp_path / "images")
    said: list[str] = []
    report = train_images(images, tmp_path / "out", said.append, network=network, settings=settings)
    assert (report["classes"], report["train"], report["test"]) == (["N", "V"], 16, 16)
    assert report["accuracy"] == 1.0
    assert report["sensitivity"] == {"N": 1.0, "V": 1.0}
    assert report["confusion"] == [[8, 0], [0, 8]]
    assert any("from elsewhere: resized" in line for line in said)
    assert json.loads((tmp_path / "out/report.json").read_text()) == report
    assert "| N | 100.00 | 100.00 | 8 | 0 |" in (tmp_path / "out/report.md").read_text()
    assert size_of(tmp_path / "out/confusion.png")[0] > 100
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", images))
    assert train_images(archive, tmp_path / "again", said.append, network=network, settings=settings) == report
    models, own = load_both(tmp_path / "out")
    assert own is not None
    for level, name in ((40, "N"), (200, "V")):
        result = classify_bytes("new.png", picture(level, 99, (64, 80)), models, own)
        assert (result["class"], result["network"]) == (name, network)
        assert abs(sum(result["probabilities"].values()) - 1) < 0.001
        assert np.shape(result["heat"]) == np.shape(result["picture"]) == (24, 48)


def test_ours_reads_the_features_of_our_images(tmp_path: Path) -> None:
    """Images alike to the eye but for the features in their text are told apart by ours; records enter the contract."""
    rng = np.random.default_rng(1)
    for part in ("train", "test"):
        for name, shift in (("A", -1.0), ("N", 1.0)):
            place = tmp_path / "images" / part / name
            place.mkdir(parents=True)
            for i in range(12):
                features = rng.normal(shift, 0.3, len(NAMES)).astype(np.float32)
                image = np.zeros((CHANNELS, COLUMNS, CONTRACT.bins), np.float32)
                (place / f"{i}.png").write_bytes(to_png(image, features, {"record": "100", "label": name}))
    report = train_images(tmp_path / "images", tmp_path / "out", lambda _: None, settings=OURS)
    assert (report["accuracy"], report["foreign"]) == (1.0, 0)
    own = PictureModel.load(tmp_path / "out")
    assert own is not None
    assert own.model.contract.training
    result = own.classify((tmp_path / "images/test/A/0.png").read_bytes())
    assert (result["class"], result["second"], result["rr_known"]) == ("A", "N", True)


def test_the_commands_train_and_classify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train --images` ends with the report; `classify --models` gives a class by the new network, and a heat map."""
    monkeypatch.setitem(training_networks.SETTINGS, "ours", OURS)
    images = folders(tmp_path / "images", 4)
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["train", "--images", str(images), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "Accuracy 100.00 %" in done.stderr
    command = ["classify", str(images / "test/V/0.png"), "--models", str(out), "--heat", str(tmp_path / "heat.png")]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(done.stdout)["class"] == "V"
    assert size_of(tmp_path / "heat.png") == (384, 192)
    # The page runs the same command with its own environment.
    monkeypatch.setenv("RHYTHMWATCH_MODELS", str(out))
    answer = asyncio.run(FileClassifier().classify("beat.png", (images / "test/V/0.png").read_bytes()))
    assert json.loads(answer)["network"] == "ours"
    done = CliRunner().invoke(app, ["train", "--images", str(tmp_path / "none"), "--out", str(out)])
    assert done.exit_code == 2
    assert "no folder train/" in done.stderr


def test_a_damaged_network_is_one_line(tmp_path: Path) -> None:
    """An image.onnx that is none says so; a folder without one gives none."""
    assert PictureModel.load(tmp_path) is None
    (tmp_path / "image.onnx").write_bytes(b"abc")
    with pytest.raises(ModelError, match=r"image\.onnx can't be used"):
        PictureModel.load(tmp_path)


def test_without_test_images_nothing_is_claimed(tmp_path: Path) -> None:
    """The report says that nothing is known, and draws no matrix."""
    images = folders(tmp_path / "images", 2)
    shutil.rmtree(images / "test")
    report = train_images(images, tmp_path / "out", lambda _: None, network="study", settings=STUDY | {"epochs": 1})
    assert report["accuracy"] is None
    assert "nothing is known" in markdown(report)
    assert not (tmp_path / "out/confusion.png").exists()


def test_what_holds_no_images_is_one_line(tmp_path: Path) -> None:
    """No folder train, one class, an empty one, a strange class in test, a file that is no picture."""
    with pytest.raises(ValueError, match="no folder train/"):
        train_images(tmp_path, tmp_path, print)
    images = folders(tmp_path / "images", 2)
    (images / "test/X").mkdir()
    with pytest.raises(ValueError, match="folder 'X'"):
        train_images(images, tmp_path, print)
    (images / "test/X").rmdir()
    (images / "train/N/notes.txt").write_text("x")
    with pytest.raises(ValueError, match="no PNG or JPEG by its name"):
        train_images(images, tmp_path, print)
    (images / "train/N/notes.txt").rename(images / "train/N/notes.png")
    with pytest.raises(ValueError, match=r"notes\.png: this is no PNG"):
        train_images(images, tmp_path, print)
    (images / "train/N/notes.png").unlink()
    for path in (images / "train/N").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="'N' has no images"):
        train_images(images, tmp_path, print)
    shutil.rmtree(images / "train/N")
    shutil.rmtree(images / "test/N")
    with pytest.raises(ValueError, match="1 classes"):
        train_images(images, tmp_path, print)


def zipped(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    """Write a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def link(name: str) -> zipfile.ZipInfo:
    """Entry of a symbolic link."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("../../evil.png", b"x", "leads elsewhere"),
        ("/evil.png", b"x", "leads elsewhere"),
        ("train/N/C:evil.png", b"x", "leads elsewhere"),
        ("train\\N\\evil.png", b"x", "leads elsewhere"),
        ("train/N/\x07.png", b"x", "leads elsewhere"),
        ("train/" + "n" * 300 + ".png", b"x", "leads elsewhere"),
        (link("train/N/link.png"), b"/etc/passwd", "leads elsewhere"),
        ("train/N/bomb.png", bytes(20 << 20), "would grow"),
        ("train/N/large.png", bytes(65 << 20), "64 are the most"),
    ],
)
def test_zips_that_would_do_harm_are_refused(
    tmp_path: Path, name: str | zipfile.ZipInfo, data: bytes, says: str
) -> None:
    """Names that lead elsewhere, links and bombs: one line, and nothing is written, not even the good file before."""
    archive = zipped(tmp_path / "a.zip", ("train/N/1.png", b"good"), (name, data))
    with pytest.raises(ValueError, match=says) as caught:
        unpacking.unpack(archive, tmp_path / "folder")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "folder").exists()


def test_zips_that_are_none_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is no zip, a cut one, too many files, too many bytes; what computers add is left out."""
    (tmp_path / "a.zip").write_text("x")
    with pytest.raises(ValueError, match="neither a folder nor a whole zip"):
        train_images(tmp_path / "a.zip", tmp_path, print)
    good = zipped(
        tmp_path / "b.zip", ("train/N/1.png", b"1"), ("__MACOSX/train/N/._1.png", b"2"), ("train/V/1.png", b"3")
    )
    assert unpacking.unpack(good, tmp_path / "b") == 2
    assert not (tmp_path / "b/__MACOSX").exists()
    (tmp_path / "c.zip").write_bytes(good.read_bytes()[:-30])
    with pytest.raises(ValueError, match="whole zip"):
        unpacking.unpack(tmp_path / "c.zip", tmp_path / "c")
    monkeypatch.setattr(unpacking, "MOST", 1)
    with pytest.raises(ValueError, match="2 files"):
        unpacking.unpack(good, tmp_path / "d")
    monkeypatch.setattr(unpacking, "MOST", 10)
    monkeypatch.setattr(unpacking, "LARGEST", 1)
    with pytest.raises(ValueError, match="unpacks to more"):
        unpacking.unpack(good, tmp_path / "e")
