"""The script of a simulated patient: rhythms in order, each with its length and options, as a short text.

``sinus:30,hr=70; vt:12,hr=180; sinus:60`` is 30 s of sinus rhythm at 70/min, 12 s of ventricular tachycardia and a
minute of sinus rhythm. Options are numbers; `docs/simulator.md` lists them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

COMMON: Final[Mapping[str, float]] = {
    "amp": 1.0,
    "wander": 0.04,
    "muscle": 0.01,
    "motion": 0.0,
    "mains": 0.0,
    "pvc": 0.0,
    "pac": 0.0,
    "form": 1.0,
}
"""Options of every rhythm: size of the complexes; baseline wander, muscle, electrode motion and 50 Hz noise in mV;
shares of premature beats; shape of the ventricular beats (1, 2, or 0 for both in turn)."""

RHYTHMS: Final[Mapping[str, Mapping[str, float]]] = {
    "sinus": {"hr": 70.0, "hrv": 0.04},
    "brady": {"hr": 42.0, "hrv": 0.04},
    "tachy": {"hr": 132.0, "hrv": 0.008},
    "lbbb": {"hr": 72.0, "hrv": 0.03},
    "rbbb": {"hr": 72.0, "hrv": 0.03},
    "pvc": {"hr": 72.0, "hrv": 0.03, "pvc": 0.15},
    "pac": {"hr": 72.0, "hrv": 0.03, "pac": 0.15},
    "bigeminy": {"hr": 74.0, "hrv": 0.02},
    "trigeminy": {"hr": 74.0, "hrv": 0.02},
    "couplet": {"hr": 74.0, "hrv": 0.03, "every": 6.0},
    "nsvt": {"hr": 78.0, "hrv": 0.03, "run": 4.0, "every": 10.0, "vrate": 150.0},
    "fusion": {"hr": 76.0, "hrv": 0.03, "pvc": 0.1},
    "af": {"hr": 92.0, "irregular": 0.22, "f": 0.08},
    "flutter": {"hr": 0.0, "atrial": 300.0, "block": 2.0, "f": 0.18},
    "svt": {"hr": 184.0},
    "vt": {"hr": 180.0},
    "torsades": {"hr": 220.0, "period": 4.5},
    "vfl": {"hr": 260.0},
    "vf": {"coarse": 0.75, "fine": 0.25, "hz": 5.0},
    "asystole": {"p": 0.0},
    "pause": {"hr": 66.0, "hrv": 0.03, "length": 3.2, "every": 8.0},
    "block3": {"hr": 84.0, "escape": 33.0},
    "ivr": {"hr": 38.0},
    "aivr": {"hr": 76.0},
    "paced": {"hr": 70.0, "dual": 0.0},
    "noise": {"hr": 76.0, "hrv": 0.04, "wander": 0.4, "muscle": 0.12, "motion": 0.9},
    "leadoff": {"hr": 76.0, "hrv": 0.04, "lead": 0.0},
    "gap": {"hr": 76.0, "hrv": 0.04, "lead": 0.0},
}
"""Each rhythm with its own options and their defaults."""

_LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "hr": (0.0, 400.0),
    "hrv": (0.0, 0.3),
    "pvc": (0.0, 1.0),
    "pac": (0.0, 1.0),
    "irregular": (0.0, 0.6),
    "vrate": (60.0, 300.0),
    "atrial": (150.0, 400.0),
    "block": (1.0, 8.0),
    "every": (1.0, 1e6),
    "run": (1.0, 100.0),
    "escape": (10.0, 120.0),
    "length": (0.5, 60.0),
    "period": (1.0, 60.0),
    "hz": (1.0, 12.0),
    "lead": (0.0, 12.0),
    "form": (0.0, 2.0),
    "dual": (0.0, 1.0),
    "p": (0.0, 1.0),
}
_NEEDS_RATE: Final = frozenset(name for name, own in RHYTHMS.items() if own.get("hr", 0.0) > 0)
_SLOWEST, _MILLIVOLTS = 15.0, 10.0


class ScriptError(ValueError):
    """A script that can't be played; the message names the part and what would do."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of a script.

    Attributes
    ----------
    rhythm : str
        A name of `RHYTHMS`.
    seconds : float
        Length.
    options : mapping of str to float
        Every option of the rhythm, defaults filled in.
    """

    rhythm: str
    seconds: float
    options: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in the defaults and refuse what can't be played."""
        if self.rhythm not in RHYTHMS:
            raise ScriptError(f"unknown rhythm {self.rhythm!r}: there are {', '.join(sorted(RHYTHMS))}")
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ScriptError(f"{self.rhythm}: a length of {self.seconds} s is no positive number")
        known = {**COMMON, **RHYTHMS[self.rhythm]}
        for name, value in self.options.items():
            if name not in known:
                raise ScriptError(f"{self.rhythm}: unknown option {name!r}: there are {', '.join(sorted(known))}")
            low, high = _LIMITS.get(name, (0.0, _MILLIVOLTS))
            if name == "hr" and self.rhythm in _NEEDS_RATE:
                low = _SLOWEST
            if not low <= value <= high:
                raise ScriptError(f"{self.rhythm}: {name}={value:g} is outside {low:g} to {high:g}")
        object.__setattr__(self, "options", {**known, **self.options})

    def __getitem__(self, option: str) -> float:
        return self.options[option]


def parse_script(text: str) -> tuple[Segment, ...]:
    """Read a script.

    Parameters
    ----------
    text : str
        ``rhythm:seconds[,option=number...]`` joined by ``;``; white space is free; ``2m`` and ``1h`` are lengths too.

    Returns
    -------
    tuple of Segment
        At least one.

    Raises
    ------
    ScriptError
        With the part that is wrong and what would do.
    """
    segments = tuple(_segment(part.strip()) for part in text.split(";") if part.strip())
    if not segments:
        raise ScriptError("an empty script: write for instance 'sinus:30,hr=70; vt:12'")
    return segments


def _segment(part: str) -> Segment:
    head, *pairs = (word.strip() for word in part.split(","))
    rhythm, colon, length = (word.strip() for word in head.partition(":"))
    if not colon:
        raise ScriptError(f"{part!r} lacks its length: write {rhythm or 'sinus'}:30 for 30 s")
    scale = {"h": 3600.0, "m": 60.0, "s": 1.0}.get(length[-1:], 0.0)
    seconds = _number(part, length[:-1] if scale else length) * (scale or 1.0)
    options = {}
    for pair in pairs:
        name, equals, value = (word.strip() for word in pair.partition("="))
        if not equals:
            raise ScriptError(f"{part!r}: {pair!r} is no option: write name=number")
        options[name] = _number(part, value)
    return Segment(rhythm, seconds, options)


def _number(part: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ScriptError(f"{part!r}: {text!r} is no number") from None
