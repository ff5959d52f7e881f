"""Events are recorded behind the entries that they came of, whatever is done to the clock of the bus's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import waiting
from hypothesis import given
from hypothesis import strategies as st
from recording_desk import T0, Desk, beat, desk, entry, frames, samples

from bus.messages import pack, pack_inbound
from bus.server import embedded
from bus.streams import START, Bus, key, milliseconds, order
from rhythmwatch.record_gate import LOOKS, Gate
from rhythmwatch.recorder import READ_COUNT, Recorder

__all__ = ["desk"]

until = partial(waiting.until, seconds=60.0)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=300), st.lists(st.integers(0, 9), max_size=300), st.data())
def test_no_event_passes_before_its_entry(came: list[int], took: list[int], data: st.DataObject) -> None:
    """And all have passed once all entries are taken; looks don't grow with how far behind they are."""
    gate, entries, taken, seen, passed = Gate(), 0, 0, 0, START
    for number, more in enumerate(came):
        # An event for each entry, at ids that say nothing.
        entries += more
        seen = data.draw(st.integers(max(seen, entries - 2), entries))
        gate.note(f"7-{entries}" if entries else START, f"5-{seen}" if seen else START)
        taken = min(entries, taken + (took[number] if number < len(took) else 0))
        opened = gate.until(f"7-{taken}" if taken else START)
        assert order(opened)[1] <= taken
        assert order(opened) >= order(passed)
        assert len(gate._looks) <= LOOKS
        passed = opened
    gate.note(f"7-{entries}" if entries else START, f"5-{entries}" if entries else START)
    assert order(gate.until(f"7-{entries}" if entries else START))[1] == entries


@asynccontextmanager
async def recording(bus: Bus, desk: Desk) -> AsyncIterator[Recorder]:
    """Run a recorder that hurries."""
    stop = asyncio.Event()
    recorder = Recorder(
        bus, desk.index, desk.root, [0], stop, may_keep=lambda patient, ms: True,
        poll_s=0.02, write_s=0.05, flush_s=0.1, wait_s=0.02,
    )  # fmt: skip
    task = asyncio.create_task(recorder.run())
    try:
        yield recorder
    finally:
        stop.set()
        await task


async def store(bus: Bus, *samples_of_beats: int) -> None:
    """Have a worker store beats of all entries that there are."""
    position = (await bus.last([0], "in"))[0]
    await bus.commit(0, await bus.claim(0), [pack(beat(sample)) for sample in samples_of_beats], [], None, position)


async def newest_ms(bus: Bus, name: str) -> int:
    """Time of the newest id."""
    return milliseconds((await bus.last([0], name))[0])


async def leap(bus: Bus) -> None:
    """Let the newest id of the events be the server's time, with an event that is gone again."""
    position = await bus._call("XADD", key(0, "events"), "*", "d", b"event")
    await bus._call("XDEL", key(0, "events"), position)


@pytest.mark.services
@pytest.mark.parametrize("behind", ["entries", "events"])
async def test_ids_that_stand_still_neither_hold_beats_up_nor_lose_them(
    tmp_path: Path, desk: Desk, set_clock: Callable[[float], None], behind: str
) -> None:
    """After a step back the ids of one stream stand before those of the other for hours."""
    sent = [(0, pack_inbound(entry(frame))) for frame in frames(samples(250 * (READ_COUNT + 100)))]
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=1) as bus:
        # Whose id is the newer one at the step decides which stream stands before the other from then on.
        await bus.append_in(sent[:2])
        await store(bus, 100)
        set_clock(5)
        if behind == "entries":
            await leap(bus)
        else:
            await bus.append_in(sent[2:3])
        set_clock(0)
        await bus.append_in(sent[3:] if behind == "events" else sent[2:])
        await store(bus, 250 * len(sent) - 100)
        apart = await newest_ms(bus, "events") - await newest_ms(bus, "in")
        assert abs(apart) > 4 * 3_600_000, "ids do not stand still, so that this tests nothing"
        assert (apart > 0) == (behind == "entries")
        async with recording(bus, desk) as recorder:
            await until(lambda: recorder.counters.beats + sum(recorder.counters.refused.values()) == 2)
            assert recorder.counters.refused == {}
            assert recorder.counters.frames == len(sent)
    assert desk.archive.beats("bed-1", T0, T0 + 1000 * len(sent)).size == 2
