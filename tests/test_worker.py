"""A worker on a real server: outputs complete, none twice, a replaced worker stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import stories
from redis.asyncio import Redis

from bus.messages import Inbound, pack_inbound, partition_of
from bus.server import embedded
from bus.streams import START, Bus, key
from rhythmwatch.worker import Worker, work

PARTITIONS = 4
PATIENTS = ("a", "b", "c", "d", "e")
DEADLINE_S = 30.0


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    """Connect to a fresh embedded server."""
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=PARTITIONS) as opened:
        yield opened


def ward(seconds: int = 30) -> list[Inbound]:
    """Five patients with ectopic beats, in order of arrival."""
    entries = [
        stories.frame_entry(frame)
        for number, name in enumerate(PATIENTS)
        for frame in stories.frames(stories.recording("sinus:60,hr=80,pvc=0.2", seconds, number), name)
    ]
    return sorted(entries, key=lambda entry: entry.server_ms)


def placed(entries: list[Inbound]) -> list[tuple[int, bytes]]:
    """Give entries their partitions."""
    return [(partition_of(entry.patient, PARTITIONS), pack_inbound(entry)) for entry in entries]


async def stored(bus: Bus) -> dict[int, list[bytes]]:
    """Read all events of all partitions."""
    found = await bus.read_events(dict.fromkeys(range(PARTITIONS), START), count=100_000)
    return {partition: [record.data for record in records] for partition, records in found}


async def caught_up(bus: Bus) -> None:
    """Wait until the outputs of all entries are stored."""
    async with asyncio.timeout(DEADLINE_S):
        while any(item.last != item.position for item in await bus.stats(range(bus.partitions)) if item.entries):
            await asyncio.sleep(0.02)


async def start(bus: Bus) -> tuple[Worker, asyncio.Event, asyncio.Task[None]]:
    """Start a worker on all partitions."""
    worker, stop = Worker(bus, stories.models(), range(PARTITIONS), PARTITIONS), asyncio.Event()
    await worker.take_over()
    return worker, stop, asyncio.create_task(worker.run(stop))


def expected() -> dict[str, list[bytes]]:
    """Events of each patient by an undisturbed fold."""
    return stories.by_patient(stories.run(ward()))


def check(events: dict[int, list[bytes]]) -> None:
    """Hold stored events against the undisturbed fold: the same ones, in order, once each."""
    wanted = expected()
    for partition in range(PARTITIONS):
        members = [name for name in PATIENTS if partition_of(name, PARTITIONS) == partition]
        everything = sorted(event for name in members for event in wanted[name])
        assert sorted(events.get(partition, [])) == everything


async def test_all_outputs_are_stored_once(bus: Bus):
    """A worker that reads a backlog stores what the pure fold gives."""
    await bus.append_in(placed(ward()))
    _, stop, task = await start(bus)
    await caught_up(bus)
    stop.set()
    await task
    check(await stored(bus))


async def test_takeover_neither_loses_nor_doubles(bus: Bus):
    """Workers cancelled at any moment and replaced leave the events of an undisturbed run."""
    items = placed(ward())
    third = len(items) // 3
    await bus.append_in(items[:third])
    _, _, task = await start(bus)
    async with asyncio.timeout(DEADLINE_S):
        while not await stored(bus):
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await bus.append_in(items[third : 2 * third])
    _, _, second = await start(bus)
    await caught_up(bus)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await bus.append_in(items[2 * third :])
    _, stop, last = await start(bus)
    await caught_up(bus)
    stop.set()
    await last
    check(await stored(bus))


async def test_a_replaced_worker_stops_and_writes_nothing(bus: Bus):
    """A worker whose partitions were claimed learns so at its next write and ends by itself."""
    items = placed(ward())
    await bus.append_in(items[:20])
    _, _, old = await start(bus)
    await caught_up(bus)
    _, stop, new = await start(bus)
    await bus.append_in(items[20:])
    async with asyncio.timeout(DEADLINE_S):
        await old
    await caught_up(bus)
    stop.set()
    await new
    check(await stored(bus))


async def test_a_bus_that_forgot_outputs_gets_them_again(bus: Bus):
    """Where a replica takes over that had not got the last commits, the worker goes on from where that one stands."""
    entries, stop = ward(), asyncio.Event()
    quarter = len(entries) // 4
    async with Bus(bus.url) as whole, Redis.from_url(bus.url, protocol=2) as server:
        task = asyncio.create_task(work(bus.url, range(whole.partitions), stories.models(), stop))

        async def feed(part: list[Inbound]) -> None:
            await whole.append_in((partition_of(entry.patient), pack_inbound(entry)) for entry in part)
            await caught_up(whole)

        await feed(entries[: 2 * quarter])
        names = [key(partition_of(name), leaf) for name in PATIENTS for leaf in ("events", "view", "checkpoint")]
        before = {name: await server.dump(name) for name in names}
        await feed(entries[2 * quarter : 3 * quarter])
        for name, value in before.items():
            await server.restore(name, 0, value, replace=True)
        await feed(entries[3 * quarter :])
        stop.set()
        await task
        found = await whole.read_events(dict.fromkeys(range(whole.partitions), START), count=100_000)
    wanted = sorted(event for events in expected().values() for event in events)
    assert sorted(record.data for _, records in found for record in records) == wanted
