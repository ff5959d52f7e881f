"""How long entries and events are kept while the clock of the bus's server is set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.pressure import Pressure
from bus.server import embedded
from bus.streams import START, Bus, key, milliseconds, order
from rhythmwatch.trimming import COARSE, EVENTS_KEPT_MS, HELD_MS, Mark, Marks, Trimming

HOUR_S = 3600
MINUTE_MS = 60_000


def marked(ms: float) -> Mark:
    """Make a mark whose positions say when it was made."""
    return Mark(ms, f"{round(ms)}-1", f"{round(ms)}-2")


@given(st.lists(st.integers(1, 30 * MINUTE_MS), min_size=1, max_size=300), st.sampled_from([MINUTE_MS, EVENTS_KEPT_MS]))
def test_nothing_young_is_before_a_mark(waits: list[int], age: int) -> None:
    """What is given up is as old as asked for, and hardly older than the looks and their thinning make it."""
    marks, now, longest = Marks(), 0, max(waits)
    for wait in waits:
        now += wait
        marks.add(marked(now))
    if now - waits[0] >= age:
        found = marks.before(now, age).ms
        assert age <= now - found <= (age + longest) * (1 + 2 / COARSE) + 2 * longest
    assert marks.before(now, 0) == marked(now)


def test_few_marks_are_kept() -> None:
    """A day of looks is some dozens of marks."""
    marks = Marks()
    for second in range(0, 24 * HOUR_S, 10):
        marks.add(marked(second * 1000))
    assert len(marks._marks) < 80


def test_before_the_first_look_ids_count() -> None:
    """A worker that has just begun goes by what ids say against its first look, however they step after it."""
    marks = Marks()
    marks.add(Mark(0, f"{9 * HELD_MS}-5", f"{9 * HELD_MS}-7"))
    marks.add(Mark(1000, f"{11 * HELD_MS}-0", f"{11 * HELD_MS}-0"))
    assert marks.before(1000, HELD_MS)[1:] == (f"{8 * HELD_MS + 1000}-0", f"{8 * HELD_MS + 1000}-0")
    marks = Marks()
    marks.add(Mark(0, START, START))
    assert marks.before(0, HELD_MS)[1:] == (START, START)


class Server:
    """A server of the bus whose system clock a test sets, and a worker's clock that it moves."""

    def __init__(self, bus: Bus, step: Callable[[float], None]) -> None:
        self.bus, self.step = bus, step
        self.passed_s = 0.0
        self.trimming = Trimming(bus, Pressure(), lambda: self.passed_s)

    async def events(self, count: int) -> None:
        """Have a worker store events."""
        for _ in range(count):
            await self.bus._call("XADD", key(0, "events"), "*", "d", b"event")

    async def first(self, name: str) -> str:
        """Oldest position."""
        first = await self.bus.first(0, name)
        assert first is not None
        return first

    async def newest(self, name: str) -> str:
        """Newest position."""
        return (await self.bus.last([0], name))[0]

    async def trim(self) -> None:
        """Trim as a worker that has worked off everything."""
        await self.trimming.trim(0, await self.newest("in"))


@pytest.fixture
async def server(tmp_path: Path, set_clock: Callable[[float], None]) -> AsyncIterator[Server]:
    """Start a server."""
    async with embedded(tmp_path / "bus") as url, Bus(url) as bus:
        yield Server(bus, set_clock)


@pytest.mark.services
async def test_a_step_forward_drops_nothing_that_is_young(server: Server) -> None:
    """A recorder seconds behind keeps what it has not stored, and events of the last hour stay for the historian."""
    bus = server.bus
    stored, *_ = await bus.append_in([(0, b"x")] * 500)
    await server.events(500)
    await bus.hold("recorder", {0: {"in": stored}})
    events = await server.first("events")
    await server.trim()
    server.step(5)
    server.passed_s += 10
    await bus.append_in([(0, b"x")] * 500)
    await server.events(500)
    assert milliseconds(await server.newest("in")) - milliseconds(stored) > HELD_MS
    await server.trim()
    assert await server.first("in") == stored
    assert await server.first("events") == events
    assert await bus.hold("recorder", {0: {"in": stored}}) == []
    # What is old by the time that passes goes as ever.
    server.passed_s += EVENTS_KEPT_MS / 1000
    await server.trim()
    assert order(await server.first("events")) > order(events)
    server.passed_s += HELD_MS / 1000
    await server.trim()
    (lost,) = await bus.hold("recorder", {0: {"in": stored}})
    assert lost[:2] == (0, "in")


@pytest.mark.services
async def test_what_is_old_goes_while_ids_stand_still(server: Server) -> None:
    """After a step back new ids have the time of the last one for hours; all is trimmed by the time that passes."""
    bus = server.bus
    server.step(5)
    await bus.append_in([(0, b"x")] * 500)
    await server.events(500)
    server.step(0)
    still = milliseconds(await server.newest("events"))
    (stored, *_), events = await bus.append_in([(0, b"x")] * 500), await server.first("events")
    await server.events(500)
    assert milliseconds(await server.newest("events")) == still, "ids do not stand still, so that this tests nothing"
    await bus.hold("recorder", {0: {"in": stored}})
    await server.trim()
    assert await server.first("events") == events
    server.passed_s += EVENTS_KEPT_MS / 1000 - 1
    await server.events(500)
    await server.trim()
    assert await server.first("events") == events
    before = await server.newest("events")
    server.passed_s += 2
    await server.trim()
    assert order(events) < order(await server.first("events")) <= order(before)
    # Memory that runs short is given back, too, though no id grows old.
    server.passed_s += 120
    server.trimming._pressure.note(90, 100)
    await server.trim()
    assert await bus.hold("recorder", {0: {"in": stored}}) != []
    assert (await bus.stats([0]))[0].events < 200
