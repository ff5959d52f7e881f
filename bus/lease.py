"""A lease: one of several processes does what only one may, and a former holder can't write any more.

The server ends a lease that is not renewed, so no clock of ours decides. Each holder has an epoch greater than any
before it, and fences all partitions with it before it begins: what is written under an older epoch is refused there
(`bus.numbered`), however long its writer was stalled. Who comes with the holder's own name takes the lease at once: it
is the same process, started again.

Keys, the first two in one slot of a cluster::

    rw:{name}:lease      string   epoch and name of the holder; expires
    rw:{name}:epoch      counter  epoch of the last holder
    rw:{p}:lease:{name}  string   epoch under which may be written to a partition
"""

from __future__ import annotations

from typing import Final

from bus.errors import BusError
from bus.records import key
from bus.streams import Bus

LEASE_MS: Final = 2_500
"""After this long without a renewal another one may have it."""

_TAKE: Final = """
-- KEYS: lease, epoch. ARGV: holder, ms. The clock keeps epochs growing where a failover has lost the last ones.
-- One that has longer to go than it was given was not renewed since the clock was set back, and would stand for hours.
local held = redis.call('GET', KEYS[1])
local stands = held and redis.call('PTTL', KEYS[1]) <= tonumber(ARGV[2])
if stands and string.match(held, '^%d+ (.*)$') ~= ARGV[1] then return 0 end
local now = redis.call('TIME')
local epoch = now[1] * 1000 + math.floor(now[2] / 1000)
epoch = math.max(epoch, tonumber(redis.call('GET', KEYS[2]) or '0') + 1)
local text = string.format('%.0f', epoch)
redis.call('SET', KEYS[2], text)
redis.call('SET', KEYS[1], text .. ' ' .. ARGV[1], 'PX', ARGV[2])
return epoch
"""
_RENEW: Final = """
-- KEYS: lease. ARGV: epoch and holder, ms; 0 ms ends it.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_FENCE: Final = """
-- KEYS: epoch under which may be written. ARGV: ours.
if tonumber(redis.call('GET', KEYS[1]) or '0') > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""


class LeaseLostError(BusError):
    """Another process has the lease, or may take it; stop what only its holder may do."""


def fence_key(partition: int, name: str) -> str:
    """Key of the epoch under which may be written to a partition."""
    return key(partition, f"lease:{name}")


class Lease:
    """One process's part in a lease.

    Parameters
    ----------
    bus : Bus
    name : str
        What the lease is for.
    holder : str
        Name of this process, the same after a restart and no other's.
    ms : int
        How long it lasts unless it is renewed.

    Attributes
    ----------
    epoch : int
        Under which may be written; 0 before it was taken.
    """

    def __init__(self, bus: Bus, name: str, holder: str, *, ms: int = LEASE_MS) -> None:
        self.name = name
        self.epoch = 0
        self._bus, self._holder, self._ms = bus, holder, ms
        self._key = f"rw:{{{name}}}:lease"

    async def take(self) -> bool:
        """Take the lease; False where another one has it.

        Raises
        ------
        LeaseLostError
            If another one took it meanwhile.
        BusError
            If the bus is away.
        """
        counter = f"rw:{{{self.name}}}:epoch"
        epoch = int(await self._bus._call("EVAL", _TAKE, 2, self._key, counter, self._holder, self._ms))
        if not epoch:
            return False
        self.epoch = epoch
        partitions = range(self._bus.partitions)
        done = await self._bus._burst([("EVAL", _FENCE, 1, fence_key(each, self.name), epoch) for each in partitions])
        if not all(map(int, done)):
            raise LeaseLostError(f"lease {self.name}: a later holder has fenced epoch {epoch}")
        # Where replicas are asked for, one that takes over must not forget who is fenced.
        await self._bus.until_replicated(partitions)
        return True

    async def renew(self) -> None:
        """Keep it for another while; `LeaseLostError` if it has run out, whoever has it now."""
        if not await self._expire(self._ms):
            raise LeaseLostError(f"lease {self.name}: epoch {self.epoch} has run out")

    async def release(self) -> None:
        """Let the next one have it at once; nothing if it is ours no more."""
        await self._expire(0)

    async def _expire(self, ms: int) -> bool:
        return bool(await self._bus._call("EVAL", _RENEW, 1, self._key, f"{self.epoch} {self._holder}", ms))
