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
from rhythmwatch.supervised import Spare
from rhythmwatch.supervisor import Part, Supervisor

DEADLINE_S = 40.0
READY_S = 120.0
"""For a worker and a spare that load everything on a machine that has other work."""
KILLS = 3


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
    """Run a worker and what it is forked from, both ready."""
    shared = {"RHYTHMWATCH_BUS": url, "RHYTHMWATCH_SUPERVISED": "1"}
    parts = [
        Part("spare", ("spare",), shared),
        Part("worker", ("worker", "--partitions", "0-63"), shared, spare="spare"),
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


async def until_gone(pid: int) -> None:
    """Wait until there is no process of this id."""
    async with asyncio.timeout(DEADLINE_S):
        while runs(pid):
            await asyncio.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether there is a process of this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def threads(pid: int | None) -> int:
    """Count the threads of a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def parent_of(pid: int | None) -> int:
    """Process id of the parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def events_of(bus: Bus) -> list[bytes]:
    """Read all events stored, once the outputs of all entries are."""
    async with asyncio.timeout(READY_S):
        while any(item.last != item.position for item in await bus.stats(range(bus.partitions)) if item.entries):
            await asyncio.sleep(0.02)
    found = await bus.read_events(dict.fromkeys(range(bus.partitions), START), count=100_000)
    return sorted(record.data for _, records in found for record in records)


@pytest.mark.timeout(300)
async def test_a_worker_that_is_killed_again_and_again_is_forked_again(tmp_path: Path):
    """Each process works on with all that was stored, nothing twice; what forks them stays, and has one thread."""
    entries = [
        stories.frame_entry(frame)
        for number, name in enumerate(("a", "b", "c"))
        for frame in stories.frames(stories.recording("sinus:60,hr=80,pvc=0.2", 30, number), name)
    ]
    placed = [(partition_of(entry.patient), pack_inbound(entry)) for entry in entries]
    size = -(-len(placed) // (KILLS + 1))
    parts = [placed[at : at + size] for at in range(0, len(placed), size)]
    async with (
        embedded(tmp_path / "bus") as url,
        Bus(url) as bus,
        with_a_spare(url) as supervisor,
    ):
        spare = supervisor.pid("spare")
        assert threads(spare) == 1
        for part in parts[:-1]:
            await bus.append_in(part)
            await events_of(bus)
            worker = supervisor.pid("worker")
            assert worker is not None
            assert parent_of(worker) == spare
            os.kill(worker, signal.SIGKILL)
            await until_running(supervisor, "worker", worker)
        await bus.append_in(parts[-1])
        whole = stories.by_patient(stories.run(entries))
        assert await events_of(bus) == sorted(event for events in whole.values() for event in events)
        assert supervisor.restarts == {"spare": 0, "worker": KILLS}
        assert supervisor.pid("spare") == spare


@pytest.mark.timeout(300)
async def test_a_spare_that_dies_is_replaced_and_all_end(tmp_path: Path):
    """A spare that is killed gets a successor; its worker is not touched by that, and stop leaves nobody."""
    async with embedded(tmp_path / "bus") as url:
        async with with_a_spare(url) as supervisor:
            worker, spare = supervisor.pid("worker"), supervisor.pid("spare")
            assert spare is not None
            assert worker is not None
            os.kill(spare, signal.SIGKILL)
            successor = await until_running(supervisor, "spare", spare)
            await until_ready(supervisor)
            assert (supervisor.pid("worker"), supervisor.restarts) == (worker, {"spare": 1, "worker": 0})
            os.kill(worker, signal.SIGKILL)
            second = await until_running(supervisor, "worker", worker)
            assert parent_of(second) == successor
        for pid in (worker, second, successor):
            await until_gone(pid)


@pytest.mark.timeout(300)
async def test_a_worker_starts_afresh_where_the_spare_can_not_fork_it(tmp_path: Path):
    """A spare that was stopped does not answer: it is killed, and a fresh process works."""
    async with with_a_spare(f"unix://{tmp_path}/none") as supervisor:
        worker, spare = supervisor.pid("worker"), supervisor.pid("spare")
        assert worker is not None
        assert spare is not None
        os.kill(spare, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        assert parent_of(await until_running(supervisor, "worker", worker)) == os.getpid()
        assert await until_running(supervisor, "spare", spare) != spare
        assert supervisor.restarts == {"spare": 1, "worker": 1}


@pytest.mark.timeout(300)
async def test_what_was_forked_ends_with_its_supervisor(tmp_path: Path):
    """Its parent is another process, so that it hears from the broken pipe that nobody supervises it any more."""
    spare = await Spare.start(("spare",), {"RHYTHMWATCH_BUS": f"unix://{tmp_path}/none"})
    async with asyncio.timeout(READY_S):
        while spare.heard_at is None:
            await asyncio.sleep(0.02)
    worker = await spare.fork(("worker",), {})
    assert worker is not None
    worker.close()
    await until_gone(worker.pid)
    assert spare.runs
    spare.send(signal.SIGTERM)
    assert await spare.wait() == -signal.SIGTERM
    spare.close()
