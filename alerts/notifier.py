"""The notifier: reads alarm events, keeps messages in its outbox, and sends them, each contact by a task of its own.

A message is in the database before it is sent, under a key made of what it says and to whom, so that nothing is lost or
doubled there when the notifier is killed; a receiver may still hear one message twice, under one key. While the
database is away nothing is read on: events wait on the bus.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from alerts.contacts import Contact, Contacts
from alerts.database import upgrade
from alerts.deliveries import Deliveries, Delivery
from alerts.history import Events
from alerts.notify import SETTLING, after_failure, after_success, messages_for
from alerts.notify_senders import Sender, SendError
from bus.errors import BusError
from bus.messages import AlarmEvent, unpack_event
from bus.streams import Record
from bus.tasks import end

log = logging.getLogger("alerts.notifier")

_Result = TypeVar("_Result")

READ_COUNT: Final = 500
BLOCK_MS: Final = 500
BACK_MS: Final = 60_000
"""A notifier that starts for the first time looks back so far."""
CURSOR_S: Final = 10.0
"""Positions are kept at least this often, also where nothing was to be sent."""
GATHER_S: Final = 0.1
POLL_S: Final = 0.5
WAIT_S: Final = 0.5
MAX_WAIT_S: Final = 30.0


@dataclass(slots=True)
class Counters:
    """What the notifier did since its start."""

    announcements: int = 0
    messages: int = 0
    """Put in the outbox."""
    sent: int = 0
    failed: int = 0
    """Tries that failed."""
    given_up: int = 0
    settled: int = 0
    """Not sent because somebody had acknowledged."""
    unreadable: int = 0
    failures: int = 0
    """Of bus and database."""


def _now_ms() -> int:
    return int(time.time() * 1000)


class Notifier:
    """Tells contacts of alarms.

    Parameters
    ----------
    bus : Events
        Where events come from.
    engine : sqlalchemy.Engine
        Of the history database, which holds contacts and outbox.
    senders : mapping of str to Sender
        By channel; messages of other channels are given up, saying so.
    stop : asyncio.Event
        Set to end.
    place_of : callable
        Bed and ward of a patient now; blocks.
    clock : callable
        Server time, ms.
    """

    def __init__(
        self,
        bus: Events,
        engine: Engine,
        senders: Mapping[str, Sender],
        stop: asyncio.Event,
        *,
        place_of: Callable[[str], tuple[str, str]] = lambda _: ("", ""),
        clock: Callable[[], int] = _now_ms,
        poll_s: float = POLL_S,
        wait_s: float = WAIT_S,
    ) -> None:
        self.counters = Counters()
        self._bus, self._engine, self._senders, self._stop = bus, engine, senders, stop
        self._place_of, self._clock, self._poll_s, self._first_wait = place_of, clock, poll_s, wait_s
        self._contacts, self._outbox = Contacts(engine), Deliveries(engine)
        self._woken = asyncio.Event()
        self._kept: dict[int, float] = {}

    async def run(self, partitions: Sequence[int]) -> None:
        """Read and send until told to stop; a failure of bus or database is waited out."""
        cursors = await self._insist(self._open)
        if cursors is None:
            return
        begin = f"{max(0, self._clock() - BACK_MS)}-0"
        at = {partition: cursors.get(partition, begin) for partition in partitions}
        sending = asyncio.create_task(self._send_all(), name="notifier sending")
        try:
            await self._read_all(at)
        finally:
            self._stop.set()
            self._woken.set()
            await end([sending])

    def _open(self) -> dict[int, str]:
        upgrade(self._engine)
        return self._outbox.cursors()

    # --- reading -------------------------------------------------------------------------------------------------

    async def _read_all(self, at: dict[int, str]) -> None:
        wait = self._first_wait
        while not self._stop.is_set():
            try:
                answer = await self._bus.read_events(at, count=READ_COUNT, block_ms=BLOCK_MS)
                wait = self._first_wait
            except BusError as error:
                self.counters.failures += 1
                log.warning("events can't be read, tried again: %s", error)
                await self._pause(wait)
                wait = min(2 * wait, MAX_WAIT_S)
                continue
            for partition, records in answer:
                if await self._insist(self._take, partition, records) is None:
                    return
                at[partition] = records[-1].position
            # A few entries of each partition in one go cost hardly more than one.
            await self._pause(GATHER_S)

    def _take(self, partition: int, records: Sequence[Record]) -> bool:
        """Put what a partition's events ask for into the outbox, with the position."""
        alarms: list[AlarmEvent] = []
        for record in records:
            try:
                event = unpack_event(record.data)
            except (msgspec.DecodeError, msgspec.ValidationError):
                self.counters.unreadable += 1
                continue
            if isinstance(event, AlarmEvent):
                alarms.append(event)
        now = self._clock()
        position = records[-1].position
        if not alarms:
            if time.monotonic() - self._kept.get(partition, float("-inf")) >= CURSOR_S:
                self._outbox.add((), partition, position)
                self._kept[partition] = time.monotonic()
            return True
        contacts = self._contacts.all()
        found: list[Delivery] = []
        for alarm in alarms:
            bed, ward = self._place_of(alarm.patient) if contacts else ("", "")
            made = messages_for(alarm, contacts, now, bed=bed, ward=ward)
            self.counters.announcements += bool(made)
            if alarm.reason in SETTLING:
                why = f"{alarm.reason.replace('_', ' ')} by {alarm.acked_by or 'staff'}"
                self.counters.settled += self._outbox.settle(alarm.id, now, why)
                earlier = [item for item in found if item.alarm == alarm.id and item.state == "waiting"]
                settled = {
                    item.id: msgspec.structs.replace(item, state="settled", done_ms=now, error=why) for item in earlier
                }
                self.counters.settled += len(settled)
                found = [settled.get(item.id, item) for item in found]
            found += made
        self.counters.messages += self._outbox.add(found, partition, position)
        self._kept[partition] = time.monotonic()
        return True

    async def _insist(self, work: Callable[..., _Result], *values: object) -> _Result | None:
        """Do what needs the database, again and again while it is away; None if told to stop before it worked."""
        wait = self._first_wait
        while True:
            try:
                result = await asyncio.to_thread(work, *values)
            except (SQLAlchemyError, OSError) as error:
                self.counters.failures += 1
                log.warning("outbox can't be used, tried again: %s", type(error).__name__)
                await self._pause(wait)
                wait = min(2 * wait, MAX_WAIT_S)
                if self._stop.is_set():
                    return None
            else:
                self._woken.set()
                return result

    # --- sending -------------------------------------------------------------------------------------------------

    async def _send_all(self) -> None:
        """Keep a task for each contact that has messages waiting."""
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            while not self._stop.is_set():
                self._woken.clear()
                tasks = {name: task for name, task in tasks.items() if not task.done()}
                try:
                    waiting = await asyncio.to_thread(self._outbox.waiting_contacts)
                except (SQLAlchemyError, OSError):
                    self.counters.failures += 1
                    waiting = []
                for name in waiting:
                    if name not in tasks:
                        tasks[name] = asyncio.create_task(self._serve(name), name=f"contact {name}")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), self._poll_s)
        finally:
            await end(tasks.values())

    async def _serve(self, name: str) -> None:
        """Send a contact what is due, one after the other, in the order in which it fell due."""
        try:
            while not self._stop.is_set():
                contact, next_one = await asyncio.to_thread(self._next, name)
                if next_one is None or next_one.due_ms > self._clock():
                    return
                await asyncio.to_thread(self._outbox.note, await self._try(contact, next_one))
        except (SQLAlchemyError, OSError) as error:
            self.counters.failures += 1
            log.warning("outbox can't be used, tried again: %s", type(error).__name__)

    def _next(self, name: str) -> tuple[Contact | None, Delivery | None]:
        contact = next((item for item in self._contacts.all() if item.id == name), None)
        waiting = self._outbox.waiting(name, 1)
        return contact, waiting[0] if waiting else None

    async def _try(self, contact: Contact | None, delivery: Delivery) -> Delivery:
        sender = self._senders.get(delivery.channel)
        now = self._clock()
        try:
            if contact is None:
                raise SendError("the contact was removed", permanent=True)
            if sender is None:
                raise SendError(f"the notifier runs without {delivery.channel}", permanent=True)
            await sender.send(contact, delivery, now)
        except SendError as error:
            return self._failed(delivery, str(error), permanent=error.permanent)
        except Exception as error:
            # A message that breaks its sender must neither hold the contact's others up nor be tried without a pause.
            log.exception("message %s can't be sent", delivery.id)
            return self._failed(delivery, f"can't be sent: {type(error).__name__}")
        self.counters.sent += 1
        return after_success(delivery, self._clock())

    def _failed(self, delivery: Delivery, why: str, *, permanent: bool = False) -> Delivery:
        self.counters.failed += 1
        result = after_failure(delivery, self._clock(), why, permanent=permanent)
        self.counters.given_up += result.state == "given_up"
        return result

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
