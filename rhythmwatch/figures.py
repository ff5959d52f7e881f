"""Figures of an evaluation, as written to ``accuracy.json``: plain numbers by name, percentages unless said."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from inference.training import scoring, splits
from inference.training.records import CLASSES
from inference.training.scoring import GROUPS, Counts
from rhythmwatch.challenge import challenge_figures
from rhythmwatch.class_figures import by_class, reliability
from rhythmwatch.episodes import (
    LETHAL,
    Timeline,
    af_negative,
    af_seconds,
    episode_scores,
    false_lethal,
    percent,
    shock_figures,
    spans_of,
    summed,
)
from rhythmwatch.results import Results
from rhythmwatch.scores import Scored

SETS: Final = {"DS2": splits.DS2, "DS1": splits.DS1, "paced": splits.PACED}
LARGEST: Final = "232"
"""Record that holds three quarters of the S beats of DS2."""

DOUBTFUL: Final = ("610", "418", "602")
"""Records of vfdb whose labels are not to be trusted."""

_BUNDLES: Final = {"LBBB": CLASSES.index("L"), "RBBB": CLASSES.index("R")}


def of_results(results: Results, models: Path) -> dict[str, Any]:
    """Make all figures that the results hold.

    Parameters
    ----------
    results : Results
        In order.
    models : Path
        Folder of the models, for the reports of their training.
    """
    figures: dict[str, Any] = {"beats": _beats(results.beats)}
    mitdb = results.of_database("mitdb")
    if mitdb:
        figures["af"] = {
            name: af_figures([item for item in mitdb if item.name in wanted])
            for name, wanted in SETS.items()
            if any(item.name in wanted for item in mitdb)
        }
        figures["false_lethal"] = lethal_figures(mitdb)
    if results.noise:
        figures["noise"] = {name: row(counts) for name, counts in results.noise.items()}
    if results.motion is not None:
        figures["motion_hour"] = {
            kind: sum(alarm.kind == kind for alarm in results.motion)
            for kind in sorted({*LETHAL, *(alarm.kind for alarm in results.motion)})
        }
        figures["motion_hour"]["lethal"] = sum(alarm.kind in LETHAL for alarm in results.motion)
    vfdb = results.of_database("vfdb")
    if vfdb:
        figures["vfdb"] = {"all": shock_figures(vfdb)}
        for name in DOUBTFUL:
            if any(item.name == name for item in vfdb):
                figures["vfdb"][f"without {name}"] = shock_figures([item for item in vfdb if item.name != name])
        figures["vfdb"]["records"] = {item.name: shock_figures([item]) for item in vfdb}
    if results.challenge:
        figures["cinc2017"] = challenge_figures(results.challenge)
    figures["training"] = reports(models)
    return {key: plain(value) for key, value in figures.items()}


def plain(value: Any) -> Any:
    """Make JSON of it: NaN becomes None, floats keep 4 digits behind the point."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 4) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def row(counts: Counts) -> dict[str, float | int]:
    """Sensitivity and precision in percent, F1 from 0 to 1, and the counts."""
    return {
        "se": 100 * counts.sensitivity,
        "ppv": 100 * counts.precision,
        "f1": counts.f1,
        "beats": counts.tp + counts.fn,
        "missed": counts.fn,
        "false": counts.fp,
    }


def _sensitivity(counts: Counts) -> float:
    return counts.sensitivity


def _precision(counts: Counts) -> float:
    return counts.precision


def _f1(counts: Counts) -> float:
    return counts.f1


def full_row(records: Sequence[Counts]) -> dict[str, Any]:
    """Gross and average figures with 95 % intervals by record."""
    figures: dict[str, Any] = dict(row(scoring.gross(records)))
    each: tuple[tuple[str, Callable[[Counts], float], float], ...] = (
        ("se", _sensitivity, 100), ("ppv", _precision, 100), ("f1", _f1, 1),
    )  # fmt: skip
    for name, statistic, scale in each:
        figures[f"average_{name}"] = scale * scoring.average(records, statistic)
        figures[f"{name}_95"] = [scale * bound for bound in scoring.interval(records, statistic)]
    return figures


def _beats(scored: Sequence[Scored]) -> dict[str, Any]:
    groups = {name: [item for item in scored if item.name in wanted] for name, wanted in SETS.items()}
    groups["all"] = list(scored)
    figures = {name: _set(items) for name, items in groups.items() if items}
    figures["records"] = {item.name: _record(item) for item in scored}
    return figures


def _set(items: Sequence[Scored]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "records": [item.name for item in items],
        "qrs": full_row([item.qrs for item in items]),
        "qrs_50ms": full_row([item.qrs_50 for item in items]),
        "qrs_bxb": full_row([item.qrs_bxb for item in items]),
        "veb": full_row([scoring.veb(item.matrix) for item in items]),
        "sveb": full_row([scoring.sveb(item.matrix) for item in items]),
    }
    others = [scoring.sveb(item.matrix) for item in items if item.name != LARGEST]
    if 0 < len(others) < len(items):
        figures[f"sveb_without_{LARGEST}"] = full_row(others)
    for name, number in _BUNDLES.items():
        figures[name.lower()] = full_row([bundle(item, number) for item in items])
    matrix = np.sum([item.classes for item in items], axis=0)
    groups = np.sum([item.matrix for item in items], axis=0)
    probabilities = np.concatenate([item.probabilities for item in items])
    wanted = np.concatenate([item.classes_known for item in items])
    named = matrix[:-1, :-1]
    figures["classes"] = by_class(matrix, CLASSES, probabilities, wanted)
    figures["accuracy"] = percent(int(named.trace()), int(named.sum()))
    figures["calibration"] = reliability(probabilities, wanted)
    figures["matrix_classes"] = matrix.tolist()
    figures["matrix_groups"] = groups.tolist()
    figures["group_accuracy"] = percent(int(groups[:5, :5].trace()), int(groups[:5, :5].sum()))
    return figures


def bundle(item: Scored, number: int) -> Counts:
    """One bundle branch block against normal beats: only beats that the reference calls N, L or R count."""
    rows = item.classes[[CLASSES.index(code) for code in "NLR"]]
    tp = int(item.classes[number, number])
    return Counts(tp, int(item.classes[number].sum()) - tp, int(rows[:, number].sum()) - tp)


def _record(item: Scored) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "set": next((name for name, wanted in SETS.items() if item.name in wanted), ""),
        "qrs": row(item.qrs),
        "veb": row(scoring.veb(item.matrix)),
        "sveb": row(scoring.sveb(item.matrix)),
    }
    for name, number in _BUNDLES.items():
        counts = bundle(item, number)
        if counts.tp + counts.fn + counts.fp:
            figures[name.lower()] = row(counts)
    return figures


def af_figures(items: Sequence[Timeline]) -> dict[str, Any]:
    """AF by second and by episode."""
    counts = scoring.gross([af_seconds(item) for item in items])
    negative = sum(af_negative(item) for item in items)
    return {
        "se": 100 * counts.sensitivity,
        "sp": percent(negative - counts.fp, negative),
        "ppv": 100 * counts.precision,
        "seconds": counts.tp + counts.fn,
        "other_seconds": negative,
        "episodes": summed([episode_scores(item.episodes["af"], spans_of(item.marked == "AFIB")) for item in items]),
        "records": {
            item.name: {"se": 100 * each.sensitivity, "false": each.fp, "seconds": each.tp + each.fn}
            for item in items
            for each in [af_seconds(item)]
            if each.tp + each.fn + each.fp
        },
    }


def lethal_figures(items: Sequence[Timeline]) -> dict[str, Any]:
    """Find false lethal alarms: in records without any such event, and in all, apart from events."""
    calm = [item for item in items if not item.episodes["lethal"]]

    def listed(chosen: Sequence[Timeline]) -> list[list[Any]]:
        return [[item.name, alarm.kind, alarm.onset_s] for item in chosen for alarm in false_lethal(item)]

    return {
        "records_without_event": [item.name for item in calm],
        "hours": sum(item.hours for item in calm),
        "false": listed(calm),
        "all_hours": sum(item.hours for item in items),
        "all_false": listed(items),
    }


def reports(models: Path) -> dict[str, Any]:
    """Read the reports of the trainers that lie beside the models, by model name."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(models.glob("*.json"))}


def group_names() -> tuple[str, ...]:
    """Rows of the AAMI matrix."""
    return (*GROUPS, "invented")
