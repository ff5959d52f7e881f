"""The device that forgets nothing, against a real broker: outages, restarts, old data while live goes on, its clock."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_device import DEADLINE_S, Line, address, until, ward

from bus.server import embedded
from bus.streams import Bus
from bus.tasks import end
from ingest.broker import Broker, embedded_broker
from ingest.codecs import decode_frame
from ingest.device import Connection, DeviceMeta
from ingest.frame import Frame
from ingest.journal import Journal
from ingest.store_device import ClockOffset, StoringDevice
from ingest.subscriber import Subscriber, SubscriberOptions


def frame(seq: int) -> Frame:
    """Make a frame of a tenth of a second."""
    return Frame("bed-1", 5, seq, 25 * seq, 1000 * seq, 250.0, ("MLII",), 200.0, np.full((25, 1), seq, np.int16))


META = DeviceMeta("bed-1", 5, 250.0, ("MLII",), 200.0)


def device(connection: Connection, journal: Journal, **options: float) -> StoringDevice:
    return StoringDevice(connection, META, journal, live_frames=5, jitter=lambda: 0.0, **{"ask_s": 0.0, **options})


def sequence(got: list[aiomqtt.Message], leaf: str) -> list[int]:
    return [decode_frame(bytes(m.payload)).seq for m in got if str(m.topic).endswith(f"/{leaf}")]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with embedded_broker(tmp_path / "broker", engine="mosquitto") as running:
        yield running


@pytest.mark.services
async def test_an_outage_is_filled_in_behind_while_live_goes_on(tmp_path: Path, broker: Broker):
    """What was measured while the line was cut comes on ``backfill`` in order; nothing is missing at the end."""
    journal = Journal(tmp_path / "journal", sync=False)
    async with ward(broker) as got, Line(broker).open() as line, device(address(broker, line.port), journal) as bed:
        for seq in range(10):
            await bed.publish(frame(seq))
        await bed.drain()
        line.cut()
        await until(lambda: not bed._client.is_connected)
        for seq in range(10, 60):
            bed.offer(frame(seq))
        assert bed.stored == 50
        line.mend()
        await bed.connected()
        for seq in range(60, 80):
            await bed.publish(frame(seq))
        async with asyncio.timeout(DEADLINE_S):
            await bed.drain()
        await until(lambda: set(sequence(got, "ecg")) | set(sequence(got, "backfill")) == set(range(80)))
        old = sequence(got, "backfill")
        assert old == sorted(old)
        assert set(range(60, 80)) <= set(sequence(got, "ecg"))
        assert set(range(16, 60)) <= set(old)
    journal.close()


@pytest.mark.services
async def test_a_restart_sends_what_the_broker_never_had(tmp_path: Path, broker: Broker):
    """Frames of a device that was switched off without a broker come after it was switched on again."""
    nowhere = dataclasses.replace(address(broker), port=1)
    journal = Journal(tmp_path / "journal", sync=False)
    async with device(nowhere, journal, close_s=0.0) as bed:
        for seq in range(30):
            bed.offer(frame(seq))
    journal.close()
    journal = Journal(tmp_path / "journal", sync=False)
    async with ward(broker) as got, device(address(broker), journal) as bed:
        async with asyncio.timeout(DEADLINE_S):
            await bed.drain()
        await until(lambda: sequence(got, "backfill") == list(range(30)))
        assert bed.stored == 0
    assert journal.delivered == 30
    journal.close()


@pytest.mark.services
async def test_damage_on_the_disk_holds_nothing_up(tmp_path: Path, broker: Broker):
    """A record that was lost is passed over; all others come."""
    journal = Journal(tmp_path / "journal", sync=False)
    async with device(dataclasses.replace(address(broker), port=1), journal, close_s=0.0) as bed:
        for seq in range(10):
            bed.offer(frame(seq))
    journal.close()
    (segment,) = (tmp_path / "journal").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    journal = Journal(tmp_path / "journal", sync=False)
    async with ward(broker) as got, device(address(broker), journal) as bed:
        async with asyncio.timeout(DEADLINE_S):
            await bed.drain()
        await until(lambda: len(sequence(got, "backfill")) == 9)
    journal.close()


@pytest.mark.services
async def test_the_device_learns_how_far_its_clock_is_off(tmp_path: Path, broker: Broker):
    """Ingest answers the question for the time, and frames then carry the server's time."""
    journal = Journal(tmp_path / "journal", sync=False)
    wrong = 3_600_000.0
    async with embedded(tmp_path / "bus") as url, Bus(url) as bus, ward(broker) as got:
        options = SubscriberOptions(broker.host, broker.port, broker.username, broker.password, mqtt5=True)
        subscriber = Subscriber(options, bus, clock=lambda: round(wrong))
        task = asyncio.create_task(subscriber.run())
        await until(lambda: subscriber.connected)
        ticks = iter(range(10_000))
        async with device(address(broker), journal, wall=lambda: float(next(ticks))) as bed:
            await until(lambda: bed.clock.within_ms < 100)
            assert abs(bed.clock.ms - wrong) < 100
            bed.offer(frame(0))
            async with asyncio.timeout(DEADLINE_S):
                await bed.drain()
        await until(lambda: sequence(got, "ecg") == [0])
        sent = [decode_frame(bytes(m.payload)) for m in got if str(m.topic).endswith("/ecg")]
        assert abs(sent[0].device_ms - wrong) < 100
        await end([task])
    journal.close()


async def test_frames_of_others_are_refused(tmp_path: Path):
    """A frame of another device is no frame of this one."""
    journal = Journal(tmp_path, sync=False)
    bed = device(Connection("127.0.0.1", 1), journal)
    with pytest.raises(ValueError, match="bed-9"):
        bed.offer(dataclasses.replace(frame(0), device="bed-9"))
    journal.close()


@given(
    st.integers(-(10**9), 10**9),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=20),
)
def test_the_clock_is_never_more_wrong_than_it_says(offset: int, ways: list[tuple[int, int]]):
    """However long question and answer took, the error is within what is claimed."""
    clock, now = ClockOffset(), 0.0
    for out, back in ways:
        asked = now
        server = asked + out + offset
        now = asked + out + back
        clock.observe(asked, server, now)
        assert abs(clock.ms - offset) <= clock.within_ms + 1e-6
        now += 1000
    clock.observe(now, 0.0, now - 1)
    assert abs(clock.ms - offset) <= clock.within_ms + 1e-6
