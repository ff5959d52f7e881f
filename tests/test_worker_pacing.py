"""The pace of a worker: at once after a pause, many entries a read under load, no pause while a backlog is there.

How long something takes is never held against a clock: what must not wait is tried with a pace of hours, and what must
wait is counted, or is held against the least that it has to be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import stories
import waiting

from bus.errors import FencedError, RewoundError
from bus.messages import Inbound, pack_inbound
from bus.server import embedded
from bus.streams import Bus, Commit, Position, Record
from bus.tasks import end
from rhythmwatch import portions
from rhythmwatch import worker as module
from rhythmwatch.worker import Worker

pytestmark = pytest.mark.timeout(300)

DEADLINE_S = 120.0
HOURS_S = 10_000.0
"""A pace at which nothing that has to wait comes to its turn in a test."""
MANY = 100_000_000
"""Entries and bytes that no read gives, so that none is taken for a part of a backlog."""


class Watched(Bus):
    """A bus that notes what is asked of it, and when."""

    def __init__(self, url: str) -> None:
        super().__init__(url, partitions=1)
        self.asked: list[float] = []
        """When a read began that gave entries, or that has not given any yet."""
        self.answered: list[float] = []
        self.batches: list[int] = []
        """Entries of each read."""
        self.committed: list[float] = []
        """What storing the outputs of each took, s."""

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for entries."""
        return len(self.asked) > len(self.batches)

    async def read(
        self, cursors: Mapping[int, Position], *, count: int = 200, block_ms: int = 0
    ) -> list[tuple[int, list[Record]]]:
        """Read as the bus does."""
        loop = asyncio.get_running_loop()
        self.asked.append(loop.time())
        found = await super().read(cursors, count=count, block_ms=block_ms)
        if found:
            self.answered.append(loop.time())
            self.batches.append(sum(len(records) for _, records in found))
        else:
            self.asked.pop()
        return found

    async def commit_all(self, commits: Sequence[Commit]) -> list[bool | FencedError | RewoundError]:
        """Commit as the bus does."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        answers = await super().commit_all(commits)
        self.committed.append(loop.time() - began)
        return answers


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Watched]:
    """Connect to a fresh embedded server."""
    async with embedded(tmp_path / "bus") as url, Watched(url) as opened:
        yield opened


@asynccontextmanager
async def working(bus: Bus) -> AsyncIterator[None]:
    """Let a worker work on all there is; at the end it is cut off, wherever it waits."""
    worker = Worker(bus, stories.models(), [0], 1)
    await worker.take_over()
    task = asyncio.create_task(worker.run(asyncio.Event()))
    try:
        yield
    finally:
        assert not task.done()
        await end([task])


until = partial(waiting.until, seconds=DEADLINE_S)


def entries() -> list[tuple[int, bytes]]:
    """Give a minute of a patient, five frames a second."""
    record = stories.recording("sinus:60,hr=80", 60)
    found: list[Inbound] = [stories.frame_entry(frame) for frame in stories.frames(record, "a", 0.2)]
    return [(0, pack_inbound(entry)) for entry in found]


async def test_an_entry_after_a_pause_is_worked_off_at_once(bus: Watched, monkeypatch: pytest.MonkeyPatch):
    """Whoever waits for entries takes the first that comes; the pace counts from there."""
    first, second, *_ = entries()
    monkeypatch.setattr(module, "PACE_S", (0.0, 0.0))
    async with working(bus):
        await bus.append_in([first])
        await until(lambda: len(bus.committed) == 1 and bus.waiting)
        monkeypatch.setattr(module, "PACE_S", (HOURS_S, HOURS_S))
        await bus.append_in([second])
        await until(lambda: len(bus.committed) == 2)
    assert bus.batches == [1, 1]


async def test_a_backlog_is_worked_off_without_a_pause(bus: Watched, monkeypatch: pytest.MonkeyPatch):
    """A read that gives as much as it may is followed by the next one at once, until one gives less."""
    monkeypatch.setattr(module, "PACE_S", (HOURS_S, HOURS_S))
    monkeypatch.setattr(portions, "READ_COUNT", 20)
    await bus.append_in(entries()[:70])
    async with working(bus):
        await until(lambda: len(bus.committed) == 4)
        for _ in range(50):  # time enough for a worker that does not wait
            await bus.ping()
        assert not bus.waiting
    assert bus.batches == [20, 20, 20, 10]


async def test_long_frames_are_folded_few_at_a_time(bus: Watched):
    """Frames of 80 s, as a device may send them: 200 of them, a read by number, silenced a worker for half a minute."""
    record = stories.recording("sinus:1600,hr=80", 1600)
    sent = [(0, pack_inbound(stories.frame_entry(frame))) for frame in stories.frames(record, "a", 80.0)]
    assert len(sent) == 20
    await bus.append_in(sent)
    last = (await bus.last([0], "in"))[0]
    async with working(bus):
        await until(lambda: len(bus.committed) == len(sent))
        assert (await bus.stats([0]))[0].position == last
    assert max(bus.batches[1:]) == 1


def take_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a read give all there is, and a batch hold it."""
    for bound in ("READ_COUNT", "READ_MOST", "PART_BYTES", "FOLD_BYTES"):
        monkeypatch.setattr(portions, bound, MANY)


async def load(bus: Watched, reads: int) -> float:
    """Send entry by entry until so many reads gave some; gives how many entries a read gave in the mean.

    The first read is left out: it came after a pause.
    """
    done, items = len(bus.batches), entries()
    async with asyncio.timeout(DEADLINE_S):
        sent = 0
        while len(bus.batches) <= done + reads:
            await bus.append_in([items[sent % len(items)]])
            sent += 1
    return sum(bus.batches[done + 1 : done + 1 + reads]) / reads


async def test_under_load_a_read_serves_many_entries(bus: Watched, monkeypatch: pytest.MonkeyPatch):
    """The same load in fewer, larger batches than without a pace."""
    take_all(monkeypatch)
    monkeypatch.setattr(module, "PACE_S", (0.0, 0.0))
    async with working(bus):
        unpaced = await load(bus, 20)
        monkeypatch.setattr(module, "PACE_S", (0.3, 0.3))
        await until(lambda: bus.waiting)
        paced = await load(bus, 4)
    assert paced > 3 * unpaced


async def test_reads_are_the_wider_apart_the_longer_a_batch_takes(bus: Watched, monkeypatch: pytest.MonkeyPatch):
    """From one read to the next it takes a multiple of what the batch took, of which storing it is the least part."""
    share, most = 100.0, 0.5
    take_all(monkeypatch)
    monkeypatch.setattr(module, "PACE_S", (0.0, most))
    monkeypatch.setattr(module, "PACE_SHARE", share)
    async with working(bus):
        await load(bus, 5)
        count = len(bus.batches)
    apart = [asked - answered for answered, asked in zip(bus.answered, bus.asked[1:count], strict=False)]
    assert len(apart) >= 5
    for gap, committed in zip(apart, bus.committed, strict=False):
        assert gap >= min(most, share * committed)


async def test_no_batch_holds_the_next_one_up_for_long(bus: Watched, monkeypatch: pytest.MonkeyPatch):
    """However long a batch took, the pace has an end."""
    monkeypatch.setattr(module, "PACE_SHARE", HOURS_S / 1e-6)
    async with working(bus):
        for number, entry in enumerate(entries()[:4], 1):
            await bus.append_in([entry])
            await until(lambda number=number: len(bus.committed) == number)
    assert bus.batches == [1, 1, 1, 1]
