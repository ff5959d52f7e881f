"""Faults of the processes of one machine, at random moments: no alarm and no beat may be lost or doubled."""

import asyncio
import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from conftest import recordings
from storm import HEALING_S, Faults, Storm, weather

from rhythmwatch.supervisor import Supervisor

pytest_plugins = ["storm_table"]
pytestmark = [pytest.mark.services, pytest.mark.timeout(420)]
KILLS = 5
RECOVERY_S = 5.0
NEVER_S = 3_600.0
STARTED_S = 180.0
"""Longest that a fresh process takes until it has loaded all and caught up, on a machine with much else to do."""


def again_and_again(parts: Sequence[str]) -> Faults:
    """Kill one after the other at random moments, wait until the workers have caught up, and again."""

    async def faults(storm: Storm) -> None:
        for _ in range(KILLS):
            for part in storm.rng.sample(parts, len(parts)):
                await asyncio.sleep(storm.rng.uniform(2.0, 5.0) / len(parts))
                await storm.kill(part)
                await storm.heal()

    return faults


@pytest.mark.parametrize(
    "parts", [("worker-1",), ("ingest",), ("web", "historian-1", "recorder-1"), ("bus",), ("broker",)], ids=" ".join
)
async def test_killed_again_and_again(parts: Sequence[str], tmp_path: Path, table: list[str]) -> None:
    """A part that is killed five times at random moments costs nothing, and all have caught up within 5 s.

    Those that no alarm waits for share a storm, in which faults come as many times as often.
    """
    names = ", ".join(parts)
    findings = await weather(tmp_path, recordings(), again_and_again(parts), seed=sum(names.encode()))
    table.append(findings.line(f"kill -9 {names}"))
    findings.check()
    assert len(findings.recoveries) == KILLS * len(parts)
    assert max(findings.recoveries) <= RECOVERY_S


async def test_a_stalled_worker_is_replaced_and_fenced(
    tmp_path: Path, table: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stands still gets a successor; when it wakes it stores nothing any more, and ends."""
    # Another engine starts the successor here: the supervisor must not take the first one for stalled and kill it.
    monkeypatch.setattr("rhythmwatch.station.Supervisor", partial(Supervisor, stall_s=NEVER_S))

    async def faults(storm: Storm) -> None:
        await asyncio.sleep(storm.rng.uniform(3.0, 6.0))
        first = await storm.pid("worker-1")
        assert first is not None
        await storm.kill("worker-1", signal.SIGSTOP)
        second = await storm.start("worker", "--partitions", "0-63")
        try:
            await storm.heal(STARTED_S)
            assert await storm.pid("worker-1") == first
            os.kill(first, signal.SIGCONT)
            async with asyncio.timeout(HEALING_S):
                while await storm.pid("worker-1") == first:
                    await asyncio.sleep(0.05)
                # The supervisor's next one takes everything over, so that the second is fenced in turn.
                assert await second.wait() == 0
        finally:
            if second.returncode is None:
                second.kill()
                await second.wait()

    findings = await weather(tmp_path, recordings(), faults)
    table.append(findings.line("worker stopped, replaced, woken"))
    findings.check()
    assert len(findings.recoveries) == 1
