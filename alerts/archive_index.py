"""The recorder's side of the index: what it knew, and one transaction for all that it did since.

Calls block: run them in a thread. Positions on the bus, the recorder's state, new segments and the sums of minutes go
in together, so that a recorder that dies at any moment goes on from its last transaction without losing or doubling.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Final, Self

from sqlalchemy import Connection, Row, Table, case, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from alerts.archive_files import Segment, anchors_text
from alerts.database import open_engine, upgrade, writing
from alerts.tables import table_of
from alerts.tables_archive import MinuteRow, RecorderRow, SegmentRow

SEGMENTS, MINUTES, RECORDERS = table_of(SegmentRow), table_of(MinuteRow), table_of(RecorderRow)
_SUMS: Final = ("beats", "rr_count", "rr_ms", "pvc", "sveb", "af_ms", "good_ms", "signal_ms")


@dataclass(slots=True)
class MinuteSums:
    """What is added to a minute of a patient; meanings as of `alerts.tables_archive.MinuteRow`."""

    beats: int = 0
    rr_count: int = 0
    rr_ms: int = 0
    hr_min: float | None = None
    hr_max: float | None = None
    pvc: int = 0
    sveb: int = 0
    af_ms: int = 0
    good_ms: int = 0
    signal_ms: int = 0


class OvertakenError(Exception):
    """Another recorder has stored a partition meanwhile; nothing was written, begin again from where it stands."""


_NAMES: Final = tuple(MinuteSums.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Place:
    """How far the recorder has come in a partition, and its state there."""

    entries: str
    events: str
    state: bytes


class Index:
    """The index of recordings as the recorder writes it.

    Parameters
    ----------
    url : str
        Of the history database.

    Raises
    ------
    StoreError
        If the URL can't be used.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._writer = writing(self._engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    def upgrade(self) -> None:
        """Bring the schema up to date; `sqlalchemy.exc.SQLAlchemyError` where the database can't be reached."""
        upgrade(self._engine)

    def places(self, partitions: Collection[int]) -> dict[int, Place]:
        """How far partitions have been recorded; one that never was is absent."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(RECORDERS).where(RECORDERS.c.partition.in_(partitions))).all()
        return {row.partition: Place(row.entries, row.events, row.state) for row in rows}

    def segments_of(self, patient: str, epoch: int, after: int = 0) -> list[Segment]:
        """List the segments of an epoch that end after a sample, in the order of their samples."""
        mine = (SEGMENTS.c.patient == patient, SEGMENTS.c.epoch == epoch)
        chosen = select(SEGMENTS).where(*mine, SEGMENTS.c.first + SEGMENTS.c.length > after)
        with self._engine.connect() as connection:
            return [to_segment(row) for row in connection.execute(chosen.order_by(SEGMENTS.c.first, SEGMENTS.c.bits))]

    def commit(
        self,
        segments: Iterable[Segment],
        minutes: Sequence[tuple[str, int, MinuteSums]],
        places: Iterable[tuple[int, Place]],
        before: Mapping[int, tuple[str, str]] | None = None,
    ) -> None:
        """Write what was done since the last call, all or nothing.

        Parameters
        ----------
        segments : iterable of Segment
            New ones and those whose times changed.
        minutes : sequence of (patient, ms, MinuteSums)
            Added to what the minute holds.
        places : iterable of (partition, Place)
            Partitions that moved.
        before : mapping of int to (str, str), optional
            Entries and events up to which partitions had been recorded by the caller's account (absent: never); None
            does not look. What stands at the new places already was written by a call whose answer was lost, and is
            not written again.

        Raises
        ------
        OvertakenError
            If a partition stands elsewhere.
        """
        new = [
            {
                **{name: getattr(segment, name) for name in _PLAIN},
                "from_ms": segment.from_ms,
                "to_ms": segment.to_ms,
                "leads": json.dumps(segment.leads),
                "anchors": anchors_text(segment),
            }
            for segment in segments
        ]
        added = [
            {"patient": patient, "ms": ms, **dict(zip(_NAMES, astuple(sums), strict=True))}
            for patient, ms, sums in minutes
        ]
        moved = [
            {"partition": partition, "entries": place.entries, "events": place.events, "state": place.state}
            for partition, place in places
        ]
        with self._writer.begin() as connection:
            if before is not None and _stand(connection, moved, before):
                return
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            for table, rows, keys in (
                (SEGMENTS, new, ("path",)),
                (MINUTES, added, ("patient", "ms")),
                (RECORDERS, moved, ("partition",)),
            ):
                if rows:
                    statement: Any = dialect.insert(table)
                    changes = _added(statement) if table is MINUTES else _replaced(table, keys, statement)
                    connection.execute(
                        statement.on_conflict_do_update(index_elements=[table.c[key] for key in keys], set_=changes),
                        rows,
                    )

    def forget(self, paths: Sequence[str]) -> None:
        """Take segments out of the index."""
        with self._writer.begin() as connection:
            connection.execute(delete(SEGMENTS).where(SEGMENTS.c.path.in_(paths)))


def _stand(connection: Connection, moved: Sequence[Mapping[str, Any]], before: Mapping[int, tuple[str, str]]) -> bool:
    """Whether all partitions stand at their new places already; `OvertakenError` unless they stand where they did."""
    new = {row["partition"]: (row["entries"], row["events"]) for row in moved}
    chosen = select(RECORDERS.c.partition, RECORDERS.c.entries, RECORDERS.c.events)
    locked = chosen.where(RECORDERS.c.partition.in_(new)).order_by(RECORDERS.c.partition).with_for_update()
    known = {row.partition: (row.entries, row.events) for row in connection.execute(locked)}
    if new and known == new:
        return True
    others = sorted(partition for partition in new if known.get(partition) != before.get(partition))
    if others:
        raise OvertakenError(f"another recorder has stored partitions {', '.join(map(str, others))}")
    return False


_PLAIN: Final = ("path", "patient", "device", "epoch", "first", "length", "fs", "gain", "bits")


def to_segment(row: Row[Any]) -> Segment:
    """Read a row of the index."""
    plain = {name: getattr(row, name) for name in _PLAIN}
    anchors = tuple((int(sample), float(ms)) for sample, ms in json.loads(row.anchors))
    return Segment(**plain, from_ms=row.from_ms, to_ms=row.to_ms, leads=tuple(json.loads(row.leads)), anchors=anchors)


def _replaced(table: Table, keys: Sequence[str], statement: Any) -> dict[str, Any]:
    return {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}


def _added(statement: Any) -> dict[str, Any]:
    new = statement.excluded
    changes: dict[str, Any] = {name: MINUTES.c[name] + new[name] for name in _SUMS}
    for name, better in (("hr_min", new.hr_min < MINUTES.c.hr_min), ("hr_max", new.hr_max > MINUTES.c.hr_max)):
        known = MINUTES.c[name]
        changes[name] = case((known.is_(None), new[name]), (better, new[name]), else_=known)
    return changes
