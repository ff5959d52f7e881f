"""The supervisor starts what dies again and ends everything when told to."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from rhythmwatch.supervisor import Part, Supervisor

DEADLINE_S = 40.0


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
