"""The web application on a real bus and database: feed, acknowledgements, sessions."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx2
import msgspec
import pytest
import waiting
from fastapi import FastAPI
from wall_fakes import USER, alarm
from web_client import HOST, OWN, client, password_hash, ward

from alerts.history import READER
from bus.clock import LOST_MS
from bus.errors import BusUnavailableError
from bus.messages import Action, AlarmEvent, Entry, StatusEvent, pack, partition_of, unpack_action, unpack_inbound
from bus.server import embedded
from bus.streams import START, Bus
from web.app import create_app
from web.auth import COOKIE, RedisSessions, Session
from web.feed import BusFeed, FeedItem, FeedKind
from web.hub import Hub
from web.production import open_parts
from web.settings import WebSettings

__all__ = ["client", "password_hash", "ward"]


@asynccontextmanager
async def live(tmp_path: Path) -> AsyncIterator[tuple[WebSettings, FastAPI, httpx2.AsyncClient, Bus]]:
    """Run the real parts on a real bus and database, the application without a network."""
    async with embedded(tmp_path / "bus") as url:
        settings = WebSettings(redis_url=url, database_url=f"sqlite:///{tmp_path}/web.db", partitions=4)
        said: list[str] = []
        app = create_app(settings, announce=said.append)
        async with Bus(url, partitions=4) as bus, app.router.lifespan_context(app):
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url=HOST, headers=OWN) as client:
                password = re.search(r"password (\S+)", said[0]).group(1)
                answer = await client.post("/login", data={"user": USER, "password": password})
                assert answer.status_code == 303
                yield settings, app, client, bus


async def put_event(bus: Bus, event: AlarmEvent | StatusEvent) -> None:
    """Write an event as a worker does."""
    partition = partition_of(event.patient, bus.partitions)
    epoch = await bus.claim(partition)
    position = (await bus.append_in([(partition, b"tick")]))[0]
    await bus.commit(partition, epoch, [pack(event)], [], None, position)


until = partial(waiting.until, seconds=30)


@pytest.mark.services
async def test_real_bus_carries_alarm_in_and_acknowledgement_out(tmp_path: Path) -> None:
    """An event on the bus reaches the board; an acknowledgement becomes an entry of the patient's partition."""
    async with live(tmp_path) as (_, app, client, bus):
        hub: Hub = app.state.hub
        raised = alarm("p 1", "VTACH", 3)
        await put_event(bus, raised)
        await until(lambda: raised.id in hub.board.alarms)
        token = (await client.get("/api/session")).json()["csrf"]
        answer = await client.post(f"/api/alarms/{raised.id}/ack", headers={"x-csrf-token": token})
        assert answer.status_code == 202
        partition = partition_of("p 1", 4)
        records = (await bus.read({partition: "0-0"}))[0][1]
        entry = unpack_inbound(records[-1].data)
        assert (entry.kind, entry.patient) == (Entry.ACTION, "p 1")
        assert unpack_action(entry.payload) == Action("ack", USER, raised.id)
        assert abs(entry.server_ms - time.time() * 1000) < 60_000


@pytest.mark.services
async def test_session_outlives_a_restart_of_the_web_process(tmp_path: Path) -> None:
    """Sessions live beside the bus: a page stays logged in when the web process starts again."""
    async with live(tmp_path) as (settings, _, client, _bus):
        again = create_app(settings, announce=lambda text: pytest.fail("a second account was made"))
        async with again.router.lifespan_context(again):
            transport = httpx2.ASGITransport(again)
            cookies = {COOKIE: client.cookies[COOKIE]}
            async with httpx2.AsyncClient(transport=transport, base_url=HOST, cookies=cookies) as other:
                assert (await other.get("/api/session")).json()["user"] == USER


@pytest.mark.services
async def test_feed_reads_events_from_before_it_started_once(tmp_path: Path) -> None:
    """Events between the store's last write and the start are read again, in order; each of them once."""
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=2) as bus, Bus(url, partitions=2) as reader:
        sent = [alarm("p", "TACHY", 2, revision=i) for i in range(5)]
        for event in sent:
            await put_event(bus, event)
        feed = BusFeed(reader)
        got: list[bytes] = []
        written: list[int] = []
        for _ in range(2):  # the second time it goes on where it stopped
            async with aclosing(feed.items()) as items, asyncio.timeout(30):
                async for item in items:
                    if item.kind is FeedKind.EVENT:
                        got.append(item.data)
                        written.append(item.written_ms)
                    elif len(got) >= 5:
                        break
        assert got == [pack(event) for event in sent]
        # All came at once, so that the last one alone says when.
        assert written[-1] > 0
        assert not any(written[:-1])


@pytest.mark.services
async def test_feed_reads_what_a_historian_that_was_down_has_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long ago the historian stopped: what came after it is on the bus alone, and read from there."""
    monkeypatch.setattr("web.feed.REPLAY_S", 0)
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=2) as bus, Bus(url, partitions=2) as reader:
        partition = partition_of("p", 2)
        sent = [alarm("p", "TACHY", 2, revision=i) for i in range(5)]
        await put_event(bus, sent[0])
        await bus.hold(READER, {partition: {"events": (await bus.last([partition]))[partition]}})
        for event in sent[1:]:
            await put_event(bus, event)
        await bus.hold("notifier", {partition: {"events": START}})
        got: list[bytes] = []
        async with aclosing(BusFeed(reader).items()) as items, asyncio.timeout(30):
            async for item in items:
                if item.kind is FeedKind.EVENT:
                    got.append(item.data)
                elif got:
                    break
        assert got == [pack(event) for event in sent[1:]]


@pytest.mark.services
async def test_feed_hands_on_what_broke_it(tmp_path: Path) -> None:
    """When the server stops, the feed raises the bus's own error within the time limit, instead of staying silent."""

    async def drain(feed: AsyncGenerator[FeedItem, None]) -> None:
        async for _ in feed:
            pass

    async with AsyncExitStack() as stack:
        async with embedded(tmp_path / "bus") as url:
            reader = await stack.enter_async_context(Bus(url, partitions=2))
            feed = await stack.enter_async_context(aclosing(BusFeed(reader).items()))
            assert (await anext(feed)).kind is FeedKind.PULSE
        with pytest.raises(BusUnavailableError):
            await asyncio.wait_for(drain(feed), 30)


@pytest.mark.services
async def test_redis_sessions_end_by_themselves(tmp_path: Path) -> None:
    """A stored session has a time to live, and dropping it is final."""
    async with (
        embedded(tmp_path / "bus") as url,
        open_parts(WebSettings(redis_url=url, database_url=f"sqlite:///{tmp_path}/w.db", partitions=1)) as parts,
    ):
        sessions = parts.sessions
        assert isinstance(sessions, RedisSessions)
        session = Session("a", "token", 10**15)
        await sessions.put("k", session, 100)
        assert await sessions.get("k") == session
        assert 0 < await sessions._redis.pttl("rw:session:k") - LOST_MS <= 100_000
        await sessions.drop("k")
        assert await sessions.get("k") is None
        assert msgspec.msgpack.encode(session)
