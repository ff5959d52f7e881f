"""Clocks that are set, a device that comes back, a slow database, a contact that hangs: nothing waits for them."""

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import stored
from clients import Cost, Scene, connection_of, expected, live, until
from conftest import recordings
from slow import SlowLine
from sqlalchemy import Engine, text
from storm import PATIENTS, Finite, ward

from alerts.alarm_log import AlarmLog
from alerts.contacts import Contact, Contacts
from alerts.database import open_engine
from alerts.notify import is_announcement
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
    unpack_inbound,
    unpack_note,
)
from bus.streams import START, Position
from bus.tasks import end
from ingest.answers import WINDOW
from ingest.codecs import decode_frame, encode_frame
from ingest.device import DeviceMeta, FleetClient
from ingest.frame import Frame
from ingest.limits import FLAGS
from rhythmwatch.models import load_models
from rhythmwatch.pipeline import Pipeline

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]
HOUR_S = 3_600
FRAME_MS = 1_000
PAUSE_S = 12.0
SILENT_S = 10.0
RUN_S = 300.0
"""Longest that a run takes."""
STORED_S = 7_200
STORED_WAIT_S = 600.0
"""Longest that the 2 h may take: they wait for whatever is live, on a busy machine for long."""
RETURNING = 50
RETURNED_S = 200
SLOW_S = 30.0
LOCKED_S = 20.0
Call: TypeAlias = tuple[object, object, object, object]
"""Alarm, when it called, its level and why."""
TOLD_S = 5.0
"""A contact that answers hears of an alarm in this time."""


@pytest.fixture(scope="session")
def rows() -> Iterator[list[str]]:
    """Give the lines of the table that is printed at the end."""
    lines: list[str] = []
    yield lines
    head = (
        "| trouble | alarms lost / doubled | beats lost / doubled | strange | alarm p99 before / during, s | beside |"
    )
    sys.stdout.write("\n".join(["", head, "|---|---|---|---|---|---|", *lines, ""]))


class SystemClock:
    """The clock of the processes that are started under it, set by a file (`clock.c`)."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.write_bytes(bytes(8))

    def step(self, seconds: int) -> None:
        """Set it against the true time."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", seconds))


@pytest.fixture
def system_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SystemClock:
    """Give the clock of all processes that the test starts."""
    compiler, library = shutil.which("cc"), tmp_path / "clock.so"
    if compiler is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no C compiler, which the clock of this test needs")
        pytest.skip("no C compiler, which the clock of this test needs")
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    clock = SystemClock(tmp_path / "clock")
    monkeypatch.setenv("RHYTHMWATCH_CLOCK", str(tmp_path / "clock"))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    return clock


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


async def test_the_servers_clock_is_set(tmp_path: Path, rows: list[str], system_clock: SystemClock) -> None:
    """An hour on, two hours back, right again: same alarms and beats, and no limit in time ends early or never."""
    pauses: list[float] = []
    silent: list[float] = []

    async def trouble(scene: Scene) -> None:
        first, second = expected(recordings()).calm[:2]
        assert await until(lambda: {first, second} <= scene.events.keys())
        pausing = asyncio.create_task(pause(scene, first))
        await asyncio.sleep(3.0)
        scene.begins()
        system_clock.step(HOUR_S)
        pauses.append(await pausing)
        pausing = asyncio.create_task(pause(scene, second))
        await asyncio.sleep(3.0)
        system_clock.step(-HOUR_S)
        pauses.append(await pausing)
        system_clock.step(0)
        await scene.played.wait()
        scene.ends()
        assert not no_data(scene)
        began = time.monotonic()
        system_clock.step(-HOUR_S)
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


@pytest.mark.timeout(1_800)
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


@pytest.mark.timeout(1_800)
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


async def slow_database(
    tmp_path: Path, engine: Engine, history: str, slowly: Callable[[], Awaitable[None]]
) -> tuple[Cost, str]:
    """Play while `slowly` holds the database up; gives also what to say of the history."""
    alarms = expected(recordings()).alarms.keys()
    log, behind = AlarmLog(engine), [0.0]

    def kept() -> set[str]:
        return {item.alarm.id for item in log.find(limit=100_000) if not item.alarm.technical}

    async def trouble(scene: Scene) -> None:
        await asyncio.sleep(6.0)
        scene.begins()
        await slowly()
        scene.ends()
        await scene.played.wait()
        began = time.monotonic()
        await until(lambda: alarms <= kept())
        behind.append(time.monotonic() - began)

    scene, cost = await live(tmp_path, recordings(), trouble, history=history)
    assert not any(scene.running.supervisor.restarts.values())
    lost = len(alarms - kept())
    return cost, f"history: {lost} alarms lost, {behind[-1]:.1f} s behind at the end"


@pytest.mark.postgres
async def test_a_slow_database(tmp_path: Path, rows: list[str], postgres: str) -> None:
    """Half a minute of 300 ms for each piece on the line: the pages notice nothing, and the history catches up."""
    engine = open_engine(postgres)
    async with SlowLine(Path(postgres.partition("host=")[2]) / ".s.PGSQL.5432").open() as line:

        async def slowly() -> None:
            line.delay_s = 0.3
            await asyncio.sleep(SLOW_S)
            line.delay_s = 0.0

        address = f"postgresql://rw@127.0.0.1:{line.port}/postgres"
        try:
            cost, history = await slow_database(tmp_path, engine, address, slowly)
        finally:
            with engine.begin() as connection:
                connection.execute(text("DROP SCHEMA public CASCADE"))
                connection.execute(text("CREATE SCHEMA public"))
            engine.dispose()
    rows.append(cost.line(f"PostgreSQL slow for {SLOW_S:.0f} s", history))
    assert " 0 alarms lost" in history
    cost.check()


async def test_a_locked_database(tmp_path: Path, rows: list[str]) -> None:
    """Another writer holds SQLite's lock for 20 s: as with a slow one."""
    file = tmp_path / "history.db"

    def hold() -> None:
        with contextlib.closing(sqlite3.connect(file, timeout=30.0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(LOCKED_S)
            other.execute("ROLLBACK")

    async def slowly() -> None:
        await asyncio.to_thread(hold)

    engine = open_engine(f"sqlite:///{file}")
    try:
        cost, history = await slow_database(tmp_path, engine, "", slowly)
    finally:
        engine.dispose()
    rows.append(cost.line(f"SQLite locked for {LOCKED_S:.0f} s", history))
    assert " 0 alarms lost" in history
    cost.check()


@contextlib.asynccontextmanager
async def web_server(answers: bool) -> AsyncIterator[tuple[str, list[tuple[float, dict[str, Any]]]]]:
    """Take messages as a contact does, and answer or never; gives the address, and what came when."""
    got: list[tuple[float, dict[str, Any]]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.partition("content-length: ")[2].partition("\r")[0])
            got.append((time.monotonic(), json.loads(await reader.readexactly(size))))
            if answers:
                writer.write(b"HTTP/1.1 204 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                await writer.drain()
            else:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}/hook", got
    finally:
        server.close()


def called(scene: Scene) -> dict[Call, float]:
    """Give the calls that the contacts are to hear, with the time at which each was on the bus."""
    return {
        (event.id, event.announced_ms, event.escalation, event.reason): at
        for events in list(scene.events.values())
        for at, event in list(events)
        if isinstance(event, AlarmEvent) and is_announcement(event) and event.priority >= 1
    }


async def test_a_contact_hangs(tmp_path: Path, rows: list[str]) -> None:
    """A webhook takes messages and never answers: the one beside it has every message, in time and once."""
    engine = open_engine(f"sqlite:///{tmp_path / 'history.db'}")

    def told() -> dict[Call, list[float]]:
        found: dict[Call, list[float]] = defaultdict(list)
        for at, body in list(got):
            found[body["id"], body["announced_ms"], body["escalation"], body["reason"]].append(at)
        return found

    async with web_server(answers=False) as (dead, hung), web_server(answers=True) as (alive, got):

        async def trouble(scene: Scene) -> None:
            contacts = Contacts(engine)
            kept = await asyncio.to_thread(contacts.replace, [Contact("alive", "webhook", alive, priority=1)])
            await asyncio.sleep(12.0)
            scene.begins()
            await asyncio.to_thread(contacts.replace, [*kept, Contact("dead", "webhook", dead, priority=1)])
            await scene.played.wait()
            scene.ends()
            await until(lambda: called(scene).keys() <= told().keys(), 30.0)

        scene, cost = await live(tmp_path, recordings(), trouble)
    engine.dispose()
    wanted, heard = called(scene), told()
    # What was called just before the end was still on its way.
    until_s = scene.last_s - TOLD_S
    lost = sum(key not in heard for key, at in wanted.items() if at < until_s)
    doubled = sum(len(times) - 1 for times in heard.values())
    waits = [heard[key][0] - at for key, at in wanted.items() if key in heard]
    p99 = float(np.percentile(waits, 99))
    beside = f"contact beside it: {lost} / {doubled} of {len(wanted)} messages, p99 {p99:.2f} s; {len(hung)} hung"
    rows.append(cost.line("webhook hung", beside))
    assert hung
    assert len(wanted) > PATIENTS / 4
    assert (lost, doubled) == (0, 0)
    assert p99 < TOLD_S
    cost.check()
