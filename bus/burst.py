"""Many commands to one server in one go: packed here, since the client's own pipeline costs more than the server."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from itertools import chain
from typing import Any, TypeAlias

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

Command: TypeAlias = Sequence[bytes | str | int]


def pack_command(command: Command) -> list[bytes]:
    """Lay a command out as the server reads it (RESP), in pieces, so that a large part is not copied here."""
    pieces = [b"*%d" % len(command)]
    for part in command:
        data = part if isinstance(part, bytes) else str(part).encode()
        pieces += (b"\r\n$%d\r\n" % len(data), data)
    pieces.append(b"\r\n")
    return pieces


async def burst(client: Redis, packed: Sequence[Sequence[bytes]], timeout_s: float) -> list[Any]:
    """Send commands over one connection and wait for all answers, as they are.

    Parameters
    ----------
    client : Redis
        Whose connection is taken.
    packed : sequence of sequence of bytes
        As of `pack_command`.
    timeout_s : float
        For all of it.

    Raises
    ------
    redis.exceptions.RedisError
        If the server can't be reached, or the first error that it answered; the other commands were done.
    """
    if not packed:
        return []
    async with lent(client) as connection:
        answers = await exchange(connection, packed, timeout_s)
    for answer in answers:
        if isinstance(answer, ResponseError):
            raise answer
    return answers


@contextlib.asynccontextmanager
async def lent(server: Redis | ClusterNode) -> AsyncIterator[Any]:
    """Lend a connection to a server for as long as the block lasts; it is made with the first command."""
    if isinstance(server, Redis):
        connection = await server.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            yield connection
        finally:
            await server.connection_pool.release(connection)
    else:
        connection = server.acquire_connection()
        try:
            await server.disconnect_if_needed(connection)
            yield connection
        finally:
            server.release(connection)


async def exchange(connection: Any, packed: Sequence[Sequence[bytes]], timeout_s: float) -> list[Any]:
    """Send commands over a connection and read all answers; those that are errors are among them.

    Raises
    ------
    redis.exceptions.RedisError
        If the connection is lost, or not all has come within `timeout_s`; it is closed then.
    """
    answers: list[Any] = []
    try:
        # One limit for all: one for each answer costs more than to read it.
        async with asyncio.timeout(timeout_s):
            await connection.send_packed_command(b"".join(chain.from_iterable(packed)), check_health=False)
            for _ in packed:
                try:
                    answers.append(await connection.read_response(timeout=math.inf))
                except ResponseError as error:
                    answers.append(error)
    except TimeoutError as error:
        raise RedisTimeoutError(f"no answer in {timeout_s:g} s") from error
    return answers
