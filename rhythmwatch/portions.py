"""How much of what waits a worker folds in one go: by the signal in it, since an entry may hold a second or minutes.

A worker that folds says nothing, and the supervisor ends one that is silent for long; the next would begin with the
same entries. So a fold must be short however much waits and however it was cut into frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from bus.reading import count_each, may_be_more
from bus.streams import Record

READ_COUNT: Final = 200
READ_MOST: Final = 2_000
"""Entries of one and of all partitions in one go."""
PART_BYTES: Final = 64 << 10
"""Of a partition in one go, but at least one entry: two minutes of a lead, 0.2 s of a core for one patient."""
FOLD_BYTES: Final = 2 << 20
"""Of all partitions in one go: an hour of one lead in the sum of patients, 1.4 s of a core."""


class Portions:
    """Reads about as much as is folded, by the size of the entries that came last."""

    def __init__(self) -> None:
        self._typical = 1.0

    def count(self, partitions: int) -> int:
        """Entries of each partition to read."""
        fair = max(1, round(_share(partitions) / self._typical))
        return min(fair, count_each(READ_MOST, partitions, cap=READ_COUNT))

    def cut(
        self, batches: Mapping[int, Sequence[Record]], count: int, partitions: int
    ) -> tuple[dict[int, list[Record]], bool]:
        """Keep of what was read as much as is folded in one go.

        Parameters
        ----------
        batches : mapping of int to sequence of Record
            What was read of each partition.
        count : int
            Most that could be read of one.
        partitions : int
            How many were asked.

        Returns
        -------
        dict of int to list of Record
            At least the first entry of each partition that has any.
        bool
            Whether more is waiting, as far as is known.
        """
        sizes = [len(record.data) for records in batches.values() for record in records]
        if sizes:
            self._typical = max(1.0, sum(sizes) / len(sizes))
        kept = {partition: _within(records, _share(partitions)) for partition, records in batches.items()}
        left = any(len(records) > len(kept[partition]) for partition, records in batches.items())
        return kept, left or may_be_more(batches.items(), count)


def _share(partitions: int) -> int:
    return min(PART_BYTES, FOLD_BYTES // max(1, partitions))


def _within(records: Sequence[Record], most: int) -> list[Record]:
    taken = 0
    for number, record in enumerate(records):
        taken += len(record.data)
        if taken > most and number:
            return list(records[:number])
    return list(records)
