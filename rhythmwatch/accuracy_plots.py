"""Plots of the accuracy report: confusion matrices, ROC curves, reliability, training curves; small PNG files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from inference.training.records import CLASSES
from inference.training.scoring import GROUPS
from rhythmwatch.class_figures import roc
from rhythmwatch.figures import SETS
from rhythmwatch.results import Results

_DPI: Final = 80
_SHOWN: Final = 30
"""Classes with fewer beats than this get no ROC curve."""


def draw(results: Results, figures: dict[str, Any], folder: Path) -> tuple[str, ...]:
    """Draw what the results hold.

    Parameters
    ----------
    results : Results
    figures : dict
        From `rhythmwatch.figures`.
    folder : Path
        Where the PNG files go; made if it is not there.

    Returns
    -------
    tuple of str
        Names of the files.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    made = []
    folder.mkdir(parents=True, exist_ok=True)
    test = figures["beats"].get("DS2")
    if test:
        made.append(_save(folder, "confusion-groups", lambda axes: _matrix(axes, test["matrix_groups"], GROUPS)))
        made.append(_save(folder, "confusion-classes", lambda axes: _matrix(axes, test["matrix_classes"], CLASSES)))
        made.append(_save(folder, "roc", lambda axes: _roc(axes, results)))
        made.append(_save(folder, "reliability", lambda axes: _reliability(axes, test["calibration"])))
    for model, report in figures["training"].items():
        curves = training_curves(report)
        if curves:
            made.append(_save(folder, f"training-{model}", partial(_curves, curves=curves)))
    return tuple(made)


def training_curves(report: Any, name: str = "") -> dict[str, list[float]]:
    """Curves that a trainer's report holds under ``curves`` or ``history``, by name.

    Parameters
    ----------
    report : object
        JSON of the report.
    name : str
        Of the part that is looked at.
    """
    if not isinstance(report, dict):
        return {}
    found: dict[str, list[float]] = {}
    for key, value in report.items():
        if key in ("curves", "history"):
            found |= _lists(value, name)
        else:
            found |= training_curves(value, key)
    return found


def _lists(value: Any, name: str) -> dict[str, list[float]]:
    if isinstance(value, list) and value and all(isinstance(item, (int, float)) for item in value):
        return {name or "loss": [float(item) for item in value]}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        keys = [key for key, item in value[0].items() if isinstance(item, (int, float)) and key != "epoch"]
        value = {key: [item[key] for item in value if key in item] for key in keys}
    if isinstance(value, dict):
        parts = [_lists(item, f"{name} {key}".strip()) for key, item in value.items()]
        return {key: curve for part in parts for key, curve in part.items()}
    return {}


def _save(folder: Path, name: str, fill: Callable[[Any], None]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 4.4), dpi=_DPI, layout="constrained")
    fill(figure.add_subplot())
    # No date and no version in the file: the same figures make the same bytes.
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    return f"{name}.png"


def _matrix(axes: Any, counts: list[list[int]], names: tuple[str, ...]) -> None:
    matrix = np.array(counts, np.float64)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(matrix):
        if value:
            axes.text(
                j,
                i,
                f"{int(value)}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if share[i, j] > 0.6 else "black",
            )
    axes.set_xticks(range(len(names) + 1), [*names, "missed"])
    axes.set_yticks(range(len(names) + 1), [*names, "invented"])
    axes.set_xlabel("found")
    axes.set_ylabel("reference")
    axes.set_title("DS2, beats; colour: share of the row")


def _roc(axes: Any, results: Results) -> None:
    items = [item for item in results.beats if item.name in SETS["DS2"]]
    probabilities = np.concatenate([item.probabilities for item in items])
    wanted = np.concatenate([item.classes_known for item in items])
    for number, name in enumerate(CLASSES):
        positive = wanted == number
        if _SHOWN <= positive.sum() < len(positive):
            false, true = roc(probabilities[:, number], positive)
            keep = np.unique(np.linspace(0, len(false) - 1, min(len(false), 2000)).astype(np.int64))
            axes.plot(np.maximum(false[keep], 1e-5), true[keep], label=f"{name} ({int(positive.sum())})", linewidth=1.2)
    axes.set_xscale("log")
    axes.set_xlim(1e-5, 1)
    axes.set_ylim(0, 1.01)
    axes.set_xlabel("1 - specificity (logarithmic)")
    axes.set_ylabel("sensitivity")
    axes.set_title("DS2, one class against the rest")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8, loc="lower right")


def _reliability(axes: Any, calibration: dict[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.plot(calibration["confidence"], calibration["right"], marker="o", markersize=4)
    for x, y, count in zip(calibration["confidence"], calibration["right"], calibration["count"], strict=True):
        axes.annotate(str(count), (x, y), textcoords="offset points", xytext=(3, -9), fontsize=6)
    axes.set_xlabel("probability of the class found")
    axes.set_ylabel("share that is right")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_title(f"DS2, calibration: ECE {calibration['ece']:.4f} (numbers: beats)")
    axes.grid(alpha=0.3)


def _curves(axes: Any, curves: dict[str, list[float]]) -> None:
    for name, values in curves.items():
        axes.plot(range(1, len(values) + 1), values, label=name, linewidth=1.2)
    axes.set_xlabel("epoch")
    axes.set_title("training")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
