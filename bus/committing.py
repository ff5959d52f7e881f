"""Storing the outputs of a partition atomically, once each, and only as long as its worker's epoch holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from bus.burst import Command
from bus.connection import Connection
from bus.errors import BusError, FencedError, RewoundError
from bus.records import START, Position, key, text_of

VIEW_LENGTH: Final = 500
"""Views kept a partition, about 30 s at 16 patients."""

_COMMIT: Final = """
-- KEYS: epoch, events, view, checkpoint.
-- ARGV: epoch, position, view length, events, views, position before or nothing, what of each, state or nothing.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local ms, n = string.match(ARGV[2], '^(%d+)-(%d+)$')
ms, n = tonumber(ms), tonumber(n)
local stored = 0
local known = redis.call('HGET', KEYS[4], 'position')
local kms, kn = string.match(known or '0-0', '^(%d+)-(%d+)$')
kms, kn = tonumber(kms), tonumber(kn)
local events, views = tonumber(ARGV[4]), tonumber(ARGV[5])
if ms > kms or (ms == kms and n > kn) then
  if ARGV[6] ~= '' and ARGV[6] ~= (known or '0-0') then return -2 end
  for i = 7, 6 + events do redis.call('XADD', KEYS[2], '*', 'd', ARGV[i]) end
  for i = 7 + events, 6 + events + views do
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'd', ARGV[i])
  end
  redis.call('HSET', KEYS[4], 'position', ARGV[2])
  stored = 1
end
local state = ARGV[7 + events + views]
if state then redis.call('HSET', KEYS[4], 'state', state, 'state_position', ARGV[2]) end
return stored
"""


class Commit(msgspec.Struct, frozen=True):
    """Outputs of one partition, complete up to and including the entry at `position`.

    `after` is the position up to which they were complete before; None does not look.
    """

    partition: int
    epoch: int
    position: Position
    events: Sequence[bytes] = ()
    view: Sequence[bytes] = ()
    state: bytes | None = None
    after: Position | None = None


class Checkpoint(msgspec.Struct, frozen=True):
    """Where a partition stands.

    Attributes
    ----------
    state : bytes or None
        State after the entry at `state_position`; None: fold from the start.
    state_position : str
        Replay begins after this entry.
    position : str
        Outputs are stored up to this entry; a replay writes nothing until it has passed it.
    """

    state: bytes | None
    state_position: Position
    position: Position


class Committing(Connection):
    """What the worker of a partition asks."""

    view_length = VIEW_LENGTH

    async def claim(self, partition: int) -> int:
        """Take a partition over; every other worker on it is fenced from now on.

        Returns
        -------
        int
            The epoch to commit with.
        """
        return (await self.claim_all([partition]))[partition]

    async def claim_all(self, partitions: Iterable[int]) -> dict[int, int]:
        """Take several partitions over in one pipeline, as `claim` does; returns the epoch of each."""
        wanted = list(partitions)
        epochs = await self._burst([("INCR", key(partition, "epoch")) for partition in wanted])
        return {partition: int(epoch) for partition, epoch in zip(wanted, epochs, strict=True)}

    async def load_checkpoint(self, partition: int) -> Checkpoint:
        """Where the partition stands; a fresh one stands at `START` without a state."""
        return (await self.load_checkpoints([partition]))[partition]

    async def load_checkpoints(self, partitions: Iterable[int]) -> dict[int, Checkpoint]:
        """Where several partitions stand, as `load_checkpoint` says it, in one pipeline."""
        wanted = list(partitions)
        fields = ("state", "state_position", "position")
        answers = await self._burst([("HMGET", key(partition, "checkpoint"), *fields) for partition in wanted])
        return {
            partition: Checkpoint(state, text_of(state_position or START), text_of(position or START))
            for partition, (state, state_position, position) in zip(wanted, answers, strict=True)
        }

    async def commit(
        self,
        partition: int,
        epoch: int,
        events: Sequence[bytes],
        view: Sequence[bytes],
        checkpoint: bytes | None,
        position: Position,
    ) -> bool:
        """Store outputs and, if given, the state, atomically and only as long as the epoch holds.

        Returns
        -------
        bool
            False if outputs up to `position` had been stored before; then these were not stored again.

        Raises
        ------
        FencedError
            If another worker has claimed the partition; nothing was stored.
        """
        (answer,) = await self.commit_all([Commit(partition, epoch, position, events, view, checkpoint)])
        if isinstance(answer, BusError):
            raise answer
        return answer

    async def commit_all(self, commits: Sequence[Commit]) -> list[bool | FencedError | RewoundError]:
        """Commit several partitions in one pipeline, each atomically for itself; answers as of `commit`.

        `RewoundError` where the partition does not stand at `Commit.after`; nothing of it was stored.
        """
        # What was stored is known by its position, so all may be sent again.
        answers = await self._scripted(_COMMIT, [self._commit_call(item) for item in commits])
        return [_answer_of(item, int(answer)) for item, answer in zip(commits, answers, strict=True)]

    def _commit_call(self, item: Commit) -> Command:
        names = [key(item.partition, name) for name in ("epoch", "events", "view", "checkpoint")]
        state = () if item.state is None else (item.state,)
        return (
            4,
            *names,
            item.epoch,
            item.position,
            self.view_length,
            len(item.events),
            len(item.view),
            item.after or "",
            *item.events,
            *item.view,
            *state,
        )


def _answer_of(item: Commit, answer: int) -> bool | FencedError | RewoundError:
    if answer == -1:
        return FencedError(item.partition, item.epoch)
    return RewoundError(item.partition) if answer == -2 else bool(answer)
