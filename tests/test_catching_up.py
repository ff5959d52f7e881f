"""A reader that has fallen behind takes what waits in bounded pieces, one after the other without a rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import waiting
from hypothesis import given
from hypothesis import strategies as st
from notifier_desk import Desk as NotifierDesk
from notifier_desk import desk as notifier_desk
from notifier_desk import vtach
from recording_desk import T0, Desk, beat, desk, entry, frames, samples

from alerts import history, notifier
from alerts.history import Counters, keep_history
from alerts.notifier import Notifier
from alerts.store import Store
from bus.messages import RhythmEvent, pack, pack_inbound
from bus.reading import count_each
from bus.server import embedded
from bus.streams import Bus, Record
from rhythmwatch import recorder as recording
from rhythmwatch.recorder import Recorder

__all__ = ["desk", "notifier_desk"]

PARTITIONS: Final = 64
EACH: Final = 100
"""Waiting in each partition."""
NEVER_S: Final = 3600.0

until = partial(waiting.until, seconds=60.0)


@given(st.integers(1, 10_000), st.integers(0, 5_000), st.integers(1, 2_000))
def test_the_share_of_a_partition(most: int, partitions: int, cap: int) -> None:
    """At least one entry of each, never above the cap, and in all not above the bound where it is so large."""
    count = count_each(most, partitions, cap=cap)
    assert 1 <= count <= cap
    assert count == 1 or count * partitions <= most


class Noting(Bus):
    """Notes how much came with each answer."""

    def __init__(self, *values: Any, **more: Any) -> None:
        super().__init__(*values, **more)
        self.entries: list[int] = []
        self.events: list[int] = []

    async def read(
        self, cursors: Mapping[int, str], *, count: int = 200, block_ms: int = 0
    ) -> list[tuple[int, list[Record]]]:
        """Read entries."""
        return _noted(self.entries, await super().read(cursors, count=count, block_ms=block_ms))

    async def read_events(
        self, cursors: Mapping[int, str], *, count: int = 500, block_ms: int = 0
    ) -> list[tuple[int, list[Record]]]:
        """Read events."""
        return _noted(self.events, await super().read_events(cursors, count=count, block_ms=block_ms))


def _noted(sizes: list[int], answer: list[tuple[int, list[Record]]]) -> list[tuple[int, list[Record]]]:
    sizes.append(sum(len(records) for _, records in answer))
    return answer


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Noting]:
    async with embedded(tmp_path / "bus") as url, Noting(url, partitions=PARTITIONS) as opened:
        yield opened


async def publish(bus: Bus, events: Sequence[bytes]) -> None:
    """Put the same events on each partition, as of an entry there."""
    await bus.append_in([(partition, b"entry") for partition in range(PARTITIONS)])
    newest = await bus.last(range(PARTITIONS), "in")
    for partition in range(PARTITIONS):
        await bus.commit(partition, await bus.claim(partition), events, [], None, newest[partition])


@pytest.mark.services
async def test_the_historian(bus: Noting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It rests only once it has all."""
    await publish(bus, [pack(RhythmEvent("bed-1", "dev-1", 1, i, T0 + i, "N", 1.0)) for i in range(EACH)])
    monkeypatch.setattr(history, "GATHER_S", NEVER_S)
    counters, stop = Counters(), asyncio.Event()
    with Store(f"sqlite:///{tmp_path}/history.db") as store:
        task = asyncio.create_task(keep_history(bus, store, range(PARTITIONS), stop, counters))
        await until(lambda: counters.rhythms == PARTITIONS * EACH)
        stop.set()
        await task
    assert max(bus.events) <= history.BATCH_MOST < PARTITIONS * EACH


@pytest.mark.services
async def test_the_notifier(bus: Noting, notifier_desk: NotifierDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It rests only once it has all."""
    await publish(bus, [pack(vtach()) for _ in range(EACH)])
    monkeypatch.setattr(notifier, "GATHER_S", NEVER_S)
    stop = asyncio.Event()
    running = Notifier(
        bus, notifier_desk.engine, {}, stop, place_of=lambda _: ("12", "7"), clock=lambda: T0, total=PARTITIONS
    )
    task = asyncio.create_task(running.run(range(PARTITIONS)))
    await until(lambda: sum(bus.events) == PARTITIONS * EACH)
    stop.set()
    await task
    assert max(bus.events) <= notifier.READ_MOST < PARTITIONS * EACH


@pytest.mark.services
async def test_the_recorder(bus: Noting, desk: Desk) -> None:
    """Between two looks it rests only once it has all."""
    sent = frames(samples(250 * EACH, leads=1))
    await bus.append_in([(at % PARTITIONS, pack_inbound(entry(frame))) for at, frame in enumerate(sent)] * 10)
    await publish(bus, [pack(beat(sample)) for sample in range(130)])
    stop = asyncio.Event()
    recorder = Recorder(
        bus, desk.index, desk.root, range(PARTITIONS), stop, may_keep=lambda patient, ms: True, poll_s=NEVER_S
    )
    task = asyncio.create_task(recorder.run())
    await until(lambda: sum(bus.entries) == 10 * EACH + PARTITIONS and sum(bus.events) == 130 * PARTITIONS)
    stop.set()
    await task
    assert max(bus.entries) <= recording.READ_MOST < 10 * EACH
    assert max(bus.events) <= recording.EVENTS_MOST < 130 * PARTITIONS
