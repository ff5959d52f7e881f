"""Many commands to a cluster in one go, each to the server that serves its key.

The client's own pipeline asks a server which keys a command names, one command after the other where it reads streams:
one look at 64 partitions took 16 ms of core time, and whoever waits looks many times a second. Here it is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, RedisError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bus.burst import Command, exchange, lent, pack_command

_LOST = (RedisConnectionError, RedisTimeoutError)


class Packed(NamedTuple):
    """A command laid out for the server, and the slot of its keys; for as often as it is asked."""

    command: Command
    slot: int
    pieces: list[bytes]


def pack_for_cluster(command: Command) -> Packed:
    """Lay a command out for `scatter`; all its keys must lie in one slot."""
    name, place = command[0], 1
    if name in ("EVAL", "EVALSHA"):
        place = 3
    elif name == "XREAD":
        place = command.index("STREAMS") + 1
    return Packed(command, slot_of(str(command[place])), pack_command(command))


@lru_cache(maxsize=1 << 16)
def slot_of(key: str) -> int:
    """Slot of a key."""
    return key_slot(key.encode())


async def scatter(client: RedisCluster, asked: Sequence[Packed], timeout_s: float) -> list[Any]:
    """Send commands to the servers of a cluster, all at once, and wait for all answers, as they are.

    What a server refuses since the cluster's map has changed is sent again by the new one, as is what was lost with a
    server that another one has replaced.

    Parameters
    ----------
    client : redis.asyncio.RedisCluster
        Whose map and connections are taken.
    asked : sequence of Packed
    timeout_s : float
        For the answers of a server.

    Raises
    ------
    redis.exceptions.RedisError, redis.exceptions.RedisClusterException
        If a server can't be reached, or the first error that one answered; the other commands were done.
    """
    await client.initialize()
    answers: list[Any] = [None] * len(asked)
    gone = await _send(client, asked, range(len(asked)), answers, timeout_s)
    old = [number for number, answer in enumerate(answers) if isinstance(answer, (MovedError, *_LOST))]
    if old:
        await client.nodes_manager.initialize(last_failed_node_name=next(iter(gone), None))
        again = [number for number in old if server_of(client, asked[number].slot).name not in gone]
        await _send(client, asked, again, answers, timeout_s)
    for number, answer in enumerate(answers):
        if isinstance(answer, AskError | TryAgainError):
            # A slot on its way from one server to another: the client knows how to ask for it.
            answers[number] = await client.execute_command(*asked[number].command)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


async def _send(
    client: RedisCluster, asked: Sequence[Packed], numbers: Iterable[int], answers: list[Any], timeout_s: float
) -> set[str]:
    """Put the answers to some commands at their places, errors too; returns the names of servers that don't answer."""
    by_server: dict[ClusterNode, list[int]] = {}
    for number in numbers:
        by_server.setdefault(server_of(client, asked[number].slot), []).append(number)
    gone: set[str] = set()

    async def at(server: ClusterNode, mine: list[int]) -> None:
        found: list[Any]
        try:
            async with lent(server) as connection:
                found = await exchange(connection, [asked[number].pieces for number in mine], timeout_s)
        except RedisError as error:
            if isinstance(error, _LOST):
                gone.add(server.name)
            found = [error] * len(mine)
        for number, answer in zip(mine, found, strict=True):
            answers[number] = answer

    await asyncio.gather(*(at(server, mine) for server, mine in by_server.items()))
    return gone


def server_of(client: RedisCluster, slot: int) -> ClusterNode:
    """Which server serves a slot, by the map of a client that is initialized."""
    return client.nodes_manager.get_node_from_slot(slot)
