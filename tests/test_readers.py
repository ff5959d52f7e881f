"""Historians, notifiers and recorders that share the partitions: one is killed, and another one has its range too."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from receivers import web_server
from recording_desk import T0, entry, frames, samples
from sqlalchemy import select
from wall_fakes import alarm

from alerts.archive import Archive
from alerts.archive_index import MINUTES, Index
from alerts.contacts import Contact, Contacts
from alerts.database import open_engine, upgrade
from alerts.deliveries import Deliveries
from alerts.store import ALARMS, CHANGES, RHYTHMS, SETTINGS, STATUSES, Batch, Store
from bus.clock import now_ms
from bus.messages import (
    AlarmEvent,
    BeatEvent,
    Entry,
    Event,
    Inbound,
    RhythmEvent,
    SettingsEvent,
    StatusEvent,
    pack,
    pack_inbound,
    partition_of,
    unpack_event,
)
from bus.server import embedded
from bus.streams import START, Bus, key
from rhythmwatch.record import Recording

pytestmark = pytest.mark.timeout(480)
DEADLINE_S = 120.0
LOWER, UPPER, ALL = "0-31", "32-63", "0-63"
PATIENTS = [f"bed-{number}" for number in range(24)]


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    async with embedded(tmp_path / "bus") as url, Bus(url) as made:
        yield made


@asynccontextmanager
async def running(command: str, partitions: str, bus: Bus, history: str, *more: str) -> AsyncIterator[Any]:
    """Run a process of the service; ended in good order if it still runs at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rhythmwatch", command, "--partitions", partitions),
        *("--bus", bus.url, "--history", history, *more),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), DEADLINE_S)


async def kill(process: asyncio.subprocess.Process) -> None:
    """End a process without a warning."""
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something holds; what asks a database runs beside the loop."""
    async with asyncio.timeout(DEADLINE_S):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


def is_upper(patient: str) -> bool:
    """Whether a patient is of the upper half of the partitions."""
    return partition_of(patient) >= 32


class Publisher:
    """Puts events on the bus as the worker of all partitions does."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._epochs: dict[int, int] = {}
        self._number = 0

    async def put(self, events: Iterable[Event]) -> None:
        """Publish events, each on the partition of its patient."""
        parts: dict[int, list[bytes]] = {}
        for event in events:
            parts.setdefault(partition_of(event.patient), []).append(pack(event))
        self._number += 1
        for partition, packed in parts.items():
            if partition not in self._epochs:
                self._epochs[partition] = await self._bus.claim(partition)
            await self._bus.commit(partition, self._epochs[partition], packed, [], None, f"{self._number}-0")


async def events_of(bus: Bus) -> list[tuple[int, list[tuple[str, Event]]]]:
    """Everything that was published, by partition."""
    found = await bus.read_events(dict.fromkeys(range(bus.partitions), START), count=100_000)
    return [(partition, [(record.position, unpack_event(record.data)) for record in got]) for partition, got in found]


async def held_names(bus: Bus) -> set[str]:
    """Under which names readers hold positions."""
    names: set[str] = set()
    for partition in range(bus.partitions):
        names |= {name.decode() for name in await bus._redis.hkeys(key(partition, "held"))}
    return names


# --- historian -------------------------------------------------------------------------------------------------------


def story(patient: str, number: int) -> list[Event]:
    """Make what a worker says of a patient in a minute."""
    at = T0 + number * 60_000
    first = alarm(patient, "VTACH", 3, onset_sample=number, raised_ms=at, changed_ms=at, reason="raised")
    first = msgspec.structs.replace(first, id=f"{patient}/VTACH/1/{number}")
    return [
        StatusEvent(patient, patient, at, "MLII", ("MLII",), "good"),
        *(BeatEvent(patient, patient, 1, number * 1000 + beat, at, "N", 0.9, "V", 0.1, 800) for beat in range(5)),
        RhythmEvent(patient, patient, 1, number, at, "AFIB", 0.9),
        first,
        msgspec.structs.replace(first, revision=1, presence="latched", changed_ms=at + 1, reason="ended"),
        SettingsEvent(patient, patient, at, "limits", "anna", "adult", {"tachy": 100.0 + number}, ()),
    ]


def everything(store: Store) -> list[list[tuple[Any, ...]]]:
    """All rows of the history, in order."""
    with store._engine.connect() as connection:
        return [
            sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for table in (ALARMS, CHANGES, RHYTHMS, STATUSES, SETTINGS)
        ]


async def test_two_historians_store_what_one_stores_and_one_takes_the_others_range(bus: Bus, url: str, tmp_path: Path):
    """Killed in the middle, its range taken by one that has the other's too, for a moment both: each row once."""
    worker = Publisher(bus)
    with Store(url) as store:
        store.upgrade()

        def upper_rows() -> int:
            return sum(is_upper(row.patient) for row in store.open_alarms())

        async with running("historian", LOWER, bus, url) as one:
            async with running("historian", UPPER, bus, url) as other:
                for number in range(10):
                    await worker.put(event for patient in PATIENTS for event in story(patient, number))
                await until(upper_rows)
                await worker.put(event for patient in PATIENTS for event in story(patient, 10))
                await kill(other)
            await worker.put(event for patient in PATIENTS for event in story(patient, 11))
            async with running("historian", ALL, bus, url):
                await until(lambda: any(is_upper(a.patient) and a.onset_sample == 11 for a in store.open_alarms()))
                # Both have the lower half now.
                await worker.put(event for patient in PATIENTS for event in story(patient, 12))
                one.terminate()
                await one.wait()
                await worker.put(event for patient in PATIENTS for event in story(patient, 13))
                with Store(f"sqlite:///{tmp_path}/alone.db") as alone:
                    alone.upgrade()
                    for partition, records in await events_of(bus):
                        alone.write_all([Batch(partition, records, records[-1][0])])
                    wanted = everything(alone)
                assert len(wanted[1]) == 2 * 14 * len(PATIENTS)
                await until(lambda: everything(store) == wanted)
        # What they had in hand when they ended was the same.
        assert everything(store) == wanted
    assert await held_names(bus) == {"events/historian"}


# --- notifier --------------------------------------------------------------------------------------------------------


def announced(number: int) -> list[AlarmEvent]:
    """Make an alarm of each patient that is announced now."""
    at = now_ms()
    usual = {"raised_ms": at, "changed_ms": at, "announced_ms": at, "reason": "raised"}
    made = [alarm(patient, "VTACH", 3, **usual) for patient in PATIENTS]
    return [msgspec.structs.replace(event, id=f"{event.patient}/VTACH/1/{number}") for event in made]


async def test_two_notifiers_send_each_message_once_and_one_takes_the_others_range(bus: Bus, url: str):
    """Killed with messages waiting; what came before, meanwhile and during the overlap reaches the contact once."""
    worker, taken = Publisher(bus), Counter[str]()
    open_for_upper = False

    async def answer(headers: dict[str, str], body: bytes) -> int:
        nonlocal open_for_upper
        told = json.loads(body)
        # Only one who has the upper range after the other's death can tell of these.
        open_for_upper = open_for_upper or (is_upper(told["patient"]) and told["id"].endswith("/1"))
        if is_upper(told["patient"]) and not open_for_upper:
            return 503
        taken[told["id"]] += 1
        return 204

    engine = open_engine(url)
    upgrade(engine)
    outbox = Deliveries(engine)

    def states(number: int, upper: bool) -> Sequence[tuple[str, bool]]:
        mine = [item for item in outbox.recent(1000) if item.alarm.endswith(f"/{number}")]
        return [(item.state, item.tries > 0) for item in mine if is_upper(item.patient) is upper]

    halves = Counter(is_upper(patient) for patient in PATIENTS)
    async with web_server(answer) as address:
        Contacts(engine).replace([Contact("pager", "webhook", address)])
        async with running("notifier", LOWER, bus, url) as one:
            async with running("notifier", UPPER, bus, url) as other:
                # A notifier that never ran looks back a minute.
                await worker.put(announced(0))
                await until(lambda: states(0, upper=False) == [("sent", True)] * halves[False])
                await until(lambda: ("waiting", True) in states(0, upper=True))
                assert len(states(0, upper=True)) == halves[True]
                await kill(other)
            await worker.put(announced(1))
            async with running("notifier", ALL, bus, url):
                await until(lambda: ("sent", True) in states(1, upper=True))
                # Both have the lower half now.
                await worker.put(announced(2))
                await until(lambda: states(2, upper=False) == [("sent", True)] * halves[False])
                one.terminate()
                await one.wait()
                await worker.put(announced(3))
                await until(lambda: not outbox.waiting_contacts() and len(outbox.recent(1000)) == 4 * len(PATIENTS))
    assert {item.state for item in outbox.recent(1000)} == {"sent"}
    assert taken == Counter(event.id for number in range(4) for event in announced(number))
    engine.dispose()


# --- recorder --------------------------------------------------------------------------------------------------------

SECONDS = 200
BEDS = PATIENTS[:8]


def recorded(history: str, folder: Path) -> tuple[list[Any], list[Any]]:
    """Signal and beats of every patient, and the sums of all minutes."""
    with Archive(history, folder) as archive:
        until_ms = T0 + SECONDS * 1000
        signals = [archive.read(bed, T0, until_ms).units.tolist() for bed in BEDS]
        beats = [archive.beats(bed, T0, until_ms).tobytes() for bed in BEDS]
    engine = open_engine(history)
    with engine.connect() as connection:
        minutes = sorted(tuple(row) for row in connection.execute(select(MINUTES)))
    engine.dispose()
    return signals, [beats, minutes]


async def test_two_recorders_keep_what_one_keeps_and_one_takes_both_ranges(bus: Bus, url: str, tmp_path: Path):
    """One killed, one ended, and the next has all partitions: the same signal, beats and minutes as of one alone."""
    worker = Publisher(bus)
    sent = {bed: frames(samples(250 * SECONDS, 1, seed), bed) for seed, bed in enumerate(BEDS)}
    said = {
        bed: [BeatEvent(bed, bed, 1, at * 250, T0 + at * 1000, "N", 0.9, "V", 0.1, 1000) for at in range(1, SECONDS)]
        for bed in BEDS
    }

    async def come(begin: int, end: int) -> None:
        entries = [(partition_of(bed), pack_inbound(entry(f))) for bed in BEDS for f in sent[bed][begin:end]]
        await bus.append_in(entries)
        good = [StatusEvent(bed, bed, T0 + begin * 1000, "MLII", ("MLII",), "good") for bed in BEDS]
        await worker.put([*good, *(event for bed in BEDS for event in said[bed][begin:end])])
        # Events are recorded once the entries of their time are; ingest sees to it that there are always some.
        await bus.append_in([(partition_of(bed), pack_inbound(Inbound(Entry.TICK, T0, "", b""))) for bed in BEDS])

    folder, more = tmp_path / "recordings", ("--recordings", str(tmp_path / "recordings"), "--everything")
    with Index(url) as index:
        index.upgrade()
        async with running("recorder", LOWER, bus, url, *more):
            async with running("recorder", UPPER, bus, url, *more) as other:
                await come(0, 70)
                mine = {partition_of(bed) for bed in BEDS}
                assert {partition >= 32 for partition in mine} == {False, True}
                await until(lambda: index.places(range(64)).keys() == mine)
                await come(70, 130)
                await kill(other)
            async with running("recorder", ALL, bus, url, *more) as refused:
                assert await asyncio.wait_for(refused.wait(), DEADLINE_S) == 2, "the lower half is recorded already"
        async with running("recorder", ALL, bus, url, *more):
            await come(130, SECONDS)
            with Archive(url, folder) as archive:
                await until(lambda: all(not archive.read(bed, T0, T0 + SECONDS * 1000).gaps for bed in BEDS))
                await until(lambda: all(len(archive.beats(bed, T0, T0 + 10**6)) == SECONDS - 1 for bed in BEDS))
    assert await held_names(bus) == {"in/recorder", "events/recorder"}
    alone = f"sqlite:///{tmp_path}/alone.db"
    with Index(alone) as index:
        index.upgrade()
        recording = Recording(tmp_path / "alone", index, range(64))
        cursors = dict.fromkeys(range(64), START)
        for partition, records in await bus.read(cursors, count=100_000):
            recording.take_entries(partition, records)
        for partition, records in await bus.read_events(cursors, count=100_000):
            recording.take_events(partition, records)
        recording.flush()
        recording.close()
    (signals, rest), wanted = recorded(url, folder), recorded(alone, tmp_path / "alone")
    assert np.array_equal(signals, wanted[0])
    assert rest == wanted[1]
    assert len(rest[1]) >= 2 * len(BEDS)
