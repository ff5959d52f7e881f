"""A cluster of real servers on this machine: three primaries, each with a replica."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from ports import free_ports
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bus.server import find_server

SLOTS = 16384
PRIMARIES = 3
NODE_TIMEOUT_MS = 5_000
"""Longer than a busy machine holds a server up: one that only waits for a core must not be held for dead."""


@dataclass
class Node:
    """One server of the cluster."""

    port: int
    bus_port: int
    process: subprocess.Popen[bytes]

    def client(self) -> Redis:
        """Give a client of this server alone."""
        return Redis(port=self.port, decode_responses=True, protocol=2)


@dataclass
class Cluster:
    """The running cluster."""

    primaries: list[Node]
    replicas: list[Node]

    @property
    def url(self) -> str:
        """Address for the bus."""
        return f"redis+cluster://127.0.0.1:{self.primaries[-1].port}"

    async def well(self) -> bool:
        """Whether every server that lives says that all slots are served."""
        for node in (*self.primaries, *self.replicas):
            if node.process.poll() is None and "cluster_state:ok" not in await _ask(node, "CLUSTER", "INFO"):
                return False
        return True

    async def kill(self, primary: Node) -> None:
        """Kill a primary and wait until its replica serves in its place."""
        primary.process.kill()
        primary.process.wait()
        replica = self.replicas[self.primaries.index(primary)]

        async def promoted() -> bool:
            return "role:master" in await _ask(replica, "INFO", "replication") and await self.well()

        await _until(promoted)


@contextlib.asynccontextmanager
async def running_cluster(folder: Path) -> AsyncIterator[Cluster]:
    """Run a cluster for as long as the block lasts."""
    ports = free_ports(4 * PRIMARIES)
    nodes = [_start(folder / str(n), *ports[2 * n : 2 * n + 2]) for n in range(2 * PRIMARIES)]
    cluster = Cluster(nodes[:PRIMARIES], nodes[PRIMARIES:])
    try:
        await _until(lambda: _all_answer(nodes))
        for number, node in enumerate(cluster.primaries):
            first, last = number * SLOTS // PRIMARIES, (number + 1) * SLOTS // PRIMARIES - 1
            await _ask(node, "CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            await _ask(node, "CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        for node in nodes[1:]:
            await _ask(node, "CLUSTER", "MEET", "127.0.0.1", str(nodes[0].port), str(nodes[0].bus_port))
        await _until(cluster.well)
        for primary, replica in zip(cluster.primaries, cluster.replicas, strict=True):
            identity = await _ask(primary, "CLUSTER", "MYID")

            async def known(replica: Node = replica, identity: str = identity) -> bool:
                return identity in await _ask(replica, "CLUSTER", "NODES")

            await _until(known)
            await _ask(replica, "CLUSTER", "REPLICATE", identity)
        for primary, replica in zip(cluster.primaries, cluster.replicas, strict=True):

            async def linked(primary: Node = primary, replica: Node = replica) -> bool:
                # The replica holds the link to be up a little before its primary does.
                up = "master_link_status:up" in await _ask(replica, "INFO", "replication")
                return up and "state=online" in await _ask(primary, "INFO", "replication")

            await _until(linked)
        yield cluster
    finally:
        for node in nodes:
            node.process.kill()
            node.process.wait()


def _start(folder: Path, port: int, bus_port: int) -> Node:
    folder.mkdir(parents=True)
    options = {
        "port": port, "cluster-port": bus_port, "bind": "127.0.0.1", "dir": folder, "cluster-enabled": "yes",
        "cluster-node-timeout": NODE_TIMEOUT_MS, "save": "", "appendonly": "no", "repl-diskless-sync-delay": 0,
    }  # fmt: skip
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([find_server(), *arguments], stdout=log, stderr=log)
    return Node(port, bus_port, process)


async def _ask(node: Node, *command: str) -> str:
    async with node.client() as client:
        # The library reshapes the answers of these commands; the text as it came is enough here.
        client.response_callbacks.clear()
        return str(await client.execute_command(*command))


async def _all_answer(nodes: list[Node]) -> bool:
    return all(["PONG" in await _ask(node, "PING") for node in nodes])


async def _until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(RedisError):
                if await condition():
                    return
            await asyncio.sleep(0.02)
