"""The table of alarm kinds, the limits of a patient, profiles, and the settings of the institution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from alerts.model import LETHAL, TECHNICAL, Kind, Priority


class LimitsError(ValueError):
    """Limits that contradict each other or are out of range.

    Attributes
    ----------
    problems : tuple of str
        Each fault in one sentence.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("limits refused: " + "; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Row:
    """What holds for every alarm of one kind.

    Attributes
    ----------
    priority : Priority
        When it comes on.
    hold_s : float
        It goes off this long after its last evidence (rates: once they are well within their limit), s; 0 where the
        rules end it otherwise.
    raise_s : float
        On for this long, it becomes `raised`, s; 0 = never.
    raised : Priority
        See `raise_s`.
    updates : bool
        A new value while it is on is shown (never announced).
    """

    priority: Priority
    hold_s: float = 0.0
    raise_s: float = 0.0
    raised: Priority = Priority.LOW
    updates: bool = True


_H, _M, _L = Priority.HIGH, Priority.MEDIUM, Priority.LOW

# Ends: AFIB, ASYSTOLE, VFIB and the technical ones end on evidence (see `alerts.rules_beats`, `rules_rhythm`,
# `rules_technical`); the others a while after the last of them, so that one alarm covers a cluster of events.
KINDS: Final[Mapping[Kind, Row]] = MappingProxyType(
    {
        Kind.ASYSTOLE: Row(_H),
        Kind.VFIB: Row(_H),
        Kind.VTACH: Row(_H, hold_s=5.0),
        Kind.EXTREME_TACHY: Row(_H, hold_s=10.0),
        Kind.EXTREME_BRADY: Row(_H, hold_s=10.0),
        Kind.PAUSE: Row(_M, hold_s=10.0),
        Kind.NSVT: Row(_M, hold_s=10.0),
        Kind.VENT_RHYTHM: Row(_M, hold_s=5.0),
        Kind.AFIB: Row(_M, updates=False),
        Kind.TACHY: Row(_M, hold_s=10.0),
        Kind.BRADY: Row(_M, hold_s=10.0),
        Kind.SVT: Row(_M, hold_s=10.0),
        Kind.PVC_RATE: Row(_L),
        Kind.PVC_PAIR: Row(_L, hold_s=30.0),
        Kind.BIGEMINY: Row(_L, hold_s=15.0),
        Kind.TRIGEMINY: Row(_L, hold_s=15.0),
        Kind.R_ON_T: Row(_L, hold_s=30.0),
        Kind.MULTIFORM: Row(_L, hold_s=60.0),
        Kind.PATIENT_BUTTON: Row(_M, hold_s=10.0),
        Kind.LEADS_OFF: Row(_L, raise_s=30.0, raised=_M),
        Kind.NO_DATA: Row(_L, raise_s=20.0, raised=_M),  # comes after 10 s, medium after 30 s without data
        Kind.NOISY: Row(_L),
        Kind.BATTERY: Row(_L),
    }
)

# Chaining: kind -> the kinds that stand for it. Rates mean nothing in fibrillation, so VFIB stands for them too.
_VENTRICULAR: Final = (Kind.VFIB, Kind.VTACH, Kind.NSVT, Kind.PVC_PAIR)
HIGHER: Final[Mapping[Kind, tuple[Kind, ...]]] = MappingProxyType(
    {
        Kind.VTACH: _VENTRICULAR[:1],
        Kind.NSVT: _VENTRICULAR[:2],
        Kind.PVC_PAIR: (*_VENTRICULAR[:3], Kind.VENT_RHYTHM),
        Kind.PVC_RATE: (*_VENTRICULAR, Kind.VENT_RHYTHM),
        Kind.VENT_RHYTHM: _VENTRICULAR[:2],
        Kind.BIGEMINY: _VENTRICULAR[:2],
        Kind.TRIGEMINY: _VENTRICULAR[:2],
        Kind.R_ON_T: _VENTRICULAR[:2],
        Kind.MULTIFORM: _VENTRICULAR[:2],
        Kind.ASYSTOLE: (Kind.VFIB,),
        Kind.PAUSE: (Kind.ASYSTOLE, Kind.VFIB),
        Kind.TACHY: (Kind.EXTREME_TACHY, Kind.VFIB),
        Kind.BRADY: (Kind.EXTREME_BRADY, Kind.ASYSTOLE, Kind.VFIB),
        Kind.EXTREME_TACHY: (Kind.VFIB,),
        Kind.EXTREME_BRADY: (Kind.ASYSTOLE, Kind.VFIB),
        Kind.AFIB: (Kind.VFIB,),
        Kind.SVT: (Kind.VFIB,),
    }
)
LOWER: Final[Mapping[Kind, tuple[Kind, ...]]] = MappingProxyType(
    {kind: tuple(low for low, highs in HIGHER.items() if kind in highs) for kind in Kind}
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one patient. Rates in beats a minute; a field ``*_back`` is the distance to the limit for going off.

    Raises
    ------
    LimitsError
        If a limit is out of its range or two contradict each other; all faults at once.
    """

    asystole_s: float = 4.0
    """No QRS for this long, with a usable signal."""
    pause_s: float = 2.5
    """RR over this."""
    verdict_s: int = 4
    """VF, flutter or VT verdicts in a row, one a second."""
    vtach_beats: int = 5
    vtach_rate: float = 100.0
    vtach_back: float = 10.0
    vtach_probability: float = 0.6
    """Mean probability of the last ventricular beats below which a run is no evidence for a lethal alarm."""
    nsvt_beats: int = 3
    extreme_tachy: float = 160.0
    extreme_tachy_back: float = 10.0
    tachy: float = 120.0
    tachy_back: float = 5.0
    brady: float = 50.0
    brady_back: float = 5.0
    extreme_brady: float = 35.0
    extreme_brady_back: float = 5.0
    rate_s: float = 10.0
    """TACHY and BRADY: over or under the limit for this long."""
    afib_s: float = 60.0
    """AF verdict for this long; it ends after the same time without."""
    afib_with_rate: bool = False
    """AF is known: AFIB only while the rate is over `tachy`."""
    svt_beats: int = 5
    svt_rate: float = 140.0
    vent_rhythm_beats: int = 15
    """Ventricular beats in a row, slower than `vtach_rate`."""
    pvc_per_min: int = 10
    pvc_back: int = 3
    cycles: int = 3
    """Of bigeminy or trigeminy."""
    r_on_t_ms: float = 100.0
    """R of a ventricular beat no farther than this from the T peak."""
    multiform_s: float = 60.0
    """Two shapes of ventricular beats within this time."""
    no_data_s: float = 10.0
    noisy_s: float = 20.0
    noisy_of_s: float = 30.0
    noisy_back_s: float = 10.0
    """NOISY goes off with this much or less noise in `noisy_of_s`."""
    battery: float = 20.0
    """Percent."""
    battery_back: float = 5.0
    off: frozenset[Kind] = field(default_factory=frozenset)
    """Kinds switched off."""

    def __post_init__(self) -> None:
        """Check all limits as a set."""
        problems = [
            f"{name} = {getattr(self, name):g} is outside {low:g} to {high:g}"
            for name, (low, high) in RANGES.items()
            if not low <= getattr(self, name) <= high
        ]
        for lower, upper, gap in _ORDER:
            if not getattr(self, lower) + gap <= getattr(self, upper):
                room = f" by {gap:g} or more" if gap else ""
                problems.append(
                    f"{lower} = {getattr(self, lower):g} must lie below {upper} = {getattr(self, upper):g}{room}"
                )
        if problems:
            raise LimitsError(tuple(problems))


RANGES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "asystole_s": (3.0, 10.0),
        "pause_s": (1.5, 8.0),
        "verdict_s": (3, 15),
        "vtach_beats": (3, 15),
        "vtach_rate": (80.0, 200.0),
        "vtach_back": (0.0, 40.0),
        "vtach_probability": (0.0, 0.95),
        "nsvt_beats": (3, 14),
        "extreme_tachy": (100.0, 300.0),
        "extreme_tachy_back": (1.0, 30.0),
        "tachy": (60.0, 250.0),
        "tachy_back": (1.0, 30.0),
        "brady": (20.0, 120.0),
        "brady_back": (1.0, 30.0),
        "extreme_brady": (15.0, 100.0),
        "extreme_brady_back": (1.0, 30.0),
        "rate_s": (0.0, 60.0),
        "afib_s": (10.0, 600.0),
        "svt_beats": (3, 15),
        "svt_rate": (100.0, 250.0),
        "vent_rhythm_beats": (3, 50),
        "pvc_per_min": (1, 100),
        "pvc_back": (0, 50),
        "cycles": (2, 20),
        "r_on_t_ms": (20.0, 150.0),
        "multiform_s": (10.0, 600.0),
        "no_data_s": (5.0, 60.0),
        "noisy_s": (1.0, 300.0),
        "noisy_of_s": (5.0, 300.0),
        "noisy_back_s": (0.0, 300.0),
        "battery": (1.0, 90.0),
        "battery_back": (0.0, 10.0),
    }
)
"""Least and greatest value of each limit."""

_ORDER: Final = (
    ("brady", "tachy", 10.0),
    ("extreme_brady", "brady", 5.0),
    ("tachy", "extreme_tachy", 5.0),
    ("pause_s", "asystole_s", 0.5),
    ("nsvt_beats", "vtach_beats", 1.0),
    ("pvc_back", "pvc_per_min", 1.0),
    ("noisy_s", "noisy_of_s", 0.0),
    ("noisy_back_s", "noisy_s", 1.0),
)

LIMITS_OF: Final[Mapping[Kind, tuple[str, ...]]] = MappingProxyType(
    {
        Kind.ASYSTOLE: ("asystole_s",),
        Kind.VFIB: ("verdict_s",),
        Kind.VTACH: ("vtach_rate", "vtach_beats", "vtach_back", "vtach_probability", "verdict_s"),
        Kind.EXTREME_TACHY: ("extreme_tachy", "extreme_tachy_back"),
        Kind.EXTREME_BRADY: ("extreme_brady", "extreme_brady_back"),
        Kind.PAUSE: ("pause_s",),
        Kind.NSVT: ("nsvt_beats", "vtach_rate"),
        Kind.VENT_RHYTHM: ("vent_rhythm_beats", "vtach_rate"),
        Kind.AFIB: ("afib_s", "afib_with_rate"),
        Kind.TACHY: ("tachy", "tachy_back", "rate_s"),
        Kind.BRADY: ("brady", "brady_back", "rate_s"),
        Kind.SVT: ("svt_rate", "svt_beats"),
        Kind.PVC_RATE: ("pvc_per_min", "pvc_back"),
        Kind.PVC_PAIR: (),
        Kind.BIGEMINY: ("cycles",),
        Kind.TRIGEMINY: ("cycles",),
        Kind.R_ON_T: ("r_on_t_ms",),
        Kind.MULTIFORM: ("multiform_s",),
        Kind.PATIENT_BUTTON: (),
        Kind.LEADS_OFF: (),
        Kind.NO_DATA: ("no_data_s",),
        Kind.NOISY: ("noisy_s", "noisy_of_s", "noisy_back_s"),
        Kind.BATTERY: ("battery", "battery_back"),
    }
)
"""Limits that decide about each kind, the foremost first."""

ADULT: Final = Limits()
PROFILES: Final[Mapping[str, Limits]] = MappingProxyType(
    {
        "adult": ADULT,
        "athlete": Limits(brady=40.0, extreme_brady=30.0),
        "elderly": Limits(tachy=110.0, extreme_tachy=150.0),
        "af": Limits(afib_with_rate=True, pause_s=3.0),
    }
)


_NAMES: Final = tuple(item.name for item in fields(Limits) if item.name != "off")
_values: Final = attrgetter(*_NAMES)


def of_profile(name: str | float | bool) -> Limits:
    """Limits of a profile; `LimitsError` if there is none of that name."""
    limits = PROFILES.get(name) if isinstance(name, str) else None
    if limits is None:
        raise LimitsError((f"there is no profile {name!r}: choose one of {', '.join(PROFILES)}",))
    return limits


def values_of(limits: Limits) -> dict[str, float | bool]:
    """Every limit by its name; kinds switched off are not among them."""
    return dict(zip(_NAMES, _values(limits), strict=True))


def limits_from(values: Mapping[str, float | bool], off: Iterable[str]) -> Limits:
    """Limits that `values_of` and the names of kinds gave, also those of an older version; `LimitsError` if invalid."""
    known = values_of(ADULT)
    wanted: dict[str, float | str | bool] = {name: value for name, value in values.items() if name in known}
    return changed(ADULT, wanted | {kind: False for kind in off if kind in Kind.__members__})


def changed(limits: Limits, values: Mapping[str, float | str | bool]) -> Limits:
    """Limits with some values replaced; a key ``KIND`` with ``False`` or ``True`` switches that kind off or on.

    Parameters
    ----------
    limits : Limits
        What holds now.
    values : mapping
        Names of `Limits` or of `Kind`, as a staff action carries them.

    Raises
    ------
    LimitsError
        If a name is unknown, a value has the wrong type, or the new set is no valid one.
    """
    types = {item.name: type(getattr(ADULT, item.name)) for item in fields(Limits) if item.name != "off"}
    new: dict[str, float | int | bool] = {}
    off = set(limits.off)
    problems: list[str] = []
    for name, value in values.items():
        if name in Kind.__members__:
            if not isinstance(value, bool):
                problems.append(f"{name} = {value!r} must be true (on) or false (off)")
            elif value:
                off.discard(Kind(name))
            else:
                off.add(Kind(name))
            continue
        kind = types.get(name)
        if kind is None:
            problems.append(f"there is no limit {name!r}")
        elif kind is bool:
            if isinstance(value, bool):
                new[name] = value
            else:
                problems.append(f"{name} = {value!r} must be true or false")
        elif isinstance(value, bool | str):
            problems.append(f"{name} = {value!r} must be a number")
        elif kind is int and not float(value).is_integer():
            problems.append(f"{name} = {value:g} must be a whole number")
        else:
            new[name] = kind(value)
    if problems:
        raise LimitsError(tuple(problems))
    return replace(limits, off=frozenset(off), **new)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings of the institution for the life of alarms; never of a user."""

    latch: frozenset[Priority] = frozenset({Priority.HIGH, Priority.MEDIUM})
    """Priorities that latch (technical kinds never do, lethal ones always do)."""
    pause_ms: int = 120_000
    """Longest audio pause."""
    reminder_ms: int = 180_000
    """Acknowledged and still on for this long: announced again."""
    escalate_ms: tuple[int, ...] = (30_000, 60_000, 120_000)
    """A high alarm that nobody acknowledges reaches level 1, 2, 3 after these times."""


def is_latching(kind: Kind, priority: Priority, policy: Policy) -> bool:
    """Whether an alarm stays visible after its condition ended unseen."""
    return kind in LETHAL or (priority in policy.latch and kind not in TECHNICAL)
