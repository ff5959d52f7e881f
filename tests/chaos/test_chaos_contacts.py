"""A contact that hangs: the one beside it hears of every alarm, in time and once."""

import asyncio
import contextlib
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from clients import Scene, live, until
from conftest import recordings
from storm import PATIENTS

from alerts.contacts import Contact, Contacts
from alerts.database import open_engine
from alerts.notify import is_announcement
from bus.messages import AlarmEvent

pytest_plugins = ["storm_table"]
pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]
Call: TypeAlias = tuple[object, object, object, object]
"""Alarm, when it called, its level and why."""
TOLD_S = 5.0
"""A contact that answers hears of an alarm in this time."""


@contextlib.asynccontextmanager
async def web_server(answers: bool) -> AsyncIterator[tuple[str, list[tuple[float, dict[str, Any]]]]]:
    """Take messages as a contact does, and answer or never; gives the address, and what came when."""
    got: list[tuple[float, dict[str, Any]]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.partition("content-length: ")[2].partition("\r")[0])
            got.append((time.monotonic(), json.loads(await reader.readexactly(size))))
            if answers:
                writer.write(b"HTTP/1.1 204 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                await writer.drain()
            else:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}/hook", got
    finally:
        server.close()


def called(scene: Scene) -> dict[Call, float]:
    """Give the calls that the contacts are to hear, with the time at which each was on the bus."""
    return {
        (event.id, event.announced_ms, event.escalation, event.reason): at
        for events in list(scene.events.values())
        for at, event in list(events)
        if isinstance(event, AlarmEvent) and is_announcement(event) and event.priority >= 1
    }


async def test_a_contact_hangs(tmp_path: Path, rows: list[str]) -> None:
    """A webhook takes messages and never answers: the one beside it has every message, in time and once."""
    engine = open_engine(f"sqlite:///{tmp_path / 'history.db'}")

    def told() -> dict[Call, list[float]]:
        found: dict[Call, list[float]] = defaultdict(list)
        for at, body in list(got):
            found[body["id"], body["announced_ms"], body["escalation"], body["reason"]].append(at)
        return found

    async with web_server(answers=False) as (dead, hung), web_server(answers=True) as (alive, got):

        async def trouble(scene: Scene) -> None:
            contacts = Contacts(engine)
            kept = await asyncio.to_thread(contacts.replace, [Contact("alive", "webhook", alive, priority=1)])
            await asyncio.sleep(12.0)
            scene.begins()
            await asyncio.to_thread(contacts.replace, [*kept, Contact("dead", "webhook", dead, priority=1)])
            await scene.played.wait()
            scene.ends()
            await until(lambda: called(scene).keys() <= told().keys(), 30.0)

        scene, cost = await live(tmp_path, recordings(), trouble)
    engine.dispose()
    wanted, heard = called(scene), told()
    # What was called just before the end was still on its way.
    until_s = scene.last_s - TOLD_S
    lost = sum(key not in heard for key, at in wanted.items() if at < until_s)
    doubled = sum(len(times) - 1 for times in heard.values())
    waits = [heard[key][0] - at for key, at in wanted.items() if key in heard]
    p99 = float(np.percentile(waits, 99))
    beside = f"contact beside it: {lost} / {doubled} of {len(wanted)} messages, p99 {p99:.2f} s; {len(hung)} hung"
    rows.append(cost.line("webhook hung", beside))
    assert hung
    assert len(wanted) > PATIENTS / 4
    assert (lost, doubled) == (0, 0)
    assert p99 < TOLD_S
    cost.check()
