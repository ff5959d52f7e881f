"""Backups: a station that runs is copied and goes on elsewhere; what is damaged or in the way is refused."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import msgspec
import numpy as np
import pytest
import wfdb
from history_reading import recent_alarms
from sqlalchemy import create_engine, insert, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from alerts.archive import Archive
from alerts.archive_files import MISSING
from alerts.archive_index import SEGMENTS
from alerts.audit import Audit
from alerts.care import Care, new_person
from alerts.care_erasure import Erasures
from alerts.database import open_engine, upgrade
from alerts.store import Store
from bus.child import free_port
from bus.messages import AlarmEvent, Entry, Inbound, pack_inbound, partition_of
from bus.server import embedded
from bus.streams import Bus, key, order
from ingest.codecs import encode_frame
from ingest.simulator import SimulatedSource
from rhythmwatch.backup import Places, back_up
from rhythmwatch.backup_bus import hold_entries, is_empty, load_bus, save_bus
from rhythmwatch.backup_database import find_program, look
from rhythmwatch.backup_parts import MANIFEST, BackupError, Writer, put_file
from rhythmwatch.backup_restore import Restored, restore
from rhythmwatch.demo_people import admit_played
from rhythmwatch.supervisor import Part, Supervisor

DEADLINE_S = 120.0
SCRIPT = "sinus:12,hr=75; vt:15; sinus:900,hr=75"
PATIENT = "sim-1"
LIMIT = 131.0
PASSWORD = "a long enough password"


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RHYTHMWATCH_")}
    return subprocess.run(
        [sys.executable, "-m", "rhythmwatch", *map(str, arguments)],
        env={**environment, "COLUMNS": "300"}, capture_output=True, text=True, check=False, timeout=DEADLINE_S,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def living(state: Path, *names: str, first: str = PASSWORD) -> AsyncIterator[tuple[Bus, httpx2.AsyncClient]]:
    """Run a bus, the pages and other processes of a station, and log in; `first` makes an account where none is."""
    port, stop = free_port(), asyncio.Event()
    async with embedded(state / "bus") as url, Bus(url) as bus:
        shared = {
            "RHYTHMWATCH_SUPERVISED": "1", "RHYTHMWATCH_BUS": url, "RHYTHMWATCH_METRICS": "",
            "RHYTHMWATCH_HISTORY": f"sqlite:///{state}/history.db", "RHYTHMWATCH_RECORDINGS": f"{state}/recordings",
            "RHYTHMWATCH_ADMIN_PASSWORD": first,
        }  # fmt: skip
        parts = [Part(name, (name,), shared) for name in names]
        parts.append(Part("web", ("web", "--port", str(port)), shared))
        running = asyncio.create_task(Supervisor(parts, stall_s=DEADLINE_S).run(stop))
        address = f"http://127.0.0.1:{port}"
        try:
            async with httpx2.AsyncClient(base_url=address, headers={"Origin": address}, timeout=30.0) as client:

                async def entered() -> bool:
                    form = {"user": "station", "password": PASSWORD}
                    with contextlib.suppress(httpx2.TransportError):
                        return (await client.post("/login", data=form)).status_code == 303
                    return False

                await until(entered, "a log-in")
                client.headers["X-CSRF-Token"] = (await client.get("/api/session")).json()["csrf"]
                yield bus, client
        finally:
            stop.set()
            await running


async def send(bus: Bus, begun: asyncio.Event) -> None:
    """Put a patient's frames on the bus: those of the script's first rhythms at once, then on and on."""
    start_ms = int(time.time() * 1000) - 40_000
    partition = partition_of(PATIENT, bus.partitions)
    for frame in SimulatedSource(PATIENT, SCRIPT, 1).frames(start_ms, start_ms):
        at = start_ms + round(1000 * (frame.sample + len(frame.samples)) / frame.rate)
        entry = pack_inbound(Inbound(Entry.FRAME, at, PATIENT, encode_frame(frame)))
        await bus.append_in([(partition, entry)])
        if at > start_ms + 40_000:
            begun.set()
            await asyncio.sleep(0.05)


async def tachy(client: httpx2.AsyncClient) -> float:
    """Ask for the limit of a patient's heart rate that is in force; 0 while the pages do not know the patient."""
    answer = await client.get(f"/api/patients/{PATIENT}/limits")
    return float(answer.json()["values"]["tachy"]) if answer.status_code == 200 else 0.0


async def until(condition: object, what: str) -> None:
    """Wait until a coroutine function gives true."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():  # type: ignore[operator]
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"{what}: not in {DEADLINE_S:g} s")


@pytest.fixture
def two_databases(postgres: str) -> Iterator[tuple[str, str]]:
    """Make two empty databases of PostgreSQL; gives their addresses."""
    address = make_url(postgres)
    engine = create_engine(address.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    names = ("first", "second")
    with engine.connect() as connection:
        for name in names:
            connection.execute(text(f"CREATE DATABASE {name}"))
    first, second = (address.set(database=name).render_as_string(hide_password=False) for name in names)
    yield first, second
    with engine.connect() as connection:
        for name in names:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.mark.services
@pytest.mark.timeout(600)
async def test_a_station_goes_on_elsewhere(tmp_path: Path):
    """Copied while it records and alarms; restored, it has the alarms, the trail, the ECG, the limits, the log-in."""
    here, there = tmp_path / "here", tmp_path / "there"
    url, other_url = f"sqlite:///{here}/history.db", f"sqlite:///{there}/history.db"
    place = ("--certificates", tmp_path / "none")
    put_file(here / "password", io.BytesIO(PASSWORD.encode()))
    await asyncio.to_thread(admit_played, url, [PATIENT])
    async with living(here, "worker", "recorder", "historian") as (bus, client):
        begun = asyncio.Event()
        sending = asyncio.create_task(send(bus, begun))

        async def known() -> bool:
            return await tachy(client) > 0

        async def limited() -> bool:
            return await tachy(client) == LIMIT

        async def recorded() -> bool:
            return bool((await asyncio.to_thread(look, url)).segments) and bool(await asyncio.to_thread(alarms_in, url))

        await begun.wait()
        await until(known, "a patient on the pages")
        answer = await client.put(f"/api/patients/{PATIENT}/limits", json={"values": {"tachy": LIMIT}})
        assert answer.status_code == 202
        await until(limited, "a limit")
        await until(recorded, "a recording and an alarm")
        before, head = await asyncio.to_thread(alarms_in, url), (await asyncio.to_thread(look, url)).audit
        made = await asyncio.to_thread(command, "backup", tmp_path / "copy.tar", "--state", here, *place)
        assert made.returncode == 0, made.stderr
        partition = partition_of(PATIENT, bus.partitions)
        assert b"in/backup" not in await bus._redis.hkeys(key(partition, "held"))
        assert not sending.done()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert stat.S_IMODE((tmp_path / "copy.tar").stat().st_mode) == 0o600
    back = await asyncio.to_thread(command, "restore", tmp_path / "copy.tar", "--state", there, *place)
    assert back.returncode == 0, back.stderr
    engine = open_engine(other_url)
    trail = {row.seq: (row.act, row.hash) for row in Audit(engine).rows(limit=1000)}
    assert Audit(engine).verify() is None
    engine.dispose()
    assert trail[head[0]][1] == head[1]
    assert trail[max(trail)][0] == "backup.restored"
    after = await asyncio.to_thread(alarms_in, other_url)
    assert {alarm.id for alarm in before} <= {alarm.id for alarm in after}
    with Archive(other_url, there / "recordings") as restored:
        (segment, *_) = restored.segments(PATIENT)
        strip = restored.read(PATIENT, segment.from_ms, segment.to_ms)
    # What came before the patient was admitted is not recorded.
    assert (strip.units != MISSING).all(axis=1).sum() >= segment.fs
    assert np.ptp(strip.mv[~np.isnan(strip.mv)]) > 0.5
    assert wfdb.rdrecord(str(there / "recordings" / segment.path)).p_signal.shape[1] == len(segment.leads)
    async with living(there, "worker", "recorder", first="never used there") as (_, client):

        async def kept() -> bool:
            return await tachy(client) == LIMIT

        await until(kept, "the limit that staff had set")
        listed = (await client.get("/api/alarms", params={"limit": 100})).json()
        assert {alarm.id for alarm in before} <= {item["alarm"]["id"] for item in listed}
        await until(lambda: asyncio.to_thread((there / "recordings" / "recorder-0.lock").exists), "a recorder")
        full = await asyncio.to_thread(command, "restore", tmp_path / "copy.tar", "--state", there, *place, "--force")
        assert full.returncode == 2
        assert "stop the service first" in full.stderr


def alarms_in(url: str) -> list[AlarmEvent]:
    """Alarms of a history; none before it has tables."""
    with contextlib.suppress(SQLAlchemyError), Store(url) as store:
        return recent_alarms(store)
    return []


class Copied:
    """A backup of a small station without a bus: one admitted person and a recording of a few bytes.

    Parameters
    ----------
    folder : Path
    urls : (str, str)
        Addresses of the database and of the one to restore to; empty for SQLite.
    """

    def __init__(self, folder: Path, urls: tuple[str, str] = ("", "")) -> None:
        self.folder, self.state = folder, folder / "state"
        self.url = urls[0] or f"sqlite:///{self.state / 'history.db'}"
        self.engine = open_engine(self.url)
        upgrade(self.engine)
        self.care = Care(self.engine)
        self.person = new_person("Änne", 1)
        self.care.admit(self.person, "dev-1", "1", "A", "adult", "her", 1_000)
        Audit(self.engine).add(1_000, "her", "person.admit", self.person.person)
        with self.engine.begin() as connection:
            row = dict.fromkeys(SEGMENTS.c.keys(), 1) | {
                "path": "dev-1/1/000000",
                "patient": "dev-1",
                "device": "dev-1",
            }
            connection.execute(insert(SEGMENTS), row | {"leads": "[]", "anchors": "[[0, 0]]"})
        put_file(self.state / "recordings" / "dev-1" / "1" / "000000.dat", io.BytesIO(b"samples"))
        put_file(self.state / "recordings" / "dev-1" / "1" / "000001.dat", io.BytesIO(b"not in the index"))
        put_file(self.state / "password", io.BytesIO(b"a long enough password"))
        put_file(folder / "certs" / "ca.key", io.BytesIO(b"a key"))
        self.places = self.at(self.state, folder / "certs", urls[0])
        self.file, self.manifest = back_up(self.places, folder / "copy.tar", quiet)
        self.new = self.at(folder / "new", folder / "new-certs", urls[1])

    def at(self, state: Path, certificates: Path, history: str = "") -> Places:
        """Places of a station whose state lies there."""
        return Places.of(state, history, "", None, certificates)

    def restore(self, *, force: bool = False, erasures: Path | None = None) -> Restored:
        """Restore to the new place."""
        return restore(self.file, self.new, quiet, force=force, erasures=erasures)

    def persons(self) -> list[str]:
        """Persons in the database of the new place."""
        engine = open_engine(self.new.history)
        try:
            return [found.person for found in Care(engine).persons()]
        finally:
            engine.dispose()


def quiet(what: str, done: int, total: int) -> None:
    """Tell nobody."""


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Copied]:
    """Back a small station up."""
    made = Copied(tmp_path)
    yield made
    made.engine.dispose()


def test_all_comes_back_for_its_owner_alone(copied: Copied):
    """Password, keys and recordings that the index knows, each readable for its owner alone."""
    done = copied.restore()
    assert done.erasures == 0
    state = copied.new.state
    assert (state / "password").read_bytes() == b"a long enough password"
    assert (copied.new.certificates / "ca.key").read_bytes() == b"a key"
    assert (state / "recordings" / "dev-1" / "1" / "000000.dat").read_bytes() == b"samples"
    assert not (state / "recordings" / "dev-1" / "1" / "000001.dat").exists()
    assert copied.persons() == [copied.person.person]
    files = [path for path in (state, copied.new.certificates) for path in path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert sorted(path.name for path in state.iterdir()) == ["history.db", "password", "recordings"]


@pytest.mark.parametrize("part", ["database", "recordings/dev-1/1/000000.dat", "certificates/ca.key", MANIFEST])
def test_a_part_that_was_changed_is_refused(copied: Copied, part: str):
    """One changed byte of any part is found before anything is written."""
    with tarfile.open(copied.file) as tar:
        at = tar.getmember(part).offset_data
    data = bytearray(copied.file.read_bytes())
    data[at] ^= 1
    copied.file.write_bytes(data)
    with pytest.raises(BackupError, match="damaged"):
        copied.restore()
    assert not copied.new.state.exists()


def test_a_part_that_was_added_is_refused(copied: Copied):
    """A part that the manifest does not name, and a name that leads out of the folder."""
    for name, why in (("recordings/more.dat", "not as its manifest says"), ("../out", "no backup")):
        changed = copied.file.read_bytes()
        with tarfile.open(copied.file, "a") as tar:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
        with pytest.raises(BackupError, match=why):
            copied.restore()
        copied.file.write_bytes(changed)
    assert not copied.new.state.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_that_was_cut_short_is_refused(copied: Copied, share: float):
    """Whatever is missing at the end, nothing is restored of it."""
    data = copied.file.read_bytes()
    copied.file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BackupError, match="no backup"):
        copied.restore()
    assert not copied.new.state.exists()


@pytest.mark.parametrize("change", [{"format": 99}, {"schema": "9999"}, {"database": "postgresql"}])
def test_another_format_schema_or_database_is_refused(copied: Copied, change: dict[str, object]):
    """Each is named in one line."""
    with tarfile.open(copied.file) as tar:
        manifest = tar.getmember(MANIFEST)
        content = json.loads(tar.extractfile(manifest).read())
    data = json.dumps(content | change).encode()
    with copied.file.open("r+b") as file:
        file.truncate(manifest.offset)
        file.seek(0, io.SEEK_END)
        file.write(bytes(2 * tarfile.BLOCKSIZE))
    with tarfile.open(copied.file, "a") as tar:
        info = tarfile.TarInfo(MANIFEST)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    with pytest.raises(BackupError, match=r"format 99|version 0|of postgresql") as error:
        copied.restore()
    assert "\n" not in str(error.value)
    assert not copied.new.state.exists()


def test_what_is_there_is_kept_unless_forced(copied: Copied):
    """A place in use is refused, and with force holds only what the backup holds."""
    copied.restore()
    stray = copied.new.recordings / "dev-2" / "1" / "000000.dat"
    put_file(stray, io.BytesIO(b"of another"))
    with pytest.raises(BackupError, match="not empty"):
        copied.restore()
    assert stray.exists()
    copied.restore(force=True)
    assert not stray.exists()
    assert copied.persons() == [copied.person.person]


def test_persons_erased_since_are_erased_again(copied: Copied):
    """By the database that is replaced, and by a list; the keeper finds the erasure to do."""
    copied.restore()
    engine = open_engine(copied.new.history)
    Care(engine).discharge("dev-1", "her", 2_000)
    Erasures(engine).ask(copied.person.person, "her", 3_000)
    asked = [{"person": item.person, "asked_ms": item.asked_ms, "left": ""} for item in Erasures(engine).list()]
    engine.dispose()
    assert copied.restore(force=True).erasures == 1
    assert copied.persons() == []
    listed = copied.folder / "erasures.json"
    listed.write_text(json.dumps(asked), encoding="utf-8")
    copied.new = copied.at(copied.folder / "third", copied.folder / "third-certs")
    assert copied.restore(erasures=listed).erasures == 1
    assert copied.persons() == []
    engine = open_engine(copied.new.history)
    (pending,) = Erasures(engine).list(pending=True)
    engine.dispose()
    assert [span.patient for span in pending.spans] == ["dev-1"]
    assert pending.spans[0].from_ms == 1_000


@pytest.mark.postgres
def test_postgres_comes_back(two_databases: tuple[str, str], tmp_path: Path):
    """By its own programs, to another database: persons, trail and the numbers that come next; not onto another."""
    copied = Copied(tmp_path, two_databases)
    assert copied.manifest.database == "postgresql"
    copied.restore()
    assert copied.persons() == [copied.person.person]
    with pytest.raises(BackupError, match="the database is not empty"):
        copied.restore()
    engine = open_engine(two_databases[1])
    assert Audit(engine).verify() is None
    assert [row.act for row in Audit(engine).rows()] == ["backup.restored", "person.admit"]
    # Rows get new numbers, not those that were given.
    Care(engine).discharge("dev-1", "her", 2_000)
    assert Care(engine).admit(new_person("Bo", 2), "dev-1", "1", "A", "adult", "her", 3_000).patient == "dev-1"
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM audit"))
    engine.dispose()
    copied.restore(force=True)
    assert copied.persons() == [copied.person.person]
    copied.engine.dispose()


@pytest.mark.services
async def test_partitions_of_the_bus_come_back_whole(tmp_path: Path):
    """Streams with their positions, checkpoint, epoch and holds, each partition at one moment; our own hold ends."""
    folder = tmp_path / "parts"
    folder.mkdir()
    async with embedded(tmp_path / "one") as url, Bus(url) as bus:
        epoch = await bus.claim(7)
        first, second = await bus.append_in([(7, b"one"), (7, b"two")])
        await bus.commit(7, epoch, [b"event"], [b"view"], b"state", first)
        await bus.hold("recorder", {7: {"in": first, "events": "0-0"}})
        await hold_entries(url)
        assert await bus._redis.hget("rw:{7}:held", "in/backup") == first.encode()
        await bus.hold("recorder", {7: {"in": second, "events": "0-0"}})
        assert (await bus.held(7))["in"] == first
        assert await save_bus(url, folder, quiet) == bus.partitions
        assert (await bus.held(7))["in"] == second
    async with embedded(tmp_path / "two") as url, Bus(url) as bus:
        assert await is_empty(url)
        await bus.append_in([(7, b"other"), (8, b"other")])
        await load_bus(url, folder, quiet)
        assert not await is_empty(url)
        assert [record.data for record in await bus.read_range(7, "0-0", "+")] == [b"one", b"two"]
        assert await bus.read_range(8, "0-0", "+") == []
        checkpoint = await bus.load_checkpoint(7)
        assert (checkpoint.state, checkpoint.position) == (b"state", first)
        assert (await bus.held(7))["in"] == second
        assert await bus.claim(7) == epoch + 1
        (later,) = await bus.append_in([(7, b"three")])
        assert order(later) > order(second)
        assert next(records for _, records in await bus.read_events({7: "0-0"}))[0].data == b"event"
    (folder / "007").write_bytes(msgspec.msgpack.encode({"in": b"no dump"}))
    async with embedded(tmp_path / "three") as url:
        with pytest.raises(BackupError, match="older than the one"):
            await load_bus(url, folder, quiet)


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path):
    """A backup with a hole is not made."""
    writer = Writer(tmp_path / "copy.tar", quiet)
    with pytest.raises(BackupError, match="short became shorter"):
        writer._put("short", io.BytesIO(b"ab"), 3)
    writer.drop()
    assert list(tmp_path.iterdir()) == []


def test_errors_are_one_line(copied: Copied):
    """A file in the way, a folder that is none, a database that is none."""
    place = ("--state", copied.state, "--certificates", copied.folder / "certs")
    for arguments, why in (
        (("backup", copied.file, *place), "exists"),
        (("backup", copied.folder / "no" / "copy.tar", *place), "No such file"),
        (("backup", copied.folder / "b.tar", "--state", copied.folder / "none"), "no tables"),
        (("restore", copied.folder / "none.tar", *place), "No such file"),
        (("restore", copied.state / "history.db", *place), "no backup"),
    ):
        done = command(*arguments)
        assert done.returncode == 2
        assert why in done.stderr
        assert "Traceback" not in done.stderr
    assert not list(copied.folder.glob("*.partial"))
    assert not list(copied.folder.glob(".rw-*"))


def test_postgres_needs_its_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Where they are missing, the message says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("rhythmwatch.backup_database.DEBIAN", tmp_path)
    with pytest.raises(BackupError, match="install PostgreSQL's client"):
        find_program("pg_dump")


def test_a_database_is_copied_at_one_moment_while_it_is_written(copied: Copied):
    """Rows go in all the while; the copy's trail is whole and ends behind the row that the manifest names."""
    stop, written = threading.Event(), threading.Event()
    audit = Audit(copied.engine)

    def write() -> None:
        while not stop.is_set():
            audit.add(1, "her", "page.open", "x" * 500)
            written.set()

    for _ in range(300):
        audit.add(1, "her", "page.open", "y" * 500)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert written.wait(DEADLINE_S)
        seen: list[int] = []
        copied.file, manifest = back_up(
            copied.places, copied.folder / "second.tar", lambda what, done, total: seen.append(done)
        )
    finally:
        stop.set()
        writer.join()
    assert seen
    copied.restore()
    engine = open_engine(copied.new.history)
    assert Audit(engine).verify() is None
    assert Audit(engine).head()[0] > manifest.audit_seq
    engine.dispose()
