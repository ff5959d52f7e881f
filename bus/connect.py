"""Clients of the bus server: one server by URL, or a cluster of several."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bus.errors import BusError

Client: TypeAlias = Redis | RedisCluster

CLUSTER: Final = {"redis+cluster://": "redis://", "rediss+cluster://": "rediss://"}
"""Schemes that name any one node of a cluster, and how that node is reached."""
_SINGLE: Final = ("redis://", "rediss://", "unix://")
_REDIRECTS: Final = 2
"""Tries after a cluster's map turned out to be old."""


def is_cluster(url: str) -> bool:
    """Whether a URL names a cluster."""
    return url.startswith(tuple(CLUSTER))


def open_client(url: str, timeout_s: float) -> Client:
    """Make a client; it connects with its first command.

    Parameters
    ----------
    url : str
        ``redis://``, ``rediss://`` or ``unix://`` for one server, ``redis+cluster://host:port`` or
        ``rediss+cluster://host:port`` (any node) for a cluster.
    timeout_s : float
        Longest wait for one answer.

    Raises
    ------
    BusError
        If the URL has none of these schemes.
    """
    # RESP2, so that answers have one shape everywhere; callers decide what is safe to send again.
    common: dict[str, Any] = {"protocol": 2, "socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    for scheme, plain in CLUSTER.items():
        if url.startswith(scheme):
            cluster: RedisCluster = RedisCluster.from_url(
                plain + url.removeprefix(scheme), retry=Retry(NoBackoff(), _REDIRECTS), **common
            )
            return cluster
    if not url.startswith(_SINGLE):
        raise BusError(f"bus URL {url!r}: redis://, rediss://, unix:// or redis+cluster:// is needed")
    single: Redis = Redis.from_url(url, retry=Retry(NoBackoff(), 0), **common)
    return single
