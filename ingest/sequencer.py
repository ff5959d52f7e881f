"""Puts the frames of one device in order: contiguous runs, gaps as gaps, duplicates dropped, late data set aside.

Pure: time is an argument (the stream clock of the entries), state is data. The sample index decides the order; the
sequence number only tells at once that nothing can lie between two frames. A frame that does not join on waits until
the frame before it comes, or the window closes: more than `WINDOW_FRAMES` wait, or newer ones came for `WINDOW_MS`.
Then what is missing is a gap. Any order of arrival within the window, with any duplicates, gives the same steps.

A pause in which nothing comes is no waiting, for nothing overtakes in it: what a cut network held up may still come in
order behind it. Only after `QUIET_MS` what waits is no longer held back.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import replace
from typing import Final, TypeAlias

import msgspec

from ingest.codecs import UNREADABLE, decode_frame, encode_frame
from ingest.frame import Frame, FrameError

WINDOW_FRAMES: Final = 8
WINDOW_MS: Final = 2_500
PAUSE_MS: Final = 1_000
"""The most that counts of the time before a frame, or its own length where that is more: the rest is a pause."""
QUIET_MS: Final = 60_000
"""After a pause this long nothing more is hoped for."""
JUMP_S: Final = 60.0
"""A gap longer than this is believed only when a second frame joins on behind it."""
_GAPS: Final = 32
_VERSION: Final = 1


class NewEpoch(msgspec.Struct, frozen=True, gc=False):
    """The device started anew: filters, detectors and indices begin again.

    Attributes
    ----------
    sample : int
        Index of the first sample that will follow; 0 unless the beginning was never seen.
    """

    device: str
    epoch: int
    sample: int
    device_ms: int
    rate: float
    leads: tuple[str, ...]
    gain: float


class Run(msgspec.Struct, frozen=True, gc=False):
    """The samples that follow; `frame.sample` is where the last run or gap ended."""

    frame: Frame


class Gap(msgspec.Struct, frozen=True, gc=False):
    """`count` samples from index `sample` on did not come."""

    sample: int
    count: int


class Late(msgspec.Struct, frozen=True, gc=False):
    """Data for the history alone: it fills a reported gap, or belongs to an epoch that has ended."""

    frame: Frame


Step: TypeAlias = NewEpoch | Run | Gap | Late


class _State(msgspec.Struct):
    """What a checkpoint holds."""

    version: int
    device: str
    epoch: int
    format: tuple[float, tuple[str, ...], float] | None
    next_sample: int
    next_seq: int
    forgotten: int
    gaps: list[tuple[int, int]]
    counts: dict[str, int]
    waiting: list[tuple[int, bytes]]


class Sequencer:
    """The order of one device's frames.

    Attributes
    ----------
    device, epoch : str, int
        Whose stream it is; "" and -1 before the first frame.
    next_sample : int
        Index of the sample that must follow.
    counts : dict of str to int
        What was dropped or set aside, by reason: ``duplicate``, ``overlap`` (samples cut that had come before),
        ``changed`` (rate, leads or gain differ within the epoch), ``jump`` (a far index with nothing behind it),
        ``device`` (frame of another device), ``late``, ``old_epoch``; and ``gaps``, ``gap_samples``.
    """

    __slots__ = ("_forgotten", "_format", "_gaps", "_next_seq", "_waiting", "counts", "device", "epoch", "next_sample")

    def __init__(self) -> None:
        self.device = ""
        self.epoch = -1
        self.next_sample = 0
        self.counts: dict[str, int] = {}
        self._format: tuple[float, tuple[str, ...], float] | None = None
        self._next_seq = 0
        self._forgotten = 0
        self._gaps: list[tuple[int, int]] = []
        self._waiting: list[tuple[int, int, Frame]] = []  # sample, arrived_ms, frame; sorted, samples differ

    def push(self, frame: Frame, now_ms: int) -> tuple[Step, ...]:
        """Take a frame as it arrived.

        Parameters
        ----------
        frame : Frame
            The next frame from the stream, in any order.
        now_ms : int
            Stream clock of its entry, ms.

        Returns
        -------
        tuple of NewEpoch, Run, Gap or Late
            What is certain now, in order.
        """
        steps: list[Step] = []
        if frame.epoch != self.epoch or frame.device != self.device:
            if self.device and frame.device != self.device:
                self._count("device")
                return ()
            if frame.epoch < self.epoch:
                self._count("old_epoch")
                return (Late(frame),)
            self._release(steps, now_ms, everything=True)
            self._begin(frame)
        if self._format is not None and frame.sample + len(frame.samples) <= self.next_sample:
            self._behind(frame, steps)
            return tuple(steps)
        if self._format is not None and not self._waiting and frame.sample == self.next_sample:
            self._emit(frame, steps)
            return tuple(steps)
        if any(sample == frame.sample for sample, _, _ in self._waiting):
            self._count("duplicate")
            return tuple(steps)
        self._pass_over_pause(frame, now_ms)
        insort(self._waiting, (frame.sample, now_ms, frame))
        self._release(steps, now_ms)
        return tuple(steps)

    def tick(self, now_ms: int) -> tuple[Step, ...]:
        """Let time pass: close the window for what waits when nothing newer has come for `QUIET_MS`."""
        steps: list[Step] = []
        if self._waiting and now_ms - self._newest_ms() >= QUIET_MS:
            self._release(steps, now_ms)
        return tuple(steps)

    def flush(self) -> tuple[Step, ...]:
        """Close the window for all that waits, at the end of a stream."""
        steps: list[Step] = []
        self._release(steps, 0, everything=True)
        return tuple(steps)

    def _begin(self, frame: Frame) -> None:
        """Forget the old epoch; the new one opens with its first release."""
        self.device, self.epoch = frame.device, frame.epoch
        self.next_sample = self._next_seq = self._forgotten = 0
        self._format = None
        self._gaps.clear()
        self._waiting.clear()

    def _newest_ms(self) -> int:
        """When the last of the frames that wait came."""
        return max(arrived_ms for _, arrived_ms, _ in self._waiting)

    def _pass_over_pause(self, frame: Frame, now_ms: int) -> None:
        """Take a pause before a frame off what those before it have waited."""
        if not self._waiting:
            return
        counts = max(PAUSE_MS, round(len(frame.samples) * 1000 / frame.rate))
        pause = now_ms - self._newest_ms() - counts
        if pause > 0:
            self._waiting = [(sample, arrived_ms + pause, held) for sample, arrived_ms, held in self._waiting]

    def _release(self, steps: list[Step], now_ms: int, *, everything: bool = False) -> None:
        """Emit waiting frames from the lowest index on, as far as nothing can come before them any more."""
        waiting = self._waiting
        while waiting:
            _, arrived_ms, frame = waiting[0]
            closed = everything or len(waiting) > WINDOW_FRAMES or now_ms - arrived_ms >= WINDOW_MS
            if self._format is None:
                if frame.seq != 0 and not closed:
                    return
            elif frame.sample > self.next_sample:
                if frame.sample - self.next_sample > JUMP_S * frame.rate and not self._confirmed():
                    if len(waiting) == 1 and not everything:
                        return
                    if closed:
                        del waiting[0]
                        self._count("jump")
                        continue
                    return
                if frame.seq != self._next_seq and not closed:
                    return
            del waiting[0]
            self._emit(frame, steps)

    def _confirmed(self) -> bool:
        """Whether a second frame joins on behind the first that waits."""
        sample, _, frame = self._waiting[0]
        return len(self._waiting) > 1 and self._waiting[1][0] == sample + len(frame.samples)

    def _emit(self, frame: Frame, steps: list[Step]) -> None:
        """Append the steps for the next frame in order."""
        form = (frame.rate, frame.leads, frame.gain)
        if self._format is None:
            self._format = form
            self.next_sample = self._forgotten = frame.sample
            steps.append(NewEpoch(frame.device, frame.epoch, frame.sample, frame.device_ms, *form))
        self._next_seq = frame.seq + 1
        if form != self._format:
            self._count("changed")
            return
        known = self.next_sample - frame.sample
        if known < 0:
            self._note_gap(self.next_sample, -known)
            steps.append(Gap(self.next_sample, -known))
        elif known > 0:
            if known >= len(frame.samples):
                self._count("duplicate")
                return
            self._count("overlap", known)
            frame = _without_front(frame, known)
        self.next_sample = frame.sample + len(frame.samples)
        steps.append(Run(frame))

    def _note_gap(self, sample: int, count: int) -> None:
        self._count("gaps")
        self._count("gap_samples", count)
        self._gaps.append((sample, sample + count))
        if len(self._gaps) > _GAPS:
            self._forgotten = self._gaps.pop(0)[1]

    def _behind(self, frame: Frame, steps: list[Step]) -> None:
        """Set a frame aside that fills a gap, drop one that came before."""
        begin, end = frame.sample, frame.sample + len(frame.samples)
        fills = begin < self._forgotten
        left: list[tuple[int, int]] = []
        for low, high in self._gaps:
            if begin < high and low < end:
                fills = True
                left.extend(part for part in ((low, min(begin, high)), (max(end, low), high)) if part[0] < part[1])
            else:
                left.append((low, high))
        self._gaps = left
        if fills:
            self._count("late")
            steps.append(Late(frame))
        else:
            self._count("duplicate")

    def _count(self, reason: str, amount: int = 1) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + amount

    def to_bytes(self) -> bytes:
        """Copy the whole state for a checkpoint, frames that wait included."""
        return _encoder.encode(
            _State(
                _VERSION,
                self.device,
                self.epoch,
                self._format,
                self.next_sample,
                self._next_seq,
                self._forgotten,
                self._gaps,
                self.counts,
                [(arrived_ms, encode_frame(frame)) for _, arrived_ms, frame in self._waiting],
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Sequencer:
        """Continue from what `to_bytes` wrote.

        Raises
        ------
        ValueError
            If it is damaged or of a version that is not spoken; then replay from further back.
        """
        try:
            state = _decoder.decode(data)
            waiting = [(arrived_ms, decode_frame(payload)) for arrived_ms, payload in state.waiting]
        except (*UNREADABLE, FrameError) as error:
            raise ValueError(f"sequencer state can't be read: {error}") from error
        if state.version != _VERSION:
            raise ValueError(f"sequencer state of version {state.version}, {_VERSION} is spoken")
        self = cls()
        self.device, self.epoch, self.counts = state.device, state.epoch, state.counts
        self.next_sample, self._next_seq, self._forgotten = state.next_sample, state.next_seq, state.forgotten
        self._format, self._gaps = state.format, state.gaps
        self._waiting = [(frame.sample, arrived_ms, frame) for arrived_ms, frame in waiting]
        return self


def _without_front(frame: Frame, count: int) -> Frame:
    """Cut the first `count` samples off, which came before."""
    device_ms = frame.device_ms + round(count * 1000 / frame.rate)
    return replace(frame, sample=frame.sample + count, device_ms=device_ms, samples=frame.samples[count:])


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_State)
