"""The journal of a device: a power cut or damage at any byte costs the records it hit and no other."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.journal import MAX_RECORD, Damage, Journal, Kept, parse

PAYLOADS = st.lists(st.binary(max_size=60), min_size=1, max_size=25)


def write(folder: Path, payloads: list[bytes], **options: int) -> None:
    """Keep payloads in a journal and close it."""
    journal = Journal(folder, sync=False, **options)
    for payload in payloads:
        journal.append(payload)
    journal.close()


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


def test_what_was_kept_is_there_after_a_restart(tmp_path: Path):
    """Records come back in order with their numbers, over several segments and several starts."""
    write(tmp_path, [b"a" * 300, b"b", b""], segment_bytes=100)
    journal = Journal(tmp_path, segment_bytes=100)
    assert journal.append(b"d") == 4
    assert journal.read(0, 10) == [Kept(1, b"a" * 300), Kept(2, b"b"), Kept(3, b""), Kept(4, b"d")]
    assert journal.read(1, 2) == [Kept(2, b"b"), Kept(3, b"")]
    assert (journal.last, journal.delivered, journal.damaged_bytes) == (4, 0, 0)
    journal.close()


@settings(max_examples=200, deadline=None)
@given(payloads=PAYLOADS, data=st.data())
def test_a_power_cut_at_any_byte_costs_the_end_alone(payloads: list[bytes], data: st.DataObject):
    """After the file was cut anywhere, the records before the cut are there, and new ones get numbers of their own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, payloads)
        (segment,) = segments(folder)
        whole = segment.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        os.truncate(segment, cut)
        journal = Journal(folder, sync=False)
        got = journal.read(0, 1000)
        assert [item.payload for item in got] == payloads[: len(got)]
        assert len(got) == sum(1 for end in _ends(payloads) if end <= cut)
        number = journal.append(b"new")
        assert journal.read(0, 1000) == [*got, Kept(number, b"new")]
        assert number > (got[-1].number if got else 0)
        journal.close()


def _ends(payloads: list[bytes]) -> list[int]:
    ends, at = [], 0
    for payload in payloads:
        at += 16 + len(payload) + 4
        ends.append(at)
    return ends


@settings(max_examples=200, deadline=None)
@given(payloads=PAYLOADS, data=st.data())
def test_damage_at_any_byte_costs_one_record(payloads: list[bytes], data: st.DataObject):
    """With one byte altered, all records but the one it lies in are there, and the loss is counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, payloads)
        (segment,) = segments(folder)
        whole = bytearray(segment.read_bytes())
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] ^= data.draw(st.integers(1, 255))
        segment.write_bytes(whole)
        hit = sum(1 for end in _ends(payloads) if end <= at)
        journal = Journal(folder, sync=False)
        expected = [Kept(number, payload) for number, payload in enumerate(payloads, 1) if number != hit + 1]
        assert journal.read(0, 1000) == expected
        assert journal.damaged_bytes == 20 + len(payloads[hit])
        journal.close()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_can_be_read(data: bytes):
    """Whatever lies in a segment is either records or damage, every byte once."""
    size = 0
    for item in parse(data):
        size += item.size if isinstance(item, Damage) else 20 + len(item.payload)
    assert size == len(data)


@settings(max_examples=100, deadline=None)
@given(acknowledged=st.lists(st.integers(1, 20), min_size=1, max_size=8), data=st.data())
def test_how_far_it_was_delivered_survives_a_torn_write(acknowledged: list[int], data: st.DataObject):
    """After the note of the last delivery was cut or damaged, the journal knows that one or the one before."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = Journal(folder, sync=False, segment_bytes=1 << 20)
        for _ in range(20):
            journal.append(b"x")
        known = [0]
        for number in acknowledged:
            journal.acknowledge(number)
            if journal.delivered != known[-1]:
                known.append(journal.delivered)
        journal.close()
        note = bytearray((folder / "delivered").read_bytes())
        slot = 12 * ((len(known) - 1) % 2)
        note[slot + data.draw(st.integers(0, 11))] ^= 0x55
        (folder / "delivered").write_bytes(note)
        again = Journal(folder, sync=False)
        assert again.delivered in known[-2:]
        assert again.last == 20
        again.close()


def test_delivered_segments_are_forgotten_and_the_disk_is_bounded(tmp_path: Path):
    """Segments that were delivered go; beyond the limit the oldest goes undelivered, counted."""
    journal = Journal(tmp_path, sync=False, segment_bytes=200, limit_bytes=1000)
    for _ in range(9):
        journal.append(b"x" * 80)
    before = len(segments(tmp_path))
    journal.acknowledge(4)
    assert len(segments(tmp_path)) < before
    assert journal.read(0, 100)[0].number <= 5
    for _ in range(40):
        journal.append(b"y" * 80)
    assert sum(path.stat().st_size for path in segments(tmp_path)) <= 1000 + 200
    assert journal.dropped > 0
    left = journal.read(0, 100)
    assert left[0].number == journal.delivered + 1
    assert left[-1].number == 49
    assert journal.dropped == left[0].number - 5
    journal.close()


def test_a_full_disk_leaves_the_journal_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A record that the disk took half is taken back, and the next one is kept."""
    journal = Journal(tmp_path, sync=False)
    journal.append(b"one")
    write_all = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write_all(file, data[:7]))
    with pytest.raises(OSError, match="7 of"):
        journal.append(b"two")
    monkeypatch.undo()
    journal.append(b"three")
    assert [kept.payload for kept in journal.read(0, 9)] == [b"one", b"three"]
    with pytest.raises(ValueError, match="at most"):
        journal.append(bytes(MAX_RECORD + 1))
    journal.close()
