"""Taking single entries out of the streams so that nothing of them is left, in memory or on disk.

``XDEL`` only marks an entry: its bytes stay in its node and in the append-only file. So a stream is written anew in one
script, with the same positions and without the entries that go, and the append-only file is rewritten afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from bus.connect import is_cluster
from bus.errors import BusError, BusTimeoutError
from bus.streams import Bus, Position, Record, key

_REWRITE: Final = """
-- KEYS: stream. ARGV: positions that go. The position given last stays the newest, so that readers' cursors hold.
local gone = {}
for i = 1, #ARGV do gone[ARGV[i]] = true end
local entries = redis.call('XRANGE', KEYS[1], '-', '+')
local last = nil
for _, pair in ipairs(redis.call('XINFO', 'STREAM', KEYS[1])) do
  if last == true then last = pair end
  if pair == 'last-generated-id' then last = true end
end
redis.call('DEL', KEYS[1])
local count = 0
for _, entry in ipairs(entries) do
  if gone[entry[1]] then count = count + 1
  else redis.call('XADD', KEYS[1], entry[1], unpack(entry[2])) end
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('XADD', KEYS[1], last, 'd', '')
  redis.call('XDEL', KEYS[1], last)
else
  redis.call('XSETID', KEYS[1], last)
end
return count
"""
_READ: Final = 1000
_POLL_S: Final = 0.05


async def erase_entries(bus: Bus, partition: int, name: str, goes: Callable[[Record], bool]) -> int:
    """Take entries out of one stream of a partition.

    Parameters
    ----------
    bus : Bus
    partition : int
    name : str
        ``in``, ``events`` or ``view``.
    goes : callable
        Whether an entry is to go.

    Returns
    -------
    int
        How many went.
    """
    stream = key(partition, name)
    after: Position = "-"
    gone: list[Position] = []
    while True:
        answer = await bus._call("XRANGE", stream, after, "+", "COUNT", _READ)
        for position, fields in answer:
            record = Record(position.decode(), fields[1])
            if goes(record):
                gone.append(record.position)
        if len(answer) < _READ:
            break
        after = "(" + answer[-1][0].decode()
    if not gone:
        return 0
    return int(await bus._call("EVAL", _REWRITE, 1, stream, *gone))


async def forget_on_disk(bus: Bus, timeout_s: float = 120.0) -> None:
    """Let the server write its append-only file anew from what it holds now; the old one is deleted.

    Raises
    ------
    BusTimeoutError
        If it did not end in time.
    BusError
        If the server can't do it.
    """
    if not any(int(node["aof_enabled"]) for node in await _persistence(bus)):
        return
    try:
        async with asyncio.timeout(timeout_s):
            await _ended(bus)
            await bus._call("BGREWRITEAOF", **_everywhere(bus))
            await _ended(bus)
    except TimeoutError as error:
        raise BusTimeoutError(f"{bus.url}: the append-only file was not rewritten in {timeout_s:g} s") from error
    if any(node["aof_last_bgrewrite_status"] != "ok" for node in await _persistence(bus)):
        raise BusError(f"{bus.url}: the server failed to rewrite its append-only file; see its log")


async def _ended(bus: Bus) -> None:
    flags = ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
    while True:
        if not any(int(node[flag]) for node in await _persistence(bus) for flag in flags):
            return
        await asyncio.sleep(_POLL_S)


async def _persistence(bus: Bus) -> list[dict[str, Any]]:
    answer = await bus._call("INFO", "persistence", **_everywhere(bus))
    return list(answer.values()) if is_cluster(bus.url) else [answer]


def _everywhere(bus: Bus) -> dict[str, str]:
    return {"target_nodes": "primaries"} if is_cluster(bus.url) else {}
