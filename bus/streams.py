"""The partitioned streams: frames in, events and views out, epochs that fence, checkpoints that replay exactly.

A partition ``p`` owns eight keys, all in one cluster slot by their hash tag::

    rw:{p}:in           stream   Inbound entries, in the order that decides
    rw:{p}:events       stream   beats, rhythms, alarms, status; evidence, read by historian, notifier and web
    rw:{p}:view         stream   stretches for the wall; short, lossy
    rw:{p}:epoch        counter  epoch of the worker that owns the partition
    rw:{p}:checkpoint   hash     position (outputs are complete up to this entry), state, state_position
    rw:{p}:held         hash     stream/reader to the position that the reader has stored; trimming waits for it
    rw:{p}:ages         string   what was the newest entry when, for the worker that takes over
    rw:{p}:mark         string   written last where replicas are waited for: who has it has all before it

How nothing is written twice: a commit names the position in ``in`` up to which its outputs are complete, and the
script that stores them refuses outputs for a position that is already covered. A worker that takes over loads the
state, folds the entries after `Checkpoint.state_position` again, writes nothing up to `Checkpoint.position`
(`read_range` ends exactly there), and goes on. A commit whose answer was lost may be sent again for the same reason.

How nothing is left out: a commit also names the position that it follows. Where a replica took over that had not got
the last commits, the partition stands before that position; the script refuses, and the worker begins from there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec
from redis.exceptions import RedisClusterException, RedisError

from bus.burst import Command
from bus.committing import VIEW_LENGTH, Checkpoint, Commit, Committing
from bus.errors import NotReplicatedError
from bus.keeping import Keeping
from bus.messages import DEFAULT_PARTITIONS, age_ms, unpack_inbound
from bus.reading import Reading
from bus.records import START, Position, Record, key, milliseconds, order, records_of, text_of
from bus.replicas import wait_for_replicas

__all__ = ["START", "Bus", "Checkpoint", "Commit", "Position", "Record", "Stats", "key", "milliseconds", "order"]

CLOCK: Final = "rw:clock:"
"""Keys of where the clocks of machines stand; gone once a machine has not told for long."""
_TIME: Final = "return redis.call('TIME')"
REPLICATED_MS: Final = 1_000


class Stats(msgspec.Struct, frozen=True):
    """Health of one partition."""

    partition: int
    entries: int
    """Entries held in ``in``."""
    events: int
    last: Position
    position: Position
    lag_ms: int
    """Age difference between the newest entry and the last one whose outputs are stored, by the time in them."""


class Bus(Reading, Committing, Keeping):
    """Connection to the streams; every wait has a time limit.

    Parameters
    ----------
    url : str
        As of `bus.connect.open_client`.
    timeout_s : float
        Longest wait for any one answer; `BusTimeoutError` after it.
    view_length : int
        Views kept a partition, about.
    replicas : int
        Replicas that `until_replicated` waits for.
    """

    def __init__(
        self,
        url: str,
        *,
        partitions: int = DEFAULT_PARTITIONS,
        timeout_s: float = 5.0,
        view_length: int = VIEW_LENGTH,
        replicas: int = 0,
    ) -> None:
        super().__init__(url, timeout_s)
        self.partitions = partitions
        self.view_length = view_length
        self.replicas = replicas

    async def append_in(self, items: Iterable[tuple[int, bytes]]) -> list[Position]:
        """Append entries to ``in`` of their partitions, all in one pipeline.

        Returns
        -------
        list of str
            Position of each entry.

        Raises
        ------
        BusUnavailableError, BusFullError
            Some may have been stored; sending all again is safe, since readers drop duplicates.
        """
        answers = await self._burst([("XADD", key(partition, "in"), "*", "d", data) for partition, data in items])
        return [position.decode() for position in answers]

    async def until_replicated(self, partitions: Collection[int], within_ms: int = REPLICATED_MS) -> bool:
        """Wait until `replicas` have all that was written to the partitions so far.

        Returns
        -------
        bool
            False where a server has not so many replicas; then it was waited for those that there are.

        Raises
        ------
        NotReplicatedError
            If they don't have it within `within_ms`.
        BusUnavailableError
            If a server can't be reached; another one may have taken its place without what was written, so that it
            must be written again.
        """
        if not self.replicas or not partitions:
            return True
        marks = [key(partition, "mark") for partition in partitions]
        try:
            done, there = await wait_for_replicas(self._redis, marks, self.replicas, within_ms, self.timeout_s)
        except (RedisError, RedisClusterException) as error:
            raise self._named(error) from error
        if not done:
            raise NotReplicatedError(f"{self.url}: not on a replica in {within_ms} ms")
        return there == self.replicas

    async def stats(self, partitions: Iterable[int]) -> list[Stats]:
        """Lengths and lag of partitions, for health and metrics."""
        wanted = list(partitions)
        asked: list[Command] = []
        for partition in wanted:
            asked += (
                ("XLEN", key(partition, "in")),
                ("XLEN", key(partition, "events")),
                ("XREVRANGE", key(partition, "in"), "+", "-", "COUNT", 1),
                ("HGET", key(partition, "checkpoint"), "position"),
            )
        answers = iter(await self._burst(asked))
        out: list[Stats] = []
        for partition in wanted:
            entries, events, newest, position = next(answers), next(answers), next(answers), next(answers)
            last = text_of(newest[0][0]) if newest else START
            out.append(Stats(partition, entries, events, last, text_of(position or START), 0))
        lags = await self._lags([item for item in out if START != item.position != item.last])
        return [msgspec.structs.replace(item, lag_ms=lags.get(item.partition, 0)) for item in out]

    async def _lags(self, behind: Sequence[Stats]) -> dict[int, int]:
        """Lag of partitions, ms; ids would tell another one where the server's clock was set in between."""
        if not behind:
            return {}
        # An entry that was erased says as much as the one after it.
        commands = [
            ("XRANGE", key(item.partition, "in"), position, "+", "COUNT", 1)
            for item in behind
            for position in (item.position, item.last)
        ]
        found = iter([records_of(answer) for answer in await self._burst(commands)])
        return {item.partition: _lag_ms(next(found), next(found)) for item in behind}

    async def server_ms(self) -> float:
        """Read the system's clock of the server, ms since the Unix epoch; of a cluster always that of the same one."""
        # By a script, since the command by itself has no key, and any server of a cluster would answer.
        seconds, microseconds = await self._call("EVAL", _TIME, 1, CLOCK)
        return int(seconds) * 1000 + int(microseconds) / 1000

    async def put_clock(self, machine: str, mark: bytes, kept_ms: int) -> None:
        """Keep where the clock of a machine stands (`bus.clock`), for a time."""
        await self._call("SET", CLOCK + machine, mark, "PX", kept_ms)

    async def clock_of(self, machine: str) -> bytes | None:
        """Give what `put_clock` kept."""
        mark: bytes | None = await self._call("GET", CLOCK + machine)
        return mark


def _lag_ms(done: Sequence[Record], newest: Sequence[Record]) -> int:
    with contextlib.suppress(ValueError, IndexError):
        return age_ms(done[0].data, unpack_inbound(newest[0].data).server_ms)
    return 0
