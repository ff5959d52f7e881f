"""Deleting rows that are older than their kind of data is kept. Calls block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Engine, delete, exists, select

from alerts.book import Presence
from alerts.care import CONSENTS, NOTES, PERSONS, STAYS
from alerts.care_erasure import EXPORTS
from alerts.care_rows import TIMES, reached
from alerts.database import writing
from alerts.sweeping import delete_old

EVIDENCE: Final = frozenset({"evidence", "judgements", "beat_labels"})
"""Tables that are kept as long as evidence; all others with a channel and a time are events."""
RECORDED: Final = frozenset({"minutes"})
"""Goes with the recordings."""
_OPEN: Final = tuple(presence.value for presence in Presence if presence is not Presence.OFF)


def expire_events(engine: Engine, before_ms: Mapping[str, int]) -> dict[str, int]:
    """Delete old rows.

    Parameters
    ----------
    engine : sqlalchemy.Engine
    before_ms : mapping
        Wall time by kind (``events``, ``evidence``, ``stays``); what is older goes. An alarm that is not over, the
        settings in force, and a stay that goes on stay.

    Returns
    -------
    dict of str to int
        Rows that went, by kind.
    """
    counts = {"events": 0, "evidence": 0, "stays": 0}
    for name, (table, _) in reached().items():
        if name in RECORDED:
            continue
        kind = "evidence" if name in EVIDENCE else "events"
        time = table.c[next(column for column in TIMES if column in table.c)]
        wanted: list[Any] = []
        if name == "alarms":
            # Not by what they are: an index would find all that are off, which is nearly the whole table.
            wanted.append(table.c.presence.not_in(_OPEN))
        elif name == "alarm_changes":
            alarms = reached()["alarms"][0]
            wanted.append(~exists().where(alarms.c.id == table.c.id, alarms.c.presence != "off"))
        elif name == "settings":
            later = table.alias()
            wanted.append(exists().where(later.c.patient == table.c.patient, later.c.ms > table.c.ms))
        counts[kind] += delete_old(engine, time, before_ms[kind], *wanted)
    with writing(engine).begin() as connection:
        counts["stays"] = _expire_stays(connection, before_ms["stays"])
    return counts


def _expire_stays(connection: Connection, before_ms: int) -> int:
    """Delete stays that ended long ago, and persons without any other."""
    count = connection.execute(delete(STAYS).where(STAYS.c.to_ms < before_ms)).rowcount
    alone = select(PERSONS.c.person).where(
        PERSONS.c.made_ms < before_ms, ~exists().where(STAYS.c.person == PERSONS.c.person)
    )
    gone = list(connection.scalars(alone))
    for person in gone:
        for table in (CONSENTS, NOTES, EXPORTS, PERSONS):
            connection.execute(delete(table).where(table.c.person == person))
    return count
