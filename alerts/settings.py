"""Settings in force as rows of SQL and back."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, select

from alerts.tables import table_of
from alerts.tables_alarms import SettingsRow
from bus.messages import SettingsEvent

SETTINGS: Final = table_of(SettingsRow)


def settings_row(event: SettingsEvent) -> dict[str, Any]:
    """Columns of an event, without its place on the bus."""
    row = msgspec.structs.asdict(event)
    del row["values"], row["user"]
    return row | {
        "who": event.user,
        "limits": json.dumps(event.values, sort_keys=True),
        "off": " ".join(event.off),
        "lethal_off": " ".join(event.lethal_off),
    }


def in_force(connection: Connection, patient: str | None = None, before_ms: int | None = None) -> list[SettingsEvent]:
    """Newest settings of each patient, or of one; refusals say what is in force as well.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        Of the history.
    patient : str, optional
        Only this one.
    before_ms : int, optional
        As they were at a time; else now.
    """
    newest = select(SETTINGS.c.patient, func.max(SETTINGS.c.ms).label("ms")).group_by(SETTINGS.c.patient)
    if patient is not None:
        newest = newest.where(SETTINGS.c.patient == patient)
    if before_ms is not None:
        newest = newest.where(SETTINGS.c.ms < before_ms)
    last = newest.subquery()
    chosen = select(SETTINGS).join(last, (SETTINGS.c.patient == last.c.patient) & (SETTINGS.c.ms == last.c.ms))
    rows = connection.execute(chosen).mappings()
    # Of two in one millisecond that with the later place on the bus.
    ordered = sorted(rows, key=lambda row: _place(row["entry"]))
    return list({row["patient"]: _event(dict(row)) for row in ordered}.values())


def _event(row: dict[str, Any]) -> SettingsEvent:
    del row["entry"]
    user, limits = row.pop("who"), json.loads(row.pop("limits"))
    off, lethal = tuple(row.pop("off").split()), tuple(row.pop("lethal_off").split())
    return SettingsEvent(user=user, values=limits, off=off, lethal_off=lethal, **row)


def _place(entry: str) -> tuple[int, int]:
    ms, _, number = entry.rpartition(":")[2].partition("-")
    return int(ms), int(number or 0)
