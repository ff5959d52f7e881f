"""A fleet on several real Ray nodes: ranges move and nodes die, and every output is stored once."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import stories
from ports import free_ports

from bus.messages import DEFAULT_PARTITIONS, Inbound, pack_inbound, partition_of
from bus.server import embedded
from bus.streams import START, Bus, Position
from rhythmwatch import fleet
from rhythmwatch.fleet_plan import Plan

pytestmark = pytest.mark.timeout(600)
PATIENTS = [f"bed-{number}" for number in range(12)]
SECONDS = 35
DEADLINE_S = 120.0
WITH_SPARE = [("spare-1", "running"), ("worker-0-63", "running")]
# A dead node is noticed after about 3 s; Ray's own checks take about 17.
FAST = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_raylet_start_wait_time_s": "120",
    # Else a token that another cluster left in the home folder is asked for.
    "RAY_AUTH_MODE": "disabled",
}


class Node:
    """A Ray node in a process group of its own, so that all of it can be killed at once."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments]
        more = ["--object-store-memory=80000000", "--disable-usage-stats"]
        with (folder / f"ray-{len(list(folder.iterdir()))}.log").open("wb") as log:
            self.process = subprocess.Popen(
                command + more, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **FAST}
            )

    def pids(self) -> set[int]:
        """Find the processes of this node."""
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        found = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found

    def kill(self) -> None:
        """Kill every process of it at once, as a power cut does."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def until_listening(port: int) -> None:
    """Wait until somebody takes connections on a port."""
    until = time.monotonic() + DEADLINE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            assert time.monotonic() < until, "the head did not come up"
            time.sleep(0.1)
        else:
            return


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    """Give a head and two nodes, and be connected to them."""
    (port,) = free_ports(1)
    folder = tmp_path / "ray"
    folder.mkdir()
    started = [Node(folder, "--head", "--include-dashboard=false", "--num-cpus=0", f"--port={port}")]
    try:
        until_listening(port)
        fleet.connect(f"127.0.0.1:{port}")
        for number in (2, 3):
            # One after the other: two that start at once may take the same socket.
            started.append(Node(folder, "--num-cpus=4", f"--address=127.0.0.1:{port}"))
            until = time.monotonic() + DEADLINE_S
            while sum(node["Alive"] for node in ray.nodes()) < number:
                assert time.monotonic() < until, "a node did not join"
                time.sleep(0.2)
        yield started
    finally:
        try:
            ray.shutdown()
        finally:
            for node in reversed(started):
                node.kill()


def entries(first: int, last: int) -> list[Inbound]:
    """Frames of some seconds of all patients, in the order of time."""
    each = [stories.frames(stories.recording(stories.VT_STORY, SECONDS, n), name) for n, name in enumerate(PATIENTS)]
    return [stories.frame_entry(frames[second]) for second in range(first, last) for frames in each]


async def append(bus: Bus, first: int, last: int) -> None:
    """Put some seconds of all patients on the bus."""
    await bus.append_in((partition_of(entry.patient), pack_inbound(entry)) for entry in entries(first, last))


async def drained(bus: Bus) -> None:
    """Wait until all that was appended is worked off."""
    async with asyncio.timeout(DEADLINE_S):
        while any(item.position != item.last for item in await bus.stats(range(DEFAULT_PARTITIONS))):
            await asyncio.sleep(0.05)


async def until(condition: Callable[[list[fleet.Member]], bool]) -> list[fleet.Member]:
    """Wait until the fleet is as it should be: Ray tells of an actor that began or ended a moment later."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition(members := await asyncio.to_thread(fleet.members)):
            await asyncio.sleep(0.2)
    return members


async def test_nodes_die_and_ranges_move(nodes: list[Node], tmp_path: Path) -> None:
    """Two workers, one's node killed, then three, then one that is killed beside a spare, which stands in for it.

    The events are those of an undisturbed fold, once each.
    """
    async with embedded(tmp_path / "bus") as url, Bus(url) as bus:
        await append(bus, 0, 9)
        await asyncio.to_thread(fleet.up, Plan(url, workers=2, spares=0))
        await drained(bus)
        members = await until(lambda found: {member.state for member in found} == {"running"})
        assert {member.name for member in members} == {"worker-0-31", "worker-32-63"}
        victim = next(node for node in nodes[1:] if any(member.pid in node.pids() for member in members))
        victim.kill()
        await append(bus, 9, 18)
        await drained(bus)
        await asyncio.to_thread(fleet.up, Plan(url, workers=3, spares=0))
        await append(bus, 18, 27)
        await drained(bus)
        await until(lambda found: len(found) == 3)
        await asyncio.to_thread(fleet.up, Plan(url, workers=1))
        await append(bus, 27, 31)
        await drained(bus)
        members = await until(lambda found: [(m.name, m.state) for m in found] == WITH_SPARE)
        killed = members[1].pid
        os.kill(killed, signal.SIGKILL)
        await append(bus, 31, SECONDS)
        await drained(bus)
        await until(lambda found: [(m.name, m.state) for m in found] == WITH_SPARE and found[1].pid != killed)
        await asyncio.to_thread(fleet.down)
        await until(lambda found: found == [])
        got: Counter[bytes] = Counter()
        cursors: dict[int, Position] = dict.fromkeys(range(DEFAULT_PARTITIONS), START)
        while batches := await bus.read_events(cursors):
            for partition, records in batches:
                cursors[partition] = records[-1].position
                got.update(record.data for record in records)
    wanted = Counter(
        event for events in stories.by_patient(stories.run(entries(0, SECONDS))).values() for event in events
    )
    assert got == wanted


@pytest.mark.parametrize("workers", [0, 65])
def test_more_workers_than_partitions_are_refused(workers: int) -> None:
    """Before a cluster is asked."""
    with pytest.raises(fleet.FleetError, match="1 to 64"):
        fleet.up(Plan("redis://nowhere", workers=workers))
