"""Devices that come back with what they kept: all of it goes to the history, and nobody who is live waits for it."""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import stored
from clients import Scene, connection_of, live, until
from conftest import recordings

from bus.messages import AlarmEvent, BeatEvent, Entry, Inbound, partition_of, unpack_inbound, unpack_note
from bus.streams import START, Position
from bus.tasks import end
from ingest.answers import WINDOW
from ingest.codecs import decode_frame, encode_frame
from ingest.device import DeviceMeta, FleetClient
from rhythmwatch.models import load_models
from rhythmwatch.pipeline import Pipeline

pytest_plugins = ["storm_table"]
pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]
STORED_S = 7_200
STORED_WAIT_S = 600.0
"""Longest that the 2 h may take: they wait for whatever is live, on a busy machine for long."""
RETURNING = 50
RETURNED_S = 200


class Returned:
    """What came of the device that returns, by the number of its frame, as it is on the bus."""

    def __init__(self, scene: Scene) -> None:
        self.live: Counter[int] = Counter()
        self.stored: Counter[int] = Counter()
        self.notes: list[str] = []
        self._scene = scene

    async def follow(self) -> None:
        """Count until cancelled."""
        partition = partition_of(stored.DEVICE, self._scene.bus.partitions)
        cursor: Position = START
        while True:
            for _, records in await self._scene.bus.read({partition: cursor}, block_ms=200):
                cursor = records[-1].position
                for record in records:
                    entry = unpack_inbound(record.data)
                    if entry.patient == stored.DEVICE and entry.kind is Entry.DEVICE:
                        self.notes.append(unpack_note(entry.payload).name)
                    elif entry.patient == stored.DEVICE and entry.kind in (Entry.FRAME, Entry.BACKFILL):
                        counts = self.live if entry.kind is Entry.FRAME else self.stored
                        counts[decode_frame(entry.payload).seq] += 1


def beats_of_stored(data: Path | None, start_ms: int) -> set[int]:
    """Fold what the device kept, without a fault; gives the samples of its beats."""
    pipeline = Pipeline(load_models(), 64, views=False)
    frames = stored.frames(data, start_ms)
    kept = [next(frames) for _ in range(STORED_S)]
    now = start_ms + STORED_S * 1000
    partition = partition_of(stored.DEVICE, 64)
    entries = [Inbound(Entry.FRAME, now, stored.DEVICE, encode_frame(next(frames)))]
    entries += [Inbound(Entry.BACKFILL, now, stored.DEVICE, encode_frame(frame)) for frame in kept]
    entries.append(Inbound(Entry.TICK, now + 6_000, "", b""))
    found = pipeline.step((partition, entry) for entry in entries).events
    return {event.sample for _, event in found if isinstance(event, BeatEvent)}


def stored_beats(scene: Scene, rate: float) -> list[int]:
    """Give the samples of the beats that were found in what the device had kept."""
    events = [event for _, event in list(scene.events[stored.DEVICE])]
    return [event.sample for event in events if isinstance(event, BeatEvent) and event.sample < STORED_S * rate]


async def test_a_device_returns_with_two_hours(tmp_path: Path, rows: list[str]) -> None:
    """What a device kept for two hours goes to the history, though its plug is pulled; nobody waits for it."""
    data, folder = recordings(), tmp_path / "journal"
    start_ms = time.time_ns() // 1_000_000 - STORED_S * 1000
    stored.keep(folder, data, start_ms, STORED_S)
    rate = next(stored.frames(data, start_ms)).rate
    wanted = beats_of_stored(data, start_ms)
    sure: set[int] = set()
    took: list[float] = []

    async def device(scene: Scene) -> asyncio.subprocess.Process:
        arguments = (scene.running.devices, str(folder), str(data or ""), str(start_ms))
        return await asyncio.create_subprocess_exec(sys.executable, stored.__file__, *arguments)

    async def trouble(scene: Scene) -> None:
        came = Returned(scene)
        following = asyncio.create_task(came.follow())
        await asyncio.sleep(12.0)
        scene.begins()
        began = time.monotonic()
        process = await device(scene)
        try:
            assert await until(lambda: len(came.stored) > STORED_S // 4, STORED_WAIT_S)
            process.kill()
            await process.wait()
            assert await until(lambda: came.notes[-1:] == ["offline"])
            cut = max(came.stored)
            process = await device(scene)
            assert await until(lambda: len(came.stored) >= STORED_S, STORED_WAIT_S)
            took.append(time.monotonic() - began)
            scene.ends()
            # Behind what the broker held when the plug was pulled the stretch may have ended and begun again: the
            # detector learns anew there.
            sure.update(sample for sample in wanted if not cut - 15 <= sample / rate < cut + WINDOW + 45)
            assert await until(lambda: sure <= set(stored_beats(scene, rate)))
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await end([following])
        every = came.live.keys() | came.stored.keys()
        assert every == set(range(max(every) + 1))

    scene, cost = await live(tmp_path / "state", data, trouble)
    found = stored_beats(scene, rate)
    lost, doubled = len(sure - set(found)), len(found) - len(set(found))
    alarms = [event for event in scene.seen(AlarmEvent) if event.device == stored.DEVICE and not event.technical]
    late = [alarm for alarm in alarms if alarm.onset_sample < STORED_S * rate]
    beside = f"2 h in {took[0]:.0f} s: beats {lost} / {doubled} of {len(wanted)}, {len(late)} alarms listed"
    rows.append(cost.line("device returns with 2 h, its plug pulled once", beside))
    assert late
    assert all(alarm.retrospective for alarm in late)
    assert (lost, doubled) == (0, 0)
    cost.check()


async def stored_on_bus(scene: Scene, names: list[str]) -> dict[str, Counter[int]]:
    """Count the stored frames of devices on the bus until all have as many as they sent."""
    found: dict[str, Counter[int]] = {name: Counter() for name in names}
    cursors: dict[int, Position] = dict.fromkeys({partition_of(name, scene.bus.partitions) for name in names}, START)
    async with asyncio.timeout(STORED_WAIT_S):
        while any(len(counts) < RETURNED_S for counts in found.values()):
            for partition, records in await scene.bus.read(cursors, block_ms=200):
                cursors[partition] = records[-1].position
                for record in records:
                    entry = unpack_inbound(record.data)
                    if entry.kind is Entry.BACKFILL:
                        found[entry.patient][decode_frame(entry.payload).seq] += 1
    return found


async def test_fifty_devices_return_at_once(tmp_path: Path, rows: list[str]) -> None:
    """What fifty devices kept comes at once, from makers who wait for no answer: the live patients notice nothing."""
    data = recordings()
    names = [f"returning-{number}" for number in range(RETURNING)]
    start_ms = time.time_ns() // 1_000_000 - RETURNED_S * 1000
    frames = stored.frames(data, start_ms)
    kept = [next(frames) for _ in range(RETURNED_S)]
    metas = [DeviceMeta(name, stored.EPOCH, kept[0].rate, kept[0].leads, kept[0].gain) for name in names]
    took: list[float] = []
    came: dict[str, Counter[int]] = {}

    async def trouble(scene: Scene) -> None:
        counting = asyncio.create_task(stored_on_bus(scene, names))
        await asyncio.sleep(12.0)
        scene.begins()
        began = time.monotonic()
        async with FleetClient(connection_of(scene), metas) as client:
            for frame in kept:
                for name in names:
                    client.hand(name, "backfill", encode_frame(replace(frame, device=name)), lambda: None)
                await asyncio.sleep(0)
            await client.drain()
            came.update(await counting)
        took.append(time.monotonic() - began)
        scene.ends()

    _, cost = await live(tmp_path, data, trouble)
    lost = sum(RETURNED_S - len(counts) for counts in came.values())
    doubled = sum(counts.total() - len(counts) for counts in came.values())
    beside = f"{RETURNING * RETURNED_S} s in {took[0]:.0f} s: frames {lost} / {doubled}"
    rows.append(cost.line(f"{RETURNING} devices return with {RETURNED_S} s", beside))
    assert (lost, doubled) == (0, 0)
    cost.check()
