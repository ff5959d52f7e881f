"""Equal ranges of the partitions for processes that share their load."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from bus.messages import DEFAULT_PARTITIONS

READERS: Final = ("historian", "notifier", "recorder", "evidence")
"""Commands that work on a range of partitions behind the workers: on what these have stored."""


def equal_ranges(processes: int, partitions: int = DEFAULT_PARTITIONS) -> list[range]:
    """Split the partitions into a range for each process.

    Raises
    ------
    ValueError
        If there are not so many partitions.
    """
    if not 1 <= processes <= partitions:
        raise ValueError(f"{processes} processes: there must be 1 to {partitions}, a partition each")
    edges = [number * partitions // processes for number in range(processes + 1)]
    return [range(first, end) for first, end in pairwise(edges)]


def span(partitions: range) -> str:
    """Write a range as ``--partitions`` takes it."""
    return f"{partitions[0]}-{partitions[-1]}"
