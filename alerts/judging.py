"""What people held alarms and beats to be, kept for training and for the share of false alarms. Calls block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, func, insert, select

from alerts.database import Rows
from alerts.tables import AlarmRow, columns_of, table_of
from alerts.tables_alarms import BeatLabelRow, JudgementRow

VERDICTS: Final = ("true", "false", "artefact")

JUDGEMENTS: Final = table_of(JudgementRow)
LABELS: Final = table_of(BeatLabelRow)
ALARMS: Final = table_of(AlarmRow)


class Judgement(msgspec.Struct, frozen=True):
    """What one person held an alarm to be."""

    verdict: str
    who: str
    ms: int
    comment: str = ""


class BeatLabel(msgspec.Struct, frozen=True):
    """What one person held a beat to be."""

    patient: str
    epoch: int
    sample: int
    code: str
    who: str
    ms: int


class Judging(Rows):
    """Judgements and labelled beats; every one is kept, the newest counts."""

    def judge(self, alarm: str, patient: str, judgement: Judgement) -> None:
        """Keep what a person held an alarm of a patient to be."""
        row = {"alarm": alarm, "patient": patient, **msgspec.structs.asdict(judgement)}
        with self._writer.begin() as connection:
            connection.execute(insert(JUDGEMENTS), row)

    def of_alarm(self, alarm: str) -> list[Judgement]:
        """List the judgements of an alarm, oldest first."""
        chosen = (
            select(*columns_of(JUDGEMENTS, Judgement)).where(JUDGEMENTS.c.alarm == alarm).order_by(JUDGEMENTS.c.seq)
        )
        with self._engine.connect() as connection:
            return [Judgement(**row) for row in connection.execute(chosen).mappings()]

    def label(self, label: BeatLabel) -> None:
        """Keep what a person held a beat to be."""
        with self._writer.begin() as connection:
            connection.execute(insert(LABELS), msgspec.structs.asdict(label))

    def labels(self, patient: str, epoch: int | None = None) -> list[BeatLabel]:
        """List the labels that count, one a beat, in order of epoch and sample."""
        mine = LABELS.c.patient == patient
        newest = select(func.max(LABELS.c.seq)).where(mine).group_by(LABELS.c.epoch, LABELS.c.sample)
        chosen = select(*columns_of(LABELS, BeatLabel)).where(mine, LABELS.c.seq.in_(newest))
        if epoch is not None:
            chosen = chosen.where(LABELS.c.epoch == epoch)
        with self._engine.connect() as connection:
            rows = connection.execute(chosen.order_by(LABELS.c.epoch, LABELS.c.sample)).mappings()
            return [BeatLabel(**row) for row in rows]

    def by_kind(self, since_ms: int = 0) -> dict[str, dict[str, int]]:
        """Count the judgements that count of alarms raised since then: kind, then verdict."""
        newest = select(func.max(JUDGEMENTS.c.seq)).group_by(JUDGEMENTS.c.alarm)
        chosen = (
            select(ALARMS.c.kind, JUDGEMENTS.c.verdict, func.count().label("number"))
            .join(ALARMS, ALARMS.c.id == JUDGEMENTS.c.alarm)
            .where(JUDGEMENTS.c.seq.in_(newest), ALARMS.c.raised_ms >= since_ms)
            .group_by(ALARMS.c.kind, JUDGEMENTS.c.verdict)
        )
        found: dict[str, dict[str, int]] = {}
        with self._engine.connect() as connection:
            for row in connection.execute(chosen):
                found.setdefault(row.kind, dict.fromkeys(VERDICTS, 0))[row.verdict] = row.number
        return found


def judgements_of(connection: Connection, alarms: Sequence[str]) -> dict[str, Judgement]:
    """Newest judgement of each of some alarms that has one."""
    columns = columns_of(JUDGEMENTS, Judgement)
    chosen = select(JUDGEMENTS.c.alarm, *columns).where(JUDGEMENTS.c.alarm.in_(alarms)).order_by(JUDGEMENTS.c.seq)
    found: dict[str, Judgement] = {}
    for row in connection.execute(chosen).mappings():
        values = dict(row)
        alarm = values.pop("alarm")
        found[alarm] = Judgement(**values)
    return found
