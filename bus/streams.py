"""The partitioned streams: frames in, events and views out, epochs that fence, checkpoints that replay exactly.

A partition ``p`` owns seven keys, all in one cluster slot by their hash tag::

    rw:{p}:in           stream   Inbound entries, in the order that decides
    rw:{p}:events       stream   beats, rhythms, alarms, status; evidence, read by historian, notifier and web
    rw:{p}:view         stream   stretches for the wall; short, lossy
    rw:{p}:epoch        counter  epoch of the worker that owns the partition
    rw:{p}:checkpoint   hash     position (outputs are complete up to this entry), state, state_position
    rw:{p}:held         hash     stream/reader to the position that the reader has stored; trimming waits for it
    rw:{p}:mark         string   written last where replicas are waited for: who has it has all before it

How nothing is written twice: a commit names the position in ``in`` up to which its outputs are complete, and the
script that stores them refuses outputs for a position that is already covered. A worker that takes over loads the
state, folds the entries after `Checkpoint.state_position` again, writes nothing up to `Checkpoint.position`
(`read_range` ends exactly there), and goes on. A commit whose answer was lost may be sent again for the same reason.

How nothing is left out: a commit also names the position that it follows. Where a replica took over that had not got
the last commits, the partition stands before that position; the script refuses, and the worker begins from there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import msgspec
from redis.asyncio import Redis
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
from bus.connect import is_cluster, open_client
from bus.errors import (
    BusError,
    BusFullError,
    BusTimeoutError,
    BusUnavailableError,
    FencedError,
    NotReplicatedError,
    RewoundError,
)
from bus.messages import DEFAULT_PARTITIONS
from bus.replicas import wait_for_replicas

Position: TypeAlias = str
"""Id of a stream entry, ``ms-n``."""
START: Final[Position] = "0-0"
POLL_S: Final = 0.01
"""Between two looks at the streams of a cluster, which can't be waited for in one command."""
CLOCKS: Final = "rw:clocks"
"""Hash of where the clocks of machines stand."""
REPLICATED_MS: Final = 1_000
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


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One entry of a stream as it was read."""

    position: Position
    data: bytes


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


class Stats(msgspec.Struct, frozen=True):
    """Health of one partition."""

    partition: int
    entries: int
    """Entries held in ``in``."""
    events: int
    last: Position
    position: Position
    lag_ms: int
    """Age difference between the newest entry and the last one whose outputs are stored."""


def key(partition: int, name: str) -> str:
    """Key of a partition; the braces keep all keys of one partition in one cluster slot."""
    return f"rw:{{{partition}}}:{name}"


class Bus:
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
        self.url = url
        self.partitions = partitions
        self.timeout_s = timeout_s
        self.view_length = view_length
        self.replicas = replicas
        self._cluster = is_cluster(url)
        self._redis = open_client(url, timeout_s)
        for command in ("XADD", "XREAD", "XRANGE"):
            self._redis.set_response_callback(command, _as_it_is)
        self._script = ""

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
            done, there = await wait_for_replicas(self._redis, marks, self.replicas, within_ms)
        except (RedisError, RedisClusterException) as error:
            raise self._named(error) from error
        if not done:
            raise NotReplicatedError(f"{self.url}: not on a replica in {within_ms} ms")
        return there == self.replicas

    async def read(
        self, cursors: Mapping[int, Position], *, count: int = 200, block_ms: int = 0
    ) -> list[tuple[int, list[Record]]]:
        """Read what follows the cursors in ``in``.

        Parameters
        ----------
        cursors : mapping of int to str
            Partition to the position last read (`START`: from the beginning; ``"$"``: only what comes).
        count : int
            At most so many entries a partition.
        block_ms : int
            Wait so long for the first entry, at most half of the time limit; 0 does not wait.

        Returns
        -------
        list of (partition, records)
            Only partitions with new entries.
        """
        return await self._read("in", cursors, count, block_ms)

    async def read_events(
        self, cursors: Mapping[int, Position], *, count: int = 500, block_ms: int = 0
    ) -> list[tuple[int, list[Record]]]:
        """Read events as `read` reads entries."""
        return await self._read("events", cursors, count, block_ms)

    async def read_view(
        self, cursors: Mapping[int, Position], *, count: int = 100, block_ms: int = 0
    ) -> list[tuple[int, list[Record]]]:
        """Read views as `read` reads entries; a reader that falls behind misses views."""
        return await self._read("view", cursors, count, block_ms)

    async def read_range(self, partition: int, after: Position, until: Position, *, count: int = 500) -> list[Record]:
        """Entries of ``in`` after one position up to and including another, for a replay that ends exactly there."""
        answer = await self._call("XRANGE", key(partition, "in"), "(" + after, until, "COUNT", count)
        return _records(answer)

    async def last(self, cursors: Iterable[int], name: str = "events") -> dict[int, Position]:
        """Newest position of a stream of each partition; a reader that starts there sees only what comes."""
        partitions = list(cursors)
        pipe = self._redis.pipeline(transaction=False)
        for partition in partitions:
            pipe.execute_command("XREVRANGE", key(partition, name), "+", "-", "COUNT", 1)
        answers = await self._execute(pipe)
        return {
            partition: _text(answer[0][0]) if answer else START
            for partition, answer in zip(partitions, answers, strict=True)
        }

    async def claim(self, partition: int) -> int:
        """Take a partition over; every other worker on it is fenced from now on.

        Returns
        -------
        int
            The epoch to commit with.
        """
        return int(await self._call("INCR", key(partition, "epoch")))

    async def load_checkpoint(self, partition: int) -> Checkpoint:
        """Where the partition stands; a fresh one stands at `START` without a state."""
        state, state_position, position = await self._call(
            "HMGET", key(partition, "checkpoint"), "state", "state_position", "position"
        )
        return Checkpoint(state, _text(state_position or START), _text(position or START))

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
        for again in (True, False):
            if not self._script:
                self._script = _text(await self._call("SCRIPT LOAD", _COMMIT))
            try:
                answers = await self._burst([self._commit_command(item) for item in commits])
            except NoScriptError:
                # The server was restarted. What was stored is known by its position, so all may be sent again.
                self._script = ""
                if not again:
                    raise BusError("the server keeps no scripts") from None
                continue
            break
        return [_answer_of(item, int(answer)) for item, answer in zip(commits, answers, strict=True)]

    def _commit_command(self, item: Commit) -> Command:
        names = [key(item.partition, name) for name in ("epoch", "events", "view", "checkpoint")]
        state = () if item.state is None else (item.state,)
        return (
            "EVALSHA",
            self._script,
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

    async def trim(self, partition: int, minid: Position, name: str = "in") -> int:
        """Forget entries before a position (about: whole nodes); returns how many."""
        return int(await self._call("XTRIM", key(partition, name), "MINID", "~", minid))

    async def hold(
        self, reader: str, positions: Mapping[int, Mapping[str, Position]]
    ) -> list[tuple[int, str, Position]]:
        """Say how far a reader has stored each stream; `held` gives it to whoever trims.

        Parameters
        ----------
        reader : str
            Name of the reader.
        positions : mapping of int to mapping of str to str
            Partition to stream (``in``, ``events``) to position.

        Returns
        -------
        list of (partition, stream, position)
            Where entries behind the reader's position have been trimmed, and up to which one (`give_up`).
        """
        asked = [
            (partition, name, position)
            for partition, streams in positions.items()
            for name, position in streams.items()
        ]
        pipe = self._redis.pipeline(transaction=False)
        for partition, name, position in asked:
            pipe.execute_command("HSET", key(partition, "held"), f"{name}/{reader}", position)
            pipe.execute_command("HGET", key(partition, "held"), f"given up/{name}")
        answers = await self._execute(pipe)
        lost = []
        for (partition, name, position), given_up in zip(asked, answers[1::2], strict=True):
            if given_up and order(_text(given_up)) > order(position):
                lost.append((partition, name, _text(given_up)))
        return lost

    async def held(self, partition: int) -> dict[str, Position]:
        """Lowest position that a reader holds of each stream; one that none holds is absent."""
        answer = await self._call("HGETALL", key(partition, "held"))
        lowest: dict[str, Position] = {}
        for field, value in answer.items():
            name, position = _text(field).partition("/")[0], _text(value)
            if name != "given up" and (name not in lowest or order(position) < order(lowest[name])):
                lowest[name] = position
        return lowest

    async def first(self, partition: int, name: str = "in") -> Position | None:
        """Oldest position of a stream, None where it is empty."""
        answer = await self._call("XRANGE", key(partition, name), "-", "+", "COUNT", 1)
        return _text(answer[0][0]) if answer else None

    async def give_up(self, partition: int, name: str, position: Position) -> None:
        """Say that a stream is trimmed up to a position although a reader still holds it."""
        await self._call("HSET", key(partition, "held"), f"given up/{name}", position)

    async def stats(self, partitions: Iterable[int]) -> list[Stats]:
        """Lengths and lag of partitions, for health and metrics."""
        wanted = list(partitions)
        pipe = self._redis.pipeline(transaction=False)
        for partition in wanted:
            pipe.execute_command("XLEN", key(partition, "in"))
            pipe.execute_command("XLEN", key(partition, "events"))
            pipe.execute_command("XREVRANGE", key(partition, "in"), "+", "-", "COUNT", 1)
            pipe.execute_command("HGET", key(partition, "checkpoint"), "position")
        answers = iter(await self._execute(pipe))
        out = []
        for partition in wanted:
            entries, events, newest, position = next(answers), next(answers), next(answers), next(answers)
            last = _text(newest[0][0]) if newest else START
            position = _text(position or START)
            behind = milliseconds(last) - milliseconds(position) if position != START else 0
            out.append(Stats(partition, entries, events, last, position, max(0, behind)))
        return out

    async def put_clock(self, machine: str, mark: bytes) -> None:
        """Keep where the clock of a machine stands (`bus.clock`)."""
        await self._call("HSET", CLOCKS, machine, mark)

    async def clock_of(self, machine: str) -> bytes | None:
        """Give what `put_clock` kept."""
        mark: bytes | None = await self._call("HGET", CLOCKS, machine)
        return mark

    async def memory(self) -> tuple[int, int]:
        """Bytes that the server uses and its limit (0: none)."""
        if not self._cluster:
            answer = await self._call("INFO", "memory")
            return int(answer["used_memory"]), int(answer["maxmemory"])
        nodes = (await self._call("INFO", "memory", target_nodes="primaries")).values()
        return sum(int(node["used_memory"]) for node in nodes), sum(int(node["maxmemory"]) for node in nodes)

    async def _read(
        self, name: str, cursors: Mapping[int, Position], count: int, block_ms: int
    ) -> list[tuple[int, list[Record]]]:
        if not cursors:
            return []
        if self._cluster:
            return await self._read_cluster(name, cursors, count, block_ms)
        block = ("BLOCK", min(block_ms, int(self.timeout_s * 500))) if block_ms > 0 else ()
        keys = [key(partition, name) for partition in cursors]
        answer = await self._call("XREAD", "COUNT", count, *block, "STREAMS", *keys, *cursors.values())
        return [(_partition(stream), _records(entries)) for stream, entries in answer or ()]

    async def _read_cluster(
        self, name: str, cursors: Mapping[int, Position], count: int, block_ms: int
    ) -> list[tuple[int, list[Record]]]:
        # No command may name keys of two slots, and a blocked read would hold one connection for each partition.
        until = time.monotonic() + block_ms / 1000
        while True:
            pipe = self._redis.pipeline(transaction=False)
            for partition, cursor in cursors.items():
                pipe.execute_command("XREAD", "COUNT", count, "STREAMS", key(partition, name), cursor)
            found = [answer[0] for answer in await self._execute(pipe) if answer]
            if found or time.monotonic() >= until:
                return [(_partition(stream), _records(entries)) for stream, entries in found]
            await asyncio.sleep(POLL_S)

    async def _call(self, *command: Any, **options: Any) -> Any:
        try:
            return await self._redis.execute_command(*command, **options)
        except (RedisError, RedisClusterException) as error:
            raise self._named(error) from error

    async def _burst(self, commands: Sequence[Command]) -> list[Any]:
        """Send many commands in one go; errors as of `_execute`."""
        if isinstance(self._redis, Redis):
            return await self._answers(burst(self._redis, [pack_command(item) for item in commands], self.timeout_s))
        pipe = self._redis.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        return await self._execute(pipe)

    async def _execute(self, pipe: Any) -> list[Any]:
        return await self._answers(pipe.execute())

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


def milliseconds(position: Position) -> int:
    """Server time at which an entry was appended, ms since the Unix epoch."""
    return int(position.partition("-")[0])


def order(position: Position) -> tuple[int, int]:
    """Sort key of a position."""
    ms, _, number = position.partition("-")
    return int(ms), int(number or 0)


def _answer_of(item: Commit, answer: int) -> bool | FencedError | RewoundError:
    if answer == -1:
        return FencedError(item.partition, item.epoch)
    return RewoundError(item.partition) if answer == -2 else bool(answer)


def _as_it_is(response: Any, **kwargs: Any) -> Any:
    return response


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _records(entries: Iterable[Any]) -> list[Record]:
    return [Record(position.decode(), fields[1]) for position, fields in entries]


def _partition(stream: bytes) -> int:
    return int(stream[4 : stream.index(b"}")])
