"""How long entries are kept: until whoever reads them says that they are stored, or they are given up."""

from __future__ import annotations

from collections.abc import Mapping

from bus.burst import Command
from bus.connection import Connection
from bus.records import Position, key, order, text_of


class Keeping(Connection):
    """What those ask who trim the streams, and readers that hold them."""

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
        commands: list[Command] = []
        for partition, name, position in asked:
            held = key(partition, "held")
            commands += (("HSET", held, f"{name}/{reader}", position), ("HGET", held, f"given up/{name}"))
        answers = await self._burst(commands)
        lost = []
        for (partition, name, position), given_up in zip(asked, answers[1::2], strict=True):
            if given_up and order(text_of(given_up)) > order(position):
                lost.append((partition, name, text_of(given_up)))
        return lost

    async def held(self, partition: int, reader: str = "") -> dict[str, Position]:
        """Lowest position that any reader, or the one that is named, holds of each stream; absent where none does."""
        answer = await self._call("HGETALL", key(partition, "held"))
        lowest: dict[str, Position] = {}
        for field, value in answer.items():
            (name, _, holder), position = text_of(field).partition("/"), text_of(value)
            if name == "given up" or (reader and holder != reader):
                continue
            if name not in lowest or order(position) < order(lowest[name]):
                lowest[name] = position
        return lowest

    async def first(self, partition: int, name: str = "in") -> Position | None:
        """Oldest position of a stream, None where it is empty."""
        answer = await self._call("XRANGE", key(partition, name), "-", "+", "COUNT", 1)
        return text_of(answer[0][0]) if answer else None

    async def give_up(self, partition: int, name: str, position: Position) -> None:
        """Say that a stream is trimmed up to a position although a reader still holds it."""
        await self._call("HSET", key(partition, "held"), f"given up/{name}", position)

    async def put_ages(self, partition: int, ages: bytes) -> None:
        """Keep what a worker knows of how old entries are, for the one after it."""
        await self._call("SET", key(partition, "ages"), ages)

    async def ages_of(self, partition: int) -> bytes | None:
        """Give what `put_ages` kept."""
        ages: bytes | None = await self._call("GET", key(partition, "ages"))
        return ages
