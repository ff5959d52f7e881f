"""Frames in any order within the window give the same steps, duplicates or not; what is missing is a gap, exactly."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.clock import LATE_SLEW, STEADY_S, StreamClock
from ingest.frame import Frame
from ingest.sequencer import PAUSE_MS, QUIET_MS, WINDOW_FRAMES, WINDOW_MS, Gap, Late, NewEpoch, Run, Sequencer, Step

RATE = 250.0
SIZE = 50


def frame(seq: int, *, epoch: int = 1, sample: int | None = None, size: int = SIZE, gain: float = 200.0) -> Frame:
    """Make frame number `seq` of a device; sample values tell the index of their place."""
    begin = seq * SIZE if sample is None else sample
    samples = (np.arange(begin, begin + size) % 30_000).astype(np.int16)[:, None]
    return Frame("bed-7", epoch, seq, begin, 1000 + seq, RATE, ("MLII",), gain, samples)


def plain(steps: list[Step]) -> list[tuple[object, ...]]:
    """Turn steps into values that compare, samples included."""
    out: list[tuple[object, ...]] = []
    for step in steps:
        if isinstance(step, Run | Late):
            out.append((type(step).__name__, step.frame.epoch, step.frame.sample, step.frame.samples.tobytes()))
        elif isinstance(step, Gap):
            out.append(("Gap", step.sample, step.count))
        else:
            out.append(("NewEpoch", step.device, step.epoch, step.sample, step.rate, step.leads, step.gain))
    return out


def fold(sequencer: Sequencer, frames: list[Frame]) -> list[Step]:
    """Push frames at one moment and flush."""
    steps = [step for item in frames for step in sequencer.push(item, 0)]
    return [*steps, *sequencer.flush()]


def shuffled(frames: list[Frame], delays: list[int]) -> list[Frame]:
    """Delay each frame by so many places."""
    order = sorted(range(len(frames)), key=lambda place: (place + delays[place], place))
    return [frames[place] for place in order]


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[Frame], list[Frame]]:
    """Frames that reached us in order, and the same ones reordered within the window with duplicates."""
    count = draw(st.integers(1, 40))
    lost = draw(st.sets(st.integers(0, count - 1), max_size=10))
    kept = [frame(seq) for seq in range(count) if seq not in lost]
    delays = draw(st.lists(st.integers(0, 5), min_size=len(kept), max_size=len(kept)))
    mixed = shuffled(kept, delays)
    for place in sorted(draw(st.lists(st.integers(0, 60), max_size=8)), reverse=True):
        if place < len(mixed):
            mixed.insert(draw(st.integers(place + 1, place + 4)), mixed[place])
    return kept, mixed


@given(arrivals())
def test_order_and_duplicates_change_nothing(case: tuple[list[Frame], list[Frame]]):
    """Any reordering within the window, with duplicates, gives exactly the steps of the order sent."""
    kept, mixed = case
    assert plain(fold(Sequencer(), mixed)) == plain(fold(Sequencer(), kept))


@given(arrivals())
def test_runs_and_gaps_tile_the_stream(case: tuple[list[Frame], list[Frame]]):
    """Runs and gaps join without a seam from the first sample on, and each run holds the samples of its place."""
    _, mixed = case
    place: int | None = None
    for step in fold(Sequencer(), mixed):
        if isinstance(step, NewEpoch):
            place = step.sample
        elif isinstance(step, Gap):
            assert step.sample == place
            place += step.count
        elif isinstance(step, Run):
            assert step.frame.sample == place
            assert step.frame.samples[0, 0] == place % 30_000
            place += len(step.frame.samples)


@given(arrivals(), st.data())
def test_a_checkpoint_changes_nothing(case: tuple[list[Frame], list[Frame]], data: st.DataObject):
    """Saved and read back anywhere, frames that wait included, the sequencer goes on as if nothing had been."""
    _, mixed = case
    whole = Sequencer()
    expected = fold(whole, mixed)
    cut = data.draw(st.integers(0, len(mixed)))
    first = Sequencer()
    steps = [step for item in mixed[:cut] for step in first.push(item, 0)]
    second = Sequencer.from_bytes(first.to_bytes())
    steps += fold(second, mixed[cut:])
    assert plain(steps) == plain(expected)
    assert second.counts == whole.counts


def test_a_missing_frame_is_a_gap_when_the_window_closes_by_count():
    """A frame lost on the way is a gap of its samples once more than the window waits behind it."""
    sequencer = Sequencer()
    sequencer.push(frame(0), 0)
    early = [step for seq in range(2, 2 + WINDOW_FRAMES) for step in sequencer.push(frame(seq), 0)]
    assert early == []
    steps = sequencer.push(frame(2 + WINDOW_FRAMES), 0)
    assert plain(list(steps))[0] == ("Gap", SIZE, SIZE)
    assert len(steps) == 2 + WINDOW_FRAMES
    assert sequencer.counts == {"gaps": 1, "gap_samples": SIZE}


def test_a_missing_frame_is_a_gap_when_the_window_closes_by_time():
    """With few frames waiting, newer ones that come for as long as the window close it; time alone does not."""
    sequencer = Sequencer()
    sequencer.push(frame(0), 0)
    assert sequencer.push(frame(2), 1000) == ()
    assert sequencer.push(frame(3), 1000 + PAUSE_MS) == ()
    assert sequencer.push(frame(4), 1000 + 2 * PAUSE_MS) == ()
    assert sequencer.tick(1000 + WINDOW_MS) == ()
    assert [type(step) for step in sequencer.push(frame(5), 1000 + WINDOW_MS)] == [Gap, *[Run] * 4]


@given(st.integers(0, 90_000), st.integers(1, WINDOW_FRAMES - 1), st.data())
def test_a_pause_gives_up_nothing(pause_ms: int, waiting: int, data: st.DataObject):
    """What a cut network held up comes behind the pause, behind newer frames, and is live; ticks go on meanwhile."""
    sequencer = Sequencer()
    sequencer.push(frame(0), 0)
    for seq in range(2, 2 + waiting):
        assert sequencer.push(frame(seq), 100) == ()
    quiet = min(pause_ms, QUIET_MS - 1)
    for now in range(100, 100 + quiet, 1000):
        assert sequencer.tick(now) == ()
    if data.draw(st.booleans()):
        sequencer = Sequencer.from_bytes(sequencer.to_bytes())
    assert sequencer.push(frame(2 + waiting), 100 + pause_ms) == ()
    steps = sequencer.push(frame(1), 100 + pause_ms + WINDOW_MS - PAUSE_MS - 1)
    assert [type(step) for step in steps] == [Run] * (waiting + 2)
    assert sequencer.counts == {}


def test_a_device_that_fell_silent_behind_a_gap_is_judged_to_its_end():
    """Frames that wait for one that never comes are given out after `QUIET_MS`, when nothing else comes either."""
    sequencer = Sequencer()
    sequencer.push(frame(0), 0)
    sequencer.push(frame(2), 1000)
    assert sequencer.tick(999 + QUIET_MS) == ()
    assert [type(step) for step in sequencer.tick(1000 + QUIET_MS)] == [Gap, Run]


def test_long_frames_wait_for_no_more_of_them():
    """Of frames longer than the window the next one closes it: its own length is no pause."""
    sequencer = Sequencer()
    size = round(RATE * 2 * WINDOW_MS / 1000)
    sequencer.push(frame(0, sample=0, size=size), 0)
    assert sequencer.push(frame(2, sample=2 * size, size=size), 10_000) == ()
    assert [type(step) for step in sequencer.push(frame(3, sample=3 * size, size=size), 15_000)] == [Gap, Run, Run]


def test_samples_that_the_device_skipped_are_a_gap_at_once():
    """Consecutive sequence numbers with an index that jumps: nothing can come between, so nothing is waited for."""
    sequencer = Sequencer()
    sequencer.push(frame(0), 0)
    assert plain(list(sequencer.push(frame(1, sample=500), 0)))[0] == ("Gap", SIZE, 500 - SIZE)


def test_a_frame_after_the_window_is_late_once():
    """What fills a reported gap goes to the history, once; again it is a duplicate."""
    sequencer = Sequencer()
    for seq in (0, 2):
        sequencer.push(frame(seq), 0)
    sequencer.tick(QUIET_MS)
    assert [type(step) for step in sequencer.push(frame(1), QUIET_MS)] == [Late]
    assert sequencer.push(frame(1), QUIET_MS) == ()
    assert sequencer.counts["late"] == sequencer.counts["duplicate"] == 1


def test_a_new_epoch_ends_the_old_one():
    """A larger epoch flushes what waits, with its gaps, then begins at its own first sample."""
    sequencer = Sequencer()
    for seq in (0, 2):
        sequencer.push(frame(seq), 0)
    steps = sequencer.push(frame(0, epoch=9), 0)
    assert [type(step) for step in steps] == [Gap, Run, NewEpoch, Run]
    assert sequencer.push(frame(1), 0) != ()
    assert [type(step) for step in sequencer.push(frame(3), 0)] == [Late]
    assert sequencer.counts["old_epoch"] == 2
    assert sequencer.epoch == 9


def test_joining_in_the_middle_begins_there():
    """Without frame 0 the stream begins at the lowest index that came within the window."""
    sequencer = Sequencer()
    assert sequencer.push(frame(8), 0) == ()
    assert sequencer.push(frame(7), 0) == ()
    for seq, now in ((9, PAUSE_MS), (10, 2 * PAUSE_MS)):
        assert sequencer.push(frame(seq), now) == ()
    steps = sequencer.push(frame(11), WINDOW_MS)
    assert [type(step) for step in steps] == [NewEpoch, *[Run] * 5]
    assert isinstance(steps[0], NewEpoch)
    assert steps[0].sample == 7 * SIZE
    assert [type(step) for step in sequencer.push(frame(6), WINDOW_MS)] == [Late]


def test_samples_that_came_before_are_cut():
    """Of an overlapping frame only the new samples follow."""
    sequencer = Sequencer()
    sequencer.push(frame(0), 0)
    (step,) = sequencer.push(frame(1, sample=SIZE - 20), 0)
    assert isinstance(step, Run)
    assert (step.frame.sample, len(step.frame.samples)) == (SIZE, SIZE - 20)
    assert sequencer.counts == {"overlap": 20}


def test_a_changed_format_is_refused():
    """A frame with another gain in the same epoch is dropped, counted, and its samples are a gap."""
    sequencer = Sequencer()
    sequencer.push(frame(0), 0)
    assert sequencer.push(frame(1, gain=100.0), 0) == ()
    assert plain(list(sequencer.push(frame(2), 0)))[0] == ("Gap", SIZE, SIZE)
    assert sequencer.counts["changed"] == 1


def test_one_frame_with_an_absurd_index_disturbs_nothing():
    """A single far frame never comes between the frames that go on, and is dropped for the next far one."""
    sequencer = Sequencer()
    sequencer.push(frame(0), 0)
    assert sequencer.push(frame(1, sample=2**62), 0) == ()
    for seq in range(1, 30):
        assert [type(step) for step in sequencer.push(frame(seq), seq * 200)] == [Run]
    assert sequencer.push(frame(99, sample=2**61), 10_000) == ()
    sequencer.flush()
    assert sequencer.counts == {"jump": 2}


def test_a_long_outage_is_one_gap():
    """A far index is believed when a second frame joins on."""
    sequencer = Sequencer()
    sequencer.push(frame(0), 0)
    waiting = range(5000, 5000 + WINDOW_FRAMES)
    assert [step for seq in waiting for step in sequencer.push(frame(seq), 1_000_000)] == []
    steps = sequencer.push(frame(waiting.stop), 1_000_200)
    assert [type(step) for step in steps] == [Gap, *[Run] * (WINDOW_FRAMES + 1)]


def test_a_frame_of_another_device_is_refused():
    """A sequencer belongs to one device."""
    sequencer = Sequencer()
    sequencer.push(frame(0), 0)
    assert sequencer.push(replace(frame(1), device="bed-8"), 0) == ()
    assert sequencer.counts == {"device": 1}


@given(st.binary(max_size=60))
def test_a_damaged_checkpoint_is_refused(data: bytes):
    """Bytes that are no state are refused in words."""
    with pytest.raises(ValueError, match="sequencer state"):
        Sequencer.from_bytes(data)


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 100_000)), min_size=1, max_size=60))
def test_the_stream_clock_never_steps_back(frames: list[tuple[int, int]]):
    """Whatever the arrivals, the time of the newest sample never falls."""
    clock = StreamClock()
    clock.start(RATE, 50, 1_000_000)
    last, end = clock.ms(50), 50
    for size, arrived in frames:
        end += size
        clock.observe(end, 1_000_000 + arrived)
        assert clock.ms(end) >= last - 1
        last = clock.ms(end)
    clock.start(360.0, 10, 1_000_000)
    assert clock.ms(10) >= last


def test_the_stream_clock_finds_the_origin_behind_jitter():
    """With delays of 20 to 220 ms the estimate settles near the least delay, and a backlog hardly moves it."""
    clock = StreamClock()
    delays = np.random.default_rng(1).integers(20, 220, 200)
    clock.start(RATE, 250, 1_000_000 + 1000 + 220)
    for second, delay in enumerate(delays, start=2):
        clock.observe(second * 250, 1_000_000 + second * 1000 + int(delay))
    assert 1_000_000 <= clock.ms(0) <= 1_000_080
    before = clock.ms(0)
    for second in range(202, 222):
        clock.observe(second * 250, 1_000_000 + 222_000)
    assert abs(clock.ms(0) - before) <= 25


def held_up(seconds: int, cut_s: int, a_second: int) -> StreamClock:
    """Observe frames of a second, which none come for `cut_s` from 20 s on and then `a_second` until none waits."""
    clock = StreamClock()
    clock.start(RATE, 250, 1_001_000)
    free_ms = 1_000_000 + (20 + cut_s) * 1000
    for second in range(2, seconds):
        due_ms = 1_000_000 + second * 1000
        arrived = due_ms if second <= 20 else max(due_ms, free_ms + (second - 20) * 1000 // a_second)
        clock.observe(second * 250, arrived)
        # A backlog worked off at twice real time is twice as long as the cut.
        assert abs(clock.ms(second * 250) - due_ms) <= 2 * cut_s * 1000 * LATE_SLEW + 1
    return clock


def test_what_a_cut_network_held_up_keeps_its_time():
    """A backlog of more than half a minute, worked off slowly or at once, is dated when its samples were taken."""
    for cut_s in (10, 30, 45, 100):
        for a_second in (2, 50):
            assert held_up(300, cut_s, a_second).late_ms == 0


def test_a_device_that_slept_goes_on_at_the_time_of_the_wall():
    """An index that stood still for a minute is found out by frames that stay as late, one of ten minutes at once."""
    clock = StreamClock()
    clock.start(RATE, 250, 1_001_000)
    for second in range(2, 40):
        clock.observe(second * 250, 1_000_000 + (second + 60 * (second > 20)) * 1000)
        assert (clock.ms(second * 250) > 1_050_000) == (second > 20 + STEADY_S)
    assert clock.ms(39 * 250) == pytest.approx(1_099_000, abs=100)
    clock.observe(40 * 250, 1_700_000)
    assert clock.ms(40 * 250) == 1_700_000
