"""A lease has one holder, ends by the server's clock, and fences the one before; what is numbered is stored once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster import running_cluster

from bus.errors import BusError
from bus.lease import Lease, LeaseLostError
from bus.numbered import MARKS, Kept, Numbered, NumberedStore
from bus.server import embedded
from bus.streams import START, Bus

PARTITIONS = 16
DEADLINE_S = 20.0


@contextlib.asynccontextmanager
async def a_bus(kind: str, folder: Path) -> AsyncIterator[Bus]:
    """Run one server or a cluster, and give a bus on it."""
    async with contextlib.AsyncExitStack() as stack:
        if kind == "cluster":
            url = (await stack.enter_async_context(running_cluster(folder))).url
        else:
            url = await stack.enter_async_context(embedded(folder))
        yield await stack.enter_async_context(Bus(url, partitions=PARTITIONS, timeout_s=DEADLINE_S))


@pytest.fixture(params=["one", pytest.param("cluster", marks=pytest.mark.services)])
async def bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bus]:
    """Give a bus of each kind."""
    async with a_bus(request.param, tmp_path) as bus:
        yield bus


async def taken(lease: Lease) -> None:
    """Wait until a lease is taken."""
    async with asyncio.timeout(DEADLINE_S):
        while not await lease.take():
            await asyncio.sleep(0.01)


def now_ms(answer: tuple[int, int]) -> int:
    """Give the clock of a server, ms."""
    return answer[0] * 1000 + answer[1] // 1000


async def entries(bus: Bus, partition: int = 3) -> list[bytes]:
    """Everything in ``in`` of a partition."""
    return [record.data for _, records in await bus.read({partition: START}, count=10_000) for record in records]


def thing(number: int, text: bytes) -> Numbered:
    """Make what is stored of a source."""
    return Numbered(3, "strap", [text], number, b"state %d" % number, [b"mark %d" % number])


async def test_a_lease_has_one_holder(bus: Bus):
    """Others get it once it is released, and not before; each holder's epoch is greater than the one before it."""
    one, two = Lease(bus, "straps", "one", ms=600_000), Lease(bus, "straps", "two", ms=600_000)
    assert await one.take()
    assert not await two.take()
    await one.renew()
    await two.release()
    await one.renew()
    await one.release()
    assert await two.take()
    assert two.epoch > one.epoch
    with pytest.raises(LeaseLostError):
        await one.renew()
    await one.release()
    await two.renew()


async def test_a_lease_that_is_not_renewed_ends(bus: Bus):
    """The server ends it; who had it learns so when it asks."""
    one, two = Lease(bus, "straps", "one", ms=100), Lease(bus, "straps", "two", ms=600_000)
    assert await one.take()
    await taken(two)
    with pytest.raises(LeaseLostError):
        await one.renew()


async def test_who_comes_back_under_its_name_has_the_lease_at_once(bus: Bus):
    """A process that was started again waits for no end of its own lease; its former self is fenced."""
    former, again = Lease(bus, "straps", "one", ms=600_000), Lease(bus, "straps", "one", ms=600_000)
    assert await former.take()
    assert await again.take()
    with pytest.raises(LeaseLostError):
        await former.renew()
    with pytest.raises(LeaseLostError):
        await NumberedStore(bus, former).store([thing(1, b"never")])
    await again.renew()


async def test_a_former_holder_stores_nothing(bus: Bus):
    """Once another has the lease nothing is stored under the old epoch, in no partition and of no source."""
    one, two = Lease(bus, "straps", "one", ms=1), Lease(bus, "straps", "two", ms=600_000)
    assert await one.take()
    former, store = NumberedStore(bus, one), NumberedStore(bus, two)
    await former.store([thing(1, b"first")])
    await taken(two)
    for partition in range(PARTITIONS):
        with pytest.raises(LeaseLostError):
            await former.store([Numbered(partition, f"source-{partition}", [b"never"], 1, b"state", [b"mark"])])
        with pytest.raises(LeaseLostError):
            await former.store([Numbered(partition, "strap", [b"a note"])])
    await store.store([thing(2, b"second")])
    assert await entries(bus) == [b"first", b"second"]
    assert await store.load([(3, "strap"), (5, "source-5")]) == [Kept(2, b"state 2", [b"mark 1", b"mark 2"]), None]


async def test_what_is_sent_again_is_stored_once(bus: Bus):
    """A batch whose answer was lost may be sent again; notes, which have no number, come again."""
    lease = Lease(bus, "straps", "one", ms=600_000)
    assert await lease.take()
    store = NumberedStore(bus, lease)
    for _ in range(3):
        await store.store([thing(1, b"first"), Numbered(4, "strap", [b"note"])])
    assert await entries(bus) == [b"first"]
    assert await entries(bus, 4) == [b"note"] * 3
    for number in range(2, MARKS + 10):
        await store.store([thing(number, b"more")])
    (kept,) = await store.load([(3, "strap")])
    assert kept is not None
    assert kept.marks == [b"mark %d" % number for number in range(10, MARKS + 10)]


async def test_a_server_that_lost_its_scripts_gets_them_again(tmp_path: Path):
    """After a restart of the bus what was numbered before is known, and the store goes on."""
    async with embedded(tmp_path) as url, Bus(url) as bus:
        lease = Lease(bus, "straps", "one", ms=600_000)
        assert await lease.take()
        store = NumberedStore(bus, lease)
        await store.store([thing(1, b"first")])
        await bus._call("SCRIPT FLUSH")
        await store.store([thing(1, b"first")])
        await store.store([thing(2, b"second")])
        assert await entries(bus) == [b"first", b"second"]


async def test_an_epoch_that_a_failover_forgot_is_outgrown(tmp_path: Path):
    """Where the bus lost lease and counter, but not the fences, the next holder's epoch is greater all the same."""
    async with embedded(tmp_path) as url, Bus(url) as bus:
        one, two = Lease(bus, "straps", "one"), Lease(bus, "straps", "two")
        assert await one.take()
        await bus._call("DEL", "rw:{straps}:lease", "rw:{straps}:epoch")
        while now_ms(await bus._call("TIME")) <= one.epoch:
            pass
        await taken(two)
        assert two.epoch > one.epoch


async def test_a_lease_of_a_bus_that_is_away(tmp_path: Path):
    """It says so, and is not ours."""
    async with Bus(f"unix://{tmp_path}/absent") as bus:
        with pytest.raises(BusError):
            await Lease(bus, "straps", "one").take()
