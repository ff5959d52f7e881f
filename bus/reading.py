"""Reading the streams of many partitions at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from redis.asyncio import RedisCluster

from bus.connection import Connection
from bus.records import START, Position, Record, key, records_of, text_of
from bus.scatter import pack_for_cluster, scatter

POLL_S: Final = (0.01, 0.1)
"""Least and most from one look at the streams of a cluster, which can't be waited for in one command, to the next."""
POLL_SHARE: Final = 8.0
"""The same as a multiple of the time that a look took: on a full machine those who wait leave it to those who work."""


def count_each(most: int, partitions: int, *, cap: int) -> int:
    """Share what is read in one go among partitions.

    A reader that has fallen behind finds as much waiting in each of them as it may take: without a bound for all of
    them together it would hold many times what it ever holds else.

    Parameters
    ----------
    most : int
        Entries of all partitions together.
    partitions : int
        How many are read.
    cap : int
        Most of one partition.

    Returns
    -------
    int
        The `count` to read with, at least 1.
    """
    return max(1, min(cap, most // max(1, partitions)))


def may_be_more(answer: Iterable[tuple[int, Sequence[Record]]], count: int) -> bool:
    """Whether a partition gave as many entries as were asked for, so that more may wait there."""
    return any(len(records) == count for _, records in answer)


class Reading(Connection):
    """What readers of the streams ask."""

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
        return (await self.read_ranges({partition: (after, until)}, count=count))[partition]

    async def read_ranges(
        self, ranges: Mapping[int, tuple[Position, Position]], *, count: int = 500
    ) -> dict[int, list[Record]]:
        """Entries of several partitions in one pipeline, each after one position up to another as of `read_range`."""
        answers = await self._burst(
            [
                ("XRANGE", key(partition, "in"), "(" + after, until, "COUNT", count)
                for partition, (after, until) in ranges.items()
            ]
        )
        return {partition: records_of(answer) for partition, answer in zip(ranges, answers, strict=True)}

    async def last(self, cursors: Iterable[int], name: str = "events") -> dict[int, Position]:
        """Newest position of a stream of each partition; a reader that starts there sees only what comes."""
        partitions = list(cursors)
        answers = await self._burst(
            [("XREVRANGE", key(partition, name), "+", "-", "COUNT", 1) for partition in partitions]
        )
        return {
            partition: text_of(answer[0][0]) if answer else START
            for partition, answer in zip(partitions, answers, strict=True)
        }

    async def _read(
        self, name: str, cursors: Mapping[int, Position], count: int, block_ms: int
    ) -> list[tuple[int, list[Record]]]:
        if not cursors:
            return []
        if self._cluster is not None:
            return await self._read_cluster(self._cluster, name, cursors, count, block_ms)
        block = ("BLOCK", min(block_ms, int(self.timeout_s * 500))) if block_ms > 0 else ()
        keys = [key(partition, name) for partition in cursors]
        (answer,) = await self._burst([("XREAD", "COUNT", count, *block, "STREAMS", *keys, *cursors.values())])
        return [(_partition(stream), records_of(entries)) for stream, entries in answer or ()]

    async def _read_cluster(
        self, cluster: RedisCluster, name: str, cursors: Mapping[int, Position], count: int, block_ms: int
    ) -> list[tuple[int, list[Record]]]:
        # No command may name keys of two slots, and a blocked read would hold one connection for each partition.
        asked = [
            pack_for_cluster(("XREAD", "COUNT", count, "STREAMS", key(partition, name), cursor))
            for partition, cursor in cursors.items()
        ]
        until = time.monotonic() + block_ms / 1000
        while True:
            began = time.monotonic()
            answers = await self._answers(scatter(cluster, asked, self.timeout_s))
            found = [answer[0] for answer in answers if answer]
            now = time.monotonic()
            if found or now >= until:
                return [(_partition(stream), records_of(entries)) for stream, entries in found]
            least, most = POLL_S
            await asyncio.sleep(min(until - now, most, max(least, POLL_SHARE * (now - began))))


def _partition(stream: bytes) -> int:
    return int(stream[4 : stream.index(b"}")])
