"""A connection to the bus server whose failures are our own errors and whose every wait has a limit."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Sequence
from functools import cache
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bus.burst import Command, burst, pack_command
from bus.connect import open_client
from bus.errors import BusError, BusFullError, BusTimeoutError, BusUnavailableError
from bus.scatter import pack_for_cluster, scatter


class Connection:
    """Connection to one server or a cluster.

    Parameters
    ----------
    url : str
        As of `bus.connect.open_client`.
    timeout_s : float
        Longest wait for any one answer; `BusTimeoutError` after it.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self._redis = open_client(url, timeout_s)
        self._cluster = self._redis if isinstance(self._redis, RedisCluster) else None
        for command in ("XADD", "XREAD", "XRANGE"):
            self._redis.set_response_callback(command, _as_it_is)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def ping(self) -> None:
        """Raise `BusUnavailableError` unless the server answers."""
        await self._call("PING")

    async def memory(self) -> tuple[int, int]:
        """Bytes that the server uses and its limit (0: none)."""
        if self._cluster is None:
            answer = await self._call("INFO", "memory")
            return int(answer["used_memory"]), int(answer["maxmemory"])
        nodes = (await self._call("INFO", "memory", target_nodes="primaries")).values()
        return sum(int(node["used_memory"]) for node in nodes), sum(int(node["maxmemory"]) for node in nodes)

    async def _call(self, *command: Any, **options: Any) -> Any:
        try:
            return await self._redis.execute_command(*command, **options)
        except (RedisError, RedisClusterException) as error:
            raise self._named(error) from error

    async def _burst(self, commands: Sequence[Command]) -> list[Any]:
        """Send many commands in one go; each names keys of one partition."""
        if isinstance(self._redis, Redis):
            return await self._answers(burst(self._redis, [pack_command(item) for item in commands], self.timeout_s))
        asked = [pack_for_cluster(item) for item in commands]
        return await self._answers(scatter(self._redis, asked, self.timeout_s))

    async def _scripted(self, script: str, calls: Sequence[Command]) -> list[Any]:
        """Run a script for each call (count of keys, keys, arguments), in one go; it must be safe to run it twice."""
        commands = [("EVALSHA", _digest(script), *call) for call in calls]
        try:
            return await self._burst(commands)
        except NoScriptError:
            # The server is new, or was restarted.
            await self._call("SCRIPT LOAD", script)
        try:
            return await self._burst(commands)
        except NoScriptError:
            raise BusError(f"{self.url}: the server keeps no scripts") from None

    async def _answers(self, asked: Awaitable[list[Any]]) -> list[Any]:
        try:
            return await asked
        except NoScriptError:
            raise
        except (RedisError, RedisClusterException) as error:
            raise self._named(error) from error

    def _named(self, error: Exception) -> BusError:
        """Give our error for one of the client library."""
        if isinstance(error, RedisTimeoutError):
            return BusTimeoutError(f"{self.url}: no answer in {self.timeout_s:g} s")
        if isinstance(error, AuthenticationError):
            return BusUnavailableError(f"{self.url}: the server refuses the login: {error}")
        if isinstance(error, RedisConnectionError | RedisClusterException | ClusterDownError):
            return BusUnavailableError(f"{self.url}: {error}; is the server running?")
        if isinstance(error, OutOfMemoryError) or (isinstance(error, ResponseError) and "OOM" in str(error)):
            return BusFullError(f"{self.url}: {error}")
        if isinstance(error, ResponseError) and "MISCONF" in str(error):
            return BusFullError(f"{self.url}: the server can't write to its disk; is there room? ({error})")
        return BusError(f"{self.url}: {error}")


@cache
def _digest(script: str) -> str:
    """Name by which a server knows a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _as_it_is(response: Any, **kwargs: Any) -> Any:
    return response
