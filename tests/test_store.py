"""History in SQL: SQLite and a real PostgreSQL, written twice, interrupted, brought up to date by many at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import waiting
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from history_reading import changes_of, recent_alarms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DataError, OperationalError

from alerts.database import StoreError, open_engine, upgrade
from alerts.history import Counters, keep_history
from alerts.store import Batch, Store
from alerts.tables_all import Base
from bus.errors import BusUnavailableError
from bus.messages import AlarmEvent, BeatEvent, Event, RhythmEvent, StatusEvent, pack
from bus.streams import START, Record


def alarm(number: int = 1, revision: int = 0, presence: str = "on", patient: str = "p") -> AlarmEvent:
    """Make an alarm after some changes."""
    return AlarmEvent(
        id=f"{patient}/VTACH/{2**63 - 1}/{number}",
        patient=patient,
        device="d",
        kind="VTACH",
        priority=3,
        presence=presence,
        revision=revision,
        epoch=2**63 - 1,
        onset_sample=number,
        onset_ms=1_000 * number,
        raised_ms=1_000 * number + 500,
        changed_ms=1_000 * number + 500 + revision,
        value=152.0,
        limit=100.0,
        detail="5 ventricular beats at 152/min, limit 5 at 100/min",
        lethal=True,
        reason="raised",
        announced_ms=5,
    )


def rhythm(sample: int) -> RhythmEvent:
    """Make a change of rhythm."""
    return RhythmEvent("p", "d", 1, sample, 1_000, "AFIB", 0.9)


def status(quality: str) -> StatusEvent:
    """Make a change of state."""
    return StatusEvent("p", "d", 1_000, "MLII", ("MLII", "V1"), quality)


BEAT = BeatEvent("p", "d", 1, 100, 1_000, "N", 0.9, "V", 0.1, 800)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Open a store with its tables."""
    with Store(url) as made:
        made.upgrade()
        yield made


def test_alarm_comes_back_as_it_was_written(store: Store):
    """Every field of an event is kept, numbers of 63 bits too."""
    assert store.write(3, [("1-0", alarm())], "1-0")
    assert store.open_alarms() == [alarm()]
    assert changes_of(store, alarm().id) == [alarm()]
    assert store.cursors() == {3: "1-0"}


def test_what_was_written_before_changes_nothing(store: Store):
    """The same call again, and old revisions after new ones, leave the highest revision and one row a change."""
    first, second, last = alarm(), alarm(revision=1, presence="latched"), alarm(revision=2, presence="off")
    assert store.write(0, [("1-0", first), ("1-1", second)], "1-1")
    assert not store.write(0, [("1-0", first), ("1-1", second)], "1-1")
    assert store.write(0, [("2-0", last), ("2-1", first), ("2-2", rhythm(5)), ("2-3", rhythm(5))], "2-3")
    assert store.open_alarms() == []
    assert recent_alarms(store) == [last]
    assert [change.revision for change in changes_of(store, first.id)] == [0, 1, 2]


def test_cursor_orders_positions_as_numbers(store: Store):
    """Position 9-10 is after 9-9 and before 10-0."""
    assert store.write(0, [], "9-9")
    assert store.write(0, [], "9-10")
    assert store.write(0, [], "10-0")
    assert not store.write(0, [("9-11", alarm())], "9-11")
    assert store.cursors() == {0: "10-0"}


def test_queries_by_patient_and_time(store: Store):
    """Newest first; what still stands is listed however old it is."""
    rows = [alarm(1), alarm(2, presence="off"), alarm(3, presence="off"), alarm(4, patient="q")]
    store.write(0, [(f"1-{i}", row) for i, row in enumerate(rows)], "1-9")
    assert [a.onset_sample for a in recent_alarms(store, 2)] == [4, 3]
    assert [a.onset_sample for a in store.open_alarms()] == [1, 4]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_replay_gives_the_same_tables(tmp_path: Path, data: st.DataObject):
    """Batches cut anywhere, repeated from anywhere: alarms end as the last revision, changes are all there once."""
    events: list[Event] = []
    revisions = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=20))
    counts = [0, 0, 0]
    for number in revisions:
        events.append(alarm(number, counts[number]))
        counts[number] += 1
    records = [(f"5-{i}", event) for i, event in enumerate(events)]
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder, Store(f"sqlite:///{folder}/h.db") as store:
        store.upgrade()
        done = 0
        while done < len(records):
            start = data.draw(st.integers(0, done))
            stop = data.draw(st.integers(start + 1, len(records)))
            store.write(0, records[start:stop], records[stop - 1][0])
            done = max(done, stop) if start <= done else done
        for number, count in enumerate(counts):
            changes = changes_of(store, alarm(number).id)
            assert [change.revision for change in changes] == list(range(count))
        assert {a.id: a.revision for a in recent_alarms(store)} == {
            alarm(number).id: count - 1 for number, count in enumerate(counts) if count
        }


def test_migrations_make_what_the_models_say(url: str):
    """The schema after all migrations is that of the typed models."""
    engine = open_engine(url)
    upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_many_processes_may_migrate_at_once(url: str):
    """Four at the same moment: one does it, nobody fails."""
    problems: list[BaseException] = []
    barrier = threading.Barrier(4)

    def migrate() -> None:
        engine = open_engine(url)
        try:
            barrier.wait(10)
            upgrade(engine)
        except BaseException as error:
            problems.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    with Store(url) as store:
        assert recent_alarms(store) == []


@pytest.mark.parametrize("address", ["nonsense", "mysql://host/name", "oracle://x"])
def test_databases_that_are_not_supported(address: str):
    """One clear line that says what to write."""
    with pytest.raises(StoreError, match="sqlite:///path"):
        Store(address)


# --- historian ---------------------------------------------------------------------------------------------------


class Stream:
    """Events of the bus in memory; raises what it is told to raise."""

    def __init__(self, events: Sequence[Event | bytes], failures: int = 0) -> None:
        self.records = [Record(f"7-{i}", e if isinstance(e, bytes) else pack(e)) for i, e in enumerate(events)]
        self.failures = failures
        self.drained = asyncio.Event()

    async def read_events(
        self, cursors: Mapping[int, str], *, count: int = 500, block_ms: int = 0
    ) -> list[tuple[int, list[Record]]]:
        """Give what follows the cursor of partition 0, three at a time."""
        if self.failures:
            self.failures -= 1
            raise BusUnavailableError("the bus is away")
        position = cursors[0]
        start = 0 if position == "0-0" else int(position.split("-")[1]) + 1
        found = self.records[start : start + 3]
        if not found:
            self.drained.set()
            await asyncio.sleep(0.001)
            return []
        return [(0, found)]

    async def last(self, cursors: Sequence[int], name: str = "events") -> dict[int, str]:
        """Newest position."""
        return dict.fromkeys(cursors, self.records[-1].position if self.records else START)


class Failing(Store):
    """A store whose database is away for the first writes."""

    failures = 3

    def write_all(self, batches: Sequence[Batch]) -> int:
        """Fail as a database does that can't be reached."""
        if self.failures:
            self.failures -= 1
            raise OperationalError("INSERT", {}, Exception("server is away"))
        return super().write_all(batches)


async def keep(stream: Stream, store: Store, said: list[str] | None = None) -> Counters:
    """Run the historian until it has read everything."""
    counters, stop = Counters(), asyncio.Event()
    report = (said if said is not None else []).append
    task = asyncio.create_task(keep_history(stream, store, [0], stop, counters, wait_s=0.001, report=report))
    done = asyncio.create_task(stream.drained.wait())
    await asyncio.wait({task, done}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await asyncio.wait_for(task, 30)
    assert done.done(), "the historian did not come to the end"
    return counters


EVENTS: list[Event | bytes] = [
    alarm(1),
    BEAT,
    rhythm(1),
    status("good"),
    b"\xc1 no event",
    status("noisy"),
    alarm(1, 1),
]


async def test_historian_writes_what_it_reads(url: str):
    """Alarms, rhythms and states; beats are counted, what is no event too."""
    with Store(url) as store:
        counters = await keep(Stream(EVENTS), store)
        assert (counters.alarms, counters.rhythms, counters.statuses) == (2, 1, 2)
        assert (counters.beats, counters.unreadable, counters.refused, counters.waiting) == (1, 1, 0, 0)
        assert store.open_alarms() == [alarm(1, 1)]
        assert store.cursors() == {0: "7-6"}


async def test_historian_resumes_at_its_cursor(url: str):
    """A second one reads only what is new."""
    with Store(url) as store:
        await keep(Stream(EVENTS[:4]), store)
        counters = await keep(Stream(EVENTS), store)
        assert (counters.alarms, counters.rhythms, counters.statuses) == (1, 0, 1)


async def test_historian_survives_a_dead_database_and_a_dead_bus(tmp_path: Path):
    """It waits, says so once a side, says when it works again, and loses nothing."""
    said: list[str] = []
    with Failing(f"sqlite:///{tmp_path}/h.db") as store:
        counters = await keep(Stream(EVENTS, failures=2), store, said)
        assert (counters.bus_failures, counters.database_failures) == (2, 3)
        assert store.open_alarms() == [alarm(1, 1)]
    assert [line.split(":")[0] for line in said] == [
        "events can't be read",
        "bus works again",
        "history can't be written",
        "history works again",
    ]


async def test_historian_stops_while_the_database_is_dead(tmp_path: Path):
    """What it could not write stays behind the cursor, counted as waiting."""
    stream, stop, counters = Stream(EVENTS), asyncio.Event(), Counters()
    with Failing(f"sqlite:///{tmp_path}/h.db") as store:
        store.failures = 10**9
        task = asyncio.create_task(
            keep_history(stream, store, [0], stop, counters, wait_s=30, report=lambda line: stop.set())
        )
        await asyncio.wait_for(task, 30)
        assert (counters.waiting, counters.database_failures, store.cursors()) == (3, 1, {})


class Leaping(Stream):
    """A stream of a server whose clock was set an hour ahead after the first look."""

    looks = 0

    async def last(self, cursors: Sequence[int], name: str = "events") -> dict[int, str]:
        """Newest position."""
        self.looks += 1
        return await super().last(cursors) if self.looks == 1 else dict.fromkeys(cursors, "3600007-0")


async def test_the_history_is_behind_by_the_time_that_passes(tmp_path: Path):
    """Nobody is told of an hour because the server's clock was set."""
    stream, stop, counters = Leaping(EVENTS), asyncio.Event(), Counters()
    with Failing(f"sqlite:///{tmp_path}/h.db") as store:
        store.failures = 10**9
        task = asyncio.create_task(keep_history(stream, store, [0], stop, counters, wait_s=0.02))
        began = time.monotonic()
        await waiting.until(lambda: counters.behind_ms >= 200, 30)
        assert counters.behind_ms <= 1000 * (time.monotonic() - began)
        assert stream.looks > 2
        store.failures = 0
        await waiting.until(stream.drained.is_set, 60)
        assert counters.behind_ms == 0
        stop.set()
        await asyncio.wait_for(task, 30)


async def test_an_event_that_the_database_refuses_does_not_hold_up_the_others(url: str):
    """A number that no column holds is counted and left out; what came with it is written."""
    huge = RhythmEvent("p", "d", 1, 2**64 - 1, 1_000, "N", 0.9)
    with Store(url) as store:
        counters = await keep(Stream([alarm(1), huge, alarm(2)]), store)
        assert (counters.refused, counters.alarms) == (1, 2)
        assert len(store.open_alarms()) == 2
        assert store.cursors() == {0: "7-2"}


def test_upgrade_leaves_no_output(tmp_path: Path):
    """Migrating says nothing on the terminal and leaves logging as it was."""
    code = f"from alerts.store import Batch, Store\nwith Store('sqlite:///{tmp_path}/h.db') as s: s.upgrade()"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_what_is_not_written_is_held_on_the_bus(tmp_path: Path):
    """From the start on the bus knows how far the history is, never further than what is written; losses are told."""
    told: list[dict[int, str]] = []
    said: list[str] = []
    counters, stop, stream = Counters(), asyncio.Event(), Stream([alarm(1), alarm(2)])

    async def hold(at: Mapping[int, str]) -> int:
        told.append(dict(at))
        assert all(at[partition] == position for partition, position in store.cursors().items())
        if len(told) > 2:
            stop.set()
        return 1 if len(told) == 1 else 0

    with Store(f"sqlite:///{tmp_path}/h.db") as store:
        await asyncio.wait_for(
            keep_history(stream, store, [0], stop, counters, report=said.append, hold=hold, hold_s=0.0), 30
        )
        assert told[0] == {0: START}
        assert told[-1] == store.cursors()
    assert counters.lost == 1
    assert said == ["events were dropped by the bus before they were written"]


async def test_partitions_are_written_in_one_go_and_beats_alone_in_none(tmp_path: Path):
    """One transaction holds what several partitions gave; positions behind beats go with the next one."""
    goes: list[list[tuple[int, int, str]]] = []

    class Noting(Store):
        def write_all(self, batches: Sequence[Batch]) -> int:
            goes.append(sorted((batch.partition, len(batch.records), batch.position) for batch in batches))
            return super().write_all(batches)

    counters, stop = Counters(), asyncio.Event()
    rounds = [
        [(0, [Record("1-0", pack(alarm(1)))]), (1, [Record("1-0", pack(rhythm(1))), Record("1-1", pack(BEAT))])],
        [(0, [Record("2-0", pack(BEAT))]), (2, [Record("2-0", pack(BEAT))])],
        [(2, [Record("3-0", pack(status("good")))])],
    ]

    class Rounds(Stream):
        async def read_events(
            self, cursors: Mapping[int, str], *, count: int = 500, block_ms: int = 0
        ) -> list[tuple[int, list[Record]]]:
            if rounds:
                return rounds.pop(0)
            stop.set()
            return []

    with Noting(f"sqlite:///{tmp_path}/h.db") as store:
        await asyncio.wait_for(keep_history(Rounds([]), store, [0, 1, 2], stop, counters), 30)
        assert goes == [[(0, 1, "1-0"), (1, 1, "1-1")], [(0, 0, "2-0"), (2, 1, "3-0")]]
        assert store.cursors() == {0: "2-0", 1: "1-1", 2: "3-0"}
    assert (counters.alarms, counters.rhythms, counters.statuses, counters.beats) == (1, 1, 1, 3)


async def test_a_stop_among_refused_events_passes_over_none(tmp_path: Path):
    """Events of a batch are written one by one; where one can't be before the stop, none after it is."""
    counters, stop = Counters(), asyncio.Event()

    class Refusing(Store):
        def write_all(self, batches: Sequence[Batch]) -> int:
            if len(batches[0].records) > 1:
                raise DataError("insert", {}, Exception("out of range"))
            if not stop.is_set():
                raise OperationalError("insert", {}, Exception("away"))
            return super().write_all(batches)

    with Refusing(f"sqlite:///{tmp_path}/h.db") as store:
        await asyncio.wait_for(
            keep_history(
                Stream([alarm(1), alarm(2)]), store, [0], stop, counters, wait_s=30, report=lambda line: stop.set()
            ),
            30,
        )
        assert store.cursors() == {}
