"""Records of the streams, their positions, and the keys that they lie under."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import msgspec

Position: TypeAlias = str
"""Id of a stream entry, ``ms-n``."""
START: Final[Position] = "0-0"


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One entry of a stream as it was read."""

    position: Position
    data: bytes


def key(partition: int, name: str) -> str:
    """Key of a partition; the braces keep all keys of one partition in one cluster slot."""
    return f"rw:{{{partition}}}:{name}"


def milliseconds(position: Position) -> int:
    """Server time at which an entry was appended, ms since the Unix epoch."""
    return int(position.partition("-")[0])


def earlier(position: Position, ms: int) -> Position:
    """Give the position that what was appended so much earlier is not before, by the same server's clock."""
    return f"{max(0, milliseconds(position) - ms)}-0"


def order(position: Position) -> tuple[int, int]:
    """Sort key of a position."""
    ms, _, number = position.partition("-")
    return int(ms), int(number or 0)


def text_of(value: bytes | str) -> str:
    """Text of an answer."""
    return value.decode() if isinstance(value, bytes) else value


def records_of(entries: Iterable[Any]) -> list[Record]:
    """Entries as the server gives them."""
    return [Record(position.decode(), fields[1]) for position, fields in entries]
