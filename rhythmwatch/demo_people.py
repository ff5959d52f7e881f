"""People for a demo: each device that plays a recording or is simulated gets a person, a bed and a consent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from alerts.care import Care, new_person
from alerts.care_model import Consent, Stay
from alerts.database import open_engine, upgrade
from rhythmwatch.playing import device_names

WARD: Final = "Demo"
WHO: Final = "demo"


def played_devices(source: Sequence[str]) -> list[str]:
    """Name the devices of a demo's source, which is ``replay RECORD...`` or ``simulate --patients N``."""
    if not source:
        return []
    if source[0] == "simulate":
        # As in `rhythmwatch.playing`.
        from ingest.simulator_cast import cast_names

        return cast_names(int(source[source.index("--patients") + 1]))
    records = source[1:]
    first_option = next((at for at, word in enumerate(records) if word.startswith("--")), len(records))
    return device_names([Path(record) for record in records[:first_option]])


def admit_played(history: str, devices: Sequence[str]) -> None:
    """Put people on the devices that a demo plays, and let those go that an earlier one played and this one does not.

    A device that never had a patient gets a person who consents to monitoring and to nothing else. Its stream is not
    told: it begins anyway, with the limits of an adult. Whoever had the device in an earlier demo has it again. Whom
    staff put somewhere stays as it is.

    Parameters
    ----------
    history : str
        Address of the history database.
    devices : sequence of str
        Channels.
    """
    engine = open_engine(history)
    try:
        upgrade(engine)
        care = Care(engine)
        now = int(time.time() * 1000)
        for stay in care.open_stays():
            if stay.patient not in devices and stay.ward == WARD and _is_ours(care, stay):
                care.discharge(stay.patient, WHO, now)
        for number, device in enumerate(devices, 1):
            if stays := care.stays(patient=device):
                last = stays[-1]
                if last.to_ms is not None and _is_ours(care, last) and care.open_stay(person=last.person) is None:
                    care.reopen(last, WHO, now)
                continue
            person = new_person(f"Demo {device}", now)
            care.admit(person, device, str(number), WARD, "adult", WHO, now)
            for turnover in care.turnovers([device], 0):
                care.told(turnover.id)
            care.consent(Consent(person.person, "monitoring", True, "the demo: nobody is behind it", WHO, now))
    finally:
        engine.dispose()


def _is_ours(care: Care, stay: Stay) -> bool:
    """Whether a demo made the person."""
    return any(consent.who == WHO for consent in care.consents(stay.person))
