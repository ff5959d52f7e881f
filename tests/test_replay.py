"""Recordings as devices: frames that join, and a player that keeps time for many."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.frame import Frame
from ingest.recordings import Recording, find_record, read_record
from ingest.replay import PlayStats, RecordingSource, play
from ingest.replay import frames_of as cut
from ingest.simulator_cast import cast_sources


def recording(n: int = 1000, rate: float = 250.0) -> Recording:
    samples = np.stack([np.arange(n), -np.arange(n)], axis=1).astype(np.int16)
    return Recording("a", rate, ("MLII", "V5"), 200.0, samples)


@dataclass
class Desk:
    """A publisher that notes what it gets and when, and takes only `room` frames without dropping."""

    now: float = 0.0
    room: int = 1_000_000
    got: list[tuple[float, Frame]] = field(default_factory=list)

    def offer(self, frame: Frame) -> bool:
        """Take a frame; False past the room."""
        self.got.append((self.now, frame))
        return len(self.got) <= self.room

    async def publish(self, frame: Frame) -> None:
        """Take a frame after a turn of the loop."""
        await asyncio.sleep(0)
        self.got.append((self.now, frame))


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Give a desk whose clock goes on exactly by what the player sleeps."""
    desk = Desk()
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        desk.now += max(seconds, 0.0)
        await real(0)

    monkeypatch.setattr("ingest.replay.asyncio.sleep", sleep)
    return desk


@given(
    n=st.integers(1, 900),
    seconds=st.sampled_from([0.1, 0.5, 1.0, 1.7]),
    start=st.integers(0, 899),
    rate=st.sampled_from([125.0, 128.0, 250.0, 360.0]),
)
def test_frames_join_to_the_recording(n: int, seconds: float, start: int, rate: float):
    """Whatever length and start: numbers go on by one, samples by the frame, and nothing is missing or twice."""
    source = recording(n, rate)
    start %= n
    frames = list(cut(source, "bed", 3, seconds, start=start, start_ms=5000))
    np.testing.assert_array_equal(np.concatenate([f.samples for f in frames]), source.samples[start:])
    assert [f.seq for f in frames] == list(range(len(frames)))
    assert [f.sample for f in frames] == [i * round(seconds * rate) for i in range(len(frames))]
    assert all(f.device_ms == 5000 + round(f.sample * 1000 / rate) for f in frames)
    assert all((f.device, f.epoch, f.leads, f.gain, f.rate) == ("bed", 3, ("MLII", "V5"), 200.0, rate) for f in frames)


@given(n=st.integers(1, 700), start=st.integers(0, 699), count=st.integers(1, 12))
def test_a_loop_goes_on_without_a_seam(n: int, start: int, count: int):
    """Past its end a looped recording goes on at its first sample, in whole frames, also when shorter than one."""
    start %= n
    frames = list(islice(cut(recording(n), "bed", 1, start=start, loop=True), count))
    expected = np.resize(np.roll(np.arange(n), -start), 250 * count)
    np.testing.assert_array_equal(np.concatenate([f.samples[:, 0] for f in frames]), expected)
    assert [f.sample for f in frames] == [250 * i for i in range(count)]


def test_a_cut_that_cannot_be_made_is_refused():
    """A frame without samples and a start outside the recording are errors at once, before the first frame."""
    with pytest.raises(ValueError, match="holds no sample"):
        cut(recording(), "bed", 1, 0.0001)
    for start in (-1, 1000):
        with pytest.raises(ValueError, match="lies outside the 1000 samples of record a"):
            cut(recording(), "bed", 1, start=start)


@pytest.mark.parametrize("speed", [1.0, 10.0])
async def test_frames_are_handed_over_when_their_last_sample_is_due(by_hand: Desk, speed: float):
    """Two devices, half a frame apart: each frame comes at its end on the clock, divided by the speed."""
    sources = [RecordingSource(f"bed-{i}", recording()) for i in range(2)]
    stats = await play(sources, by_hand, epoch=1, start_ms=0, speed=speed, now=lambda: by_hand.now)
    times = {"bed-0": [1.0, 2.0, 3.0, 4.0], "bed-1": [1.5, 2.5, 3.5, 4.5]}
    for device, due in times.items():
        got = [at for at, frame in by_hand.got if frame.device == device]
        np.testing.assert_allclose(got, np.array(due) / speed, atol=1e-9)
    assert stats.frames == 8
    assert stats.dropped == 0
    assert stats.late_s < 1e-6


async def test_the_device_clock_goes_with_the_samples_at_any_speed(by_hand: Desk):
    """At speed 20 a device's clock says a second for each second of signal."""
    await play(
        [RecordingSource("bed", recording())], by_hand, epoch=1, start_ms=10_000, speed=20.0, now=lambda: by_hand.now
    )
    assert [frame.device_ms for _, frame in by_hand.got] == [10_000, 11_000, 12_000, 13_000]


async def test_speed_zero_waits_for_the_publisher_and_takes_turns():
    """As fast as it goes: every frame is published, none offered, device by device in turn until each has ended."""
    desk = Desk(room=0)
    sources = [RecordingSource("a", recording(1000)), RecordingSource("b", recording(500))]
    stats = await play(sources, desk, epoch=1, start_ms=0, speed=0)
    assert [(f.device, f.seq) for _, f in desk.got] == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("a", 3)]
    assert (stats.frames, stats.dropped) == (6, 0)


async def test_drops_of_the_publisher_are_counted(by_hand: Desk):
    """A publisher that is full costs frames, and the player says how many; the count can be watched meanwhile."""
    by_hand.room = 3
    stats = PlayStats()
    sources = [RecordingSource("bed", recording(2500))]
    returned = await play(sources, by_hand, epoch=1, start_ms=0, now=lambda: by_hand.now, stats=stats)
    assert returned is stats
    assert (stats.frames, stats.dropped) == (10, 7)


async def test_a_player_that_was_held_up_says_how_late_it_was(by_hand: Desk):
    """A clock that jumps forward makes frames late; they are all sent at once, in order."""

    class Slow(Desk):
        def offer(self, frame: Frame) -> bool:
            if frame.seq == 1:
                by_hand.now += 5.0
            self.got.append((by_hand.now, frame))
            return True

    desk = Slow()
    stats = await play([RecordingSource("bed", recording(1500))], desk, epoch=1, start_ms=0, now=lambda: by_hand.now)
    assert [frame.seq for _, frame in desk.got] == list(range(6))
    assert stats.late_s == pytest.approx(4.0)


async def test_a_negative_speed_is_refused():
    """Time does not run backwards."""
    for speed in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be 0"):
            await play([], Desk(), epoch=1, start_ms=0, speed=speed)


async def test_an_empty_house_ends_at_once():
    """Nothing to play is no error."""
    assert (await play([], Desk(), epoch=1, start_ms=0)).frames == 0


async def test_two_hundred_simulated_devices_cost_little():
    """200 devices of the cast for 20 s of their time: all frames, each device contiguous, under 20 % of one core."""

    @dataclass(frozen=True)
    class Short:
        whole: object

        def __getattr__(self, name: str) -> object:
            return getattr(self.whole, name)

        def frames(self, epoch: int, start_ms: int) -> Iterator[Frame]:
            return islice(self.whole.frames(epoch, start_ms), 20)

    desk = Desk()
    begin = time.process_time()
    stats = await play([Short(source) for source in cast_sources(200)], desk, epoch=1, start_ms=0, speed=0)
    took = time.process_time() - begin
    assert stats.frames == 4000
    assert took < 0.2 * 20
    for device in {frame.device for _, frame in desk.got}:
        assert [f.sample for _, f in desk.got if f.device == device] == [250 * i for i in range(20)]


@pytest.mark.data
def test_a_real_record_is_framed_whole(data_dir: Path):
    """Record 100 gives 1806 frames that hold every sample of the file."""
    source = read_record(find_record("mitdb/100", data_dir), ["MLII"])
    frames = list(cut(source, "mitdb-100", 1))
    assert len(frames) == 1806
    np.testing.assert_array_equal(np.concatenate([f.samples for f in frames]), source.samples)
