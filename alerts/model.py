"""Words of the alarm rooms: kinds, priorities, evidence that goes into the rules and conditions that come out."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final, TypeAlias

import msgspec


class Priority(IntEnum):
    """Priority of an alarm condition (IEC 60601-1-8), higher is worse."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3


class Kind(StrEnum):
    """What an alarm is about; the table of defaults is `alerts.limits`."""

    ASYSTOLE = "ASYSTOLE"
    VFIB = "VFIB"
    VTACH = "VTACH"
    EXTREME_TACHY = "EXTREME_TACHY"
    EXTREME_BRADY = "EXTREME_BRADY"
    PAUSE = "PAUSE"
    NSVT = "NSVT"
    VENT_RHYTHM = "VENT_RHYTHM"
    AFIB = "AFIB"
    TACHY = "TACHY"
    BRADY = "BRADY"
    SVT = "SVT"
    PVC_RATE = "PVC_RATE"
    PVC_PAIR = "PVC_PAIR"
    BIGEMINY = "BIGEMINY"
    TRIGEMINY = "TRIGEMINY"
    R_ON_T = "R_ON_T"
    MULTIFORM = "MULTIFORM"
    PATIENT_BUTTON = "PATIENT_BUTTON"
    LEADS_OFF = "LEADS_OFF"
    NO_DATA = "NO_DATA"
    NOISY = "NOISY"
    BATTERY = "BATTERY"


LETHAL: Final = frozenset({Kind.ASYSTOLE, Kind.VFIB, Kind.VTACH})
TECHNICAL: Final = frozenset({Kind.LEADS_OFF, Kind.NO_DATA, Kind.NOISY, Kind.BATTERY})


# Evidence. All times are indices at the analysis rate (`RATE`) in the stream epoch; `decided` is the index of the last
# sample that was needed to know it.

RATE: Final = 250
"""Indices a second of all evidence and conditions (the analysis rate)."""


class Beat(msgspec.Struct, frozen=True, gc=False):
    """One classified beat, in order of `r`."""

    r: int
    decided: int
    code: str
    """MIT code of the verdict: N L R A V F / or Q."""
    probability: float
    shape: int = 0
    """Number of the wave's shape among this patient's shapes, from 1; 0 when not told."""


class Peak(msgspec.Struct, frozen=True, gc=False):
    """An R peak, known before its beat has a class: ASYSTOLE and PAUSE wait for these alone."""

    r: int
    decided: int
    beside: bool = False
    """Seen on a lead that is not analysed."""


class Rhythm(msgspec.Struct, frozen=True, gc=False):
    """The rhythm verdict of one second (smoothed by `inference`)."""

    end: int
    """Index of the end of the window; the verdict was known then."""
    code: str
    """N, AFIB, VT, VFL, ASYS or NOISE: what the window classifier holds the rhythm to be."""
    probability: float
    activity: float = 0.0
    """Share of the last 4 s in which the signal (0.7 to 30 Hz) is beyond 0.1 mV."""


class Quality(msgspec.Struct, frozen=True, gc=False):
    """Flags of the analysed lead over the block that ends at `end` (only sent when they change)."""

    end: int
    lead: str
    lead_off: bool
    """No contact, flat or saturated: no beat can be seen."""
    missing: bool
    """Samples never came or aren't valid."""
    noisy: bool


class Horizon(msgspec.Struct, frozen=True, gc=False):
    """Every beat before `index` is known; `decided` samples have been seen. Deadlines up to `index` fall due."""

    index: int
    decided: int


class Silence(msgspec.Struct, frozen=True, gc=False):
    """No frame for `seconds` by the stream clock (from ticks); 0 when frames are back."""

    at: int
    seconds: float


class Note(msgspec.Struct, frozen=True, gc=False):
    """What the device said of itself: ``button`` (pressed) or ``battery`` (value in percent)."""

    at: int
    """Index of the newest sample when it came."""
    name: str
    value: float = 0.0


Evidence: TypeAlias = Beat | Peak | Rhythm | Quality | Horizon | Silence | Note


class Condition(msgspec.Struct, frozen=True, gc=False):
    """An alarm condition begins, changes in value or ends.

    Attributes
    ----------
    kind : Kind
        What it is.
    on : bool
        It begins (or goes on with a new value) or it ended.
    onset : int
        First sample of the evidence, index at `RATE`; with patient, kind and epoch the alarm's identity.
    at : int
        Last sample that was needed to know this.
    value, limit : float or None
        Shown as "HR 134 > 120".
    detail : str
        The evidence in one sentence for staff.
    by : Kind or None
        Of an end: the higher condition of the same family that now stands for it.
    """

    kind: Kind
    on: bool
    onset: int
    at: int
    value: float | None = None
    limit: float | None = None
    detail: str = ""
    by: Kind | None = None
