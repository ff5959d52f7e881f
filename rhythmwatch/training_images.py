"""Train a network on folders of spectral images: ``train/CLASS/*.png`` and ``test/CLASS/*.png``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from inference.features import NAMES
from inference.features_image import CHANNELS, COLUMNS, CONTRACT
from inference.training.splits import training_hash
from rhythmwatch.picture_model import FILE, SIDE, study_pixels
from rhythmwatch.pictures import PictureError, read_picture
from rhythmwatch.training_networks import TRAINERS, Trained
from rhythmwatch.unpacking import unpack

SUFFIXES: Final = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class Images:
    """Images of one part.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (m, 64, 64)
        As the study's network reads them.
    channels : ndarray of float16, shape (m, CHANNELS, COLUMNS, BINS)
        As ours does.
    features : ndarray of float32, shape (m, len(NAMES))
        NaN where an image brought none.
    labels : ndarray of int64, shape (m,)
    records : tuple of str
        Names of the records that images of ours came from.
    foreign : int
        Images that are not ours.
    """

    pixels: NDArray[np.uint8]
    channels: NDArray[np.float16]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    records: tuple[str, ...]
    foreign: int


def train_images(
    images: Path,
    out: Path,
    progress: Callable[[str], None],
    *,
    network: str = "ours",
    seed: int = 1,
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train on ``train``, report on ``test``.

    Parameters
    ----------
    images : Path
        Folder, or a zip of one.
    out : Path
        Gets ``image.onnx``, ``report.json``, ``report.md`` and ``confusion.png``.
    progress : callable
        Told what is done.
    network : str
        ``ours`` (reads the channels and features of our images; of others the brightness) or ``study``.
    seed : int
    settings : dict, optional
        In place of `rhythmwatch.training_networks.SETTINGS` of the network.

    Returns
    -------
    dict
        ``network``, ``classes``, ``train``, ``test`` (images), ``foreign``, ``loss`` of each epoch, ``accuracy`` and
        ``sensitivity``, ``precision`` by class (None where nothing tests), ``confusion`` (rows are true).

    Raises
    ------
    ValueError
        No such folders, fewer than two classes, a class without images, or a file that is no picture.
    """
    if images.is_file():
        with tempfile.TemporaryDirectory() as folder:
            progress(f"unpacked {unpack(images, Path(folder))} files")
            return train_images(Path(folder), out, progress, network=network, seed=seed, settings=settings)
    root = next((path.parent for path in sorted(images.rglob("train")) if path.is_dir()), None)
    if root is None:
        raise ValueError(f"{images} holds no folder train/ with a folder of images for each class")
    classes = _folders(root / "train")
    if len(classes) < 2:
        raise ValueError(f"{root / 'train'} has {len(classes)} classes, two are the least")
    unknown = sorted(set(_folders(root / "test")) - set(classes))
    if unknown:
        raise ValueError(f"{root / 'test'} has a folder {unknown[0]!r} that train/ has not: name the classes alike")
    train = read_images(root / "train", classes, progress)
    empty = [name for number, name in enumerate(classes) if number not in train.labels]
    if empty:
        raise ValueError(f"class {empty[0]!r} has no images in train/: add some or remove its folder")
    test = read_images(root / "test", classes, progress)
    progress(f"{len(train.labels)} images to train on, {len(test.labels)} to test, classes {', '.join(classes)}")
    if train.foreign:
        progress(
            f"{train.foreign} of them are from elsewhere: resized, brightness taken for magnitude; no RR interval, "
            "shape or phase is known of them"
        )
    trained: Trained = TRAINERS[network](
        train, classes, seed, settings, training_hash(train.records), lambda text: progress(text)
    )
    said = trained.predict(test).argmax(axis=1) if len(test.labels) else np.zeros(0, np.int64)
    report = {"network": network, "foreign": train.foreign, "train": len(train.labels), "loss": trained.losses,
              **scored(classes, test.labels, said)}  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    trained.save(out / FILE)
    write_report(out, report)
    progress(markdown(report))
    return report


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def read_images(folder: Path, classes: list[str], progress: Callable[[str], None]) -> Images:
    """Read the pictures of class folders, in order of their names.

    Parameters
    ----------
    folder : Path
    classes : list of str
        Names of its folders; one that is not there has no images.
    progress : callable
        Told after each class.

    Raises
    ------
    ValueError
        A file that is no picture, or made for other parameters than this version's.
    """
    pixels, channels, features, labels = [], [], [], []
    records: set[str] = set()
    foreign = 0
    unknown = np.full(len(NAMES), np.nan, np.float32)
    for number, name in enumerate(classes):
        paths = sorted(p for p in (folder / name).glob("*") if p.is_file() and not p.name.startswith("."))
        for path in paths:
            if path.suffix.lower() not in SUFFIXES:
                raise ValueError(f"{path} is no PNG or JPEG by its name: leave only pictures in class folders")
            data = path.read_bytes()
            try:
                picture = read_picture(data, unknown)
                pixels.append(study_pixels(data))
            except PictureError as error:
                raise ValueError(f"{path}: {error}") from error
            channels.append(picture.image.astype(np.float16))
            features.append(picture.features)
            labels.append(number)
            foreign += not picture.exact
            if "record" in picture.about:
                records.add(str(picture.about["record"]))
        if paths:
            progress(f"read {folder.name}/{name}: {len(paths)} images")
    m = len(labels)
    return Images(
        np.array(pixels, np.uint8).reshape(m, SIDE, SIDE), np.array(channels, np.float16).reshape(m, *_shape()),
        np.array(features, np.float32).reshape(m, len(NAMES)), np.array(labels, np.int64), tuple(sorted(records)),
        foreign,
    )  # fmt: skip


def _shape() -> tuple[int, int, int]:
    return CHANNELS, COLUMNS, CONTRACT.bins


def scored(classes: list[str], truth: NDArray[np.int64], said: NDArray[np.int64]) -> dict[str, Any]:
    """Compare test labels with verdicts; the keys are those of `train_images`."""
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (truth, said), 1)
    right, true, called = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)

    def shares(of: NDArray[np.int64]) -> dict[str, float | None]:
        return {c: round(r / n, 4) if n else None for c, r, n in zip(classes, right.tolist(), of.tolist(), strict=True)}

    accuracy = round(float(right.sum() / len(truth)), 4) if len(truth) else None
    return {
        "classes": classes, "test": len(truth), "accuracy": accuracy,
        "sensitivity": shares(true), "precision": shares(called), "confusion": confusion.tolist(),
    }  # fmt: skip


def markdown(report: dict[str, Any]) -> str:
    """Write a report as text for people."""
    classes = report["classes"]
    lines = [
        f"# Network on images: {report['network']}", "",
        f"{report['train']} images trained it ({report['foreign']} from elsewhere), {report['test']} tested it.", "",
    ]  # fmt: skip
    if report["accuracy"] is None:
        return "\n".join([*lines, "No folder test/ with images: nothing is known of its accuracy."]) + "\n"

    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.2f}"

    lines += [f"Accuracy {percent(report['accuracy'])} %. Rows are true, columns said:", ""]
    lines += ["| class | Se, % | +P, % | " + " | ".join(classes) + " |", "|" + "---|" * (3 + len(classes))]
    for name, row in zip(classes, report["confusion"], strict=True):
        figures = [percent(report["sensitivity"][name]), percent(report["precision"][name]), *map(str, row)]
        lines.append(f"| {name} | " + " | ".join(figures) + " |")
    return "\n".join(lines) + "\n"


def write_report(out: Path, report: dict[str, Any]) -> None:
    """Write ``report.json``, ``report.md`` and, if something was tested, ``confusion.png``."""
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    if report["accuracy"] is None:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    confusion = np.array(report["confusion"], float)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    size = 2 + 0.6 * len(shares)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = FigureCanvasAgg(figure).figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(shares)), report["classes"], rotation=45)
    axes.set_yticks(range(len(shares)), report["classes"])
    axes.set_xlabel("said")
    axes.set_ylabel("true")
    axes.set_title(f"accuracy {100 * report['accuracy']:.2f} %, {report['test']} images")
    for i, row in enumerate(report["confusion"]):
        for j, count in enumerate(row):
            if count:
                axes.text(j, i, str(count), ha="center", va="center", color="white" if shares[i, j] > 0.5 else "black")
    figure.savefig(out / "confusion.png", dpi=110)
