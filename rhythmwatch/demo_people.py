"""People for a demo: each device that plays a recording or is simulated gets a person, a bed and a consent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from alerts.care import Care, new_person
from alerts.care_model import Consent
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
    """Admit nobody's twins: a person a device that never had one, who consents to monitoring and to nothing else.

    Their streams are not told: they begin anyway, with the limits of an adult.

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
        for number, device in enumerate(devices, 1):
            if care.stays(patient=device):
                continue
            now = int(time.time() * 1000)
            person = new_person(f"Demo {device}", now)
            care.admit(person, device, str(number), WARD, "adult", WHO, now)
            for turnover in care.turnovers([device], 0):
                care.told(turnover.id)
            care.consent(Consent(person.person, "monitoring", True, "the demo: nobody is behind it", WHO, now))
    finally:
        engine.dispose()
