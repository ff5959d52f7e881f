"""Time of the service: what a step of the system's clock does to it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import stories
import waiting
from hypothesis import given
from hypothesis import strategies as st
from notifier_desk import Desk, Taker, contact, vtach

from alerts.notifier import Notifier
from bus import clock as bus_clock
from bus.clock import (
    FRESH_MS,
    KEPT_MS,
    OLD_S,
    SERVICE,
    SLEW,
    Mark,
    SteadyClock,
    join_clock,
    keeping_time,
    now_ms,
    server_ms,
    share_clock,
)
from bus.connect import open_client
from bus.lease import Lease, LeaseLostError
from bus.messages import pack
from bus.server import embedded
from bus.streams import Bus
from bus.tasks import end
from rhythmwatch.evidencing import examine
from web.auth import RedisSessions, Session
from web.feed import BusFeed

T0 = round(time.time() * 1000)
HOUR_MS = 3_600_000
MINUTE_MS = 60_000
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


def said(server: Machine, machine: Machine) -> Mark:
    """Give what a machine hears of a server's clock."""
    return Mark(machine.passed_ns, 0.0, server.wall() / 1e6)


@given(steps)
def test_machines_whose_clocks_differ_have_one_time(steps: list[tuple[int, int]]) -> None:
    """Whatever is done to the clock that they follow, and however far off their own ones are."""
    server, one, other = Machine(), Machine(), Machine()
    other.passed_ns, other.ahead_ms = 7 * one.passed_ns, -3 * HOUR_MS
    first, second = one.clock(), other.clock()
    first.follow(said(server, one))
    second.follow(said(server, other))
    second.join_other(first.mark())
    for wait, ahead in steps:
        for machine in (server, one, other):
            machine.wait(wait)
        server.ahead_ms = ahead
        other.ahead_ms += 7 * HOUR_MS
        assert abs(first() - second()) <= 1
        first.follow(said(server, one))
        second.follow(said(server, other))
        assert abs(first() - second()) <= 1
    assert abs(first.server_ms() - server.wall() / 1e6) < 1


def test_one_that_starts_on_another_machine_knows_the_time_of_the_service() -> None:
    """Also while that is still an hour behind the server's clock; what nobody tells any more says nothing."""
    server, one, other = Machine(), Machine(), Machine()
    first = one.clock()
    first.follow(said(server, one))
    server.ahead_ms = other.ahead_ms = HOUR_MS
    first.follow(said(server, one))
    mark = first.mark()
    for machine in (server, one, other):
        machine.wait(FRESH_MS - 1000)
    second = other.clock()
    second()
    second.follow(said(server, other))
    second.join_other(mark)
    assert abs(second() - first()) < FRESH_MS * SLEW
    for machine in (server, one, other):
        machine.wait(2000)
    for nothing in (mark, None):
        third = other.clock()
        third.follow(said(server, other))
        third.join_other(nothing)
        assert abs(third() - server.wall() / 1e6) < 2


@pytest.mark.services
async def test_machines_share_one_time_by_the_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_clock: Callable[[float], None]
) -> None:
    """The one follows the server's clock after a step of it, slowly; the other joins it where it stands."""
    one, other = Machine(), Machine()
    other.passed_ns, other.ahead_ms = 9 * one.passed_ns, -2 * HOUR_MS
    first, second = one.clock(), other.clock()
    monkeypatch.setattr(bus_clock, "LOOK_S", 0.02)
    monkeypatch.setattr(bus_clock, "SHARE_S", 0.02)
    monkeypatch.setattr(bus_clock, "_CLOCK", first)
    async with embedded(tmp_path / "bus") as url, Bus(url) as bus:
        async with keeping_time(bus):
            began = now_ms()
            assert abs(began - await bus.server_ms()) < MINUTE_MS
            set_clock(1)
            await waiting.until(lambda: server_ms() - began > HOUR_MS / 2, 20)
            one.wait(1000)
            other.wait(1000)
            assert now_ms() - began <= 1000 * (1 + SLEW) + 1
            sharing = asyncio.create_task(share_clock(bus))
            while await bus.clock_of(SERVICE) is None:
                await asyncio.sleep(0.01)
            await end([sharing])
        monkeypatch.setattr(bus_clock, "_CLOCK", second)
        monkeypatch.setattr(bus_clock, "_MACHINE", "another/boot")
        assert await join_clock(bus)
        assert abs(now_ms() - first()) <= FRESH_MS


@pytest.mark.services
async def test_a_process_that_starts_before_the_bus_joins_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the system's clock holds."""
    machine = Machine()
    machine.ahead_ms = 3 * HOUR_MS
    monkeypatch.setattr(bus_clock, "SHARE_S", 0.02)
    monkeypatch.setattr(bus_clock, "_CLOCK", machine.clock())
    async with embedded(tmp_path / "bus") as url:
        pass
    async with Bus(url, timeout_s=1.0) as bus, keeping_time(bus):
        assert now_ms() - T0 >= 3 * HOUR_MS
        async with embedded(tmp_path / "bus"):
            await waiting.until(lambda: now_ms() - T0 < HOUR_MS, 20)


@pytest.mark.services
async def test_the_bus_forgets_machines_that_are_gone(tmp_path: Path, set_clock: Callable[[float], None]) -> None:
    """Where a clock stood outlasts a step of the server's by hours, and is gone after some days."""
    async with embedded(tmp_path / "bus") as url, Bus(url) as bus:
        await bus.put_clock("a/boot", b"mark", KEPT_MS)
        set_clock(23)
        assert await bus.clock_of("a/boot") == b"mark"
        set_clock(49)
        assert await bus.clock_of("a/boot") is None


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
            while await bus.clock_of(SERVICE) is None:
                await asyncio.sleep(0.01)
        await end([sharing])
        monkeypatch.setattr(bus_clock, "_CLOCK", second)
        assert now_ms() - first() > HOUR_MS / 2
        await join_clock(bus)
        assert second.mark().ms == first.mark().ms
    async with Bus(url, timeout_s=0.1) as bus:
        assert not await join_clock(bus)


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
        await bus.put_clock(bus_clock._MACHINE, msgspec.msgpack.encode(first.mark()), HOUR_MS)
        monkeypatch.setattr(bus_clock, "_CLOCK", second)
        assert second.mark().ms - first.mark().ms > 4 * HOUR_MS
        await examine(url, history, recordings, range(64), stories.models(), stop)
        assert second.mark().ms == first.mark().ms
        await bus.put_clock(bus_clock._MACHINE, b"\x92\x01", HOUR_MS)
        monkeypatch.setattr(bus_clock, "_CLOCK", third)
        assert await join_clock(bus)
        # Nobody else shares the time either: it is the server's.
        assert abs(third() - await bus.server_ms()) < MINUTE_MS


@pytest.mark.services
async def test_pages_get_what_came_lately_where_their_clock_is_ahead(
    tmp_path: Path, set_clock: Callable[[float], None]
) -> None:
    """A machine of the pages whose clock is an hour ahead of the bus's misses nothing, and tells no lag."""
    set_clock(-1)
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=2) as bus, Bus(url, partitions=2) as writing:
        epoch = await writing.claim(0)
        assert await writing.commit(0, epoch, [b"old"], [], None, "1-0")
        async with keeping_time(writing):
            items = BusFeed(bus).items()
            async with asyncio.timeout(20):
                while (item := await anext(items)).data != b"old":
                    pass
                assert abs(server_ms() - item.written_ms) < MINUTE_MS
                assert await writing.commit(0, epoch, [b"new"], [], None, "2-0")
                while (await anext(items)).data != b"new":
                    pass
            await items.aclose()


@pytest.mark.services
async def test_a_notifier_whose_clock_is_ahead_hears_of_what_comes(
    tmp_path: Path, set_clock: Callable[[float], None]
) -> None:
    """At its first start it looks back from what is on the bus, not from its own time."""
    set_clock(-1)
    desk = Desk(tmp_path)
    desk.contacts.replace([contact("ward")])
    sent = Taker()
    now: dict[str, object] = dict.fromkeys(("raised_ms", "changed_ms", "announced_ms"), T0)
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=1) as bus:
        epoch = await bus.claim(0)
        assert await bus.commit(0, epoch, [pack(vtach(id="before", **now))], [], None, "1-0")
        stop = asyncio.Event()
        notifier = Notifier(bus, desk.engine, {"webhook": sent}, stop, clock=lambda: T0, total=1, poll_s=0.02)
        running = asyncio.create_task(notifier.run([0]))
        await waiting.until(lambda: [item.alarm for item in sent.got] == ["before"], 20)
        assert await bus.commit(0, epoch, [pack(vtach(id="after", **now))], [], None, "2-0")
        await waiting.until(lambda: [item.alarm for item in sent.got] == ["before", "after"], 20)
        stop.set()
        await running
    desk.engine.dispose()


@pytest.mark.services
async def test_a_session_lasts_while_the_servers_clock_is_set(
    tmp_path: Path, set_clock: Callable[[float], None]
) -> None:
    """Who watches a wall is not sent to the log-in by a step of 23 hours; what has long ended is forgotten."""
    session = Session("ward", "secret", 1, since_ms=0)
    async with embedded(tmp_path / "bus") as url:
        client = open_client(url, 5.0)
        sessions = RedisSessions(client)
        await sessions.put("a", session, 60.0)
        set_clock(23)
        assert await sessions.get("a") == session
        set_clock(25)
        assert await sessions.get("a") is None
        await client.aclose()


@pytest.mark.services
async def test_a_lease_ends_where_the_servers_clock_is_set_back(
    tmp_path: Path, set_clock: Callable[[float], None]
) -> None:
    """Of a holder that died just before; one that lives has it again with its next renewal."""
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=1) as bus:
        set_clock(5)
        dead, next_one, third = (Lease(bus, "straps", name, ms=60_000) for name in ("a", "b", "c"))
        assert await dead.take()
        assert not await next_one.take()
        set_clock(4)
        assert await next_one.take()
        with pytest.raises(LeaseLostError):
            await dead.renew()
        set_clock(3)
        await next_one.renew()
        assert not await third.take()
