"""Faults of hosts: a server that dies for good, a network that is cut, a disk that is full, a node that is gone."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from cluster import Node as Server
from cluster import running_cluster
from conftest import recordings
from sqlalchemy import select
from storm import SECONDS, Storm, played, undisturbed, ward, weather
from test_fleet import Node, nodes  # noqa: F401 - a fixture

from alerts.archive import Archive
from alerts.archive_files import read_units
from alerts.database import open_engine
from alerts.store import ALARMS
from bus.child import spawn, stop
from bus.server import embedded, find_server
from bus.streams import Bus
from ingest.broker import embedded_broker
from rhythmwatch import fleet
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.fleet_plan import Plan
from rhythmwatch.station import Station

pytest_plugins = ["storm_table"]
pytestmark = [pytest.mark.services, pytest.mark.timeout(420)]
PROCESS_S = 5.0
HOST_S = 20.0
CUT_OVER_S = 10.0
FULL_S = 8.0
RESTARTS = 3
_NUMBERS = count(os.getpid() % 200)


def call(*command: str | Path) -> None:
    """Run a program; a test that may not is left out."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        pytest.skip(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


# --- a replica takes over --------------------------------------------------------------------------------------------


def revive(server: Server) -> None:
    """Start a dead server of a cluster again."""
    server.process = subprocess.Popen(server.process.args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def test_a_replica_takes_over(tmp_path: Path, table: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Primaries of the bus die one after the other; what was acknowledged lies on their replicas."""
    monkeypatch.setenv("RHYTHMWATCH_REPLICAS", "1")

    async def linked(server: Server) -> None:
        async with asyncio.timeout(30), server.client() as client:
            while (await client.info("replication")).get("master_link_status") != "up":
                await asyncio.sleep(0.05)

    async with running_cluster(tmp_path / "cluster") as cluster:

        async def faults(storm: Storm) -> None:
            for number in range(2):
                await asyncio.sleep(storm.rng.uniform(3.0, 5.0))
                old = cluster.primaries[number]
                storm.faults.append(storm.now())
                await cluster.kill(old)
                await storm.heal()
                # It comes back as a replica of its former one, so that there is one again.
                revive(old)
                cluster.primaries[number], cluster.replicas[number] = cluster.replicas[number], old
                await linked(old)

        station = Station(state=tmp_path / "state", host="127.0.0.1", port=0, bus=cluster.url)
        findings = await weather(tmp_path, recordings(), faults, station=station)
    table.append(findings.line("bus primary dies, replica takes over"))
    findings.check()
    assert len(findings.recoveries) == 2
    assert max(findings.recoveries) <= HOST_S


# --- the network is cut ----------------------------------------------------------------------------------------------


@dataclass
class Host:
    """A network namespace that stands for another host."""

    name: str
    address: str

    def cut(self, off: bool) -> None:
        """Take its link down, so that nobody hears an error but silence, or up again."""
        call("ip", "-n", self.name, "link", "set", f"{self.name}b", "down" if off else "up")


@pytest.fixture
def host() -> Iterator[Host]:
    """Give another host on a link of our own."""
    number = next(_NUMBERS)
    far = Host(f"rw{number}", f"10.231.{number}.2")
    near = f"{far.name}a"
    call("ip", "netns", "add", far.name)
    try:
        call("ip", "link", "add", near, "type", "veth", "peer", "name", f"{far.name}b", "netns", far.name)
        call("ip", "address", "add", f"10.231.{number}.1/24", "dev", near)
        call("ip", "link", "set", near, "up")
        call("ip", "-n", far.name, "address", "add", f"{far.address}/24", "dev", f"{far.name}b")
        call("ip", "-n", far.name, "link", "set", f"{far.name}b", "up")
        yield far
    finally:
        subprocess.run(["ip", "link", "delete", near], capture_output=True)
        subprocess.run(["ip", "netns", "delete", far.name], capture_output=True)


def far_bus(folder: Path, address: str) -> list[str]:
    """Command of a bus server."""
    return [find_server(), "--bind", address, "--protected-mode", "no", "--save", "", "--appendonly", "yes",
            "--dir", str(folder)]  # fmt: skip


def far_broker(folder: Path, address: str) -> list[str]:
    """Command of a broker."""
    lines = [f"listener 1883 {address}", "allow_anonymous true", "persistence true", f"persistence_location {folder}/",
             "max_inflight_messages 2000", "max_queued_messages 200000", "user root"]  # fmt: skip
    (folder / "broker.conf").write_text("\n".join(lines) + "\n")
    return ["mosquitto", "-c", str(folder / "broker.conf")]


@pytest.mark.parametrize(("part", "seconds"), [("bus", 10), ("broker", 10), ("broker", 30)])
async def test_the_network_is_cut(part: str, seconds: int, host: Host, tmp_path: Path, table: list[str]) -> None:
    """The bus or the broker lies on another host that can't be reached: what was held up is judged as ever."""
    folder = tmp_path / "far"
    folder.mkdir()
    command = (far_bus if part == "bus" else far_broker)(folder, host.address)
    server = await spawn(["ip", "netns", "exec", host.name, *command], folder=folder, output=folder / "log")

    async def faults(storm: Storm) -> None:
        await asyncio.sleep(storm.rng.uniform(5.0, 8.0))
        host.cut(True)
        await asyncio.sleep(seconds)
        host.cut(False)
        storm.faults.append(storm.now())
        await storm.heal()

    try:
        station = Station(
            state=tmp_path / "state", host="127.0.0.1", port=0,
            bus=f"redis://{host.address}:6379" if part == "bus" else "",
            broker=f"mqtt://{host.address}:1883" if part == "broker" else "",
        )  # fmt: skip
        findings = await weather(tmp_path, recordings(), faults, station=station)
    finally:
        await stop(server)
    table.append(findings.line(f"network to the {part} cut for {seconds} s"))
    findings.check()
    findings.check_silence()
    assert len(findings.recoveries) == 1
    assert max(findings.recoveries) <= CUT_OVER_S


# --- the disk is full ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a folder with a file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    call("mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    """Write a file until not one byte more has room."""
    piece = 1 << 20
    with path.open("wb", buffering=0) as file:
        while piece:
            try:
                file.write(bytes(piece))
            except OSError:
                piece //= 2


def clear(folder: Path) -> None:
    """Take away all that `fill` wrote."""
    for part in folder.glob("ballast*"):
        part.unlink()


def recorded(state: Path) -> dict[str, int]:
    """Count the samples of each patient on disk."""
    found: Counter[str] = Counter()
    with Archive(f"sqlite:///{state / 'history.db'}", state / "recordings") as archive:
        for source in ward(recordings()):
            for segment in archive.segments(source.device):
                units = read_units(state / "recordings", segment, segment.first, segment.first + segment.length)
                found[source.device] += int((units != segment.missing).any(axis=1).sum())
    return found


def remembered(state: Path) -> set[str]:
    """Alarms of the history."""
    engine = open_engine(f"sqlite:///{state / 'history.db'}")
    with engine.connect() as connection:
        found = set(connection.scalars(select(ALARMS.c.id)))
    engine.dispose()
    return found


async def test_the_disk_is_full(
    small_disk: Path, table: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No room for bus, broker, history and recordings for a while: it is said, and all is made up for."""
    monkeypatch.setenv("RHYTHMWATCH_CONSENTED", "false")
    state = small_disk / "state"

    async def faults(storm: Storm) -> None:
        await asyncio.sleep(storm.rng.uniform(5.0, 8.0))
        until = storm.now() + FULL_S
        while storm.now() < until:
            # What is truncated or deleted meanwhile makes room again.
            await asyncio.to_thread(fill, small_disk / f"ballast-{storm.now()}")
            await asyncio.sleep(0.1)
        await asyncio.to_thread(clear, small_disk)
        storm.faults.append(storm.now())
        await storm.heal()

    wanted = {source.device: SECONDS * source.rate for source in ward(recordings())}

    def made_up() -> bool:
        return undisturbed(recordings())[1] <= remembered(state) and recorded(state) == wanted

    async def after(storm: Storm) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                while not await asyncio.to_thread(made_up):
                    await asyncio.sleep(0.5)

    findings = await weather(state, recordings(), faults, after=after)
    table.append(findings.line(f"disk full for {FULL_S:.0f} s"))
    findings.check()
    assert undisturbed(recordings())[1] <= remembered(state)
    assert "can't write to its disk" in capfd.readouterr().err
    assert recorded(state) == wanted
    assert len(findings.recoveries) == 1
    assert max(findings.recoveries) <= PROCESS_S


# --- the broker is restarted -----------------------------------------------------------------------------------------


async def test_the_broker_is_restarted(tmp_path: Path, table: list[str]) -> None:
    """A broker that is ended in good order and started again has every session and all that it had not delivered."""

    async def faults(storm: Storm) -> None:
        for _ in range(RESTARTS):
            await asyncio.sleep(storm.rng.uniform(2.0, 5.0))
            await storm.kill("broker", signal.SIGTERM)
            await storm.heal()

    findings = await weather(tmp_path, recordings(), faults)
    table.append(findings.line("broker restarted"))
    findings.check()
    assert len(findings.recoveries) == RESTARTS
    assert max(findings.recoveries) <= PROCESS_S


# --- a node of the fleet is gone -------------------------------------------------------------------------------------


async def test_a_node_is_gone(nodes: list[Node], tmp_path: Path, table: list[str]) -> None:  # noqa: F811
    """Devices publish while the node of the ingest dies, and then while the fleet is scaled to another worker.

    A spare stands in until Ray has all of it running on the other node.
    """

    async def faults(storm: Storm) -> None:
        await asyncio.sleep(storm.rng.uniform(3.0, 5.0))
        running = {member.pid: member.name for member in await asyncio.to_thread(fleet.members)}
        victim = next(
            node for node in nodes[1:] if any(running.get(pid, "").startswith("ingest") for pid in node.pids())
        )
        storm.faults.append(storm.now())
        await asyncio.to_thread(victim.kill)
        await storm.heal()
        assert storm.clients, "the devices had ended before the fleet was whole again"
        await asyncio.to_thread(fleet.scale, 1, spares=0)
        assert storm.clients, "the devices had ended before the partitions had moved"
        storm.faults.append(storm.now())
        await storm.heal()

    async with embedded(tmp_path / "bus") as url, embedded_broker(tmp_path / "broker") as broker, Bus(url) as bus:
        inner = BrokerAddress(broker.host, broker.port, broker.username, broker.password).url()
        outer = BrokerAddress(broker.host, broker.port, broker.device_username, broker.device_password).url()
        await asyncio.to_thread(fleet.up, Plan(url, inner, workers=2, ingests=1, spares=2))
        findings = await played(Storm(bus), outer, recordings(), faults)
        names = [member.name for member in await asyncio.to_thread(fleet.members)]
        await asyncio.to_thread(fleet.down)
    table.append(findings.line("node of a fleet killed, fleet scaled"))
    findings.check()
    assert names == ["ingest-1", "worker-0-63"]
    assert len(findings.recoveries) == 2
    assert max(findings.recoveries) <= HOST_S
