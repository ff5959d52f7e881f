"""Messages to contacts in SQL: the outbox of the notifier and what became of each message. Calls block."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Engine, delete, select, update

from alerts.database import insert_into, writing
from alerts.tables import columns_of, table_of
from alerts.tables_alarms import DeliveryRow, NotifiedRow
from bus.messages import DEFAULT_PARTITIONS, partition_of
from bus.streams import order

DELIVERIES: Final = table_of(DeliveryRow)
NOTIFIED: Final = table_of(NotifiedRow)


class Delivery(msgspec.Struct, frozen=True):
    """One message to one contact.

    Attributes
    ----------
    id : str
        Idempotency key: the same announcement to the same contact has the same.
    state : str
        ``waiting``, ``sent``, ``given_up``, or ``settled`` (acknowledged before it could be sent).
    due_ms : int
        Next try.
    """

    id: str
    alarm: str
    patient: str
    contact: str
    label: str
    channel: str
    level: int
    made_ms: int
    state: str = "waiting"
    tries: int = 0
    due_ms: int = 0
    done_ms: int | None = None
    error: str = ""
    message: str = ""
    """JSON that is sent."""


def key_of(alarm: str, announced_ms: int, level: int, reason: str, contact: str) -> str:
    """Idempotency key of a message."""
    text = "\n".join((alarm, str(announced_ms), str(level), reason, contact))
    return hashlib.sha256(text.encode()).hexdigest()[:48]


class Deliveries:
    """The outbox.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of `alerts.database.open_engine`, its schema up to date.
    total : int
        Partitions of the bus.
    """

    def __init__(self, engine: Engine, total: int = DEFAULT_PARTITIONS) -> None:
        self._engine = engine
        self._total = total
        self._writer = writing(engine)

    def cursors(self) -> dict[int, str]:
        """Position up to which each partition's events are deliveries."""
        with self._engine.connect() as connection:
            return {row.partition: row.position for row in connection.execute(select(NOTIFIED))}

    def add(self, deliveries: Sequence[Delivery], positions: Mapping[int, str]) -> int:
        """Put messages in, with how far each partition was read, in one transaction; known ones stay as they are.

        A position that another notifier has moved further on stays too.

        Returns
        -------
        int
            How many are new.
        """
        added = 0
        with self._writer.begin() as connection:
            for delivery in deliveries:
                statement = insert_into(connection, DELIVERIES).on_conflict_do_nothing().returning(DELIVERIES.c.id)
                row = {**msgspec.structs.asdict(delivery), "partition": partition_of(delivery.patient, self._total)}
                added += len(connection.execute(statement, row).all())
            mine = select(NOTIFIED).where(NOTIFIED.c.partition.in_(positions)).order_by(NOTIFIED.c.partition)
            known = {row.partition: row.position for row in connection.execute(mine.with_for_update())}
            further = [
                {"partition": partition, "position": position}
                for partition, position in positions.items()
                if partition not in known or order(known[partition]) < order(position)
            ]
            if further:
                cursor = insert_into(connection, NOTIFIED)
                connection.execute(
                    cursor.on_conflict_do_update(
                        index_elements=[NOTIFIED.c.partition], set_={"position": cursor.excluded.position}
                    ),
                    further,
                )
        return added

    def waiting_contacts(self, partitions: Collection[int] | None = None) -> list[str]:
        """Contacts for whom messages wait about patients of some partitions (None: of all)."""
        chosen = select(DELIVERIES.c.contact).where(*_waiting(partitions)).distinct()
        with self._engine.connect() as connection:
            return list(connection.scalars(chosen))

    def waiting(self, contact: str, limit: int = 50, partitions: Collection[int] | None = None) -> list[Delivery]:
        """List the messages to a contact that are not done, the next due first."""
        return self._list(*_waiting(partitions), DELIVERIES.c.contact == contact, limit=limit)

    def claim(self, deliveries: Sequence[Delivery], until_ms: int) -> list[Delivery]:
        """Take messages to send them now; they are due for others again at `until_ms`, should nobody note them.

        Returns
        -------
        list of Delivery
            Those that nobody else has taken, settled or sent since they were listed.
        """
        mine = []
        with self._writer.begin() as connection:
            for delivery in deliveries:
                taken = update(DELIVERIES).where(*_as_listed(delivery)).values(due_ms=until_ms)
                if connection.execute(taken).rowcount:
                    mine.append(msgspec.structs.replace(delivery, due_ms=until_ms))
        return mine

    def release(self, claimed: Sequence[Delivery], due_ms: int) -> None:
        """Give back what was claimed and not noted, due at a time."""
        with self._writer.begin() as connection:
            for delivery in claimed:
                connection.execute(update(DELIVERIES).where(*_as_listed(delivery)).values(due_ms=due_ms))

    def of_alarm(self, alarm: str) -> list[Delivery]:
        """List the messages about an alarm, oldest first."""
        return self._list(DELIVERIES.c.alarm == alarm)

    def recent(self, limit: int = 200) -> list[Delivery]:
        """List the newest messages."""
        chosen = _CHOSEN.order_by(DELIVERIES.c.made_ms.desc(), DELIVERIES.c.id).limit(limit)
        with self._engine.connect() as connection:
            return [Delivery(**row) for row in connection.execute(chosen).mappings()]

    def note(self, delivery: Delivery) -> None:
        """Keep what became of a message, unless it was settled meanwhile."""
        values = {name: getattr(delivery, name) for name in ("state", "tries", "due_ms", "done_ms")}
        values["error"] = delivery.error[:500]
        mine = (DELIVERIES.c.id == delivery.id, DELIVERIES.c.state == "waiting")
        with self._writer.begin() as connection:
            connection.execute(update(DELIVERIES).where(*mine).values(values))

    def settle(self, alarm: str, now_ms: int, why: str) -> int:
        """Send nothing more about an alarm; returns how many messages waited."""
        mine = (DELIVERIES.c.alarm == alarm, DELIVERIES.c.state == "waiting")
        with self._writer.begin() as connection:
            done = update(DELIVERIES).where(*mine).values(state="settled", done_ms=now_ms, error=why)
            return connection.execute(done).rowcount

    def expire(self, before_ms: int) -> int:
        """Delete messages made before a time that are done; returns how many."""
        with self._writer.begin() as connection:
            old = delete(DELIVERIES).where(DELIVERIES.c.made_ms < before_ms, DELIVERIES.c.state != "waiting")
            return connection.execute(old).rowcount

    def _list(self, *wanted: object, limit: int = 1000) -> list[Delivery]:
        chosen = _CHOSEN.where(*wanted).order_by(DELIVERIES.c.due_ms, DELIVERIES.c.id).limit(limit)  # type: ignore[arg-type]
        with self._engine.connect() as connection:
            return [Delivery(**row) for row in connection.execute(chosen).mappings()]


def _waiting(partitions: Collection[int] | None) -> tuple[ColumnElement[bool], ...]:
    waits = DELIVERIES.c.state == "waiting"
    return (waits,) if partitions is None else (waits, DELIVERIES.c.partition.in_(partitions))


def _as_listed(delivery: Delivery) -> tuple[ColumnElement[bool], ...]:
    return DELIVERIES.c.id == delivery.id, DELIVERIES.c.state == "waiting", DELIVERIES.c.due_ms == delivery.due_ms


_CHOSEN: Final = select(*columns_of(DELIVERIES, Delivery))
