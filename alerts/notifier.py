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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from alerts.contacts import Contact, Contacts
from alerts.database import upgrade
from alerts.deliveries import Deliveries, Delivery
from alerts.history import Events
from alerts.notify import (
    SETTLING,
    Line,
    after_failure,
    after_success,
    is_announcement,
    is_too_late,
    messages_for,
    whose_turn,
)
from alerts.notify_senders import Sender, SendError
from bus.clock import now_ms
from bus.errors import BusError
from bus.messages import DEFAULT_PARTITIONS, AlarmEvent, is_beat, unpack_event
from bus.reading import count_each, may_be_more
from bus.records import earlier
from bus.streams import Record
from bus.tasks import end

log = logging.getLogger("alerts.notifier")

_Result = TypeVar("_Result")

READ_COUNT: Final = 500
READ_MOST: Final = 4_000
"""Events of all partitions in one go."""
BLOCK_MS: Final = 500
BACK_MS: Final = 60_000
"""A notifier that starts for the first time looks back so far."""
CURSOR_S: Final = 10.0
"""Positions are kept at least this often, also where nothing was to be sent."""
GATHER_S: Final = 0.25
LOOK: Final = 200
"""Messages to a contact that are looked at together."""
CLAIM_MS: Final = 15_000
"""No other notifier sends a message that one has begun to send this long ago: longer than any sender takes."""
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


class Notifier:
    """Tells contacts of alarms of the patients of some partitions; several share the work, a range each.

    Two may have the same range for a moment: the outbox knows each message once, and one of them claims it.

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
    total : int
        Partitions of the bus.
    """

    def __init__(
        self,
        bus: Events,
        engine: Engine,
        senders: Mapping[str, Sender],
        stop: asyncio.Event,
        *,
        place_of: Callable[[str], tuple[str, str]] = lambda _: ("", ""),
        clock: Callable[[], int] = now_ms,
        total: int = DEFAULT_PARTITIONS,
        poll_s: float = POLL_S,
        wait_s: float = WAIT_S,
    ) -> None:
        self.counters = Counters()
        self._bus, self._engine, self._senders, self._stop = bus, engine, senders, stop
        self._place_of, self._clock, self._poll_s, self._first_wait = place_of, clock, poll_s, wait_s
        self._contacts, self._outbox = Contacts(engine), Deliveries(engine, total)
        self._woken = asyncio.Event()
        self._lines: dict[str, Line] = {}
        self._partitions: tuple[int, ...] = ()
        self._claimed: dict[str, Delivery] = {}
        """Under way, by their keys."""

    async def run(self, partitions: Sequence[int]) -> None:
        """Read and send until told to stop; a failure of bus or database is waited out."""
        self._partitions = tuple(partitions)
        cursors = await self._insist(self._open)
        if cursors is None:
            return
        at = await self._begin(cursors)
        if at is None:
            return
        sending = asyncio.create_task(self._send_all(), name="notifier sending")
        try:
            await self._read_all(at)
        finally:
            self._stop.set()
            self._woken.set()
            await end([sending])
            with contextlib.suppress(SQLAlchemyError, OSError):
                await asyncio.to_thread(self._outbox.release, list(self._claimed.values()), self._clock())

    def _open(self) -> dict[int, str]:
        upgrade(self._engine)
        return self._outbox.cursors()

    # --- reading -------------------------------------------------------------------------------------------------

    async def _begin(self, cursors: Mapping[int, str]) -> dict[int, str] | None:
        """Say where each partition is read from; None if told to stop before the bus answered."""
        new = [partition for partition in self._partitions if partition not in cursors]
        wait = self._first_wait
        while True:
            try:
                newest = await self._bus.last(new) if new else {}
            except BusError as error:
                self.counters.failures += 1
                log.warning("events can't be read, tried again: %s", error)
                await self._pause(wait)
                wait = min(2 * wait, MAX_WAIT_S)
                if self._stop.is_set():
                    return None
                continue
            # By ids alone: where our clock is ahead of the server's, nothing would be new for long.
            at = {partition: earlier(position, BACK_MS) for partition, position in newest.items()}
            return at | {partition: cursors[partition] for partition in self._partitions if partition in cursors}

    async def _read_all(self, at: dict[int, str]) -> None:
        wait = self._first_wait
        kept = float("-inf")
        moved: dict[int, str] = {}
        count = count_each(READ_MOST, len(at), cap=READ_COUNT)
        while not self._stop.is_set():
            try:
                answer = await self._bus.read_events(at, count=count, block_ms=BLOCK_MS)
                wait = self._first_wait
            except BusError as error:
                self.counters.failures += 1
                log.warning("events can't be read, tried again: %s", error)
                await self._pause(wait)
                wait = min(2 * wait, MAX_WAIT_S)
                continue
            alarms = [alarm for _, records in answer for alarm in self._alarms(records)]
            moved |= {partition: records[-1].position for partition, records in answer}
            # Where nothing is to be told no position need be kept either, but now and then.
            if alarms or (moved and time.monotonic() - kept >= CURSOR_S):
                if await self._insist(self._take, alarms, moved) is None:
                    return
                kept, moved = time.monotonic(), {}
                if alarms:
                    self._woken.set()
            at |= {partition: records[-1].position for partition, records in answer}
            if may_be_more(answer, count):
                continue
            # A few entries of each partition in one go cost hardly more than one.
            await self._pause(GATHER_S)

    def _alarms(self, records: Sequence[Record]) -> Iterator[AlarmEvent]:
        for record in records:
            if is_beat(record.data):
                continue
            try:
                event = unpack_event(record.data)
            except (msgspec.DecodeError, msgspec.ValidationError):
                self.counters.unreadable += 1
                continue
            if isinstance(event, AlarmEvent):
                yield event

    def _take(self, alarms: Sequence[AlarmEvent], positions: Mapping[int, str]) -> bool:
        """Put what alarms ask for into the outbox, with how far each partition was read."""
        now = self._clock()
        contacts = self._contacts.all() if alarms else []
        found: list[Delivery] = []
        for alarm in alarms:
            bed, ward = self._place_of(alarm.patient) if contacts and is_announcement(alarm) else ("", "")
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
        self.counters.messages += self._outbox.add(found, positions)
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
                    waiting = await asyncio.to_thread(self._outbox.waiting_contacts, self._partitions)
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
        """Send a contact what is due: some messages at once, those about one alarm in their order."""
        line = self._lines.setdefault(name, Line())
        under_way: dict[str, asyncio.Task[None]] = {}
        try:
            while not self._stop.is_set():
                contact, waiting = await asyncio.to_thread(self._waiting, name)
                now = self._clock()
                turn = whose_turn(waiting, under_way, now, line.room(len(under_way), now))
                for delivery in await self._claim(turn, now):
                    carried = self._carry(contact, delivery, line)
                    under_way[delivery.alarm] = asyncio.create_task(carried, name=f"message {delivery.id}")
                if not under_way:
                    return
                # What comes meanwhile need not wait for an answer that may never come.
                await asyncio.wait(under_way.values(), timeout=self._poll_s, return_when=asyncio.FIRST_COMPLETED)
                for alarm, task in list(under_way.items()):
                    if task.done():
                        del under_way[alarm]
                        task.result()
        except (SQLAlchemyError, OSError) as error:
            self.counters.failures += 1
            log.warning("outbox can't be used, tried again: %s", type(error).__name__)
        finally:
            await end(under_way.values())

    async def _claim(self, turn: Sequence[Delivery], now: int) -> list[Delivery]:
        mine = await asyncio.to_thread(self._outbox.claim, turn, now + CLAIM_MS) if turn else []
        self._claimed |= {delivery.id: delivery for delivery in mine}
        return mine

    def _waiting(self, name: str) -> tuple[Contact | None, list[Delivery]]:
        contact = next((item for item in self._contacts.all() if item.id == name), None)
        return contact, self._outbox.waiting(name, LOOK, self._partitions)

    async def _carry(self, contact: Contact | None, delivery: Delivery, line: Line) -> None:
        await asyncio.to_thread(self._outbox.note, await self._try(contact, delivery, line))
        del self._claimed[delivery.id]

    async def _try(self, contact: Contact | None, delivery: Delivery, line: Line) -> Delivery:
        sender = self._senders.get(delivery.channel)
        now = self._clock()
        try:
            if contact is None:
                raise SendError("the contact was removed", permanent=True)
            if is_too_late(delivery, now):
                raise SendError(f"waited too long: {delivery.error or 'others had no answer'}", permanent=True)
            if sender is None:
                raise SendError(f"the notifier runs without {delivery.channel}", permanent=True)
            await sender.send(contact, delivery, now)
        except SendError as error:
            if not error.silent:
                return self._failed(delivery, str(error), permanent=error.permanent)
            line.silent(self._clock())
            return self._failed(delivery, str(error), due_ms=line.until_ms)
        except Exception as error:
            # A message that breaks its sender must neither hold the contact's others up nor be tried without a pause.
            log.exception("message %s can't be sent", delivery.id)
            return self._failed(delivery, f"can't be sent: {type(error).__name__}")
        line.answered()
        self.counters.sent += 1
        return after_success(delivery, self._clock())

    def _failed(self, delivery: Delivery, why: str, *, permanent: bool = False, due_ms: int | None = None) -> Delivery:
        self.counters.failed += 1
        result = after_failure(delivery, self._clock(), why, permanent=permanent, due_ms=due_ms)
        self.counters.given_up += result.state == "given_up"
        return result

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
