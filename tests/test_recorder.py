"""The recorder: whatever died, came in another order or filled up meanwhile, the recording is whole."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import waiting
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_desk import T0, Desk, beat, desk, entry, frames, read_all, samples
from sqlalchemy.exc import OperationalError

from bus.messages import Entry, Event, Inbound, pack, pack_inbound
from bus.pressure import Pressure
from bus.server import embedded
from bus.streams import START, Bus, order
from rhythmwatch import record_files
from rhythmwatch.recorder import Recorder
from rhythmwatch.trimming import HELD_MS, Trimming

__all__ = ["desk"]


DEADLINE_S = 60.0


def test_a_kill_at_any_moment_loses_and_doubles_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies at each of its writes in turn; the next one goes on to the same recording."""
    units = samples(2500)
    items: list[Inbound | Event] = []
    for number, frame in enumerate(frames(units)):
        items += [entry(frame), beat(number * 250 + 100)]
    real, after = os.pwrite, 0

    def dies(file: int, data: Any, at: int) -> int:
        nonlocal after
        after -= 1
        if after < 0:
            real(file, memoryview(data)[: len(data) // 2], at)
            raise KeyboardInterrupt
        return real(file, data, at)

    monkeypatch.setattr(record_files.os, "pwrite", dies)
    done = 0
    for moment in (0, 1, 2, 0, 1, 2, 3):
        desk.start()
        after = moment
        try:
            desk.put(items[done : done + 6])
            desk.recording.flush()
        except KeyboardInterrupt:
            continue
        done += 6
    after = 1_000_000
    desk.start()
    desk.put(items[done:])
    desk.recording.flush()
    assert np.array_equal(read_all(desk, 10), units)
    assert desk.archive.beats("bed-1", T0, T0 + 10_000)["sample"].tolist() == [n * 250 + 100 for n in range(10)]


def test_a_full_disk_is_waited_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing counts as read while the disk is full; with space again all of it is there, once."""
    units = samples(1000)
    desk.put([entry(frame) for frame in frames(units)])
    desk.put([beat(300)])
    real = os.pwrite

    def full(file: int, data: Any, at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record_files.os, "pwrite", full)
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            desk.recording.flush()
    assert desk.index.places([0]) == {}
    monkeypatch.setattr(record_files.os, "pwrite", real)
    desk.recording.flush()
    assert desk.index.places([0])[0].entries == "4-0"
    assert np.array_equal(read_all(desk, 4), units)
    assert desk.archive.beats("bed-1", T0, T0 + 4_000)["sample"].tolist() == [300]


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_order_and_any_restart_gives_the_same_recording(data: st.DataObject) -> None:
    """Frames of a second in any order, some twice, some lost, with restarts between: each index holds what was sent."""
    count = data.draw(st.integers(2, 12))
    units = samples(count * 250)
    sent = frames(units)
    lost = data.draw(st.sets(st.integers(1, count - 1), max_size=3))
    there = [number for number in range(count) if number not in lost]
    order = [there[0], *data.draw(st.permutations(there[1:] + data.draw(st.lists(st.sampled_from(there), max_size=3))))]
    with private_desk() as desk:
        for number in order:
            kind = data.draw(st.sampled_from([Entry.FRAME, Entry.BACKFILL])) if number else Entry.FRAME
            desk.put([entry(sent[number], kind)])
            todo = data.draw(st.sampled_from(["nothing", "flush", "restart"]))
            if todo != "nothing":
                desk.recording.flush()
            if todo == "restart":
                desk.start()
        desk.recording.flush()
        (segment,) = desk.archive.segments("bed-1")
        raw = np.fromfile(desk.root / f"{segment.path}.dat", "<i2").reshape(-1, 2)
        for number in there:
            assert np.array_equal(raw[number * 250 : number * 250 + 250], sent[number].samples)
        for number in lost:
            assert (raw[number * 250 : number * 250 + 250] == -32768).all()


@contextmanager
def private_desk() -> Iterator[Desk]:
    """Make a desk for one example."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="rw-archive-"))
    try:
        yield Desk(folder)
    finally:
        shutil.rmtree(folder)


until = partial(waiting.until, seconds=DEADLINE_S)


@pytest.fixture
async def bus(tmp_path: Path) -> Any:
    """Connect to a fresh embedded server."""
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=1) as opened:
        yield opened


def run_recorder(bus: Bus, desk: Desk, stop: asyncio.Event) -> tuple[Recorder, asyncio.Task[None]]:
    """Start a recorder that hurries."""
    recorder = Recorder(
        bus,
        desk.index,
        desk.root,
        [0],
        stop,
        may_keep=lambda patient, ms: True,
        poll_s=0.02,
        write_s=0.05,
        flush_s=0.1,
        wait_s=0.02,
    )
    return recorder, asyncio.create_task(recorder.run())


async def test_the_process_records_what_is_on_the_bus(bus: Bus, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries and events land on disk; while disk or database refuse, the bus is held, and nothing is lost."""
    units = samples(2500)
    sent = [(0, pack_inbound(entry(frame))) for frame in frames(units)]
    stop = asyncio.Event()
    recorder, task = run_recorder(bus, desk, stop)
    await bus.append_in(sent[:4])
    await until(lambda: desk.archive.read("bed-1", T0, T0 + 10_000).units.size)
    real = desk.index.commit

    def refuses(*_: Any) -> None:
        raise OperationalError("insert", None, Exception("database is full"))

    monkeypatch.setattr(desk.index, "commit", refuses)
    positions = await bus.append_in(sent[4:])
    epoch = await bus.claim(0)
    await bus.commit(0, epoch, [pack(beat(300)), pack(beat(2000))], [], None, positions[-1])
    await until(lambda: recorder.counters.failures > 1)
    held = await bus.held(0)
    assert held["in"] < positions[0]
    monkeypatch.setattr(desk.index, "commit", real)
    await bus.append_in([(0, pack_inbound(Inbound(Entry.TICK, T0, "", b"")))])
    async with asyncio.timeout(DEADLINE_S):
        while (await bus.held(0))["in"] <= positions[-1] or desk.archive.beats("bed-1", T0, T0 + 10_000).size < 2:
            await asyncio.sleep(0.02)
    stop.set()
    await task
    assert np.array_equal(read_all(desk, 10), units)


async def test_a_loss_on_the_bus_is_counted(bus: Bus, desk: Desk) -> None:
    """What was dropped before it was recorded is said, not passed over."""
    await bus.append_in([(0, pack_inbound(entry(frame))) for frame in frames(samples(1000))])
    stop = asyncio.Event()
    _, task = run_recorder(bus, desk, stop)
    await until(lambda: desk.index.places([0]))
    stop.set()
    await task
    positions = await bus.append_in([(0, pack_inbound(entry(frame))) for frame in frames(samples(500), first=1000)])
    await bus.give_up(0, "in", positions[0])
    recorder, task = run_recorder(bus, desk, stop := asyncio.Event())
    await until(lambda: recorder.counters.lost == 1)
    stop.set()
    await task


async def test_the_worker_waits_for_the_recorder(bus: Bus) -> None:
    """Entries that are held are not trimmed; after four hours they are, and the reader learns it."""
    passed_s = 0.0
    trimming = Trimming(bus, Pressure(), lambda: passed_s)
    await bus.append_in([(0, b"x")] * 3000)
    first = (await bus.read({0: START}, count=1))[0][1][0].position
    newest = (await bus.last([0], "in"))[0]
    assert await bus.hold("recorder", {0: {"in": first}}) == []
    await trimming.trim(0, newest)
    assert len((await bus.read({0: START}, count=5000))[0][1]) == 3000
    passed_s = HELD_MS / 1000
    await bus.hold("recorder", {0: {"events": START}})
    await trimming.trim(0, newest)
    assert await bus.hold("recorder", {0: {"events": START}}) == [], "nothing was dropped from a stream that is empty"
    assert await bus.hold("recorder", {0: {"in": first}}) == [(0, "in", newest)]
    await bus.hold("recorder", {0: {"in": newest}})
    await trimming.trim(0, newest)
    assert len((await bus.read({0: START}, count=5000) or [(0, [])])[0][1]) < 3000


def stored(desk: Desk) -> tuple[int, int]:
    """How far the entries are stored for good."""
    place = desk.index.places([0]).get(0)
    return order(place.entries if place else START)


@pytest.mark.timeout(300)
async def test_kill_9_of_the_process(tmp_path: Path, desk: Desk) -> None:
    """The real process, killed twice without warning, leaves a whole recording behind."""
    units = samples(250 * 40)
    sent = [(0, pack_inbound(entry(frame))) for frame in frames(units)]
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=1) as bus:
        command = [
            *(sys.executable, "-m", "rhythmwatch", "recorder", "--bus", url, "--history", desk.url),
            *("--recordings", str(desk.root), "--partitions", "0", "--everything"),
        ]
        for begin, end in ((0, 15), (15, 30), (30, 40)):
            # All at once, before the process is there to read: it moves its place once for them.
            positions = await bus.append_in(sent[begin:end])
            process = await asyncio.create_subprocess_exec(*command)
            try:
                if end == 40:
                    await until(lambda: desk.archive.read("bed-1", T0, T0 + 40_000).gaps == [])
                else:
                    await until(lambda last=positions[-1]: stored(desk) >= order(last))
            finally:
                process.send_signal(signal.SIGKILL)
                await process.wait()
    assert np.array_equal(read_all(desk, 40), units)
