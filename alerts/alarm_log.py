"""Questions to the history about alarms: which there were, what became of one. Calls block."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Engine, Select, func, select

from alerts.judging import JUDGEMENTS, Judgement, judgements_of
from alerts.tables import AlarmRow, ChangeRow, columns_of, table_of
from alerts.tables_alarms import EvidenceRow
from bus.messages import AlarmEvent

ALARMS: Final = table_of(AlarmRow)
CHANGES: Final = table_of(ChangeRow)
EVIDENCE: Final = table_of(EvidenceRow)


class Listed(msgspec.Struct, frozen=True):
    """An alarm in a list."""

    alarm: AlarmEvent
    judgement: Judgement | None
    evidence: bool
    """Whether its strip is kept."""


class AlarmLog:
    """Alarms as the history has them.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of `alerts.database.open_engine`, its schema up to date.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(
        self,
        *,
        patient: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        kind: str | None = None,
        judged: bool | None = None,
        limit: int = 100,
    ) -> list[Listed]:
        """List alarms, newest first.

        Parameters
        ----------
        patient, kind : str, optional
            Only of this one.
        since_ms, until_ms : int, optional
            Raised from then until before then.
        judged : bool, optional
            Only those that somebody judged, or nobody.
        limit : int
            At most so many.
        """
        chosen = select(*columns_of(ALARMS, AlarmEvent), EVIDENCE.c.alarm.label("kept")).outerjoin(
            EVIDENCE, (EVIDENCE.c.alarm == ALARMS.c.id) & (func.length(EVIDENCE.c.data) > 0)
        )
        if patient is not None:
            chosen = chosen.where(ALARMS.c.patient == patient)
        if kind is not None:
            chosen = chosen.where(ALARMS.c.kind == kind)
        if since_ms is not None:
            chosen = chosen.where(ALARMS.c.raised_ms >= since_ms)
        if until_ms is not None:
            chosen = chosen.where(ALARMS.c.raised_ms < until_ms)
        if judged is not None:
            known = ALARMS.c.id.in_(select(JUDGEMENTS.c.alarm))
            chosen = chosen.where(known if judged else ~known)
        return self._listed(chosen.order_by(ALARMS.c.raised_ms.desc(), ALARMS.c.id).limit(limit))

    def queue(self, limit: int = 100) -> list[Listed]:
        """List the alarms that wait to be judged: over or acknowledged, clinical, with evidence; worst first."""
        chosen = (
            select(*columns_of(ALARMS, AlarmEvent), EVIDENCE.c.alarm.label("kept"))
            .join(EVIDENCE, EVIDENCE.c.alarm == ALARMS.c.id)
            .where(
                func.length(EVIDENCE.c.data) > 0,
                ALARMS.c.technical.is_(False),
                ALARMS.c.presence.in_(("off", "ack")),
                ~ALARMS.c.id.in_(select(JUDGEMENTS.c.alarm)),
            )
        )
        order = (ALARMS.c.priority.desc(), ALARMS.c.raised_ms.desc(), ALARMS.c.id)
        return self._listed(chosen.order_by(*order).limit(limit))

    def alarm(self, ident: str) -> AlarmEvent | None:
        """Look an alarm up."""
        with self._engine.connect() as connection:
            chosen = select(*columns_of(ALARMS, AlarmEvent)).where(ALARMS.c.id == ident)
            row = connection.execute(chosen).mappings().first()
        return AlarmEvent(**row) if row is not None else None

    def changes(self, ident: str) -> list[AlarmEvent]:
        """List every change of an alarm, in order."""
        chosen = select(*columns_of(CHANGES, AlarmEvent)).where(CHANGES.c.id == ident)
        with self._engine.connect() as connection:
            rows = connection.execute(chosen.order_by(CHANGES.c.revision)).mappings()
            return [AlarmEvent(**row) for row in rows]

    def _listed(self, chosen: Select[Any]) -> list[Listed]:
        with self._engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(chosen).mappings()]
            known = judgements_of(connection, [row["id"] for row in rows])
        return [
            Listed(evidence=row.pop("kept") is not None, judgement=known.get(row["id"]), alarm=AlarmEvent(**row))
            for row in rows
        ]
