"""Waiting until replicas have what was written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, PipelineCommand
from redis.exceptions import SlotNotCoveredError

from bus.connect import Client

LAG_S: Final = 10
"""A replica that has been silent for longer is none: whoever watches patients does not wait for it."""


async def wait_for_replicas(client: Client, marks: Iterable[str], replicas: int, within_ms: int) -> tuple[bool, int]:
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
    """
    if isinstance(client, Redis):
        return await _wait_at(client, next(iter(marks)), replicas, within_ms)
    by_node = {}
    for mark in marks:
        node = client.get_node_from_key(mark)
        if node is None:
            raise SlotNotCoveredError(f"no server for {mark}")
        by_node[node] = mark
    found = await asyncio.gather(*(_wait_at(node, mark, replicas, within_ms) for node, mark in by_node.items()))
    return all(done for done, _ in found), min(there for _, there in found)


async def _wait_at(server: Redis | ClusterNode, mark: str, replicas: int, within_ms: int) -> tuple[bool, int]:
    there = min(replicas, _online(await server.execute_command("INFO", "replication")))
    if not there:
        return True, 0
    asked: list[tuple[Any, ...]] = [("SET", mark, b""), ("WAIT", there, within_ms)]
    if isinstance(server, Redis):
        pipe = server.pipeline(transaction=False)
        for command in asked:
            pipe.execute_command(*command)
        answers: list[Any] = await pipe.execute()
    else:
        commands = [PipelineCommand(number, *command) for number, command in enumerate(asked)]
        await server.execute_pipeline(commands)
        answers = [command.result for command in commands]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
    return int(answers[1]) >= there, there


def _online(about: dict[str, Any]) -> int:
    """Count replicas by what a server says of its replication."""
    each = [value for name, value in about.items() if name.startswith("slave") and isinstance(value, dict)]
    return sum(replica.get("state") == "online" and int(replica.get("lag", 0)) <= LAG_S for replica in each)
