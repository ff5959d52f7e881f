"""What the hub listens to: raw entries of ``rw:{p}:events`` and ``rw:{p}:view``, and a pulse when there is nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol, TypeAlias

from alerts.history import READER
from bus.records import earlier, order
from bus.streams import Bus, Position, Record, milliseconds
from bus.tasks import end

BLOCK_MS: Final = 250
"""Longest wait for an entry before a pulse."""
REPLAY_S: Final = 120
"""Events this old are read again at start, and older ones that the historian has not stored, as when it was down: so
nothing falls between the alarm store and the stream."""


class FeedKind(Enum):
    """What an item of the feed is."""

    EVENT = auto()
    """Msgpack of a `bus.messages.Event`."""
    VIEW = auto()
    """Msgpack of a `bus.messages.View`."""
    PULSE = auto()
    """The bus answered and had nothing new: the feed lives."""


@dataclass(frozen=True, slots=True)
class FeedItem:
    """One item, undecoded, so that nothing is parsed that nobody watches.

    Attributes
    ----------
    kind : FeedKind
        What `data` is.
    data : bytes
        Msgpack, empty for a pulse.
    written_ms : int
        When it was written to the bus, ms since the Unix epoch; 0 when unknown, or where more came at once behind it.
    """

    kind: FeedKind
    data: bytes = b""
    written_ms: int = 0


class Feed(Protocol):
    """A source of items.

    `items` is called once per connection attempt and never by two readers at a time; it runs until it raises or is
    closed. It yields at least one item (a pulse) each second, so that silence means trouble.
    """

    async def mark(self) -> None:
        """Settle where `items` begins; the alarm store has what is older if it is read after this."""
        ...

    def items(self) -> AsyncGenerator[FeedItem, None]:
        """Follow the bus from where this feed stopped, at first from the mark."""
        ...


PAUSE_S: Final = {FeedKind.EVENT: 0.015, FeedKind.VIEW: 0.04}
"""From a read that found something to the next one, since fewer, larger reads cost the server less.

A worker stores one partition after the other, of which a blocked read would get the first alone; waveform is smoothed
by the page anyway.
"""

_Batch: TypeAlias = tuple[FeedKind, int, list[Record]]


class BusFeed:
    """Events and views of all partitions, from the bus.

    Parameters
    ----------
    bus : Bus
        Used by this feed alone, since its reads block.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._done: dict[FeedKind, dict[int, Position]] = {}

    async def mark(self) -> None:
        """Settle where both streams of each partition begin, once."""
        if self._done:
            return
        partitions = range(self._bus.partitions)
        newest = await self._bus.last(partitions, "events")
        views = await self._bus.last(partitions, "view")
        events = {}
        for partition, position in newest.items():
            # By ids alone: where our clock is ahead of the server's, nothing would be new for long.
            recent = earlier(position, REPLAY_S * 1000)
            stored = (await self._bus.held(partition, READER)).get("events", recent)
            events[partition] = min(recent, stored, key=order)
        self._done = {FeedKind.EVENT: events, FeedKind.VIEW: views}

    async def items(self) -> AsyncGenerator[FeedItem, None]:
        """Follow both streams of each partition; called again, it goes on after the last item that was taken."""
        await self.mark()
        # Small, so that a slow hub leaves entries on the bus and not here.
        handed: asyncio.Queue[_Batch | Exception] = asyncio.Queue(maxsize=16)
        readers = [asyncio.create_task(self._follow(kind, handed), name=f"feed {kind.name}") for kind in self._done]
        try:
            while True:
                batch = await handed.get()
                if isinstance(batch, Exception):
                    raise batch
                kind, partition, records = batch
                for left, record in enumerate(records, 1 - len(records)):
                    yield FeedItem(kind, record.data, 0 if left else milliseconds(record.position))
                    self._done[kind][partition] = record.position
                if not records:
                    yield FeedItem(FeedKind.PULSE)
        finally:
            await end(readers)

    async def _follow(self, kind: FeedKind, handed: asyncio.Queue[_Batch | Exception]) -> None:
        cursors = dict(self._done[kind])
        read = self._bus.read_events if kind is FeedKind.EVENT else self._bus.read_view
        try:
            while True:
                found = await read(cursors, block_ms=BLOCK_MS)
                for partition, records in found:
                    cursors[partition] = records[-1].position
                    await handed.put((kind, partition, records))
                if not found:
                    await handed.put((kind, 0, []))
                else:
                    await asyncio.sleep(PAUSE_S[kind])
        except Exception as error:
            # The consumer has to know why nothing comes any more.
            await handed.put(error)
