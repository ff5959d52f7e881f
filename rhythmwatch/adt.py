"""The hospital's own feed of admissions: HL7 v2 ADT over MLLP, acted upon through the desk and acknowledged.

A feed tells of the whole hospital. Who comes to a bed without a device of ours is acknowledged and forgotten; who goes
from a monitored bed to such a one is discharged here. A bed has a device if one is enrolled under the bed's name, or if
the bed's last patient was on one that has not been elsewhere since.
"""

from __future__ import annotations

import asyncio
from asyncio import IncompleteReadError
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog
from hl7.mllp import InvalidBlockError, start_hl7_server
from sqlalchemy.exc import SQLAlchemyError

from alerts.audit import Audit
from alerts.care import Care, new_person
from alerts.care_beds import channel_of
from alerts.care_desk import Desk
from alerts.care_model import Person, Stay
from alerts.database import StoreError, open_engine, upgrade
from bus.clock import keeping_time, now_ms
from bus.streams import Bus
from bus.tasks import end
from rhythmwatch.adt_message import Adt, AdtError, acknowledge, decode, read
from rhythmwatch.rights import Sender

log = structlog.get_logger()

LARGEST: Final = 1 << 20
"""Bytes of a message."""
IDLE_S: Final = 3600.0
REMEMBERED: Final = 10_000
"""Messages known by their control id, so that a repetition is answered and not done again."""
PROFILE: Final = "adult"


@dataclass(slots=True)
class Counters:
    """What the feed brought."""

    done: dict[str, int] = field(default_factory=dict)
    elsewhere: int = 0
    """About beds without a device."""
    repeated: int = 0
    refused: int = 0
    unsupported: int = 0


class Feed:
    """Acts upon messages.

    Parameters
    ----------
    desk : Desk
    audit : Audit
    """

    def __init__(self, desk: Desk, audit: Audit) -> None:
        self._desk, self._care, self._audit = desk, desk.care, audit
        self._known: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._turn = asyncio.Lock()
        self.counters = Counters()

    async def take(self, block: bytes) -> bytes:
        """Act upon a message and give the acknowledgement; `AdtError` if it can't even be answered."""
        message = decode(block)
        # One at a time: a feed's order is its meaning.
        async with self._turn:
            try:
                adt = read(message)
            except AdtError as error:
                self.counters.refused += 1
                return acknowledge(message, "AE", str(error))
            if adt is None:
                self.counters.unsupported += 1
                return acknowledge(message, "AR", "only ADT A01 A02 A03 A04 A08 A11 A13 are taken")
            key = (adt.sender, adt.control)
            if adt.control and key in self._known:
                self.counters.repeated += 1
                return self._known[key]
            try:
                await self._act(adt)
            except (StoreError, AdtError) as error:
                self.counters.refused += 1
                return acknowledge(message, "AE", str(error))
            except SQLAlchemyError as error:
                # The message of the database may hold values of the statement.
                self.counters.refused += 1
                log.error("admission not stored", why=type(error).__name__)
                return acknowledge(message, "AE", "the database does not answer; send it again")
            answer = acknowledge(message, "AA")
            self._known[key] = answer
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            self.counters.done[adt.event] = self.counters.done.get(adt.event, 0) + 1
            return answer

    async def _act(self, adt: Adt) -> None:
        known = await asyncio.to_thread(self._care.by_mrn, adt.mrn)
        who = f"hl7 {adt.sender}"[:255]
        if adt.event in ("admit", "register", "transfer"):
            await self._place(adt, known, who)
        elif known is None:
            self.counters.elsewhere += 1
        elif adt.event == "update":
            await asyncio.to_thread(self._care.put_person, _person(adt, known))
            await self._note(who, "person.update", known.person, known.person)
        elif adt.event == "cancel discharge":
            stays = await asyncio.to_thread(self._care.stays, known.person)
            if not stays or stays[-1].to_ms is None:
                raise AdtError("this patient was not discharged here")
            stay = await self._desk.reopen(stays[-1], who)
            await self._note(who, "patient.admit", stay.patient, known.person)
        else:
            await self._leave(known, who)

    async def _place(self, adt: Adt, known: Person | None, who: str) -> None:
        """Bring a patient to a bed, from outside, from another bed, or not at all where there is no device."""
        device: str | None = None
        if adt.place is not None:
            device = await asyncio.to_thread(channel_of, self._care.engine, adt.place.ward, adt.place.bed)
        if adt.place is None or device is None:
            if known is not None and adt.event == "transfer":
                await self._leave(known, who)
            else:
                self.counters.elsewhere += 1
            return
        stay: Stay | None = None
        if known is not None:
            stay = await asyncio.to_thread(self._care.open_stay, person=known.person)
        person = _person(adt, known)
        if stay is None:
            await self._desk.admit(person, device, adt.place.bed, adt.place.ward, PROFILE, who, adt.visit)
            await self._note(who, "patient.admit", device, person.person)
            return
        await asyncio.to_thread(self._care.put_person, person)
        if (stay.ward, stay.bed) == (adt.place.ward, adt.place.bed):
            return
        moved = await self._desk.transfer(stay.patient, adt.place.bed, adt.place.ward, device, who)
        await self._note(who, "patient.transfer", stay.patient, person.person, to=moved.patient)

    async def _leave(self, person: Person, who: str) -> None:
        stay: Stay | None = await asyncio.to_thread(self._care.open_stay, person=person.person)
        if stay is None:
            self.counters.elsewhere += 1
            return
        await self._desk.discharge(stay.patient, who)
        await self._note(who, "patient.discharge", stay.patient, person.person)

    async def _note(self, who: str, act: str, subject: str, person: str, **more: str) -> None:
        await asyncio.to_thread(self._audit.add, now_ms(), who, act, subject, {"person": person, **more})


def _person(adt: Adt, known: Person | None) -> Person:
    if known is None:
        return new_person(adt.name, now_ms(), mrn=adt.mrn, born=adt.born, sex=adt.sex)
    said = {"name": adt.name, "born": adt.born, "sex": adt.sex}
    return msgspec.structs.replace(known, **{key: value for key, value in said.items() if value})


async def serve_feed(feed: Feed, host: str, port: int) -> asyncio.Server:
    """Listen for MLLP connections; close the server to end."""

    async def connected(reader: Any, writer: Any) -> None:
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    block = await reader.readblock()
                writer.writeblock(await feed.take(block))
                await writer.drain()
        except (IncompleteReadError, ConnectionError, TimeoutError):
            pass
        except (InvalidBlockError, AdtError, ValueError) as error:
            feed.counters.refused += 1
            log.warning("a peer of the HL7 feed sent what is none", why=type(error).__name__)
        finally:
            writer.close()

    server: asyncio.Server = await start_hl7_server(connected, host, port, limit=LARGEST)
    return server


async def listen_adt(host: str, port: int, bus_url: str, history: str, stop: asyncio.Event) -> None:
    """Run the feed as a process until `stop` is set.

    Parameters
    ----------
    host, port
        Where to listen for MLLP.
    bus_url, history : str
        Addresses of the bus and the history database.
    stop : asyncio.Event
        Set to end it.
    """
    engine = open_engine(history)
    try:
        await asyncio.to_thread(upgrade, engine)
        async with Bus(bus_url) as bus, keeping_time(bus):
            feed = Feed(Desk(Care(engine), Sender(bus).append), Audit(engine))
            server = await serve_feed(feed, host, port)
            log.info("HL7 feed listens", host=host, port=server.sockets[0].getsockname()[1])
            serving = asyncio.create_task(server.serve_forever(), name="mllp")
            await stop.wait()
            await end([serving])
            log.info("HL7 feed ended", **msgspec.to_builtins(feed.counters))
    finally:
        await asyncio.to_thread(engine.dispose)
