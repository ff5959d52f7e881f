"""Backups of a station that runs: it is copied and goes on elsewhere, with its bus."""

from __future__ import annotations

import asyncio
import contextlib
import io
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import msgspec
import numpy as np
import pytest
import wfdb
from backup_places import DEADLINE_S, PASSWORD, command, quiet
from history_reading import recent_alarms
from sqlalchemy.exc import SQLAlchemyError

from alerts.archive import Archive
from alerts.archive_files import MISSING
from alerts.audit import Audit
from alerts.database import open_engine
from alerts.store import Store
from bus.child import free_port
from bus.messages import AlarmEvent, Entry, Inbound, pack_inbound, partition_of
from bus.server import embedded
from bus.streams import Bus, key, order
from ingest.codecs import encode_frame
from ingest.simulator import SimulatedSource
from rhythmwatch.backup_bus import hold_entries, is_empty, load_bus, save_bus
from rhythmwatch.backup_database import look
from rhythmwatch.backup_parts import BackupError, put_file
from rhythmwatch.demo_people import admit_played
from rhythmwatch.supervisor import Part, Supervisor

SCRIPT = "sinus:12,hr=75; vt:15; sinus:900,hr=75"
PATIENT = "sim-1"
LIMIT = 131.0


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
