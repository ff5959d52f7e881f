"""The demo's patients: each shows within the first minute or two what it is there for, again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ingest.simulator import SimulatedSource


@dataclass(frozen=True, slots=True)
class CastMember:
    """A simulated patient with a name.

    Attributes
    ----------
    name : str
        Name and device id.
    script : str
        See `simulator_script.parse_script`; it goes round.
    note : str
        What is to be seen.
    alarms : tuple of str
        Kinds of alarms that the script holds the evidence of, by the default limits, within its first two minutes.
    """

    name: str
    script: str
    note: str
    alarms: tuple[str, ...]


CAST: Final[tuple[CastMember, ...]] = (
    CastMember("healthy", "sinus:10m,hr=68", "sinus rhythm with its variability", ()),
    CastMember(
        "vt-runs",
        "sinus:25,hr=76; vt:12,hr=176; sinus:40,hr=84; nsvt:40; sinus:30,hr=80,pvc=0.05",
        "sinus rhythm, then a run of ventricular tachycardia of 12 s and short ones",
        ("VTACH", "NSVT"),
    ),
    CastMember("af", "sinus:20,hr=74; af:5m,hr=96; sinus:90,hr=72,pac=0.08", "atrial fibrillation begins", ("AFIB",)),
    CastMember(
        "bigeminy",
        "sinus:20,hr=72; bigeminy:35; sinus:25,hr=70; trigeminy:30; couplet:30",
        "ventricular beats in bigeminy, trigeminy and pairs",
        ("BIGEMINY", "TRIGEMINY", "PVC_RATE"),
    ),
    CastMember(
        "vf",
        "sinus:40,hr=88,pvc=0.1; vt:6,hr=210; vf:25; asystole:6; paced:50; sinus:90,hr=94",
        "ventricular fibrillation out of tachycardia, then a pause and pacing",
        ("VTACH", "VFIB", "ASYSTOLE"),
    ),
    CastMember(
        "asystole",
        "sinus:30,hr=62; brady:15,hr=44; asystole:9; ivr:30,hr=32; sinus:60,hr=66",
        "slow, then no beat for nine seconds, then a slow escape",
        ("ASYSTOLE", "EXTREME_BRADY"),
    ),
    CastMember("brady", "sinus:25,hr=62; brady:60,hr=42; brady:30,hr=31; sinus:30,hr=58", "bradycardia", ("BRADY",)),
    CastMember(
        "svt",
        "sinus:30,hr=82; svt:25,hr=188; sinus:40,hr=88; tachy:40,hr=134",
        "supraventricular tachycardia, later sinus tachycardia",
        ("EXTREME_TACHY", "TACHY", "SVT"),
    ),
    CastMember("lbbb", "lbbb:10m,hr=74,pvc=0.02", "left bundle branch block", ()),
    CastMember("rbbb", "rbbb:10m,hr=70,pac=0.06", "right bundle branch block with premature atrial beats", ()),
    CastMember("paced", "paced:3m,hr=70; paced:3m,hr=70,dual=1", "a pacemaker, ventricular then dual", ()),
    CastMember(
        "pauses", "sinus:20,hr=64; pause:60,length=3.2,every=8; sinus:40,hr=62", "sinus arrest of 3.2 s", ("PAUSE",)
    ),
    CastMember(
        "noisy",
        "sinus:30,hr=76; noise:45; sinus:40,hr=80,motion=0.3; sinus:30,hr=76",
        "electrode motion and muscle noise over sinus rhythm",
        ("NOISY",),
    ),
    CastMember(
        "lead-off",
        "sinus:25,hr=78; leadoff:20,lead=1; sinus:15,hr=78; leadoff:40; sinus:40,hr=80",
        "first one lead comes off, later both",
        ("LEADS_OFF",),
    ),
    CastMember("flutter", "sinus:20,hr=74; flutter:90,block=2; flutter:90,block=3.5", "atrial flutter", ("TACHY",)),
    CastMember(
        "idioventricular",
        "sinus:20,hr=70; aivr:35,hr=78; sinus:40,hr=72; fusion:40",
        "accelerated idioventricular rhythm, fusion beats",
        ("VENT_RHYTHM",),
    ),
    CastMember(
        "block", "sinus:20,hr=70; block3:60,escape=32; sinus:40,hr=74", "third-degree block", ("EXTREME_BRADY",)
    ),
    CastMember(
        "torsades",
        "sinus:35,hr=64,pvc=0.1; torsades:14; sinus:60,hr=90; vfl:10; sinus:60,hr=92",
        "a twisting ventricular tachycardia, ventricular flutter",
        ("VTACH", "VFIB"),
    ),
    CastMember(
        "multiform",
        "sinus:15,hr=76; pvc:60,pvc=0.22,form=0; couplet:40,form=0,every=5; sinus:30,hr=72",
        "ventricular beats of two shapes, in pairs too",
        ("PVC_RATE", "MULTIFORM", "PVC_PAIR"),
    ),
    CastMember("athlete", "sinus:10m,hr=54,hrv=0.09,amp=1.2", "a slow heart with much breathing in it", ()),
)
"""In the order in which a small demo takes them: the first eight alarm in different ways."""


def cast_names(count: int) -> list[str]:
    """Device ids of so many patients of the cast."""
    turns = [divmod(number, len(CAST)) for number in range(count)]
    return [CAST[member].name if turn == 0 else f"{CAST[member].name}-{turn + 1}" for turn, member in turns]


def cast_sources(count: int, *, rate: float = 250.0, leads: tuple[str, ...] = ("MLII", "V1")) -> list[SimulatedSource]:
    """Choose patients of the cast as devices.

    Parameters
    ----------
    count : int
        How many; past the end of the cast it begins again with other seeds, and names such as ``vf-2``.
    rate : float
        Hz.
    leads : tuple of str
        Of each device.

    Returns
    -------
    list of SimulatedSource
        With device ids that differ and the seeds 1, 2, ...
    """
    sources = []
    for number, device in enumerate(cast_names(count)):
        member = CAST[number % len(CAST)]
        sources.append(SimulatedSource(device, member.script, seed=number + 1, rate=rate, leads=leads))
    return sources
