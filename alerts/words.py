"""What kinds and priorities are called outside the pages, in messages and reports, as in `web/ui/vocabulary.js`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from bus.messages import AlarmEvent

KIND_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ASYSTOLE": "Asystole",
        "VFIB": "Ventricular fibrillation",
        "VTACH": "Ventricular tachycardia",
        "EXTREME_TACHY": "Extreme tachycardia",
        "EXTREME_BRADY": "Extreme bradycardia",
        "PAUSE": "Pause",
        "NSVT": "Run of ventricular beats",
        "VENT_RHYTHM": "Ventricular rhythm",
        "AFIB": "Atrial fibrillation",
        "TACHY": "Heart rate high",
        "BRADY": "Heart rate low",
        "SVT": "Supraventricular tachycardia",
        "PVC_RATE": "Frequent PVCs",
        "PVC_PAIR": "PVC pair",
        "BIGEMINY": "Bigeminy",
        "TRIGEMINY": "Trigeminy",
        "R_ON_T": "R on T",
        "MULTIFORM": "Multiform PVCs",
        "PATIENT_BUTTON": "Patient call button",
        "LEADS_OFF": "Leads off",
        "NO_DATA": "No data from device",
        "NOISY": "Signal noisy",
        "BATTERY": "Battery low",
    }
)
PRIORITY_WORDS: Final[Mapping[int, str]] = MappingProxyType({1: "low", 2: "medium", 3: "high"})


def kind_words(kind: str) -> str:
    """Words for a kind; its code where a newer version has one that is not known here."""
    return KIND_WORDS.get(kind, kind)


def sentence(alarm: AlarmEvent, bed: str = "") -> str:
    """Say an announcement in one line, without a person's name.

    Parameters
    ----------
    alarm : AlarmEvent
    bed : str
        Label of the bed; else the device's id is named.
    """
    place = f"bed {bed}" if bed else alarm.patient
    words = f"{PRIORITY_WORDS.get(alarm.priority, '')} priority: {kind_words(alarm.kind)}, {place}".strip()
    if alarm.presence == "off":
        words += " (over)"
    if alarm.escalation:
        words += f", not acknowledged, level {alarm.escalation}"
    elif alarm.reason == "reminded":
        words += ", acknowledged and still on"
    return f"{words}. {alarm.detail}".strip() if alarm.detail else words
