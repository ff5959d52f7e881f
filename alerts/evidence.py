"""The evidence of an alarm: what was seen from 10 s before it to 10 s after, kept apart from the recordings."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

import msgspec
from sqlalchemy import delete, or_, select

from alerts.database import Rows, insert_into
from alerts.tables import AlarmRow, StatusRow, columns_of, table_of
from alerts.tables_alarms import EvidenceRow
from bus.messages import AlarmEvent

BEFORE_MS: Final = 10_000
AFTER_MS: Final = 10_000
LONGEST_MS: Final = 60_000
"""From the onset to the raising of an alarm no more than this is kept beside the 10 s on both sides."""
_LARGEST: Final = 8 << 20

EVIDENCE: Final = table_of(EvidenceRow)
ALARMS: Final = table_of(AlarmRow)
STATUSES: Final = table_of(StatusRow)


class EvidenceBeat(msgspec.Struct, frozen=True):
    """A beat of the strip as the networks saw it."""

    ms: int
    epoch: int
    sample: int
    code: str
    p: float
    second: str
    second_p: float
    rr_ms: int
    map: str = ""
    """Base64 of where in the spectral image the verdict came from (`bus.messages.BeatEvent`)."""


class Feature(msgspec.Struct, frozen=True):
    """What one feature did for a verdict, in log-odds against a usual second of the same patient."""

    name: str
    value: float
    usual: float
    effect: float


class EvidenceMap(msgspec.Struct, frozen=True):
    """What in the signal made a rhythm verdict.

    Attributes
    ----------
    code, p, second, second_p
        The verdict and the next likely one.
    from_ms, to_ms : int
        Wall time that the cells span evenly.
    bands : list of (float, float)
        Hz of each row of cells.
    cells : list of list of float
        A row for each band; -1 (against the verdict) to 1 (for it).
    features : list of Feature
        The strongest first.
    rule, method : str
        What was decided by rule, and how the cells were found, each in words.
    """

    code: str
    p: float
    second: str
    second_p: float
    from_ms: int
    to_ms: int
    bands: list[tuple[float, float]]
    cells: list[list[float]]
    features: list[Feature]
    rule: str
    method: str


class Evidence(msgspec.Struct, frozen=True):
    """What is kept of an alarm.

    Attributes
    ----------
    from_ms, to_ms : int
        Wall time of the strip.
    fs : float
        Hz; 0 where nothing was recorded.
    lead : str
        The analysed lead.
    samples_mv : list of float or None
        None where there is no sample.
    columns : str
        Base64 of the spectrogram, `bins` bytes a column, lowest frequency first, from `from_ms` on.
    column_ms : float
        From column to column.
    bins, top_hz
        Rows of the spectrogram and the upper edge of the highest.
    beats : list of EvidenceBeat
    rule : str
        The rule in one sentence.
    model : str
        Version of the networks.
    probabilities : dict of str to float
        Of the verdict on the rhythm behind the alarm, or the mean over its beats, by class.
    map : EvidenceMap or None
        What in the strip made the verdict on the rhythm; beats carry their own. None where no rhythm was judged.
    """

    from_ms: int
    to_ms: int
    fs: float
    lead: str
    samples_mv: list[float | None]
    columns: str
    column_ms: float
    bins: int
    top_hz: float
    beats: list[EvidenceBeat]
    rule: str
    model: str
    probabilities: dict[str, float]
    map: EvidenceMap | None = None


def stretch_of(alarm: AlarmEvent) -> tuple[int, int]:
    """Wall time that the evidence of an alarm covers, ms: from 10 s before its onset to 10 s after it was raised."""
    begin = max(alarm.onset_ms, alarm.raised_ms - LONGEST_MS)
    return begin - BEFORE_MS, max(alarm.raised_ms, begin) + AFTER_MS


class EvidenceStore(Rows):
    """Evidence in SQL; calls block."""

    def wanted(
        self, since_ms: int, until_ms: int, limit: int = 50, *, mine: Callable[[str], bool] = lambda patient: True
    ) -> list[AlarmEvent]:
        """List alarms raised in a stretch of time that have no evidence yet, oldest first; technical ones have none.

        Parameters
        ----------
        since_ms, until_ms : int
            Of the raising.
        limit : int
            At most so many.
        mine : callable
            Whether alarms of a patient are wanted here; those of others do not count for the limit.
        """
        chosen = (
            select(*columns_of(ALARMS, AlarmEvent))
            .outerjoin(EVIDENCE, EVIDENCE.c.alarm == ALARMS.c.id)
            .where(
                EVIDENCE.c.alarm.is_(None),
                ALARMS.c.technical.is_(False),
                # What was found afterwards may be of any time.
                or_(ALARMS.c.raised_ms >= since_ms, ALARMS.c.retrospective & (ALARMS.c.changed_ms >= since_ms)),
                ALARMS.c.raised_ms < until_ms,
            )
        )
        ordered = chosen.order_by(ALARMS.c.raised_ms, ALARMS.c.id).execution_options(yield_per=limit)
        with self._engine.connect() as connection:
            rows = connection.execute(ordered).mappings()
            return [AlarmEvent(**row) for row in islice((row for row in rows if mine(row["patient"])), limit)]

    def lead_at(self, patient: str, ms: int) -> str:
        """Lead of a patient that was analysed at a time; empty when unknown."""
        mine = (STATUSES.c.patient == patient, STATUSES.c.ms <= ms, STATUSES.c.lead != "")
        chosen = select(STATUSES.c.lead).where(*mine).order_by(STATUSES.c.ms.desc()).limit(1)
        with self._engine.connect() as connection:
            return connection.scalar(chosen) or ""

    def keep(self, alarm: AlarmEvent, evidence: Evidence | None, now_ms: int) -> None:
        """Keep what was cut for an alarm, or that there was nothing to cut; what is kept already stays."""
        data = zlib.compress(msgspec.json.encode(evidence), 6) if evidence is not None else b""
        whole = evidence is not None and None not in evidence.samples_mv
        row = {"alarm": alarm.id, "patient": alarm.patient, "made_ms": now_ms, "whole": whole, "data": data}
        with self._writer.begin() as connection:
            connection.execute(insert_into(connection, EVIDENCE).on_conflict_do_nothing(), row)

    def load(self, alarm: str) -> Evidence | None:
        """Give the evidence of an alarm, None where there is none (yet)."""
        with self._engine.connect() as connection:
            data = connection.scalar(select(EVIDENCE.c.data).where(EVIDENCE.c.alarm == alarm))
        if not data:
            return None
        return msgspec.json.decode(zlib.decompressobj().decompress(data, _LARGEST), type=Evidence)

    def kept(self, alarms: Sequence[str]) -> set[str]:
        """Which of some alarms have evidence."""
        chosen = select(EVIDENCE.c.alarm).where(EVIDENCE.c.alarm.in_(alarms), EVIDENCE.c.data != b"")
        with self._engine.connect() as connection:
            return set(connection.scalars(chosen))

    def expire(self, before_ms: int) -> int:
        """Delete evidence made before a time; returns how much."""
        with self._writer.begin() as connection:
            return connection.execute(delete(EVIDENCE).where(EVIDENCE.c.made_ms < before_ms)).rowcount
