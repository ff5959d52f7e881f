"""A log on disk that survives a power cut at any byte: what a device keeps until the broker has it.

Segment files hold records one after the other; each has a mark, its length, its number and a CRC-32C over all of it. A
record that was cut off or damaged is left out and counted, and reading goes on at the next mark whose record is whole.
How far everything was delivered stands in a file of two slots written in turn, so that one is always whole; if both are
lost, everything is delivered again, and receivers drop what they had.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from crc32c import crc32c

MARK: Final = b"\xa5RWJ"
MAX_RECORD: Final = 1 << 20
SEGMENT_BYTES: Final = 4 << 20
LIMIT_BYTES: Final = 256 << 20
_HEAD: Final = struct.Struct("<4sIQ")  # mark, length of the payload, number
_CRC: Final = struct.Struct("<I")
_SLOT: Final = struct.Struct("<QI")
_SUFFIX: Final = ".log"


class Kept(NamedTuple):
    """A record."""

    number: int
    payload: bytes


class Damage(NamedTuple):
    """Bytes of a segment that hold no whole record."""

    at: int
    size: int


class _Segment(NamedTuple):
    path: Path
    first: int
    last: int


def parse(data: bytes) -> Iterator[Kept | Damage]:
    """Read records, leaving out what is damaged.

    Parameters
    ----------
    data : bytes
        A segment, possibly cut off or altered anywhere.

    Yields
    ------
    Kept or Damage
        In the order of the bytes.
    """
    at = lost_from = 0
    while True:
        at = data.find(MARK, at)
        if at < 0:
            break
        record = _record(data, at)
        if record is None:
            at += 1
            continue
        if at > lost_from:
            yield Damage(lost_from, at - lost_from)
        yield record
        at += _HEAD.size + len(record.payload) + _CRC.size
        lost_from = at
    if lost_from < len(data):
        yield Damage(lost_from, len(data) - lost_from)


def _record(data: bytes, at: int) -> Kept | None:
    if len(data) - at < _HEAD.size + _CRC.size:
        return None
    _, size, number = _HEAD.unpack_from(data, at)
    end = at + _HEAD.size + size
    if size > MAX_RECORD or end + _CRC.size > len(data):
        return None
    if crc32c(memoryview(data)[at:end]) != _CRC.unpack_from(data, end)[0]:
        return None
    return Kept(number, data[at + _HEAD.size : end])


def _lay_out(number: int, payload: bytes) -> bytes:
    data = _HEAD.pack(MARK, len(payload), number) + payload
    return data + _CRC.pack(crc32c(data))


class Journal:
    """The log in one directory; one process at a time may use it.

    Parameters
    ----------
    folder : Path
        Made if it is absent.
    limit_bytes : int
        The most that is kept; beyond it the oldest segment goes, counted.
    segment_bytes : int
        A segment that has reached this is followed by a new one.
    sync : bool
        Wait for the disk at each record. Without it a power cut may cost the last seconds, never more.

    Attributes
    ----------
    delivered : int
        Everything up to this number was delivered (0: nothing).
    last : int
        Number of the newest record.
    damaged_bytes : int
        Bytes that were found to hold no whole record.
    dropped : int
        Records given up undelivered because of `limit_bytes`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int = LIMIT_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        sync: bool = True,
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.damaged_bytes = 0
        self.dropped = 0
        self._file = -1
        self._folder, self._sync = folder, sync
        self._limit, self._segment_bytes = limit_bytes, segment_bytes
        self._delivered_file = folder / "delivered"
        self.delivered = self._read_delivered()
        self._slot = 0
        self._done: deque[_Segment] = deque()
        self.last = self.delivered
        self._scan()
        self._open_segment()
        self._forget()

    def append(self, payload: bytes) -> int:
        """Keep a record; returns its number once it is on the disk.

        Raises
        ------
        ValueError
            If it is too large.
        OSError
            If the disk does not take it; nothing was kept then.
        """
        if len(payload) > MAX_RECORD:
            raise ValueError(f"record of {len(payload)} bytes, at most {MAX_RECORD} are kept")
        if self._size >= self._segment_bytes:
            self._close_segment()
            self._open_segment()
        data = _lay_out(self.last + 1, payload)
        try:
            written = os.write(self._file, data)
            if written < len(data):
                raise OSError(f"the disk took {written} of {len(data)} bytes")
            if self._sync:
                os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)
        self.last += 1
        self._bound()
        return self.last

    def read(self, after: int, count: int) -> list[Kept]:
        """Read up to `count` records that follow number `after`, in order."""
        found: list[Kept] = []
        for segment in [*self._done, _Segment(self._path, self._first, self.last)]:
            if segment.last <= after or len(found) >= count:
                continue
            for item in parse(segment.path.read_bytes()):
                if isinstance(item, Kept) and item.number > after and len(found) < count:
                    found.append(item)
        return found

    def acknowledge(self, number: int) -> None:
        """Note that everything up to `number` was delivered, and forget the segments that hold nothing else."""
        if number <= self.delivered:
            return
        self.delivered = min(number, self.last)
        slot = _SLOT.pack(self.delivered, crc32c(self.delivered.to_bytes(8, "little")))
        self._slot ^= 1
        flags = os.O_WRONLY | os.O_CREAT
        file = os.open(self._delivered_file, flags, 0o600)
        try:
            os.pwrite(file, slot, self._slot * _SLOT.size)
        finally:
            os.close(file)
        self._forget()

    def close(self) -> None:
        """Let go of the files."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read_delivered(self) -> int:
        try:
            data = self._delivered_file.read_bytes()
        except OSError:
            return 0
        best = 0
        for at in (0, _SLOT.size):
            if len(data) >= at + _SLOT.size:
                number, check = _SLOT.unpack_from(data, at)
                if crc32c(number.to_bytes(8, "little")) == check:
                    best = max(best, number)
        return best

    def _scan(self) -> None:
        """Find what earlier runs left."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            numbers: list[int] = []
            for item in parse(path.read_bytes()):
                if isinstance(item, Kept):
                    numbers.append(item.number)
                else:
                    self.damaged_bytes += item.size
            if numbers:
                self._done.append(_Segment(path, min(numbers), max(numbers)))
                self.last = max(self.last, max(numbers))
            else:
                path.unlink()

    def _open_segment(self) -> None:
        """Begin a new file; an old one is never written to again, so that damage in it stays where it is."""
        self._first = self.last + 1
        self._path = self._folder / f"{self._first:020d}{_SUFFIX}"
        self._size = 0
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        if self._sync:
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _close_segment(self) -> None:
        self.close()
        self._done.append(_Segment(self._path, self._first, self.last))

    def _forget(self) -> None:
        while self._done and self._done[0].last <= self.delivered:
            self._done.popleft().path.unlink(missing_ok=True)

    def _bound(self) -> None:
        while self._done and (len(self._done) + 1) * self._segment_bytes > self._limit:
            oldest = self._done.popleft()
            self.dropped += oldest.last - max(oldest.first - 1, self.delivered)
            oldest.path.unlink(missing_ok=True)
            self.acknowledge(oldest.last)
