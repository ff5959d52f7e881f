"""What the figures are held against: for each measure a floor and an aim, and where it stands in the figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Target:
    """One measure.

    Attributes
    ----------
    measure : str
        For people.
    place : tuple of str
        Keys to the figure.
    floor, aim : float or None
        None where the figure is only reported.
    digits : int
        Behind the point.
    low : bool
        Whether less is better.
    scale : float
        What the figure is multiplied by.
    """

    measure: str
    place: tuple[str, ...]
    floor: float | None
    aim: float | None
    digits: int = 2
    low: bool = False
    scale: float = 1.0

    def value(self, figures: dict[str, Any]) -> float | None:
        """Look the figure up; None where it was not measured."""
        found: Any = figures
        for key in self.place:
            if not isinstance(found, dict) or key not in found:
                return None
            found = found[key]
        if isinstance(found, list):
            return float(len(found))
        return None if found is None else self.scale * float(found)

    def verdict(self, value: float | None) -> str:
        """Say in words what the figure reaches: ``aim``, ``floor``, ``below``, or nothing."""
        if value is None or self.floor is None:
            return ""
        reached: Callable[[float], bool] = (lambda mark: value <= mark) if self.low else (lambda mark: value >= mark)
        if self.aim is not None and reached(self.aim):
            return "aim"
        return "floor" if reached(self.floor) else "**below**"


TARGETS: Final = (
    Target("random split, 8 classes: accuracy, %", ("training", "random_split", "accuracy"), 99.3, 99.6, scale=100),
    Target(
        "random split, 8 classes: mean sensitivity, %",
        ("training", "random_split", "mean_sensitivity"),
        97,
        99,
        scale=100,
    ),
    Target("QRS, 48 records, from the first second: Se, %", ("beats", "all", "qrs", "se"), 99.85, 99.95, 3),
    Target("QRS, 48 records, from the first second: +P, %", ("beats", "all", "qrs", "ppv"), 99.85, 99.95, 3),
    Target("QRS, 48 records, without the first 5 min: Se, %", ("beats", "all", "qrs_bxb", "se"), 99.85, 99.95, 3),
    Target("QRS, 48 records, without the first 5 min: +P, %", ("beats", "all", "qrs_bxb", "ppv"), 99.85, 99.95, 3),
    Target(
        "QRS of patients never trained on, both ways round: Se, %",
        ("training", "qrs_strangers", "pooled", "sensitivity"),
        99.70,
        99.90,
        3,
    ),
    Target(
        "QRS of patients never trained on, both ways round: +P, %",
        ("training", "qrs_strangers", "pooled", "precision"),
        99.80,
        99.90,
        3,
    ),
    Target("noise, 24 dB: QRS Se, %", ("noise", "118e24", "se"), 99.9, 100),
    Target("noise, 24 dB: QRS +P, %", ("noise", "118e24", "ppv"), 99.8, 99.9),
    Target("noise, 12 dB: QRS Se, %", ("noise", "118e12", "se"), 99.5, 99.9),
    Target("noise, 12 dB: QRS +P, %", ("noise", "118e12", "ppv"), 98, 99.5),
    Target("noise, 0 dB: QRS Se, %", ("noise", "118e00", "se"), 93, 97),
    Target("noise, 0 dB: QRS +P, %", ("noise", "118e00", "ppv"), 72, 88),
    Target("noise, -6 dB: QRS Se, %", ("noise", "118e_6", "se"), None, None),
    Target("noise, -6 dB: QRS +P, %", ("noise", "118e_6", "ppv"), None, None),
    Target("DS2 VEB, F1", ("beats", "DS2", "veb", "f1"), 0.94, 0.975, 3),
    Target("DS2 SVEB, F1", ("beats", "DS2", "sveb", "f1"), 0.72, 0.88, 3),
    Target("DS2 SVEB without record 232, F1", ("beats", "DS2", "sveb_without_232", "f1"), 0.42, 0.65, 3),
    Target("DS2 LBBB against normal, F1", ("beats", "DS2", "lbbb", "f1"), None, 0.90, 3),
    Target("DS2 RBBB against normal, F1", ("beats", "DS2", "rbbb", "f1"), None, 0.90, 3),
    Target("vfdb test, 4-s windows: VF and VFL, Se, %", ("vfdb", "all", "vf"), 90, 97, 1),
    Target("vfdb test, 4-s windows: VT, Se, %", ("vfdb", "all", "vt"), 90, 98, 1),
    Target("vfdb test, 4-s windows: specificity, %", ("vfdb", "all", "specificity"), 97, 99.5, 1),
    Target("vfdb test: alarm delay, median, s", ("vfdb", "all", "delay_median"), 5, 4, 1, low=True),
    Target("vfdb test without 610: VF and VFL, Se, %", ("vfdb", "without 610", "vf"), 90, 97, 1),
    Target("vfdb test without 610: VT, Se, %", ("vfdb", "without 610", "vt"), 90, 98, 1),
    Target("vfdb test without 610: specificity, %", ("vfdb", "without 610", "specificity"), 97, 99.5, 1),
    Target("false lethal alarms, mitdb records without an event", ("false_lethal", "false"), 1, 0, 0, low=True),
    Target("false VFIB, 118 with electrode motion, 1 h", ("motion_hour", "VFIB"), None, None, 0),
    Target("false VTACH, 118 with electrode motion, 1 h", ("motion_hour", "VTACH"), None, None, 0),
    Target("false ASYSTOLE, 118 with electrode motion, 1 h", ("motion_hour", "ASYSTOLE"), None, None, 0),
    Target("the three together", ("motion_hour", "lethal"), 4, 0, 0, low=True),
    Target("cinc2017 test: F1 of AF", ("cinc2017", "f1_af_half"), 0.84, 0.90, 3),
    Target("cinc2017 test: mean F1 of N, A, O", ("cinc2017", "mean_f1"), 0.80, 0.86, 3),
    Target("AF by second, DS2: Se, %", ("af", "DS2", "se"), 95, 98, 1),
    Target("AF by second, DS2: Sp, %", ("af", "DS2", "sp"), 94, 99, 1),
)
"""The measures of the page's first table."""
