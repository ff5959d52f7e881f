"""The history in SQL: alarms and their changes, rhythms, states, and how far the bus has been read.

Calls block: run them in a thread. Writing the same events again changes nothing, in any order: an alarm's row only
moves to a higher revision, and everything else is known by its identity.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Self

import msgspec
from sqlalchemy import Table, select

from alerts.database import insert_into, open_engine, upgrade, writing
from alerts.settings import SETTINGS, in_force, settings_row
from alerts.tables import AlarmRow, ChangeRow, CursorRow, RhythmRow, StatusRow, columns_of, table_of
from bus.messages import AlarmEvent, Event, RhythmEvent, SettingsEvent, StatusEvent

_ALARM_FIELDS: Final = AlarmEvent.__struct_fields__

ALARMS, CHANGES, RHYTHMS = table_of(AlarmRow), table_of(ChangeRow), table_of(RhythmRow)
STATUSES, CURSORS = table_of(StatusRow), table_of(CursorRow)
_COLUMNS: Final = columns_of(ALARMS, AlarmEvent)


class Batch(NamedTuple):
    """Events of a partition for the history.

    Attributes
    ----------
    partition : int
        Of the bus.
    records : sequence of (str, Event)
        Position and event, in order; beats are not kept here.
    position : str
        Of the last entry read, which may have held no event.
    """

    partition: int
    records: Sequence[tuple[str, Event]]
    position: str


class Store:
    """The history database.

    Parameters
    ----------
    url : str
        ``sqlite:///path`` or ``postgresql://...``.

    Raises
    ------
    StoreError
        If the URL can't be used.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._writer = writing(self._engine)

    def upgrade(self) -> None:
        """Make or bring up to date the schema; `sqlalchemy.exc.SQLAlchemyError` where the database can't be reached."""
        upgrade(self._engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- written by the historian --------------------------------------------------------------------------------

    def write(self, partition: int, records: Sequence[tuple[str, Event]], position: str) -> bool:
        """Write one partition as `write_all` does; False if its cursor stood at or beyond `position`."""
        return self.write_all([Batch(partition, records, position)]) == 1

    def write_all(self, batches: Sequence[Batch]) -> int:
        """Write events of several partitions and how far each was read, in one transaction.

        Returns
        -------
        int
            Partitions written; one whose cursor stands at or beyond the position was written before and is left alone.
        """
        found = [(batch, _rows_of(batch)) for batch in batches]
        with self._writer.begin() as connection:
            mine = select(CURSORS).where(CURSORS.c.partition.in_([batch.partition for batch in batches]))
            # Locked, and in one order: two historians may have the same partition while ranges are moved.
            locked = mine.order_by(CURSORS.c.partition).with_for_update()
            known = {row.partition: row.position for row in connection.execute(locked)}
            new = [
                (batch, rows)
                for batch, rows in found
                if batch.partition not in known or _order(known[batch.partition]) < _order(batch.position)
            ]
            for table in (CHANGES, RHYTHMS, STATUSES, SETTINGS):
                if added := [row for _, rows in new for row in rows.get(table, ())]:
                    connection.execute(insert_into(connection, table).on_conflict_do_nothing(), added)
            if alarms := [row for _, rows in new for row in rows.get(ALARMS, ())]:
                statement = insert_into(connection, ALARMS)
                connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=[ALARMS.c.id],
                        set_={name: statement.excluded[name] for name in _ALARM_FIELDS if name != "id"},
                        where=ALARMS.c.revision < statement.excluded.revision,
                    ),
                    alarms,
                )
            if new:
                cursor = insert_into(connection, CURSORS)
                connection.execute(
                    cursor.on_conflict_do_update(
                        index_elements=[CURSORS.c.partition], set_={"position": cursor.excluded.position}
                    ),
                    [{"partition": batch.partition, "position": batch.position} for batch, _ in new],
                )
        return len(new)

    def cursors(self) -> dict[int, str]:
        """How far each partition was read."""
        with self._engine.connect() as connection:
            return {row.partition: row.position for row in connection.execute(select(CURSORS))}

    def settings_in_force(self) -> list[SettingsEvent]:
        """List the newest settings of every patient that staff ever set something for."""
        with self._engine.connect() as connection:
            return in_force(connection)

    # --- asked by the pages --------------------------------------------------------------------------------------

    def open_alarms(self) -> list[AlarmEvent]:
        """List alarms that are not off, oldest first."""
        return self._alarms(select(*_COLUMNS).where(ALARMS.c.presence != "off").order_by(ALARMS.c.raised_ms))

    def _alarms(self, chosen: Any) -> list[AlarmEvent]:
        with self._engine.connect() as connection:
            return [AlarmEvent(**row) for row in connection.execute(chosen).mappings()]


def _rows_of(batch: Batch) -> dict[Table, list[dict[str, Any]]]:
    """Rows of a batch by table."""
    rows: dict[Table, list[dict[str, Any]]] = defaultdict(list)
    alarms: dict[str, dict[str, Any]] = {}
    for place, item in batch.records:
        if isinstance(item, AlarmEvent):
            row = msgspec.structs.asdict(item)
            rows[CHANGES].append(row)
            known = alarms.get(item.id)
            if known is None or known["revision"] < item.revision:
                alarms[item.id] = row
        elif isinstance(item, RhythmEvent):
            rows[RHYTHMS].append(msgspec.structs.asdict(item))
        elif isinstance(item, StatusEvent):
            row = msgspec.structs.asdict(item)
            del row["battery"]  # an alarm says when it is low
            entry = f"{batch.partition}:{place}"
            rows[STATUSES].append({**row, "leads": " ".join(item.leads), "entry": entry})
        elif isinstance(item, SettingsEvent):
            rows[SETTINGS].append({**settings_row(item), "entry": f"{batch.partition}:{place}"})
    rows[ALARMS] = list(alarms.values())
    return rows


def _order(position: str) -> tuple[int, int]:
    ms, _, number = position.partition("-")
    return int(ms), int(number or 0)
