"""The bus on a cluster of three real servers: the same promises as on one, also when a server dies."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster import Cluster, running_cluster
from redis.crc import key_slot

from bus.errors import BusError, FencedError, NotReplicatedError
from bus.streams import START, Bus, Checkpoint, Position, Record, key

pytestmark = pytest.mark.services
PARTITIONS = 16
DEADLINE_S = 60.0


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Give a running cluster."""
    async with running_cluster(tmp_path) as running:
        yield running


@pytest.fixture
async def bus(cluster: Cluster) -> AsyncIterator[Bus]:
    """Give a bus on it."""
    async with Bus(cluster.url, partitions=PARTITIONS, timeout_s=DEADLINE_S) as bus:
        yield bus


async def read_all(bus: Bus) -> dict[int, list[bytes]]:
    """Everything in ``in``, by partition."""
    got: dict[int, list[bytes]] = {}
    cursors: dict[int, Position] = dict.fromkeys(range(PARTITIONS), START)
    while batches := await bus.read(cursors, count=7):
        for partition, records in batches:
            got.setdefault(partition, []).extend(record.data for record in records)
            cursors[partition] = records[-1].position
    return got


async def test_order_fences_and_checkpoints_hold_over_three_servers(bus: Bus, cluster: Cluster):
    """Entries keep their order, a replaced worker is refused, outputs are stored once; no server holds it all."""
    await bus.append_in((n % PARTITIONS, n.to_bytes(2)) for n in range(160))
    got = await read_all(bus)
    assert got == {p: [n.to_bytes(2) for n in range(p, 160, PARTITIONS)] for p in range(PARTITIONS)}
    for node in cluster.primaries:
        async with node.client() as client:
            assert 0 < await client.dbsize() < PARTITIONS
    newest = await bus.last(range(PARTITIONS), "in")
    old = {p: await bus.claim(p) for p in range(PARTITIONS)}
    new = {p: await bus.claim(p) for p in range(PARTITIONS)}
    for p in range(PARTITIONS):
        with pytest.raises(FencedError):
            await bus.commit(p, old[p], [b"never"], [], None, newest[p])
        assert await bus.commit(p, new[p], [b"once"], [b"view"], b"state", newest[p])
        assert not await bus.commit(p, new[p], [b"once"], [b"view"], None, newest[p])
        assert await bus.load_checkpoint(p) == Checkpoint(b"state", newest[p], newest[p])
    events = await bus.read_events(dict.fromkeys(range(PARTITIONS), START))
    assert {p: [r.data for r in records] for p, records in events} == {p: [b"once"] for p in range(PARTITIONS)}
    assert all(item.lag_ms == 0 and item.entries == 10 for item in await bus.stats(range(PARTITIONS)))
    assert (await bus.memory())[0] > 0


async def test_a_reader_waits_for_what_comes(bus: Bus):
    """A read with a wait returns when an entry comes, and empty after its time."""
    assert await bus.read({3: START}, block_ms=50) == []

    async def wait() -> list[tuple[int, list[Record]]]:
        return await bus.read(dict.fromkeys(range(PARTITIONS), START), block_ms=round(DEADLINE_S * 1000))

    waiting = asyncio.create_task(wait())
    await bus.append_in([(3, b"x")])
    ((partition, records),) = await waiting
    assert (partition, [record.data for record in records]) == (3, [b"x"])


async def asked(cluster: Cluster) -> Counter[str]:
    """How often the primaries have been asked each command."""
    calls: Counter[str] = Counter()
    for node in cluster.primaries:
        async with node.client() as client:
            for name, about in (await client.info("commandstats")).items():
                calls[name.removeprefix("cmdstat_")] += about["calls"]
    return calls


async def test_whoever_waits_leaves_servers_and_core_alone(cluster: Cluster):
    """Readers that wait look at the streams and ask nothing else, and take a small part of a core.

    Each process of the service waits in this way: what it costs, those who work lack when they have to catch up.
    """
    async with Bus(cluster.url) as bus:
        cursors = dict.fromkeys(range(bus.partitions), START)
        await bus.read(cursors)
        before = await asked(cluster)
        began, core = time.monotonic(), time.process_time()
        assert await bus.read(cursors, block_ms=2_000) == []
        share = (time.process_time() - core) / (time.monotonic() - began)
        since = await asked(cluster) - before
    assert since["xread"] >= 2 * bus.partitions
    assert since.keys() <= {"xread", "info", "replconf", "ping", "hello", "auth", "client|setinfo", "client|setname"}
    assert share < 0.3


async def test_servers_that_change_places_are_found(bus: Bus, cluster: Cluster):
    """A replica takes over in good order: what the bus asks next is redirected, and its caller hears nothing of it."""
    await bus.append_in((p, b"before") for p in range(PARTITIONS))
    epochs = await bus.claim_all(range(PARTITIONS))
    await cluster.change_places(cluster.primaries[0])
    newest = await bus.append_in((p, b"after") for p in range(PARTITIONS))
    assert await read_all(bus) == {p: [b"before", b"after"] for p in range(PARTITIONS)}
    for p in range(PARTITIONS):
        assert await bus.commit(p, epochs[p], [b"event"], [], None, newest[p])


async def test_a_partition_on_its_way_is_found(bus: Bus, cluster: Cluster):
    """A slot moves from one server to another: what is new lies on the other one and is asked there."""
    slot = key_slot(key(0, "in").encode())
    whose = cluster.owner(slot)
    other = next(node for node in cluster.primaries if node is not whose)
    await other.ask("CLUSTER", "SETSLOT", str(slot), "IMPORTING", await whose.ask("CLUSTER", "MYID"))
    await whose.ask("CLUSTER", "SETSLOT", str(slot), "MIGRATING", await other.ask("CLUSTER", "MYID"))
    await bus.append_in([(0, b"moved"), (1, b"stays")])
    assert await read_all(bus) == {0: [b"moved"], 1: [b"stays"]}
    assert await other.ask("CLUSTER", "COUNTKEYSINSLOT", str(slot)) == "1"


async def test_a_dead_primary_costs_nothing_that_was_replicated(bus: Bus, cluster: Cluster):
    """After a primary is killed its replica serves: reads, appends, fences and scripts go on with all there was."""
    await bus.append_in((n % PARTITIONS, n.to_bytes(2)) for n in range(64))
    epochs = {p: await bus.claim(p) for p in range(PARTITIONS)}
    newest = await bus.last(range(PARTITIONS), "in")
    for p in range(PARTITIONS):
        await bus.commit(p, epochs[p], [b"a"], [], b"s", newest[p])
    # Not by WAIT alone, which is true at once on a connection that wrote nothing.
    async with Bus(cluster.url, partitions=PARTITIONS, replicas=1) as replicated:
        assert await replicated.until_replicated(range(PARTITIONS), 5000)
    await cluster.kill(cluster.primaries[0])
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                positions = await bus.append_in((n % PARTITIONS, n.to_bytes(2)) for n in range(64, 80))
                break
            except BusError:
                await asyncio.sleep(0.05)
    assert len(positions) == PARTITIONS
    got = await read_all(bus)
    assert {p: data[:4] for p, data in got.items()} == {
        p: [n.to_bytes(2) for n in range(p, 64, PARTITIONS)] for p in range(PARTITIONS)
    }
    assert all((64 + p).to_bytes(2) in got[p] for p in range(PARTITIONS))
    newest = await bus.last(range(PARTITIONS), "in")
    for p in range(PARTITIONS):
        assert await bus.commit(p, epochs[p], [b"b"], [], None, newest[p])


async def test_replicas_are_waited_for(cluster: Cluster):
    """What has been waited for survives its primary at once; without a replica the wait says so."""
    async with Bus(cluster.url, partitions=PARTITIONS, replicas=1) as bus:
        await bus.append_in((n % PARTITIONS, n.to_bytes(2)) for n in range(160))
        assert await bus.until_replicated(range(PARTITIONS), 5_000)
        await cluster.kill(cluster.primaries[0])
        async with asyncio.timeout(60):
            while True:
                try:
                    got = await read_all(bus)
                    break
                except BusError:
                    await asyncio.sleep(0.05)
        assert got == {p: [n.to_bytes(2) for n in range(p, 160, PARTITIONS)] for p in range(PARTITIONS)}
        await bus.append_in((p, b"alone") for p in range(PARTITIONS))
        assert not await bus.until_replicated(range(PARTITIONS), 5_000)
        cluster.replicas[1].process.send_signal(signal.SIGSTOP)
        with pytest.raises(NotReplicatedError):
            await bus.until_replicated(range(PARTITIONS), 50)
        cluster.replicas[1].process.send_signal(signal.SIGCONT)
