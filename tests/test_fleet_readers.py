"""Readers of a fleet on several real Ray nodes: a node dies, ranges move, and all is kept and told once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stories
from receivers import web_server
from sqlalchemy import Engine, select
from test_fleet import Node, drained, nodes, until  # noqa: F401 - a fixture
from test_readers import events_of, everything

from alerts.archive import Archive
from alerts.archive_index import MINUTES, Index
from alerts.contacts import Contact, Contacts
from alerts.database import open_engine
from alerts.deliveries import Deliveries
from alerts.evidence import EvidenceStore
from alerts.model import Kind
from alerts.notify import messages_for
from alerts.store import Batch, Store
from bus.clock import now_ms
from bus.messages import AlarmEvent, BeatEvent, Entry, Event, Inbound, pack_inbound, partition_of
from bus.server import embedded
from bus.streams import Bus, Record
from rhythmwatch import fleet
from rhythmwatch.fleet_plan import Plan
from rhythmwatch.ranges import READERS
from rhythmwatch.record import Recording

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(900)]
PATIENTS = [f"bed-{number}" for number in range(8)]
SECONDS = 35
DEADLINE_S = 180.0
Published = list[tuple[int, list[tuple[str, Event]]]]


async def holds(condition: Callable[[], Any]) -> None:
    """Wait until something holds that a database is asked for."""
    async with asyncio.timeout(DEADLINE_S):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.2)


class Ward:
    """Patients whose frames arrive as if they had been taken from `base_ms` on."""

    def __init__(self, bus: Bus, base_ms: int) -> None:
        self.base_ms, self.end_ms = base_ms, base_ms + SECONDS * 1000
        self.sent: list[Inbound] = []
        self._bus = bus
        self._frames = [
            stories.frames(stories.recording(stories.VT_STORY, SECONDS, seed), name)
            for seed, name in enumerate(PATIENTS)
        ]

    async def come(self, first: int, last: int) -> None:
        """Let some seconds of all patients come."""
        entries = [
            stories.frame_entry(frames[second], self.base_ms + (second + 1) * 1000)
            for second in range(first, last)
            for frames in self._frames
        ]
        self.sent += entries
        await self._bus.append_in((partition_of(entry.patient), pack_inbound(entry)) for entry in entries)

    async def pass_time(self) -> None:
        """Put an entry behind all events: these are recorded once the entries of their time are."""
        tick = pack_inbound(Inbound(Entry.TICK, self.end_ms, "", b""))
        await self._bus.append_in((partition_of(name), tick) for name in PATIENTS)


def recorded(history: str, folder: Path, ward: Ward) -> list[Any]:
    """Signal and beats of every patient, and the sums of all minutes."""
    with Archive(history, folder) as archive:
        signals = [archive.read(name, ward.base_ms, ward.end_ms).units.tolist() for name in PATIENTS]
        beats = [archive.beats(name, ward.base_ms, ward.end_ms).tobytes() for name in PATIENTS]
    engine = open_engine(history)
    with engine.connect() as connection:
        minutes = sorted(tuple(row) for row in connection.execute(select(MINUTES)))
    engine.dispose()
    return [signals, beats, minutes]


def recorded_alone(folder: Path, ward: Ward, events: Published) -> list[Any]:
    """Record the same with one recorder that nothing happens to."""
    history = f"sqlite:///{folder}/alone.db"
    with Index(history) as index:
        index.upgrade()
        recording = Recording(folder / "alone", index, range(64))
        for number, entry in enumerate(ward.sent, 1):
            recording.take_entries(partition_of(entry.patient), [Record(f"{number}-0", pack_inbound(entry))])
        for partition, found in events:
            recording.take_events(partition, [Record(position, stories.pack(event)) for position, event in found])
        recording.flush()
        recording.close()
    return recorded(history, folder / "alone", ward)


def stored_alone(folder: Path, events: Published) -> list[Any]:
    """Rows of a history that one historian wrote that nothing happens to."""
    with Store(f"sqlite:///{folder}/rows.db") as store:
        store.upgrade()
        for partition, found in events:
            store.write_all([Batch(partition, found, found[-1][0])])
        return everything(store)


def alarms_of(events: Published) -> list[AlarmEvent]:
    """Every change of every alarm."""
    return [event for _, found in events for _, event in found if isinstance(event, AlarmEvent)]


def wanted_messages(events: Published, engine: Engine) -> set[str]:
    """Keys of all messages that there are about these events."""
    contacts, now = Contacts(engine).all(), now_ms()
    return {message.id for alarm in alarms_of(events) for message in messages_for(alarm, contacts, now)}


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """Open the history database."""
    made = open_engine(url)
    yield made
    made.dispose()


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
async def test_a_node_with_readers_dies_and_ranges_move(
    nodes: list[Node],  # noqa: F811
    url: str,
    engine: Engine,
    tmp_path: Path,
) -> None:
    """Two of each, the node of a historian killed as events come, then one of each beside another number of workers.

    History, recordings and evidence are those of processes that nothing happened to, and each message came once.
    """
    taken = Counter[str]()

    async def answer(headers: dict[str, str], body: bytes) -> int:
        taken[json.loads(body)["key"]] += 1
        return 204

    folder = tmp_path / "recordings"
    folder.mkdir()
    async with web_server(answer) as pager, embedded(tmp_path / "bus") as address, Bus(address) as bus:
        with Store(url) as store:
            store.upgrade()
            Contacts(engine).replace([Contact("pager", "webhook", pager)])
            outbox = Deliveries(engine)
            plan = Plan(address, cpus=0.4, history=url, readers=2, recordings=str(folder), consented=False)
            await asyncio.to_thread(fleet.up, plan)
            members = await until(lambda found: {member.state for member in found} == {"running"})
            each = {f"{kind}-{mine}" for kind in READERS for mine in ("0-31", "32-63")}
            assert {member.name for member in members} == each | {"worker-0-63", "spare-1"}
            ward = Ward(bus, now_ms())
            await ward.come(0, 18)
            await drained(bus)
            # What is under way when its notifier dies may come twice.
            await holds(lambda: outbox.recent() and not outbox.waiting_contacts())
            pids = {member.pid for member in members if member.name == "historian-0-31"}
            victim = next(node for node in nodes[1:] if pids & node.pids())
            await ward.come(18, 27)
            victim.kill()
            await ward.come(27, 30)
            await drained(bus)
            await until(lambda found: {member.state for member in found} == {"running"} and found != members)
            await asyncio.to_thread(fleet.scale, 2, readers=1)
            members = await until(lambda found: len(found) == 7)
            both = {"worker-0-31", "worker-32-63", "spare-1"}
            assert {member.name for member in members} == both | {f"{kind}-0-63" for kind in READERS}
            await ward.come(30, SECONDS)
            await drained(bus)
            await ward.pass_time()
            await drained(bus)
            events = await events_of(bus)
            rows = await asyncio.to_thread(stored_alone, tmp_path, events)
            await holds(lambda: everything(store) == rows)
            beats = Counter(event.patient for _, found in events for _, event in found if isinstance(event, BeatEvent))
            with Archive(url, folder) as archive:
                await holds(lambda: all(not archive.read(n, ward.base_ms, ward.end_ms).gaps for n in PATIENTS))
                await holds(lambda: all(len(archive.beats(n, ward.base_ms, ward.end_ms)) == beats[n] for n in PATIENTS))
            evidence = EvidenceStore(engine)
            judged = {alarm.id for alarm in alarms_of(events) if alarm.kind == Kind.VTACH}
            assert len(judged) >= len(PATIENTS)
            await holds(lambda: all(evidence.load(alarm) for alarm in judged))
            await holds(lambda: not outbox.waiting_contacts())
            await asyncio.to_thread(fleet.down)
            await until(lambda found: found == [])
            # What they had in hand when they ended was the same.
            assert everything(store) == rows
    assert taken == Counter(wanted_messages(events, engine))
    assert taken
    assert recorded(url, folder, ward) == await asyncio.to_thread(recorded_alone, tmp_path, ward, events)
