"""A notifier over a database of its own, fed by hand, and a receiver that keeps what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
import waiting
from sqlalchemy import Engine
from wall_fakes import alarm

from alerts.contacts import Contact, Contacts
from alerts.database import open_engine, upgrade
from alerts.deliveries import Deliveries, Delivery
from alerts.notifier import Notifier
from alerts.notify_senders import Sender
from bus.errors import BusUnavailableError
from bus.messages import AlarmEvent, Event, pack
from bus.streams import START, Record

NOW = 1_760_000_000_000


def vtach(**more: object) -> AlarmEvent:
    """Make a ventricular tachycardia that was announced now."""
    usual = {"raised_ms": NOW, "changed_ms": NOW, "announced_ms": NOW, "reason": "raised", "detail": "7 at 168/min"}
    return msgspec.structs.replace(alarm("bed-1", "VTACH", 3, **usual), **more)


def contact(label: str, channel: str = "webhook", address: str = "http://localhost/", **more: object) -> Contact:
    """Make a contact with an id."""
    return Contact(label, channel, address, id=label, **more)  # type: ignore[arg-type]


class Feed:
    """A bus that gives what was put on it, or fails."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.fails = 0
        self.news = asyncio.Event()

    def put(self, *events: Event) -> None:
        """Publish events."""
        for event in events:
            self.records.append(Record(f"{NOW}-{len(self.records)}", pack(event)))
        self.news.set()

    async def read_events(
        self, cursors: Mapping[int, str], *, count: int = 500, block_ms: int = 0
    ) -> list[tuple[int, list[Record]]]:
        """Read after the cursor."""
        if self.fails:
            self.fails -= 1
            raise BusUnavailableError("gone")
        found = [r for r in self.records if _order(r.position) > _order(cursors[0])]
        if not found:
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), block_ms / 1000)
            except TimeoutError:
                return []
            return await self.read_events(cursors)
        return [(0, found[:count])]

    async def last(self, cursors: Sequence[int], name: str = "events") -> dict[int, str]:
        """Newest position."""
        return {0: self.records[-1].position if self.records else START}


def _order(position: str) -> tuple[int, int]:
    ms, _, number = position.partition("-")
    return int(ms), int(number)


class Desk:
    """Database, bus and clock of a notifier."""

    def __init__(self, folder: Path) -> None:
        self.engine: Engine = open_engine(f"sqlite:///{folder / 'history.db'}")
        upgrade(self.engine)
        self.contacts, self.outbox, self.feed, self.now = Contacts(self.engine), Deliveries(self.engine, 1), Feed(), NOW

    @asynccontextmanager
    async def running(self, senders: Mapping[str, Sender]) -> AsyncIterator[Notifier]:
        """Run a notifier for as long as the block lasts."""
        stop = asyncio.Event()
        notifier = Notifier(
            self.feed, self.engine, senders, stop, place_of=lambda _: ("12", "7"), clock=lambda: self.now,
            total=1, poll_s=0.02, wait_s=0.02,
        )  # fmt: skip
        task = asyncio.create_task(notifier.run([0]))
        try:
            yield notifier
        finally:
            stop.set()
            await task

    def states(self) -> dict[str, str]:
        """State of the newest message to each contact, by label."""
        return {item.label: item.state for item in reversed(self.outbox.recent())}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.engine.dispose()


until = partial(waiting.until, seconds=15)


class Taker:
    """A sender that notes what it got; it may fail or hang."""

    def __init__(self, answer: Callable[[Delivery], Awaitable[None]] | None = None) -> None:
        self.got: list[Delivery] = []
        self._answer = answer

    async def send(self, contact: Contact, delivery: Delivery, now_ms: int) -> None:
        """Take a message."""
        if self._answer is not None:
            await self._answer(delivery)
        self.got.append(delivery)
