"""The alarm load of the staff: how many alarms, of what, where and when, and how many were false. Calls block.

A retrospective alarm asks for nobody's attention and does not count. Patient-days are the minutes that were recorded;
where no recorder runs, the time from a patient's first alarm of the period to its end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime, tzinfo
from statistics import median
from typing import Final

import msgspec
from sqlalchemy import Engine, func, select

from alerts.judging import Judgement, judgements_of
from alerts.limits import LIMITS_OF
from alerts.model import TECHNICAL, Kind
from alerts.tables import AlarmRow, table_of
from alerts.tables_archive import MinuteRow

DAY_MS: Final = 86_400_000
NOISIEST: Final = 10
LEAST_DAYS: Final = 0.25
"""Patient-days below which alarms a patient-day would say more of the start than of the ward."""
_CHUNK: Final = 500

ALARMS: Final = table_of(AlarmRow)
MINUTES: Final = table_of(MinuteRow)


class Share(msgspec.Struct):
    """Alarms of one kind, ward or patient."""

    count: int = 0
    per_patient_day: float | None = None
    """None below `LEAST_DAYS`."""
    judged: int = 0
    false: int = 0
    """Judged false or artefact."""
    technical: int = 0

    def add(self, *, technical: bool, judgement: Judgement | None) -> None:
        """Count an alarm."""
        self.count += 1
        self.technical += technical
        if judgement is not None:
            self.judged += 1
            self.false += judgement.verdict != "true"


class Noisy(msgspec.Struct, frozen=True):
    """A patient with many alarms, and what may be done about it."""

    patient: str
    count: int
    kind: str
    """Its commonest kind."""
    kind_count: int
    limit: str
    """Name of the limit to look at; empty where the kind has none."""
    limit_value: float | None
    median_value: float | None
    hint: str


class Load(msgspec.Struct, frozen=True):
    """The figures of a period."""

    days: float
    patient_days: float
    count: int
    per_patient_day: float | None
    """None below `LEAST_DAYS`."""
    judged: int
    judged_false_share: float | None
    """Of the judged alarms; None before the first judgement."""
    by_kind: dict[str, Share]
    by_ward: dict[str, Share]
    """Ward at the time of asking; an empty name is no ward."""
    by_hour: list[int]
    """Alarms raised in each hour of the day, in the time zone asked for."""
    noisiest: list[Noisy]


def load_figures(
    engine: Engine,
    now_ms: int,
    days: float,
    *,
    ward_of: Callable[[str], str] = lambda _: "",
    zone: tzinfo | None = None,
) -> Load:
    """Work the figures out.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of the history.
    now_ms : int
        End of the period.
    days : float
        Its length.
    ward_of : callable
        Ward of a patient now, empty for none.
    zone : tzinfo, optional
        Of the hours; None for that of this machine.
    """
    since = now_ms - round(days * DAY_MS)
    columns = [ALARMS.c[name] for name in ("id", "patient", "kind", "raised_ms", "value", "limit")]
    chosen = select(*columns).where(
        ALARMS.c.raised_ms >= since, ALARMS.c.raised_ms < now_ms, ALARMS.c.retrospective.is_(False)
    )
    with engine.connect() as connection:
        rows = connection.execute(chosen.order_by(ALARMS.c.raised_ms)).all()
        judged: dict[str, Judgement] = {}
        for begin in range(0, len(rows), _CHUNK):
            judged |= judgements_of(connection, [row.id for row in rows[begin : begin + _CHUNK]])
        counted = select(MINUTES.c.patient, func.count().label("minutes"))
        counted = counted.where(MINUTES.c.ms >= since, MINUTES.c.ms < now_ms).group_by(MINUTES.c.patient)
        recorded = {row.patient: row.minutes / 1440 for row in connection.execute(counted)}
    by_kind: defaultdict[str, Share] = defaultdict(Share)
    by_ward: defaultdict[str, Share] = defaultdict(Share)
    by_hour = [0] * 24
    kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    values: defaultdict[tuple[str, str], list[tuple[float, float | None]]] = defaultdict(list)
    patient_days = dict(recorded)
    total = Share()
    for row in rows:
        technical, judgement = row.kind in TECHNICAL, judged.get(row.id)
        for share in (total, by_kind[row.kind], by_ward[ward_of(row.patient)]):
            share.add(technical=technical, judgement=judgement)
        by_hour[datetime.fromtimestamp(row.raised_ms / 1000, zone).hour] += 1
        kinds[row.patient][row.kind] += 1
        if row.value is not None:
            values[row.patient, row.kind].append((row.value, row.limit))
        patient_days.setdefault(row.patient, (now_ms - row.raised_ms) / DAY_MS)
    whole = sum(patient_days.values())
    wards: defaultdict[str, float] = defaultdict(float)
    for patient, length in patient_days.items():
        wards[ward_of(patient)] += length
    for share in by_kind.values():
        share.per_patient_day = _ratio(share.count, whole)
    for ward, share in by_ward.items():
        share.per_patient_day = _ratio(share.count, wards[ward])
    order = sorted(kinds, key=lambda patient: (-kinds[patient].total(), patient))[:NOISIEST]
    return Load(
        days=days,
        patient_days=round(whole, 3),
        count=total.count,
        per_patient_day=_ratio(total.count, whole),
        judged=total.judged,
        judged_false_share=round(total.false / total.judged, 4) if total.judged else None,
        by_kind=dict(by_kind),
        by_ward=dict(by_ward),
        by_hour=by_hour,
        noisiest=[_noisy(patient, kinds[patient], values) for patient in order],
    )


def _noisy(
    patient: str, kinds: Counter[str], values: Mapping[tuple[str, str], list[tuple[float, float | None]]]
) -> Noisy:
    kind, number = min(kinds.items(), key=lambda item: (-item[1], item[0]))
    names = LIMITS_OF[Kind(kind)] if kind in Kind.__members__ else ()
    seen = values.get((patient, kind), [])
    middle = round(median(value for value, _ in seen), 2) if seen else None
    limit = seen[-1][1] if seen else None
    if names and middle is not None and limit is not None:
        hint = f"{number} times {kind}, half of them beyond {middle:g} with the limit {limit:g}: look at the limit"
    elif kind in TECHNICAL:
        hint = f"{number} times {kind}: look at the electrodes and the device"
    else:
        hint = f"{number} times {kind}: judge some of them, then decide whether this patient needs it"
    return Noisy(patient, kinds.total(), kind, number, names[0] if names else "", limit, middle, hint)


def _ratio(count: int, length: float) -> float | None:
    return round(count / length, 2) if length >= LEAST_DAYS else None
