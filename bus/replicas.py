"""Waiting until replicas have what was written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode

from bus.burst import Command, exchange, lent, pack_command
from bus.connect import Client
from bus.scatter import server_of, slot_of

LAG_S: Final = 10
"""A replica that has been silent for longer is none: whoever watches patients does not wait for it."""


async def wait_for_replicas(
    client: Client, marks: Iterable[str], replicas: int, within_ms: int, timeout_s: float
) -> tuple[bool, int]:
    """Write to each server that serves one of the keys `marks`, and wait until `replicas` of each have it.

    A server hands all its writes on in their order, so whoever has a mark has all that was written before it. Write
    and wait go over one connection with no redirection between them: else it would be waited where nothing was written.

    Returns
    -------
    done : bool
        Whether each replica that is waited for had it within `within_ms`. Those that are not there are not waited for.
    there : int
        The fewest that a server has, at most `replicas`.

    Raises
    ------
    redis.exceptions.RedisError
        If a server is not there, or does not serve its key any more.
    redis.exceptions.RedisClusterException
        If the cluster can't be reached.
    """
    if isinstance(client, Redis):
        return await _wait_at(client, next(iter(marks)), replicas, within_ms, timeout_s)
    await client.initialize()
    by_server = {server_of(client, slot_of(mark)): mark for mark in marks}
    found = await asyncio.gather(
        *(_wait_at(server, mark, replicas, within_ms, timeout_s) for server, mark in by_server.items())
    )
    return all(done for done, _ in found), min(there for _, there in found)


async def _wait_at(
    server: Redis | ClusterNode, mark: str, replicas: int, within_ms: int, timeout_s: float
) -> tuple[bool, int]:
    async with lent(server) as connection:
        about, _ = await _ask(connection, timeout_s, ("INFO", "replication"), ("SET", mark, b""))
        there = min(replicas, _online(about.decode()))
        if not there:
            return True, 0
        (having,) = await _ask(connection, timeout_s + within_ms / 1000, ("WAIT", there, within_ms))
    return int(having) >= there, there


async def _ask(connection: Any, timeout_s: float, *commands: Command) -> list[Any]:
    answers = await exchange(connection, [pack_command(command) for command in commands], timeout_s)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _online(about: str) -> int:
    """Count replicas by what a server says of its replication: ``slave0:ip=...,state=online,offset=...,lag=0``."""
    count = 0
    for line in about.splitlines():
        name, _, value = line.partition(":")
        if name.startswith("slave") and name[5:].isdigit():
            replica = dict(part.split("=", 1) for part in value.split(","))
            count += replica.get("state") == "online" and int(replica.get("lag", 0)) <= LAG_S
    return count
