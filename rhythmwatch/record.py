"""The recorder's core: entries and events of partitions in, segments on disk and their index out.

Nothing is held to be read before it is stored: `Recording.flush` writes samples and beats, syncs the files, and
moves the positions in the same transaction as the index, the trends and the state. All writes are by sample index, so a
flush that failed half-way is simply done again, and a recorder that was killed repeats what it had not stored.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from alerts.archive_files import BEAT, Segment, segment_length
from alerts.archive_index import Index, MinuteSums
from bus.messages import BeatEvent, Entry, unpack_event, unpack_inbound
from bus.streams import Record
from ingest.codecs import decode_frame
from ingest.frame import Frame, FrameError
from rhythmwatch.record_files import SegmentFiles
from rhythmwatch.record_segments import Segments
from rhythmwatch.record_state import Counters, PartitionState, dump, load

_INT16: Final = 2**15
_BEAT: Final = struct.Struct("<qffI2s2sB19s4x")
"""As `BEAT`, but quicker for one."""
_MAP_BYTES: Final = 19
LEFT_AT_ONCE: Final = 16
"""Segments that are completed in one go: all of a ward may end in one moment, and what comes is not read meanwhile."""


class Recording:
    """Keeps what some partitions carry.

    Parameters
    ----------
    root : Path
        Folder of the segments.
    index : Index
        Open.
    partitions : iterable of int
    counters : Counters, optional
        To go on counting in.
    may_keep : callable
        Whether what a channel gave at a wall time (ms) may be kept; what may not is left out, and counted.
    """

    def __init__(
        self,
        root: Path,
        index: Index,
        partitions: Iterable[int],
        counters: Counters | None = None,
        may_keep: Callable[[str, int], bool] = lambda patient, ms: True,
    ) -> None:
        self.counters = counters or Counters()
        self.pending_bytes = 0
        self._root = root
        self._index = index
        self._may_keep = may_keep
        mine = tuple(partitions)
        places = index.places(mine)
        self._states = {partition: load(places.get(partition)) for partition in mine}
        self._stored = {partition: (place.entries, place.events) for partition, place in places.items()}
        self._moved: set[int] = set()
        self._segments = Segments(index)
        self._files: dict[str, SegmentFiles] = {}
        self._written: set[str] = set()
        self._new_rows: dict[str, Segment] = {}
        self._minutes: list[tuple[str, int, MinuteSums]] = []

    def entries(self) -> dict[int, str]:
        """Positions in ``in``: read, and not all of it stored yet."""
        return {partition: state.entries for partition, state in self._states.items()}

    def events(self) -> dict[int, str]:
        """Positions in ``events``."""
        return {partition: state.events for partition, state in self._states.items()}

    # --- what comes ----------------------------------------------------------------------------------------------

    def take_entries(self, partition: int, records: Sequence[Record]) -> None:
        """Take the next entries of ``in`` of a partition."""
        state = self._states[partition]
        state.now_ms = max(state.now_ms, _time_of(records))
        for record in records:
            kind = record.data[0] if record.data else 0
            if kind in (Entry.FRAME, Entry.BACKFILL):
                self._take_frame(state, record.data)
        state.entries = records[-1].position
        self._moved.add(partition)

    def take_events(self, partition: int, records: Sequence[Record]) -> None:
        """Take the next events of a partition."""
        state = self._states[partition]
        for record in records:
            try:
                event = unpack_event(record.data)
            except (msgspec.DecodeError, msgspec.ValidationError):
                self.counters.refuse("event")
                continue
            state.hear(event.patient).trend.take(event)
            if isinstance(event, BeatEvent):
                self._take_beat(event)
        state.events = records[-1].position
        self._moved.add(partition)

    def _take_frame(self, state: PartitionState, data: bytes) -> None:
        try:
            entry = unpack_inbound(data)
            frame = decode_frame(entry.payload)
        except FrameError as error:
            self.counters.refuse(error.reason)
            return
        except ValueError:
            self.counters.refuse("entry")
            return
        if frame.device != entry.patient:
            self.counters.refuse("patient")
            return
        known = state.hear(entry.patient)
        placed = known.timeline.place(frame, entry.kind, entry.server_ms)
        if placed not in ("live", "late"):
            self.counters.refuse(placed)
            return
        if not self._may_keep(entry.patient, int(known.timeline.guess_ms(frame, entry.server_ms))):
            self.counters.refuse("not agreed")
            return
        late = placed == "late"
        rows, bits = _on_disk(frame)
        sample, end = frame.sample, frame.sample + len(rows)
        segments = self._segments
        usual = None if late else segments.usual(entry.patient, frame.epoch, sample, end, bits)
        if usual is not None:
            segments.anchor(usual, known.timeline, sample)
            usual.chunks.append((sample, rows, False))
            self.pending_bytes += rows.nbytes
            self.counters.frames += 1
            return
        length = segment_length(frame.rate)
        while sample < end:
            number = sample // length
            stop = min(end, (number + 1) * length)
            pending = segments.of_sample(known.timeline, frame, entry.server_ms, sample, number, bits)
            if pending is None:
                self.counters.refuse("changed")
                return
            if not late:
                segments.anchor(pending, known.timeline, sample)
                segments.make_usual(entry.patient, pending)
            part = rows[sample - frame.sample : stop - frame.sample]
            pending.chunks.append((sample, part, late))
            self.pending_bytes += part.nbytes
            sample = stop
        if late:
            self.counters.late += 1
        else:
            self.counters.frames += 1

    def _take_beat(self, event: BeatEvent) -> None:
        if not self._may_keep(event.patient, event.ms):
            self.counters.refuse("not agreed")
            return
        for segment in self._segments.of_epoch(event.patient, event.epoch, event.sample):
            if segment.first <= event.sample < segment.first + segment.length:
                self._segments.open(segment).beats.append(_pack_beat(event))
                self.counters.beats += 1
                return
        self.counters.refuse("beat")

    # --- to disk -------------------------------------------------------------------------------------------------

    @property
    def news(self) -> bool:
        """Whether something waits that readers can't find before the next `flush`: a new segment, a change of clock."""
        return bool(self._new_rows) or self._segments.news

    def write(self) -> None:
        """Write samples and beats to their files, where readers find them; nothing counts as stored before `flush`.

        Raises
        ------
        OSError
            If files can't be written; nothing is forgotten, call again later.
        """
        self._leave_old_segments()
        waiting = self._segments.pending
        for path, pending in waiting.items():
            files = self._files.get(path)
            if files is None:
                files = self._files[path] = SegmentFiles(self._root, pending.segment)
            files.segment = pending.segment
            for sample, rows, late in _joined(pending.chunks):
                (files.fill if late else files.write)(sample, rows)
            if pending.beats:
                files.append_beats(np.frombuffer(b"".join(pending.beats), BEAT))
        self._written.update(waiting)
        for path, pending in waiting.items():
            if pending.indexed:
                self._new_rows[path] = pending.segment
        self._segments.written()
        self.pending_bytes = 0

    def flush(self) -> None:
        """Store all that was taken for good.

        Raises
        ------
        OSError, sqlalchemy.exc.SQLAlchemyError
            If files or index can't be written; call again later, nothing is forgotten until then.
        alerts.archive_index.OvertakenError
            If another recorder has stored the same partitions; this one is of no use any more.
        """
        self.write()
        for path in self._written:
            self._files[path].sync()
        for partition in self._moved:
            state = self._states[partition]
            for patient, gone in state.forget().items():
                self._keep_minutes(patient, gone.trend.settled(over=True))
            for patient, known in state.patients.items():
                self._keep_minutes(patient, known.trend.settled())
        places = [(partition, dump(self._states[partition])) for partition in self._moved]
        self._index.commit(self._new_rows.values(), self._minutes, places, self._stored)
        self._stored |= {partition: (place.entries, place.events) for partition, place in places}
        self._minutes = []
        self._moved.clear()
        self._new_rows.clear()
        self._find_newest_segments()
        self._written.clear()
        self._leave_old_segments()

    def _keep_minutes(self, patient: str, minutes: Iterable[tuple[int, MinuteSums]]) -> None:
        self._minutes += [(patient, ms, sums) for ms, sums in minutes if self._may_keep(patient, ms)]

    def leave(self, before_ms: int) -> None:
        """Let go of segments that ended before a time, so that they can be deleted; call right after a `flush`."""
        old = [path for path, files in self._files.items() if files.segment.to_ms < before_ms]
        for path in old:
            self._files[path].complete()
            self._files.pop(path).close()
        if not old:
            return
        current = self._segments.current
        for patient in [patient for patient, path in current.items() if path not in self._files]:
            del current[patient]
        self._segments.forget()

    def close(self) -> None:
        """Complete the segments at hand and close all files; call after a last `flush`."""
        for files in self._files.values():
            files.complete()
            files.close()
        self._files.clear()

    def _find_newest_segments(self) -> None:
        current = self._segments.current
        for segment in [self._files[path].segment for path in self._written]:
            newest = current.get(segment.patient)
            if newest is None or _newer(segment, self._files[newest].segment):
                current[segment.patient] = segment.path
        self._segments.tidy()

    def _leave_old_segments(self) -> None:
        """Complete and close some segments that are stored, and not the newest of their patient any more."""
        kept = set(self._segments.current.values()) | self._written
        for path in [path for path in self._files if path not in kept][:LEFT_AT_ONCE]:
            self._files[path].complete()
            self._files.pop(path).close()


def _time_of(records: Sequence[Record]) -> int:
    """Give the time in the newest entry that ingest made, ms; 0 where there is none. Actions come from elsewhere."""
    for record in reversed(records):
        with contextlib.suppress(ValueError):
            entry = unpack_inbound(record.data)
            if entry.kind is not Entry.ACTION:
                return entry.server_ms
    return 0


def _newer(one: Segment, other: Segment) -> bool:
    return (one.epoch, one.first, one.bits) > (other.epoch, other.first, other.bits)


def _on_disk(frame: Frame) -> tuple[NDArray[Any], int]:
    """Give samples as a segment holds them, and the bits that they need."""
    samples: NDArray[Any] = frame.samples
    if samples.dtype == np.int16:
        return samples, 16
    there = samples != frame.missing
    if (np.abs(samples[there].astype(np.int64)) < _INT16).all():
        return np.where(there, samples, -_INT16).astype(np.int16), 16
    return samples, 32


def _joined(chunks: Sequence[tuple[int, NDArray[Any], bool]]) -> list[tuple[int, NDArray[Any], bool]]:
    """Join chunks that follow each other, so that each stretch is one write."""
    stretches: list[tuple[int, list[NDArray[Any]], bool]] = []
    end = -1
    for sample, rows, late in chunks:
        if stretches and sample == end and stretches[-1][2] is late:
            stretches[-1][1].append(rows)
        else:
            stretches.append((sample, [rows], late))
        end = sample + len(rows)
    return [(sample, parts[0] if len(parts) == 1 else np.concatenate(parts), late) for sample, parts, late in stretches]


def _pack_beat(event: BeatEvent) -> bytes:
    code, second, mark = event.code.encode(), event.second.encode(), event.map
    mapped = len(mark) == _MAP_BYTES
    return _BEAT.pack(event.sample, event.p, event.second_p, max(0, event.rr_ms), code, second, mapped, mark)
