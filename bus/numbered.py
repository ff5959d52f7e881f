"""Appending what one process numbers: entries, and where their numbering stands, in one step, once each.

A successor goes on from there (`load_numbered`). Whoever writes holds a lease; under an older epoch nothing is stored.
What a source sent lately is known by its marks, so that what is sent again is not numbered twice. Keys, beside those of
`bus.streams`, both in the slot of the partition; they go `KEEP_MS` after the last write::

    rw:{p}:numbered:{source}  hash  number (of the last thing that was numbered), state
    rw:{p}:marks:{source}     list  marks of the last things
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from bus.lease import Lease, LeaseLostError, fence_key
from bus.records import key
from bus.streams import Bus

KEEP_MS: Final = 2 * 86_400_000
"""Longer than a broker keeps what it could not deliver."""
MARKS: Final = 256
"""Kept of one source."""

_STORE: Final = """
-- KEYS: epoch, in, state, marks.
-- ARGV: epoch, number, state, ms to keep, marks to keep, count of marks, marks, entries.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local first = 7 + tonumber(ARGV[6])
if ARGV[2] ~= '0' then
  if tonumber(redis.call('HGET', KEYS[3], 'number') or '0') >= tonumber(ARGV[2]) then return 0 end
  redis.call('HSET', KEYS[3], 'number', ARGV[2], 'state', ARGV[3])
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
  for i = 7, first - 1 do redis.call('RPUSH', KEYS[4], ARGV[i]) end
  redis.call('LTRIM', KEYS[4], -ARGV[5], -1)
  redis.call('PEXPIRE', KEYS[4], ARGV[4])
end
for i = first, #ARGV do redis.call('XADD', KEYS[2], '*', 'd', ARGV[i]) end
return 1
"""


class Numbered(msgspec.Struct, frozen=True):
    """What is stored of one source.

    Attributes
    ----------
    partition : int
    source : str
        Whose things are numbered.
    entries : sequence of bytes
        For ``in``.
    number : int
        Of the last thing, counted from 1 on; 0 for entries that are not numbered: sent again they are stored again.
    state : bytes
        Where the numbering stands.
    marks : sequence of bytes
        Of the things that are new.
    """

    partition: int
    source: str
    entries: Sequence[bytes]
    number: int = 0
    state: bytes = b""
    marks: Sequence[bytes] = ()


class Kept(msgspec.Struct, frozen=True):
    """Where the numbering of a source stands; `marks` are the oldest first."""

    number: int
    state: bytes
    marks: list[bytes]


class NumberedStore:
    """Stores what the holder of a lease numbers.

    Parameters
    ----------
    bus : Bus
    lease : Lease
        Which the writer holds.
    """

    def __init__(self, bus: Bus, lease: Lease) -> None:
        self._bus, self._lease = bus, lease

    async def load(self, sources: Sequence[tuple[int, str]]) -> list[Kept | None]:
        """Where the numbering of sources, by partition and name, stands; None of one that has none."""
        asked: list[tuple[str | int, ...]] = []
        for partition, source in sources:
            asked.append(("HMGET", key(partition, f"numbered:{source}"), "number", "state"))
            asked.append(("LRANGE", key(partition, f"marks:{source}"), 0, -1))
        answers = await self._bus._burst(asked)
        return [
            Kept(int(number), state, marks) if number else None
            for (number, state), marks in zip(answers[::2], answers[1::2], strict=True)
        ]

    async def store(self, items: Sequence[Numbered]) -> None:
        """Store each item in one step, in one pipeline.

        Raises
        ------
        LeaseLostError
            If a later holder has fenced a partition; nothing was stored there.
        BusError
            Some may have been stored; sending all again is safe.
        """
        answers = await self._bus._scripted(_STORE, [self._call(item) for item in items])
        if any(int(answer) < 0 for answer in answers):
            raise LeaseLostError(f"lease {self._lease.name}: epoch {self._lease.epoch} was replaced by a later one")

    def _call(self, item: Numbered) -> tuple[bytes | str | int, ...]:
        return (
            4,
            fence_key(item.partition, self._lease.name),
            key(item.partition, "in"),
            key(item.partition, f"numbered:{item.source}"),
            key(item.partition, f"marks:{item.source}"),
            self._lease.epoch,
            item.number,
            item.state,
            KEEP_MS,
            MARKS,
            len(item.marks),
            *item.marks,
            *item.entries,
        )
