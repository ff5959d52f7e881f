"""What a worker folds in one go is bounded by the signal in it, and nothing is passed over for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bus.streams import Record
from rhythmwatch.portions import FOLD_BYTES, PART_BYTES, READ_COUNT, READ_MOST, Portions

SIZES = st.integers(1, 200_000)


@given(st.dictionaries(st.integers(0, 63), st.lists(SIZES, max_size=30), min_size=1, max_size=64))
def test_a_portion_is_the_begin_of_each_partition(sizes: dict[int, list[int]]) -> None:
    """At least an entry of each that has any, above that no more than its share; and it is told whether that is all."""
    batches = {
        partition: [Record(f"1-{number}", bytes(size)) for number, size in enumerate(found)]
        for partition, found in sizes.items()
    }
    kept, more = Portions().cut(batches, 31, len(batches))
    share = min(PART_BYTES, FOLD_BYTES // len(batches))
    for partition, records in batches.items():
        assert kept[partition] == records[: len(kept[partition])]
        assert len(kept[partition]) >= min(1, len(records))
        assert len(kept[partition]) <= 1 or sum(len(record.data) for record in kept[partition]) <= share
    assert more == (kept != batches)


@given(st.integers(1, 1_000), SIZES)
def test_as_much_is_read_as_is_folded(partitions: int, size: int) -> None:
    """Once the size of entries is known, a read gives the share of each partition, and never more than by number."""
    portions = Portions()
    portions.cut({0: [Record("1-0", bytes(size))]}, 2, partitions)
    count = portions.count(partitions)
    assert 1 <= count <= min(READ_COUNT, max(1, READ_MOST // partitions))
    assert count == 1 or count * size <= 1.5 * min(PART_BYTES, FOLD_BYTES // partitions)


def test_a_full_read_is_followed_by_another() -> None:
    """As many entries as were asked for may not be all."""
    batches = {0: [Record("1-0", b"x"), Record("1-1", b"x")], 1: [Record("1-0", b"x")]}
    assert Portions().cut(batches, 2, 2) == (batches, True)
    assert Portions().cut(batches, 3, 2) == (batches, False)
