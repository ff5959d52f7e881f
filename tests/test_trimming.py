"""How long entries and events are kept while the clock of the bus's server is set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.ages import COARSE, Ages
from bus.pressure import Pressure
from bus.server import embedded
from bus.streams import START, Bus, key, milliseconds, order
from rhythmwatch.trimming import EVENTS_KEPT_MS, HELD_MS, NOTED_MS, PRESSED_MS, Trimming

HOUR_S = 3600
MINUTE_MS = 60_000


def marked(ms: float) -> str:
    """Make a position that says when it was the newest."""
    return f"{round(ms)}-1"


@given(st.lists(st.integers(1, 30 * MINUTE_MS), min_size=1, max_size=300), st.sampled_from([MINUTE_MS, EVENTS_KEPT_MS]))
def test_nothing_young_is_before_a_mark(waits: list[int], age: int) -> None:
    """What is given up is as old as asked for, and hardly older than the looks and their thinning make it."""
    ages, now, longest = Ages(), 0, max(waits)
    for wait in waits:
        now += wait
        ages.add(now, marked(now))
    if now - waits[0] >= age:
        found = milliseconds(ages.before(now, age))
        assert age <= now - found <= (age + longest) * (1 + 2 / COARSE) + 2 * longest
        assert ages.age_ms(now, marked(found)) == now - found
    assert ages.before(now, 0) == marked(now)
    assert ages.age_ms(now, marked(now)) == ages.age_ms(now, marked(now + 1)) == 0
    other = Ages()
    other.load(ages.dump(now), 7)
    assert other.before(7, age) == ages.before(now, age)


def test_few_marks_are_kept() -> None:
    """A day of looks is some dozens of marks."""
    ages = Ages()
    for second in range(0, 24 * HOUR_S, 10):
        ages.add(second * 1000, marked(second * 1000))
    assert len(ages._marks) < 80


def test_before_the_first_look_ids_count() -> None:
    """Who has just begun goes by what ids say against the first look, however they step after it."""
    ages = Ages()
    ages.add(0, f"{9 * HELD_MS}-5")
    ages.add(1000, f"{11 * HELD_MS}-0")
    assert ages.before(1000, HELD_MS) == f"{8 * HELD_MS + 1000}-0"
    assert ages.age_ms(1000, f"{8 * HELD_MS + 1000}-0") == HELD_MS
    assert ages.age_ms(3000, f"{10 * HELD_MS}-0") == 2000
    ages = Ages()
    ages.add(0, START)
    assert ages.before(0, HELD_MS) == START


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

    async def held(self) -> tuple[str, str]:
        """Have a recorder hold 500 entries and as many events; gives the oldest position of each."""
        stored, *_ = await self.bus.append_in([(0, b"x")] * 500)
        await self.events(500)
        await self.bus.hold("recorder", {0: {"in": stored}})
        return stored, await self.first("events")

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
    stored, events = await server.held()
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


@pytest.mark.services
async def test_a_worker_that_takes_over_after_a_step_drops_nothing_that_is_young(server: Server) -> None:
    """It knows from the one before it how old things are; time in which none ran does not count."""
    bus = server.bus
    stored, events = await server.held()
    await server.trim()
    server.step(5)
    await bus.append_in([(0, b"x")] * 500)
    await server.events(500)
    server.passed_s = 90_000.0
    server.trimming = Trimming(bus, Pressure(), lambda: server.passed_s)
    await server.trim()
    assert await server.first("events") == events
    server.trimming._pressure.note(90, 100)
    server.passed_s += PRESSED_MS / 1000 - 1
    await server.trim()
    assert await server.first("in") == stored
    assert await bus.hold("recorder", {0: {"in": stored}}) == []
    server.passed_s += 2
    await server.trim()
    assert await bus.hold("recorder", {0: {"in": stored}}) != []


@pytest.mark.services
async def test_what_cannot_be_read_of_ages_is_made_anew(server: Server) -> None:
    """And written for the next worker every minute."""
    await server.bus.put_ages(0, b"\xc1")
    await server.bus.append_in([(0, b"x")])
    await server.trim()
    first = await server.bus.ages_of(0)
    server.passed_s += NOTED_MS / 1000 - 1
    await server.trim()
    assert await server.bus.ages_of(0) == first != b"\xc1"
    server.passed_s += 1
    await server.trim()
    assert await server.bus.ages_of(0) != first
