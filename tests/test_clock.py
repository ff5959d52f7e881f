"""Time of the service: what a step of the system's clock does to it."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import msgspec
import pytest
import stories
from hypothesis import given
from hypothesis import strategies as st

from bus import clock as bus_clock
from bus.clock import OLD_S, SLEW, Mark, SteadyClock, join_clock, now_ms, share_clock
from bus.server import embedded
from bus.streams import Bus
from bus.tasks import end
from rhythmwatch.evidencing import examine
from web import feed

T0 = 1_760_000_000_000
HOUR_MS = 3_600_000
steps = st.lists(st.tuples(st.integers(0, 600_000), st.integers(-10 * HOUR_MS, 10 * HOUR_MS)), max_size=30)


class Machine:
    """A machine whose two clocks a test moves."""

    def __init__(self) -> None:
        self.passed_ns = 5_000_000_000
        self.ahead_ms = 0

    def wall(self) -> int:
        """Read the system's clock, ns."""
        return (T0 + self.ahead_ms) * 1_000_000 + self.passed_ns

    def clock(self) -> SteadyClock:
        """Start a process on it."""
        return SteadyClock(self.wall, lambda: self.passed_ns)

    def wait(self, ms: int) -> None:
        """Let time pass."""
        self.passed_ns += ms * 1_000_000


@given(steps)
def test_time_passes_evenly_whatever_is_done_to_the_systems_clock(steps: list[tuple[int, int]]) -> None:
    """Between two looks as much time passes as did, but for the slow catching up, and never less than none."""
    machine = Machine()
    clock = machine.clock()
    before = clock()
    for wait, ahead in steps:
        machine.ahead_ms = ahead
        machine.wait(wait)
        now = clock()
        assert (1 - SLEW) * wait - 2 <= now - before <= (1 + SLEW) * wait + 2
        before = now


@pytest.mark.parametrize("step", [HOUR_MS, -HOUR_MS])
def test_it_is_right_again_in_time(step: int) -> None:
    """An hour's step is caught up with in twenty hours."""
    machine = Machine()
    clock = machine.clock()
    machine.ahead_ms = step
    for _ in range(21 * 60):
        machine.wait(60_000)
        clock()
    assert abs(clock() - machine.wall() / 1e6) < 2


def test_a_clock_that_had_never_been_right_is_set_at_once() -> None:
    """A machine that began in 1970 and then learns the time."""
    machine = Machine()
    machine.ahead_ms = -T0
    clock = machine.clock()
    assert clock() < HOUR_MS
    machine.ahead_ms = 0
    assert abs(clock() - machine.wall() / 1e6) < 2


def test_one_that_starts_after_a_step_knows_the_time_of_the_others() -> None:
    """It goes on from where another stood; what stood long ago says nothing."""
    machine = Machine()
    first = machine.clock()
    machine.ahead_ms = HOUR_MS
    machine.wait(1000)
    mark = first.mark()
    machine.wait(2000)
    second = machine.clock()
    assert second() - first() > HOUR_MS / 2
    second = machine.clock()
    assert second.join(mark)
    assert abs(second() - first()) <= 1
    machine.wait(round(OLD_S * 1000))
    third = machine.clock()
    assert not third.join(mark)
    assert not third.join(Mark(machine.passed_ns + 1, 0.0))
    assert abs(third() - machine.wall() / 1e6) < 2


def test_it_goes_on_from_what_was_told_before_a_restart() -> None:
    """A system's clock that was set back meanwhile catches up; time stands at no point."""
    machine = Machine()
    clock = machine.clock()
    clock.not_before(T0 + HOUR_MS)
    before = clock()
    assert before >= T0 + HOUR_MS
    machine.wait(10_000)
    assert 9_400 <= clock() - before <= 10_000
    clock.not_before(0)
    assert clock() >= before


@pytest.mark.services
async def test_processes_share_their_time_by_the_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the one puts on the bus the other takes; while the bus is away the system's clock holds."""
    machine = Machine()
    first = machine.clock()
    machine.ahead_ms = HOUR_MS
    second = machine.clock()
    async with embedded(tmp_path / "bus") as url, Bus(url) as bus:
        monkeypatch.setattr(bus_clock, "_CLOCK", first)
        sharing = asyncio.create_task(share_clock(bus))
        async with asyncio.timeout(20):
            while await bus.clock_of(bus_clock._MACHINE) is None:
                await asyncio.sleep(0.01)
        await end([sharing])
        monkeypatch.setattr(bus_clock, "_CLOCK", second)
        assert now_ms() - first() > HOUR_MS / 2
        await join_clock(bus)
    assert second.mark() == first.mark()
    async with Bus(url, timeout_s=0.1) as bus:
        await join_clock(bus)


@pytest.mark.services
async def test_the_evidence_process_goes_on_by_the_time_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started after a step, it knows no other time than the recorder whose strips it cuts; a bad mark says nothing."""
    machine = Machine()
    first = machine.clock()
    machine.ahead_ms = 5 * HOUR_MS
    second, third = machine.clock(), machine.clock()
    stop = asyncio.Event()
    stop.set()
    history, recordings = f"sqlite:///{tmp_path / 'h.db'}", tmp_path / "recordings"
    monkeypatch.setattr(os, "nice", lambda by: by)
    async with embedded(tmp_path / "bus") as url, Bus(url) as bus:
        await bus.put_clock(bus_clock._MACHINE, msgspec.msgpack.encode(first.mark()))
        monkeypatch.setattr(bus_clock, "_CLOCK", second)
        assert second.mark().ms - first.mark().ms > 4 * HOUR_MS
        await examine(url, history, recordings, range(64), stories.models(), stop)
        assert second.mark() == first.mark()
        await bus.put_clock(bus_clock._MACHINE, b"\x92\x01")
        monkeypatch.setattr(bus_clock, "_CLOCK", third)
        await join_clock(bus)
    assert third() - first() > 4 * HOUR_MS


@pytest.mark.services
async def test_pages_get_what_comes_where_their_clock_is_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of the pages whose clock is an hour ahead of the bus's still reads events as they come."""
    true_time = time.time
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=2) as bus, Bus(url, partitions=2) as writing:
        epoch = await writing.claim(0)
        assert await writing.commit(0, epoch, [b"old"], [], None, "1-0")
        monkeypatch.setattr(feed.time, "time", lambda: true_time() + 3600)
        items = feed.BusFeed(bus).items()
        async with asyncio.timeout(20):
            first = await anext(items)
            assert first.data in (b"", b"old")
            assert await writing.commit(0, epoch, [b"new"], [], None, "2-0")
            while (await anext(items)).data != b"new":
                pass
        await items.aclose()
