"""Which segment samples and beats belong to, and what waits to be written to each.

The wall clock of a patient is followed in the times of its segments: where it differs from what was carried on from
the last anchor by more than a tolerance, there is a new one. The more anchors a segment has, the larger is the
tolerance, so that a clock that never rests (a signal that comes faster than it was taken, a delay that swings) gives
some hundred of them and not one a frame. What is kept in memory of an epoch is its end; the rest is in the index.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from numpy.typing import NDArray

from alerts.archive_files import Segment, segment_length, segment_path
from alerts.archive_index import Index
from ingest.frame import Frame
from rhythmwatch.record_place import Timeline

ANCHOR_MS: Final = 50.0
"""A segment gets a new anchor when the wall clock differs by this from the last one carried on."""
ANCHORS: Final = 16
"""Each time that a segment has so many anchors more, the difference has to be twice as large for another one."""
KEPT: Final = 1
"""Segments of an epoch that stay in memory once the index has them: this hour's. What still comes for the one before
it has the index asked, once from one flush to the next."""


@dataclass(slots=True)
class Pending:
    """What is to be written to a segment.

    Attributes
    ----------
    chunks : list of (int, ndarray, bool)
        First sample, samples, and whether they came late.
    beats : list of bytes
        Each an `alerts.archive_files.BEAT`.
    indexed : bool
        The index must get the segment anew.
    """

    segment: Segment
    chunks: list[tuple[int, NDArray[Any], bool]] = field(default_factory=list)
    beats: list[bytes] = field(default_factory=list)
    indexed: bool = False

    def holds(self, epoch: int, begin: int, end: int, bits: int) -> bool:
        """Whether samples belong into this segment."""
        mine = self.segment
        return mine.epoch == epoch and mine.bits == bits and mine.first <= begin and end <= mine.first + mine.length


@dataclass(slots=True)
class _Epoch:
    """Segments of an epoch that are known: at least those that end after sample `since`."""

    since: int
    segments: list[Segment]


class Segments:
    """Segments of patients, found or made.

    Parameters
    ----------
    index : Index
        Open.

    Attributes
    ----------
    pending : dict of str to Pending
        By path: what was taken since `written`.
    current : dict of str to str
        Path of each patient's newest segment on disk.
    """

    def __init__(self, index: Index) -> None:
        self.pending: dict[str, Pending] = {}
        self.current: dict[str, str] = {}
        self._index = index
        self._epochs: dict[tuple[str, int], _Epoch] = {}
        self._usual: dict[str, Pending] = {}
        """Where the last live frame of a patient went: most often the next one goes there too."""

    def usual(self, patient: str, epoch: int, begin: int, end: int, bits: int) -> Pending | None:
        """Give the segment of the patient's last live frame, if these samples belong there too."""
        usual = self._usual.get(patient)
        return usual if usual is not None and usual.holds(epoch, begin, end, bits) else None

    def make_usual(self, patient: str, pending: Pending) -> None:
        """Expect the patient's next live frame in this segment."""
        self._usual[patient] = pending

    def of_sample(
        self, timeline: Timeline, frame: Frame, server_ms: int, sample: int, number: int, bits: int
    ) -> Pending | None:
        """Find or make the segment of a sample; None where the epoch was recorded in another format.

        Parameters
        ----------
        timeline : Timeline
            Of the patient, with the frame placed in it.
        frame : Frame
        server_ms : int
            Stream clock of its entry.
        sample, number : int
            One of its samples, and the number of the segment that holds it.
        bits : int
            Of a sample on disk.
        """
        path = segment_path(frame.device, frame.epoch, number, bits)
        pending = self.pending.get(path)
        if pending is not None and pending.segment.fs == frame.rate:
            segment = pending.segment
        else:
            known = self.of_epoch(frame.device, frame.epoch, sample)
            found = [item for item in known if item.path == path]
            segment = found[0] if found else self._new(timeline, frame, server_ms, sample, number, bits)
        if (segment.fs, segment.gain, segment.leads) != (frame.rate, frame.gain, frame.leads):
            return None
        opened = self.open(segment)
        if self.current.get(frame.device) != path:
            # It may have been deleted meanwhile: whoever writes a file makes sure that the index has it.
            opened.indexed = True
        return opened

    def of_epoch(self, patient: str, epoch: int, sample: int = 0) -> list[Segment]:
        """List the segments of an epoch of a patient, at least those that end after a sample."""
        known = self._epochs.get((patient, epoch))
        if known is None or sample < known.since:
            # What is in memory may be newer than the index.
            newer = {item.path: item for item in known.segments} if known else {}
            found = {item.path: item for item in self._index.segments_of(patient, epoch, sample)}
            known = self._epochs[patient, epoch] = _Epoch(sample, list((found | newer).values()))
        return known.segments

    def _new(self, timeline: Timeline, frame: Frame, server_ms: int, sample: int, number: int, bits: int) -> Segment:
        length = segment_length(frame.rate)
        if frame.epoch == timeline.epoch:
            ms = timeline.clock.origin_ms + sample * 1000 / frame.rate
        # Of an epoch that is over, all segments; to ask for them each hour would cost ever more as an epoch goes on.
        elif others := self.of_epoch(frame.device, frame.epoch):
            ms = min(others, key=lambda item: abs(item.first - sample)).ms(sample)
        else:
            ms = timeline.guess_ms(frame, server_ms) + (sample - frame.sample) * 1000 / frame.rate
        segment = _timed(
            Segment(
                path=segment_path(frame.device, frame.epoch, number, bits),
                patient=frame.device,
                device=frame.device,
                epoch=frame.epoch,
                first=number * length,
                length=length,
                from_ms=0,
                to_ms=0,
                fs=frame.rate,
                gain=frame.gain,
                leads=frame.leads,
                bits=bits,
                anchors=((sample, ms),),
            )
        )
        self.of_epoch(frame.device, frame.epoch, sample).append(segment)
        self.open(segment).indexed = True
        return segment

    def open(self, segment: Segment) -> Pending:
        """Give what waits for a segment, to be added to."""
        pending = self.pending.get(segment.path)
        if pending is None:
            pending = self.pending[segment.path] = Pending(segment)
        return pending

    def anchor(self, pending: Pending, timeline: Timeline, sample: int) -> None:
        """Follow the wall clock in the segment's times."""
        segment = pending.segment
        at, ms = segment.anchors[-1]
        now = timeline.clock.origin_ms + sample * 1000 / segment.fs
        tolerance = ANCHOR_MS * 2 ** (len(segment.anchors) // ANCHORS)
        if sample <= at or abs(ms + (sample - at) * 1000 / segment.fs - now) <= tolerance:
            return
        changed = _timed(replace(segment, anchors=(*segment.anchors, (sample, now))))
        known = self.of_epoch(segment.patient, segment.epoch, segment.first)
        known[known.index(segment)] = changed
        pending.segment, pending.indexed = changed, True

    @property
    def news(self) -> bool:
        """Whether the index lacks something that waits: a new segment, a change of clock."""
        return any(pending.indexed for pending in self.pending.values())

    def written(self) -> None:
        """Forget what waited: it is in the files."""
        self.pending.clear()
        self._usual.clear()

    def forget(self) -> None:
        """Ask the index anew which segments there are."""
        self._epochs.clear()

    def tidy(self) -> None:
        """Forget what the index has: the begin of long epochs, and all when epochs have become many."""
        if len(self._epochs) > 4 * max(1, len(self.current)) + 64:
            self.forget()
        for known in self._epochs.values():
            if len(known.segments) > KEPT:
                known.segments.sort(key=lambda item: item.first)
                gone = known.segments[:-KEPT]
                known.since = max(item.first + item.length for item in gone)
                del known.segments[:-KEPT]


def _timed(segment: Segment) -> Segment:
    """Say between which times the segment's samples may lie."""
    last, last_ms = segment.anchors[-1]
    begin = segment.ms(segment.first)
    end = last_ms + (segment.first + segment.length - last) * 1000 / segment.fs
    # Samples before the first anchor are carried back from it, so the begin is the least of all times.
    return replace(segment, from_ms=int(begin), to_ms=int(end) + 1)
