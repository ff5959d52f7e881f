"""A person's rights on a real bus, database and recordings: access gives all, erasure leaves no byte, others stay."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import waiting
import wfdb
from history_reading import recent_alarms
from sqlalchemy import insert, select
from test_store import alarm

from alerts.access import Access
from alerts.archive import Archive
from alerts.archive_index import Index
from alerts.audit import Audit
from alerts.care import Care, new_person
from alerts.care_erasure import Erasures
from alerts.care_model import Consent, StaffNote
from alerts.care_rows import Span, reached
from alerts.database import StoreError, open_engine, upgrade
from alerts.store import Store
from bus.erasing import erase_entries
from bus.messages import (
    AlarmEvent,
    BeatEvent,
    Entry,
    Event,
    Inbound,
    pack,
    pack_inbound,
    partition_of,
    unpack_action,
    unpack_event,
    unpack_inbound,
)
from bus.server import embedded
from bus.streams import START, Bus, Record, key
from bus.tasks import end
from ingest.codecs import decode_frame, encode_frame
from ingest.frame import Frame
from rhythmwatch.record import Recording
from rhythmwatch.rights import Retention, Stores, _erase_streams, erase, retain

NAME = "Änne Zwölfzeiler"
NOTE = "talks in her sleep of Königsberg"
DEVICE = "dev-1"
SECONDS = 6
DEADLINE_S = 60.0


class House:
    """A bus, a database and recordings in one folder, with a recorder and a worker of a few lines."""

    def __init__(self, folder: Path, bus: Bus) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'history.db'}"
        self.engine = open_engine(self.url)
        upgrade(self.engine)
        self.bus = bus
        self.care = Care(self.engine)
        self.archive = Archive(self.url, folder / "recordings")
        self.stores = Stores(bus, self.care, Erasures(self.engine), Audit(self.engine), self.archive)
        self.index = Index(self.url)
        self.partition = partition_of(DEVICE, bus.partitions)
        self.recording = Recording(folder / "recordings", self.index, [self.partition])
        self.number = 0

    async def live(self, device: str, start_ms: int, seed: int, epoch: int) -> np.ndarray:
        """Let a device send for some seconds: streams, recordings, alarm history and a checkpoint have it."""
        units = np.random.default_rng(seed).integers(-3000, 3000, (250 * SECONDS, 2)).astype(np.int16)
        partition = partition_of(device, self.bus.partitions)
        claimed = await self.bus.claim(partition)
        for second in range(SECONDS):
            part = units[250 * second : 250 * (second + 1)]
            at = start_ms + 1000 * second
            frame = Frame(device, epoch, second, 250 * second, at, 250.0, ("MLII", "V1"), 200.0, part)
            entry = pack_inbound(Inbound(Entry.FRAME, at + 1000, device, encode_frame(frame)))
            (position,) = await self.bus.append_in([(partition, entry)])
            self.recording.take_entries(partition, [Record(f"{at}-{self.number}", entry)])
            beat = BeatEvent(device, device, epoch, 250 * second + 100, at + 400, "V", 0.9, "N", 0.05, 1000)
            raised = self.alarm(device, start_ms, epoch)
            events: list[Event] = [beat, raised]
            packed = [pack(event) for event in events]
            await self.bus.commit(partition, claimed, packed, [], part.tobytes(), position)
            self.recording.take_events(partition, [Record(f"{at}-{self.number}", packed[0])])
            self.number += 1
        self.recording.flush()
        self.recording.close()
        self.recording = Recording(self.folder / "recordings", self.index, [self.partition])
        with Store(self.url) as store:
            store.write(partition, [(position, raised)], position)
        return units

    def alarm(self, device: str, start_ms: int, epoch: int) -> AlarmEvent:
        """Make an alarm of a device at a time."""
        raised = alarm(1, patient=device)
        changes = {"id": f"{device}/VTACH/{epoch}/1", "epoch": epoch, "onset_ms": start_ms + 500, "detail": "of Änne"}
        return AlarmEvent(**{name: getattr(raised, name) for name in raised.__struct_fields__} | changes)

    async def worker(self) -> None:
        """Write a fresh checkpoint after each discharge, as a worker does."""
        after: dict[int, str] = {}
        while True:
            for partition in {self.partition}:
                records = await self.bus.read_range(partition, after.get(partition, START), "+")
                for record in records:
                    after[partition] = record.position
                    entry = unpack_inbound(record.data)
                    if entry.kind is Entry.ACTION and unpack_action(entry.payload).name == "discharge":
                        claimed = await self.bus.claim(partition)
                        await self.bus.commit(partition, claimed, [], [], b"nothing learnt", record.position)
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """Close the database."""
        self.recording.close()
        self.archive.close()
        self.index._engine.dispose()
        self.engine.dispose()

    def holds(self, needle: bytes) -> list[str]:
        """Files below the folder that hold these bytes."""
        return [str(path) for path in self.folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


@asynccontextmanager
async def house_in(folder: Path) -> AsyncIterator[House]:
    """Run a house with a worker."""
    async with embedded(folder / "bus") as url, Bus(url, partitions=4) as bus:
        house = House(folder, bus)
        try:
            async with working(house):
                yield house
        finally:
            house.close()


@asynccontextmanager
async def working(house: House) -> AsyncIterator[None]:
    """Have a worker for the block."""
    worker = asyncio.create_task(house.worker())
    try:
        yield
    finally:
        await end([worker])


def now_ms() -> int:
    """Give the wall clock, ms."""
    import time

    return int(time.time() * 1000)


def needles(units: np.ndarray) -> list[bytes]:
    """Pieces of the samples as they stand in frames and files: whole rows, and each lead alone."""
    rows = [units[at : at + 6].tobytes() for at in range(0, len(units), 250)]
    return rows + [units[at : at + 12, 0].tobytes() for at in range(0, len(units), 250)]


until = partial(waiting.until, seconds=DEADLINE_S)


async def stay_of(house: House, name: str, seed: int, epoch: int) -> tuple[str, np.ndarray]:
    """Admit a person, let the device send, discharge."""
    start = now_ms()
    person = new_person(name, start, mrn=f"mrn-{seed}")
    house.care.admit(person, DEVICE, "7", "West", "adult", "x", start)
    house.care.consent(Consent(person.person, "monitoring", True, name, "x", start))
    house.care.add_note(StaffNote(person.person, start, "x", f"{NOTE} ({name})"))
    units = await house.live(DEVICE, start, seed, epoch)
    # The device sent ahead of the clock; the stay covers all of it.
    house.care.discharge(DEVICE, "x", start + 1000 * SECONDS)
    return person.person, units


@pytest.mark.services
async def test_erasure_leaves_no_byte_of_a_person_and_all_of_the_other(tmp_path: Path) -> None:
    """Every file of bus, database and recordings is searched for name, note and samples, before and after."""
    async with house_in(tmp_path) as house:
        gone, lost = await stay_of(house, NAME, 1, 5)
        await asyncio.sleep(0)
        kept, left = await stay_after(house, gone)
        for needle in (NAME.encode(), NOTE.encode(), *needles(lost)[:SECONDS]):
            assert house.holds(needle)
        erasure = house.stores.erasures.ask(gone, "the admin", now_ms())
        assert await erase(house.stores, erasure, checkpoint_s=DEADLINE_S) == ""
        for needle in (NAME.encode(), json.dumps(NAME)[1:-1].encode(), b"mrn-1\x00", *needles(lost)):
            assert house.holds(needle) == []
        assert all(house.holds(needle) for needle in needles(left)[:SECONDS])
        assert house.care.person(kept) is not None
        strip = house.archive.read(DEVICE, *span_of(house, kept))
        assert np.array_equal(strip.units[: len(left)], left)
        assert [item.done_ms is not None for item in house.stores.erasures.list()] == [True]
        assert [row.act for row in house.stores.audit.rows()] == ["person.erased"]
        for name in ("in", "events"):
            held = await entries(house, name)
            assert held
            assert all(epoch == 6 for epoch in held), name
        with Store(house.url) as store:
            assert [item.epoch for item in recent_alarms(store)] == [6]
        with pytest.raises(StoreError):
            Access(house.care, house.archive).pack(gone, now_ms(), tmp_path / "no.zip")


async def stay_after(house: House, person: str) -> tuple[str, np.ndarray]:
    """Let the next person come once the stay of the one before has ended by the wall clock."""
    end = house.care.stays(person=person)[-1].to_ms
    assert end is not None
    await until(lambda: now_ms() > end)
    return await stay_of(house, "Someone Else", 2, 6)


def span_of(house: House, person: str) -> tuple[int, int]:
    """Begin and end of a person's stay."""
    stay = house.care.stays(person=person)[0]
    assert stay.to_ms is not None
    return stay.from_ms, stay.to_ms


async def entries(house: House, name: str) -> list[int]:
    """Epochs of the frames, or of the beats and alarms, that stand in a stream."""
    read = house.bus.read if name == "in" else house.bus.read_events
    out = []
    for _, records in await read({house.partition: START}, count=1000):
        for record in records:
            if name == "events":
                out.append(unpack_event(record.data).epoch)
            elif (entry := unpack_inbound(record.data)).kind is Entry.FRAME:
                out.append(decode_frame(entry.payload).epoch)
    return out


@pytest.mark.services
async def test_erasure_says_what_it_can_not_reach(tmp_path: Path) -> None:
    """Without a worker the checkpoint stays: the erasure is not done, says so, and is done once one runs."""
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=4) as bus:
        house = House(tmp_path, bus)
        try:
            gone, _ = await stay_of(house, NAME, 1, 5)
            erasure = house.stores.erasures.ask(gone, "the admin", now_ms())
            assert "no worker" in await erase(house.stores, erasure, checkpoint_s=0.1)
            (pending,) = house.stores.erasures.list(pending=True)
            async with working(house):
                assert await erase(house.stores, pending, checkpoint_s=DEADLINE_S) == ""
            assert house.stores.erasures.list(pending=True) == []
        finally:
            house.close()


def test_rows_of_a_person_go_from_both_databases(url: str) -> None:
    """Alarms with their changes, and what hangs on them, within the stay; those before, after and elsewhere stay."""
    engine = open_engine(url)
    upgrade(engine)
    care, erasures = Care(engine), Erasures(engine)
    person = new_person(NAME, 1)
    care.admit(person, DEVICE, "1", "W", "adult", "x", 1000)
    care.discharge(DEVICE, "x", 2000)
    tables = reached()
    with Store(url) as store, engine.begin() as connection:
        for number, (patient, onset) in enumerate([(DEVICE, 999), (DEVICE, 1000), (DEVICE, 2000), ("dev-2", 1500)]):
            base = alarm(number, patient=patient)
            fields = {name: getattr(base, name) for name in base.__struct_fields__}
            event = AlarmEvent(**fields | {"id": f"{patient}/VTACH/1/{onset}", "onset_ms": onset})
            for name in ("alarms", "alarm_changes"):
                connection.execute(insert(tables[name][0]), msgspec.structs.asdict(event))
            judged = {"alarm": event.id, "patient": patient, "ms": 5000, "who": "x", "verdict": "true", "comment": ""}
            connection.execute(insert(tables["judgements"][0]), judged)
        connection.commit()
        erasure = erasures.ask(person.person, "x", 9000)
        assert erasures.delete_rows(erasure.spans) == 3
        erasures.scrub()
        assert sorted(item.onset_ms for item in recent_alarms(store)) == [999, 1500, 2000]
        with engine.connect() as reading:
            assert len(reading.execute(select(tables["judgements"][0])).all()) == 3
            assert len(reading.execute(select(tables["alarm_changes"][0])).all()) == 3
    engine.dispose()


def test_erasure_needs_a_discharge_and_a_person(tmp_path: Path) -> None:
    """Who is admitted, or not there, can't be erased; nothing changes."""
    engine = open_engine(f"sqlite:///{tmp_path}/h.db")
    upgrade(engine)
    care, erasures = Care(engine), Erasures(engine)
    person = new_person(NAME, 1)
    care.admit(person, DEVICE, "1", "W", "adult", "x", 1)
    for who in (person.person, "nobody"):
        with pytest.raises(StoreError):
            erasures.ask(who, "x", 5)
    assert care.person(person.person) == person
    assert erasures.list() == []
    engine.dispose()


@pytest.mark.services
async def test_access_gives_everything_in_open_formats(tmp_path: Path) -> None:
    """The zip holds who, where, consents, notes, alarms, and the ECG that wfdb reads sample by sample."""
    async with house_in(tmp_path) as house:
        person, units = await stay_of(house, NAME, 1, 5)
        path = tmp_path / "access.zip"
        Access(house.care, house.archive).pack(person, now_ms() + 60_000, path)
        with zipfile.ZipFile(path) as packed:
            packed.extractall(tmp_path / "out")
        about = json.loads((tmp_path / "out" / "person.json").read_text())
        assert about["person"]["name"] == NAME
        assert about["notes"][0]["text"].startswith(NOTE)
        assert about["consents"][0]["purpose"] == "monitoring"
        events = json.loads((tmp_path / "out" / "events.json").read_text())
        assert events["alarms"][0]["kind"] == "VTACH"
        (header,) = (tmp_path / "out" / "recordings").glob("*.hea")
        record = wfdb.rdrecord(str(header.with_suffix("")), physical=False)
        assert np.array_equal(record.d_signal[: len(units)], units)
        notes = wfdb.rdann(str(header.with_suffix("")), "atr")
        assert notes.sample.tolist() == [250 * second + 100 for second in range(SECONDS)]
        assert set(notes.symbol) == {"V"}


@pytest.mark.services
async def test_retention_reaches_recordings_events_and_trail(tmp_path: Path) -> None:
    """A year later nothing of a stay of today is left but what is kept longer."""
    async with house_in(tmp_path) as house:
        await stay_of(house, NAME, 1, 5)
        with Store(house.url) as store:
            open_alarm = recent_alarms(store)[0]
            closed = AlarmEvent(
                **{name: getattr(open_alarm, name) for name in open_alarm.__struct_fields__}
                | {"presence": "off", "revision": 1}
            )
            store.write(house.partition, [("9999999999999-0", closed)], "9999999999999-0")
            house.stores.audit.add(1, "x", "act", "s")
            counts = await retain(house.stores, now_ms() + 400 * 86_400_000)
            assert recent_alarms(store) == []
        assert counts["recordings"] == 1
        assert counts["events"] >= 2
        assert counts["audit"] == 1
        assert house.stores.audit.verify() is None
        assert not list((tmp_path / "recordings").rglob("*.dat"))
        assert len(house.care.persons()) == 1


@pytest.mark.services
async def test_entries_go_and_positions_stay(tmp_path: Path) -> None:
    """Taken entries leave the others with their positions; the newest position holds even when it goes."""
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=1) as bus:
        positions = await bus.append_in([(0, b"%d" % number) for number in range(2500)])
        assert await erase_entries(bus, 0, "in", lambda record: int(record.data) % 2 == 1) == 1250
        records = await bus.read_range(0, START, "+", count=5000)
        assert [record.position for record in records] == positions[::2]
        assert await erase_entries(bus, 0, "in", lambda record: True) == 1250
        assert await bus.read_range(0, START, "+") == []
        (after,) = await bus.append_in([(0, b"x")])
        assert after > positions[-1]
        assert await bus.read({0: positions[-1]}) == [(0, [Record(after, b"x")])]
        assert await erase_entries(bus, 0, "view", lambda record: True) == 0


@pytest.mark.services
async def test_events_go_by_their_matter_whatever_the_servers_clock_said(tmp_path: Path) -> None:
    """Ids are hours ahead of the stay, or stand; the events of the person go, those of the next one stay."""

    def beat(ms: int) -> bytes:
        return pack(BeatEvent(DEVICE, DEVICE, 1, ms, ms, "N", 0.9, "V", 0.1, 800))

    hour = 3_600_000
    ours, other = [beat(1_000), beat(2_000), pack(alarm(2, patient=DEVICE))], beat(60_000)
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=1) as bus:
        for position, event in zip(("1000-0", f"{hour}-0", f"{hour}-1", f"{hour}-2"), (*ours, other), strict=True):
            await bus._call("XADD", key(0, "events"), position, "d", event)
        await _erase_streams(bus, Span(DEVICE, 500, 3_000, 50_000))
        ((_, left),) = await bus.read_events({0: START})
    assert [record.data for record in left] == [other]


def test_nothing_is_deleted_because_a_clock_was_set_ahead() -> None:
    """Age is told by the clock that is behind, and after a leap only once there was time to set it right."""
    day_ms, hour_s = 86_400_000, 3600
    passed_s = 0.0
    retention = Retention(lambda: passed_s)
    now = 1_700_000_000_000

    def due(ahead_ms: int = 0, server_ahead_ms: int = 0) -> int | None:
        at = now + round(passed_s * 1000)
        return retention.due(at + ahead_ms, at + server_ahead_ms)

    assert due() is None, "not at the start"
    passed_s += hour_s
    assert due(0, day_ms) == now + 1000 * hour_s
    assert due() is None
    passed_s += hour_s
    assert due(0, -day_ms) == now + 2000 * hour_s - day_ms
    # A leap of the service's time, which the server's has made too.
    passed_s += 2
    assert due(40 * day_ms, 40 * day_ms) is None
    for _ in range(23):
        passed_s += hour_s
        assert due(40 * day_ms, 40 * day_ms) is None
    passed_s += hour_s
    assert due(40 * day_ms, 40 * day_ms) is not None
