"""What tests of pages do behind the pages' back: accounts, alarms in the history, and what the worker says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import numpy as np
from argon2 import PasswordHasher
from browser_station import DEADLINE_S, Station
from sqlalchemy import Engine

from alerts.database import open_engine
from alerts.evidence import Evidence, EvidenceBeat, EvidenceMap
from alerts.people import People
from alerts.store import Store
from alerts.stores import AlarmStores
from bus.messages import Action, AlarmEvent, SettingsEvent

QUICK = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
VTACH = {"value": 168.0, "limit": 100.0, "detail": "7 ventricular beats at 168/min"}
MAP = EvidenceMap(
    "VT", 0.9, "N", 0.1, 0, 10_000, [(0.5, 5.0), (5.0, 15.0)], [[0.2, 0.8], [-0.3, 0.5]], [], "", "occlusion"
)


@contextmanager
def database(station: Station) -> Iterator[Engine]:
    """Open the database of a station beside its web process."""
    engine = open_engine(station.settings.database_url)
    try:
        yield engine
    finally:
        engine.dispose()


def account(station: Station, role: str) -> str:
    """Make an account with the password of the station's first one; its name."""
    with database(station) as engine:
        People(engine).add_user(f"the {role}", QUICK.hash(station.password), role, 1)
    return f"the {role}"


def told(patient: str, reason: str, **more: object) -> SettingsEvent:
    """Say what is in force for a patient, as the worker does."""
    fields: dict[str, object] = {
        "patient": patient, "device": "dev", "ms": int(time.time() * 1000), "reason": reason, "user": "station",
        "profile": "adult", "values": {}, "off": (),
    }  # fmt: skip
    return msgspec.convert(fields | more, SettingsEvent)


def keep(station: Station, *events: AlarmEvent) -> None:
    """Write alarms into the history, each with evidence of 20 s."""
    store = Store(station.settings.database_url)
    store.write(0, [(f"1-{number}", event) for number, event in enumerate(events)], "1-99")
    store.close()
    mv = np.sin(np.arange(5000) / 20.0).round(3).tolist()
    with database(station) as engine:
        for event in events:
            start = event.onset_ms - 10_000
            beats = [
                EvidenceBeat(start + 800 * i, 7, 200 * i, "V" if i > 12 else "N", 0.9, "N", 0.1, 800) for i in range(25)
            ]
            rule = "5 ventricular beats at 152/min, limit 5 at 100/min"
            evidence = Evidence(
                from_ms=start, to_ms=start + 20_000, fs=250.0, lead="MLII", samples_mv=mv, columns="", column_ms=32.0,
                bins=32, top_hz=45.0, beats=beats, rule=rule, model="model 1", probabilities={"V": 0.9}, map=MAP,
            )  # fmt: skip
            AlarmStores(engine).evidence.keep(event, evidence, event.onset_ms + 30_000)


async def acted(station: Station, name: str, count: int) -> list[tuple[str, Action]]:
    """Wait until so many acts of a name have come through the stream, and give them."""
    async with asyncio.timeout(DEADLINE_S):
        while len(found := [(patient, act) for patient, act in station.ward.actions if act.name == name]) < count:
            await asyncio.sleep(0.02)
    return found
