"""Train the source study's network from folders of spectral images: ``train/CLASS/*.png`` and ``test/CLASS/*.png``."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from inference.training.baselines.fitting import fit, predict
from inference.training.baselines.study_cnn import SIDE, StudyCnn, coloured, to_onnx

SETTINGS: Final[dict[str, Any]] = {
    "epochs": 8, "batch": 64, "rate": 1e-3, "decay": 1e-4, "balance": 0.5, "cycle": True,
}  # fmt: skip
LARGEST: Final = 4 << 30
"""Bytes that a zip may unpack to."""


def train_images(images: Path, out: Path, progress: Callable[[str], None], seed: int = 1) -> dict[str, Any]:
    """Train on ``train`` and report on ``test``.

    Parameters
    ----------
    images : Path
        Folder, or a zip of one.
    out : Path
        Gets ``study.onnx`` and ``study.json``.
    progress : callable
        Told what is done.
    seed : int

    Returns
    -------
    dict
        ``classes``, ``train``, ``test`` (images), ``loss`` of each epoch, ``accuracy``, ``confusion`` (rows are true).

    Raises
    ------
    ValueError
        No such folders, fewer than two classes, or a file that is no picture.
    """
    if images.is_file():
        with tempfile.TemporaryDirectory() as folder:
            try:
                with zipfile.ZipFile(images) as archive:
                    if sum(item.file_size for item in archive.infolist()) > LARGEST:
                        raise ValueError(f"{images} unpacks to more than {LARGEST >> 30} GiB")
                    archive.extractall(folder)
            except zipfile.BadZipFile as error:
                raise ValueError(f"{images} is neither a folder nor a zip") from error
            return train_images(Path(folder), out, progress, seed)
    root = next((path.parent for path in sorted(images.rglob("train")) if path.is_dir()), None)
    if root is None:
        raise ValueError(f"{images} holds no folder train/ with a folder of images for each class")
    classes = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
    if len(classes) < 2:
        raise ValueError(f"{root / 'train'} has {len(classes)} classes, two are the least")
    x, y = _read(root / "train", classes)
    tested, truth = _read(root / "test", classes)
    progress(f"{len(y)} images to train on, {len(truth)} to test, classes {', '.join(classes)}")
    torch.manual_seed(seed)
    network, losses = fit(StudyCnn(len(classes)), lambda i: coloured(x[i]), np.eye(len(classes), dtype=bool)[y],
                          SETTINGS, seed)  # fmt: skip
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    if len(truth):
        said = predict(network, lambda i: coloured(tested[i]), len(truth)).argmax(axis=1)
        np.add.at(confusion, (truth, said), 1)
    report = {
        "classes": classes, "train": len(y), "test": len(truth), "loss": losses, "confusion": confusion.tolist(),
        "accuracy": float(np.trace(confusion) / len(truth)) if len(truth) else None,
    }  # fmt: skip
    onnx.save(to_onnx(network), str(out / "study.onnx"))
    (out / "study.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    progress(f"accuracy on the test images: {report['accuracy']}")
    return report


def _read(folder: Path, classes: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    pictures, labels = [np.zeros((0, SIDE, SIDE), np.uint8)], []
    for number, name in enumerate(classes):
        for path in sorted((folder / name).glob("*")):
            try:
                with Image.open(path, formats=("PNG", "JPEG")) as opened:
                    small = opened.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            except (UnidentifiedImageError, OSError) as error:
                raise ValueError(f"{path} is no PNG or JPEG picture") from error
            pictures.append(np.asarray(small, np.uint8)[None])
            labels.append(number)
    return np.concatenate(pictures), np.array(labels, np.int64)
