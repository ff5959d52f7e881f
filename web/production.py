"""The real parts: the bus and the alarm store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from alerts.access import Access
from alerts.archive import Archive
from alerts.audit import Audit
from alerts.care import Care
from alerts.database import open_engine
from alerts.devices import Devices
from alerts.people import People
from alerts.store import Store
from alerts.stores import AlarmStores
from bus.clock import keeping_time, now_ms
from bus.connect import open_client
from bus.messages import Action, Entry, Inbound, pack, pack_inbound, partition_of
from bus.streams import Bus
from web.auth import RedisSessions
from web.feed import BusFeed
from web.parts import Parts
from web.settings import WebSettings

SESSION_TIMEOUT_S: Final = 5.0


class BusActions:
    """Staff actions as entries of the patient's partition."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def append(self, patient: str, action: Action) -> None:
        """Store an action; `bus.errors.BusError` when the bus can't take it."""
        entry = pack_inbound(Inbound(Entry.ACTION, now_ms(), patient, pack(action)))
        await self._bus.append_in([(partition_of(patient, self._bus.partitions), entry)])


@contextlib.asynccontextmanager
async def open_parts(settings: WebSettings) -> AsyncIterator[Parts]:
    """Open bus and store, and close them at the end."""
    async with contextlib.AsyncExitStack() as stack:
        store = Store(settings.database_url)
        stack.push_async_callback(asyncio.to_thread, store.close)
        await asyncio.to_thread(store.upgrade)
        # One engine for all stores beside the history's own.
        engine = open_engine(settings.database_url)
        stack.push_async_callback(asyncio.to_thread, engine.dispose)
        people, care = People(engine), Care(engine)
        archive: Archive | None = None
        if settings.recordings is not None:
            archive = Archive(settings.database_url, settings.recordings)
            stack.push_async_callback(asyncio.to_thread, archive.close)
        # A connection of its own for each: a reader that blocks must not hold an acknowledgement up.
        reading = await stack.enter_async_context(Bus(settings.redis_url, partitions=settings.partitions))
        writing = await stack.enter_async_context(Bus(settings.redis_url, partitions=settings.partitions))
        await stack.enter_async_context(keeping_time(writing))
        sessions = open_client(settings.redis_url, SESSION_TIMEOUT_S)
        stack.push_async_callback(sessions.aclose)
        yield Parts(
            feed=BusFeed(reading),
            actions=BusActions(writing),
            alarms=store,
            accounts=people,
            sessions=RedisSessions(sessions),
            tokens=people,
            audit=Audit(engine),
            people=people,
            care=care,
            access=Access(care, archive),
            archive=archive,
            alarm_stores=AlarmStores(engine),
            devices=Devices(engine),
        )
