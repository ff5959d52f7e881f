"""The accuracy report: figures, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from inference.training import scoring
from inference.training.records import CLASSES
from inference.training.scoring import GROUPS, Counts
from rhythmwatch.scores import Scored, figures_of, of_split

LETHAL: Final = ("ASYSTOLE", "VFIB", "VTACH")

INTRODUCTION: Final = """\
# Accuracy

Written by `rhythmwatch evaluate` (`make evaluate`). Every figure comes through the live pipeline from raw samples:
causal, one lead, its own R peaks, nothing learnt from the patient. What trained each model stands in
`inference/models/*.json`; DS2 never trained, tuned or calibrated anything. Conventions of `bxb` and EC57: window
150 ms, episodes of VF left out, beat classes without the first 5 min, QRS from the first second. DS1 trained: its
figures show the fit, not the accuracy.

## Gross

| records | QRS Se | +P | missed | false | Se, 50 ms | VEB Se | +P | F1 | SVEB Se | +P | F1 |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of an evaluation.

    Attributes
    ----------
    figures : dict
        As written to ``accuracy.json``.
    scored : tuple of Scored
        The records behind them.
    """

    figures: dict[str, Any]
    scored: tuple[Scored, ...]

    @classmethod
    def of(cls, scored: Sequence[Scored], version: str) -> Report:
        """Sum records up by split."""
        figures: dict[str, Any] = {"models": version, "all": figures_of(scored)}
        for name, items in of_split(scored).items():
            if items:
                figures[name] = figures_of(items)
        test = of_split(scored)["DS2"]
        if test:
            figures["DS2"]["interval_95"] = {
                "qrs_se": _interval([item.qrs for item in test], "sensitivity"),
                "qrs_ppv": _interval([item.qrs for item in test], "precision"),
                "veb_f1": _interval([scoring.veb(item.matrix) for item in test], "f1"),
                "sveb_f1": _interval([scoring.sveb(item.matrix) for item in test], "f1"),
            }
        figures["alarms"] = {kind: sum(item.alarms.get(kind, 0) for item in scored) for kind in _kinds(scored)}
        return cls(figures, tuple(scored))

    def markdown(self) -> str:
        """Write the page ``docs/accuracy.md``."""
        lines = INTRODUCTION.splitlines()
        sets = [name for name in ("DS2", "DS1", "paced", "all") if name in self.figures]
        lines.extend(_gross_row(name, self.figures[name]) for name in sets)
        if "interval_95" in self.figures.get("DS2", {}):
            bounds = self.figures["DS2"]["interval_95"]
            text = ", ".join(f"{name} {low:.4f} to {high:.4f}" for name, (low, high) in bounds.items())
            lines += ["", f"95 % intervals by record (bootstrap), DS2: {text}."]
        lines += ["", "## Per record", "", *_record_table(self.scored)]
        for name, items in of_split(self.scored).items():
            if name == "DS2" and items:
                lines += ["", "## Confusion, DS2, AAMI groups", "", *_confusion(items)]
                lines += ["", "## Eight classes, DS2, whole records", "", *_classes(items)]
        lines += ["", "## Lethal alarms", "", *_alarm_table(self.scored)]
        return "\n".join(lines) + "\n"


def _interval(records: Sequence[Counts], name: str) -> tuple[float, float]:
    low, high = scoring.interval(records, lambda counts: float(getattr(counts, name)))
    return round(low, 4), round(high, 4)


def _kinds(scored: Sequence[Scored]) -> list[str]:
    return sorted({kind for item in scored for kind in item.alarms})


def _gross_row(name: str, figures: dict[str, Any]) -> str:
    qrs, near, veb, sveb = (figures[key] for key in ("qrs", "qrs_50ms", "veb", "sveb"))
    return (
        f"| {name} ({len(figures['records'])}) | {qrs['se']:.2f} | {qrs['ppv']:.2f} | {qrs['missed']} | {qrs['false']} "
        f"| {near['se']:.2f} | {veb['se']:.1f} | {veb['ppv']:.1f} | {veb['f1']:.3f} "
        f"| {sveb['se']:.1f} | {sveb['ppv']:.1f} | {sveb['f1']:.3f} |"
    )


def _record_table(scored: Sequence[Scored]) -> list[str]:
    lines = [
        "| record | set | missed | false | VEB Se | VEB +P | V | SVEB Se | SVEB +P | S |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    sets = {item.name: name for name, items in of_split(scored).items() for item in items}
    for item in scored:
        veb, sveb = scoring.veb(item.matrix), scoring.sveb(item.matrix)
        cells = [item.name, sets.get(item.name, ""), str(item.qrs.fn), str(item.qrs.fp)]
        for counts in (veb, sveb):
            cells += [_percent(counts.sensitivity), _percent(counts.precision), str(counts.tp + counts.fn)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _percent(value: float) -> str:
    return "" if value != value else f"{100 * value:.1f}"


def _confusion(scored: Sequence[Scored]) -> list[str]:
    matrix = np.sum([item.matrix for item in scored], axis=0)
    lines = [f"| reference | {' | '.join(GROUPS)} | missed |", "|---" * (len(GROUPS) + 2) + "|"]
    for name, row in zip((*GROUPS, "invented"), matrix, strict=True):
        lines.append(f"| {name} | {' | '.join(str(value) for value in row)} |")
    return lines


def _classes(scored: Sequence[Scored]) -> list[str]:
    matrix = np.sum([item.classes for item in scored], axis=0)
    lines = [
        "| class | beats | Se | +P | specificity | F1 |",
        "|---|---|---|---|---|---|",
    ]
    total = int(matrix.sum())
    for number, name in enumerate(CLASSES):
        tp = int(matrix[number, number])
        fn, fp = int(matrix[number].sum()) - tp, int(matrix[:, number].sum()) - tp
        counts = Counts(tp, fn, fp)
        negative = total - tp - fn
        specificity = (negative - fp) / negative if negative else float("nan")
        f1 = "" if counts.f1 != counts.f1 else f"{counts.f1:.3f}"
        cells = (_percent(counts.sensitivity), _percent(counts.precision), _percent(specificity), f1)
        lines.append(f"| {name} | {tp + fn} | {' | '.join(cells)} |")
    return lines


def _alarm_table(scored: Sequence[Scored]) -> list[str]:
    hours = sum(item.hours for item in scored)
    lines = [f"In {hours:.1f} h, by record (records without one are left out).", "", "| record | alarms |", "|---|---|"]
    for item in scored:
        found = [f"{kind} {item.alarms[kind]}" for kind in LETHAL if kind in item.alarms]
        if found:
            lines.append(f"| {item.name} | {', '.join(found)} |")
    return lines
