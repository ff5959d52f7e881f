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
SPANS = [(n * SLOTS // PRIMARIES, (n + 1) * SLOTS // PRIMARIES - 1) for n in range(PRIMARIES)]
"""First and last slot of each primary."""
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

    async def ask(self, *command: str) -> str:
        """Give the answer to a command as text."""
        async with self.client() as client:
            # The library reshapes the answers of these commands; the text as it came is enough here.
            client.response_callbacks.clear()
            return str(await client.execute_command(*command))


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
            if node.process.poll() is None and "cluster_state:ok" not in await node.ask("CLUSTER", "INFO"):
                return False
        return True

    def owner(self, slot: int) -> Node:
        """Give the primary that was given a slot."""
        return next(node for node, (first, last) in zip(self.primaries, SPANS, strict=True) if first <= slot <= last)

    async def change_places(self, primary: Node) -> None:
        """Let the replica of a primary take over while both live."""
        number = self.primaries.index(primary)
        replica = self.replicas[number]
        identity = await primary.ask("CLUSTER", "MYID")

        async def known() -> bool:
            return all(
                [f":{replica.port}@" in await node.ask("CLUSTER", "REPLICAS", identity) for node in self.primaries]
            )

        # One that they don't know to be a replica yet is not heard.
        await _until(known)
        await replica.ask("CLUSTER", "FAILOVER")

        async def changed() -> bool:
            role = "role:master" in await replica.ask("INFO", "replication")
            return role and "role:slave" in await primary.ask("INFO", "replication")

        await _until(changed)
        self.primaries[number], self.replicas[number] = replica, primary

    async def kill(self, primary: Node) -> None:
        """Kill a primary and wait until its replica serves in its place."""
        primary.process.kill()
        primary.process.wait()
        replica = self.replicas[self.primaries.index(primary)]

        async def promoted() -> bool:
            return "role:master" in await replica.ask("INFO", "replication") and await self.well()

        await _until(promoted)


@contextlib.asynccontextmanager
async def running_cluster(folder: Path) -> AsyncIterator[Cluster]:
    """Run a cluster for as long as the block lasts."""
    ports = free_ports(4 * PRIMARIES)
    nodes = [_start(folder / str(n), *ports[2 * n : 2 * n + 2]) for n in range(2 * PRIMARIES)]
    cluster = Cluster(nodes[:PRIMARIES], nodes[PRIMARIES:])
    try:
        await _until(lambda: _all_answer(nodes))
        for number, (node, (first, last)) in enumerate(zip(cluster.primaries, SPANS, strict=True)):
            await node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            await node.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        for node in nodes[1:]:
            await node.ask("CLUSTER", "MEET", "127.0.0.1", str(nodes[0].port), str(nodes[0].bus_port))
        await _until(cluster.well)
        for primary, replica in zip(cluster.primaries, cluster.replicas, strict=True):
            identity = await primary.ask("CLUSTER", "MYID")

            async def known(replica: Node = replica, identity: str = identity) -> bool:
                return identity in await replica.ask("CLUSTER", "NODES")

            await _until(known)
            await replica.ask("CLUSTER", "REPLICATE", identity)
        for primary, replica in zip(cluster.primaries, cluster.replicas, strict=True):

            async def linked(primary: Node = primary, replica: Node = replica) -> bool:
                # The replica holds the link to be up a little before its primary does.
                up = "master_link_status:up" in await replica.ask("INFO", "replication")
                return up and "state=online" in await primary.ask("INFO", "replication")

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


async def _all_answer(nodes: list[Node]) -> bool:
    return all(["PONG" in await node.ask("PING") for node in nodes])


async def _until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(RedisError):
                if await condition():
                    return
            await asyncio.sleep(0.02)
