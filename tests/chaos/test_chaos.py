"""Faults of the processes of one machine, at random moments: no alarm and no beat may be lost or doubled."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from conftest import recordings
from storm import Faults, Storm, weather

pytest_plugins = ["storm_table"]
pytestmark = [pytest.mark.services, pytest.mark.timeout(420)]
KILLS = 5
RECOVERY_S = 5.0


def again_and_again(part: str) -> Faults:
    """Kill a part at a random moment, wait until the workers have caught up, and again."""

    async def faults(storm: Storm) -> None:
        for _ in range(KILLS):
            await asyncio.sleep(storm.rng.uniform(2.0, 5.0))
            await storm.kill(part)
            await storm.heal()

    return faults


@pytest.mark.parametrize("part", ["worker-1", "ingest", "web", "historian-1", "recorder-1", "bus", "broker"])
async def test_killed_again_and_again(part: str, tmp_path: Path, table: list[str]) -> None:
    """A part that is killed five times at random moments costs nothing and is back within 5 s."""
    findings = await weather(tmp_path, recordings(), again_and_again(part), seed=sum(part.encode()))
    table.append(findings.line(f"kill -9 {part}"))
    findings.check()
    assert len(findings.recoveries) == KILLS
    assert max(findings.recoveries) <= RECOVERY_S


async def test_a_stalled_worker_is_replaced_and_fenced(tmp_path: Path, table: list[str]) -> None:
    """A worker that stands still gets a successor; when it wakes it stores nothing any more."""

    async def faults(storm: Storm) -> None:
        await asyncio.sleep(6.0)
        first = await storm.pid("worker-1")
        assert first is not None
        # A second worker on all partitions while the first one stands still, as an engine would start it.
        await storm.kill("worker-1", signal.SIGSTOP)
        second = await storm.start("worker", "--partitions", "0-63")
        await asyncio.sleep(8.0)
        os.kill(first, signal.SIGCONT)
        await asyncio.sleep(4.0)
        second.terminate()
        await second.wait()

    findings = await weather(tmp_path, recordings(), faults)
    table.append(findings.line("worker stalled, replaced, back"))
    findings.check()
