"""Recordings and simulated patients as devices: frames cut from samples, and one player that paces many of them.

`frames_of` is the pure part; the live player and offline analysis both use it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from ingest.frame import Frame, Samples
from ingest.recordings import Recording

FRAME_SECONDS: Final = 1.0


class Source(Protocol):
    """What plays as one device."""

    @property
    def device(self) -> str:
        """Device id."""

    @property
    def rate(self) -> float:
        """Samples a second and lead, Hz."""

    @property
    def leads(self) -> tuple[str, ...]:
        """Lead names in column order."""

    @property
    def gain(self) -> float:
        """Units per mV."""

    def frames(self, epoch: int, start_ms: int) -> Iterator[Frame]:
        """Give the frames of one stream epoch from sample 0 on; `start_ms` is the device clock at sample 0.

        Called once for each start of the device. It never waits and never reads a clock.
        """


class Publisher(Protocol):
    """What takes frames towards the broker; `ingest.device` has two."""

    def offer(self, frame: Frame) -> bool:
        """Take a frame without waiting; False, and counted there, when an older one was dropped for it."""

    async def publish(self, frame: Frame) -> None:
        """Take a frame, waiting for room: nothing is dropped."""


@dataclass(frozen=True, slots=True)
class RecordingSource:
    """A recording that plays as a device.

    Attributes
    ----------
    device : str
        Device id.
    recording : Recording
        What it plays; `Recording.only` chooses leads.
    seconds : float
        Length of a frame.
    start : int
        First sample of the recording that is played.
    loop : bool
        Begin again at sample 0 of the recording when it ends, without a gap in the stream.
    """

    device: str
    recording: Recording
    seconds: float = FRAME_SECONDS
    start: int = 0
    loop: bool = False

    @property
    def rate(self) -> float:
        """Samples a second and lead, Hz."""
        return self.recording.rate

    @property
    def leads(self) -> tuple[str, ...]:
        """Lead names in column order."""
        return self.recording.leads

    @property
    def gain(self) -> float:
        """Units per mV."""
        return self.recording.gain

    def frames(self, epoch: int, start_ms: int) -> Iterator[Frame]:
        """Give the frames of one stream epoch."""
        return frames_of(
            self.recording, self.device, epoch, self.seconds, start=self.start, loop=self.loop, start_ms=start_ms
        )


def frames_of(
    recording: Recording,
    device: str,
    epoch: int,
    seconds: float = FRAME_SECONDS,
    *,
    start: int = 0,
    loop: bool = False,
    start_ms: int = 0,
) -> Iterator[Frame]:
    """Cut a recording into frames.

    Parameters
    ----------
    recording : Recording
        What is cut.
    device, epoch
        Written into each frame.
    seconds : float
        Length of a frame; the last one may be shorter.
    start : int
        First sample that is used; it becomes sample 0 of the epoch.
    loop : bool
        Go on with sample 0 of the recording after its end, for ever.
    start_ms : int
        Device clock at sample 0 of the epoch, ms; the clock goes on with the sample index.

    Yields
    ------
    Frame
        Contiguous frames; their samples are views of the recording where they don't cross its end.

    Raises
    ------
    ValueError
        If a frame would hold no sample or `start` lies outside the recording.
    """
    n = round(seconds * recording.rate)
    total = len(recording.samples)
    if n < 1:
        raise ValueError(f"a frame of {seconds} s holds no sample at {recording.rate:g} Hz")
    if not 0 <= start < total:
        raise ValueError(f"start {start} lies outside the {total} samples of record {recording.name}")
    cuts = _looped(recording.samples, n, start) if loop else _once(recording.samples, n, start)
    return _numbered(cuts, recording, device, epoch, start_ms)


def _once(samples: Samples, n: int, start: int) -> Iterator[Samples]:
    for first in range(start, len(samples), n):
        yield samples[first : first + n]


def _looped(samples: Samples, n: int, start: int) -> Iterator[Samples]:
    total = len(samples)
    first = start
    while True:
        if first + n <= total:
            yield samples[first : first + n]
        else:
            rows = np.arange(first, first + n) % total
            yield samples[rows]
        first = (first + n) % total


def _numbered(cuts: Iterator[Samples], recording: Recording, device: str, epoch: int, start_ms: int) -> Iterator[Frame]:
    sample = 0
    for seq, cut in enumerate(cuts):
        device_ms = start_ms + round(sample * 1000 / recording.rate)
        yield Frame(device, epoch, seq, sample, device_ms, recording.rate, recording.leads, recording.gain, cut)
        sample += len(cut)


@dataclass(slots=True)
class PlayStats:
    """What a player did.

    Attributes
    ----------
    frames : int
        Frames handed to the publisher.
    dropped : int
        Frames that cost the publisher an older one (it was full).
    late_s : float
        The most by which a frame was handed over after its time, wall seconds.
    """

    frames: int = 0
    dropped: int = 0
    late_s: float = 0.0


async def play(
    sources: Sequence[Source],
    publisher: Publisher,
    *,
    epoch: int,
    start_ms: int,
    speed: float = 1.0,
    stats: PlayStats | None = None,
    now: Callable[[], float] | None = None,
) -> PlayStats:
    """Play many sources as devices on one clock until all have ended.

    A frame is handed over when its last sample would have been taken. Devices start staggered over the length of a
    frame, as devices that know nothing of each other do.

    Parameters
    ----------
    sources : sequence of Source
        One a device.
    publisher : Publisher
        Takes the frames of all.
    epoch : int
        Stream epoch of all devices of this start.
    start_ms : int
        Device clock of all at their first sample, ms. A device's clock goes on with its samples, so at `speed` 10 it
        runs ten times as fast as the wall's.
    speed : float
        Times real time; 0 is as fast as the publisher takes frames, round robin over the devices.
    stats : PlayStats, optional
        Counted into, so that a caller can watch it meanwhile.
    now : callable, optional
        Monotonic clock, s; the event loop's by default.

    Returns
    -------
    PlayStats
        What was played.

    Raises
    ------
    ValueError
        If `speed` is negative.
    """
    if not 0 <= speed < float("inf"):
        raise ValueError(f"speed {speed} must be 0 (as fast as it goes) or more")
    stats = PlayStats() if stats is None else stats
    streams = [source.frames(epoch, start_ms) for source in sources]
    if speed == 0:
        await _flat_out(streams, publisher, stats)
    else:
        await _paced(streams, publisher, speed, stats, now or asyncio.get_running_loop().time)
    return stats


async def _flat_out(streams: Sequence[Iterator[Frame]], publisher: Publisher, stats: PlayStats) -> None:
    for frames in itertools.zip_longest(*streams):
        for frame in frames:
            if frame is not None:
                await publisher.publish(frame)
                stats.frames += 1
        await asyncio.sleep(0)


async def _paced(
    streams: Sequence[Iterator[Frame]],
    publisher: Publisher,
    speed: float,
    stats: PlayStats,
    now: Callable[[], float],
) -> None:
    heap: list[tuple[float, int, Frame]] = []
    heads: list[Frame | None] = []
    for stream in streams:
        heads.append(next(stream, None))
        await asyncio.sleep(0)  # the first frames of many simulated patients take a while
    origin = now()
    starts = [origin] * len(streams)

    def queue(index: int, frame: Frame | None) -> None:
        if frame is not None:
            end = (frame.sample + len(frame.samples)) / frame.rate
            heapq.heappush(heap, (starts[index] + end / speed, index, frame))

    for index, head in enumerate(heads):
        if head is not None:
            starts[index] += index / len(streams) * len(head.samples) / head.rate / speed
        queue(index, head)
    handed = 0
    while heap:
        due, index, frame = heap[0]
        wait = due - now()
        if wait > 0:
            await asyncio.sleep(wait)
            handed = 0
            continue
        heapq.heappop(heap)
        stats.late_s = max(stats.late_s, -wait)
        stats.frames += 1
        stats.dropped += not publisher.offer(frame)
        queue(index, next(streams[index], None))
        handed += 1
        if handed % 32 == 0:
            await asyncio.sleep(0)  # a player that is behind still lets the publisher work
