"""Clocks that are set, the server's and those of devices: same alarms and beats, and no limit in time misses."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
from clients import Scene, expected, live, until
from conftest import recordings
from storm import Finite, ward

from bus.messages import (
    Action,
    AlarmEvent,
    BeatEvent,
    Entry,
    Inbound,
    SettingsEvent,
    StatusEvent,
    pack,
    pack_inbound,
    partition_of,
)
from ingest.frame import Frame
from ingest.limits import FLAGS

pytest_plugins = ["storm_table"]
pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]
HOUR_S = 3_600
FRAME_MS = 1_000
PAUSE_S = 12.0
SILENT_S = 10.0
RUN_S = 300.0
"""Longest that a run takes."""


async def pause(scene: Scene, patient: str) -> float:
    """Pause a patient's sound as staff do; gives how long the pause lasted, s."""
    # The oldest time there is: an action takes effect at the time of its partition.
    entry = pack_inbound(Inbound(Entry.ACTION, 0, patient, pack(Action("pause", "nurse", values={"seconds": PAUSE_S}))))
    known = len(scene.events[patient])
    await scene.bus.append_in([(partition_of(patient, scene.bus.partitions), entry)])

    def told() -> list[tuple[float, SettingsEvent]]:
        return [(at, event) for at, event in scene.events[patient][known:] if isinstance(event, SettingsEvent)]

    assert await until(lambda: len(told()) >= 2)
    (began, first), (ended, last) = told()[:2]
    assert (first.reason, last.reason) == ("pause", "pause_ended")
    return ended - began


def times_run_on(scene: Scene) -> None:
    """No beat is told to be before the one before it, and none far from it.

    At speed, more signal comes than time passes, so that within a frame the estimate of its time falls.
    """
    for device in scene.sent:
        times = [event.ms for _, event in scene.events[device] if isinstance(event, BeatEvent)]
        assert all(after > before - FRAME_MS for before, after in pairwise(times))
        assert times[-1] - times[0] < RUN_S * 1000


async def test_the_servers_clock_is_set(tmp_path: Path, rows: list[str], set_clock: Callable[[float], None]) -> None:
    """An hour on, two hours back, right again: same alarms and beats, and no limit in time ends early or never."""
    pauses: list[float] = []
    silent: list[float] = []

    async def trouble(scene: Scene) -> None:
        first, second = expected(recordings()).calm[:2]
        assert await until(lambda: {first, second} <= scene.events.keys())
        pausing = asyncio.create_task(pause(scene, first))
        await asyncio.sleep(3.0)
        scene.begins()
        set_clock(1)
        pauses.append(await pausing)
        pausing = asyncio.create_task(pause(scene, second))
        await asyncio.sleep(3.0)
        set_clock(-1)
        pauses.append(await pausing)
        set_clock(0)
        await scene.played.wait()
        scene.ends()
        assert not no_data(scene)
        began = time.monotonic()
        set_clock(-1)
        assert await until(lambda: no_data(scene) == scene.sent.keys())
        silent.append(time.monotonic() - began)

    scene, cost = await live(tmp_path, recordings(), trouble)
    beside = f"pauses of {PAUSE_S:.0f} s took {pauses[0]:.1f} and {pauses[1]:.1f} s; NO_DATA after {silent[0]:.1f} s"
    rows.append(cost.line("clock of the server +1 h, -2 h, +1 h", beside))
    times_run_on(scene)
    assert not any(scene.running.supervisor.restarts.values())
    assert all(abs(seconds - PAUSE_S) < 3.0 for seconds in pauses)
    assert silent[0] < 2 * SILENT_S
    cost.check()


def no_data(scene: Scene) -> set[str]:
    """Give the patients who are told to be silent."""
    return {event.patient for event in scene.seen(AlarmEvent) if event.kind == "NO_DATA"}


@dataclass(frozen=True)
class Stepped:
    """A device whose clock is set while it measures, to other times by the number of the frame."""

    source: Finite
    steps_s: dict[int, int]

    def __getattr__(self, name: str) -> object:
        return getattr(self.source, name)

    def frames(self, epoch: int, start_ms: int) -> Iterator[Frame]:
        """Give the frames with what the device's clock says."""
        step = 0
        for number, frame in enumerate(self.source.frames(epoch, start_ms)):
            step = self.steps_s.get(number, step)
            yield replace(frame, device_ms=frame.device_ms + 1000 * step)


async def test_clocks_of_devices_are_set(tmp_path: Path, rows: list[str]) -> None:
    """Every other device goes an hour back and then more than a day on: nothing but a flag comes of it."""
    steps = {40: -HOUR_S, 80: 25 * HOUR_S, 120: 0}
    sources = [Stepped(source, steps) if number % 2 else source for number, source in enumerate(ward(recordings()))]

    async def trouble(scene: Scene) -> None:
        assert await until(lambda: any(len(times) > 40 for times in list(scene.sent.values())))
        scene.begins()
        assert await until(lambda: all(len(times) > 120 for times in list(scene.sent.values())))
        scene.ends()

    start_ms = time.time_ns() // 1_000_000
    scene, cost = await live(tmp_path, recordings(), trouble, sources=sources, start_ms=start_ms)
    flagged = {event.patient for event in scene.seen(StatusEvent) if event.note.startswith(FLAGS["bad_clock"])}
    rows.append(cost.line("clock of every other device -1 h, +25 h", f"{len(flagged)} devices flagged"))
    times_run_on(scene)
    assert flagged == {source.device for source in sources if isinstance(source, Stepped)}
    cost.check()
