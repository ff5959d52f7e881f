"""The source study's network from folders of images, or a zip of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rhythmwatch.training_images import train_images


def test_a_tiny_folder_and_its_zip_train_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dark and bright images are told apart; the zip gives the very same report."""
    monkeypatch.setattr("rhythmwatch.training_images.SETTINGS", {
        "epochs": 30, "batch": 16, "rate": 1e-4, "decay": 0.0, "balance": 0.5, "cycle": False,
    })  # fmt: skip
    rng = np.random.default_rng(1)
    for part in ("train", "test"):
        for name, level in (("N", 40), ("V", 200)):
            place = tmp_path / "images" / part / name
            place.mkdir(parents=True)
            for i in range(8):
                noise = rng.integers(level - 30, level + 30, (24, 48)).astype(np.uint8)
                Image.fromarray(noise).save(place / f"{i}.png")
    report = train_images(tmp_path / "images", tmp_path, lambda _: None)
    assert (report["classes"], report["train"], report["test"]) == (["N", "V"], 16, 16)
    assert report["accuracy"] == 1.0
    assert (tmp_path / "study.onnx").is_file()
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "images")
    assert train_images(Path(archive), tmp_path, lambda _: None) == report


def test_what_holds_no_images_is_one_line(tmp_path: Path) -> None:
    """No folder train, or a file that is no zip."""
    with pytest.raises(ValueError, match="no folder train/"):
        train_images(tmp_path, tmp_path, print)
    (tmp_path / "a.zip").write_text("x")
    with pytest.raises(ValueError, match="neither a folder nor a zip"):
        train_images(tmp_path / "a.zip", tmp_path, print)
