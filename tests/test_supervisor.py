"""The supervisor starts what dies again and ends everything when told to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import stories

from bus.messages import pack_inbound, partition_of
from bus.server import embedded
from bus.streams import START, Bus
from rhythmwatch.supervisor import Part, Supervisor

DEADLINE_S = 40.0
READY_S = 120.0
"""For a worker and a spare that load everything on a machine that has other work."""


async def until_running(supervisor: Supervisor, name: str, other_than: int | None = None) -> int:
    """Wait for a process of a part."""
    async with asyncio.timeout(DEADLINE_S):
        while (pid := supervisor.pid(name)) in (None, other_than):
            await asyncio.sleep(0.02)
    assert pid is not None
    return pid


async def test_a_killed_part_is_started_again_and_all_end(tmp_path: Path):
    """A part that is killed gets a new process; after stop none is left."""
    # A web process without a bus tries for ever, which is all that this needs.
    part = Part(
        "historian",
        ("historian",),
        {"RHYTHMWATCH_BUS": f"unix://{tmp_path}/none", "RHYTHMWATCH_HISTORY": f"sqlite:///{tmp_path}/h.db"},
    )
    supervisor, stop = Supervisor([part]), asyncio.Event()
    task = asyncio.create_task(supervisor.run(stop))
    first = await until_running(supervisor, "historian")
    os.kill(first, signal.SIGKILL)
    second = await until_running(supervisor, "historian", first)
    assert supervisor.restarts["historian"] == 1
    stop.set()
    async with asyncio.timeout(DEADLINE_S):
        await task
    assert supervisor.pid("historian") is None
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


async def test_a_later_part_waits_for_those_before_it(tmp_path: Path):
    """It starts once the part before it has given a heartbeat, and never where the stop comes first."""
    away = {"RHYTHMWATCH_BUS": f"unix://{tmp_path}/none", "RHYTHMWATCH_HISTORY": f"sqlite:///{tmp_path}/h.db"}
    parts = [Part("first", ("historian",), away), Part("second", ("historian",), away, later=True)]
    supervisor, stop = Supervisor(parts), asyncio.Event()
    task = asyncio.create_task(supervisor.run(stop))
    await until_running(supervisor, "first")
    assert supervisor.pid("second") is None
    await until_running(supervisor, "second")
    assert supervisor.heard("first")
    stop.set()
    async with asyncio.timeout(DEADLINE_S):
        await task
    supervisor, stop = Supervisor(parts), asyncio.Event()
    task = asyncio.create_task(supervisor.run(stop))
    await until_running(supervisor, "first")
    stop.set()
    async with asyncio.timeout(DEADLINE_S):
        await task
    assert (supervisor.pid("second"), supervisor.restarts["second"]) == (None, 0)


async def test_a_stalled_part_is_killed_and_started_again(tmp_path: Path):
    """A process whose loop stands still (here: stopped by a signal) gives no heartbeat and gets a successor."""
    part = Part(
        "historian",
        ("historian",),
        {"RHYTHMWATCH_BUS": f"unix://{tmp_path}/none", "RHYTHMWATCH_HISTORY": f"sqlite:///{tmp_path}/h.db"},
    )
    supervisor, stop = Supervisor([part], stall_s=3.0), asyncio.Event()
    task = asyncio.create_task(supervisor.run(stop))
    first = await until_running(supervisor, "historian")
    # Stopped before its first heartbeat it would count as one that still starts.
    async with asyncio.timeout(DEADLINE_S):
        while not supervisor.heard("historian"):
            await asyncio.sleep(0.02)
    os.kill(first, signal.SIGSTOP)
    await until_running(supervisor, "historian", first)
    assert supervisor.restarts["historian"] == 1
    stop.set()
    async with asyncio.timeout(DEADLINE_S):
        await task


async def test_finite_parts_end_by_themselves():
    """Parts that are not to be restarted may end; when all have, so does the supervisor."""
    supervisor = Supervisor([Part("help", ("--help",), restart=False)])
    async with asyncio.timeout(DEADLINE_S):
        await supervisor.run(asyncio.Event())
    assert supervisor.pid("help") is None
    assert supervisor.restarts == {"help": 0}


@contextlib.asynccontextmanager
async def with_a_spare(url: str) -> AsyncIterator[Supervisor]:
    """Run a worker and its spare, both ready."""
    shared = {"RHYTHMWATCH_BUS": url, "RHYTHMWATCH_SUPERVISED": "1"}
    parts = [
        Part("worker", ("worker", "--partitions", "0-63"), shared, spare="spare"),
        Part("spare", ("spare",), shared, later=True),
    ]
    supervisor, stop = Supervisor(parts), asyncio.Event()
    task = asyncio.create_task(supervisor.run(stop))
    try:
        await until_ready(supervisor)
        yield supervisor
    finally:
        stop.set()
        async with asyncio.timeout(DEADLINE_S):
            await task


async def until_ready(supervisor: Supervisor) -> None:
    """Wait for a worker that beats and a spare that has loaded everything."""
    async with asyncio.timeout(READY_S):
        while not (supervisor.heard("worker") and supervisor.heard("spare")):
            await asyncio.sleep(0.02)


async def events_of(bus: Bus) -> list[bytes]:
    """Read all events stored, once the outputs of all entries are."""
    async with asyncio.timeout(READY_S):
        while any(item.last != item.position for item in await bus.stats(range(bus.partitions)) if item.entries):
            await asyncio.sleep(0.02)
    found = await bus.read_events(dict.fromkeys(range(bus.partitions), START), count=100_000)
    return sorted(record.data for _, records in found for record in records)


@pytest.mark.timeout(300)
async def test_a_spare_takes_the_place_of_a_killed_worker(tmp_path: Path):
    """The process that stood by works on with all that was stored, nothing twice; another one stands by then."""
    entries = [
        stories.frame_entry(frame)
        for number, name in enumerate(("a", "b", "c"))
        for frame in stories.frames(stories.recording("sinus:60,hr=80,pvc=0.2", 30, number), name)
    ]
    placed = [(partition_of(entry.patient), pack_inbound(entry)) for entry in entries]
    half = len(placed) // 2
    async with (
        embedded(tmp_path / "bus") as url,
        Bus(url) as bus,
        with_a_spare(url) as supervisor,
    ):
        await bus.append_in(placed[:half])
        await events_of(bus)
        worker, spare = supervisor.pid("worker"), supervisor.pid("spare")
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        await bus.append_in(placed[half:])
        assert await until_running(supervisor, "worker", worker) == spare
        whole = stories.by_patient(stories.run(entries))
        assert await events_of(bus) == sorted(event for events in whole.values() for event in events)
        assert supervisor.restarts == {"worker": 1, "spare": 0}
        await until_running(supervisor, "spare", spare)


@pytest.mark.timeout(300)
async def test_a_spare_that_dies_is_replaced_and_all_end(tmp_path: Path):
    """A spare that is killed gets a successor; a worker is not touched by that, and stop leaves nobody."""
    async with embedded(tmp_path / "bus") as url:
        async with with_a_spare(url) as supervisor:
            worker, spare = supervisor.pid("worker"), supervisor.pid("spare")
            assert spare is not None
            os.kill(spare, signal.SIGKILL)
            successor = await until_running(supervisor, "spare", spare)
            await until_ready(supervisor)
            assert (supervisor.pid("worker"), supervisor.restarts) == (worker, {"worker": 0, "spare": 1})
        for pid in (worker, successor):
            assert pid is not None
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


@pytest.mark.timeout(300)
async def test_a_worker_starts_afresh_where_the_spare_can_not_take_its_place(tmp_path: Path):
    """A spare that was stopped gives no heartbeat once it has the place: it is killed, and a fresh process works."""
    shared = {"RHYTHMWATCH_BUS": f"unix://{tmp_path}/none", "RHYTHMWATCH_SUPERVISED": "1"}
    parts = [
        Part("worker", ("worker", "--partitions", "0-63"), shared, spare="spare"),
        Part("spare", ("spare",), shared, later=True),
    ]
    supervisor, stop = Supervisor(parts, stall_s=4.0), asyncio.Event()
    task = asyncio.create_task(supervisor.run(stop))
    await until_ready(supervisor)
    worker, spare = supervisor.pid("worker"), supervisor.pid("spare")
    assert worker is not None
    assert spare is not None
    os.kill(spare, signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)
    assert await until_running(supervisor, "worker", worker) == spare
    await until_running(supervisor, "worker", spare)
    assert supervisor.restarts["worker"] == 2
    stop.set()
    async with asyncio.timeout(DEADLINE_S):
        await task
