"""A device keeps what the service has not answered, has a window of it under way at most, and never stands still."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from test_device import address, until

from bus.messages import Entry, partition_of, unpack_inbound
from bus.pressure import Pressure
from bus.server import embedded
from bus.streams import START, Bus
from bus.tasks import end
from ingest.answers import STALL_S, WINDOW, Answers
from ingest.broker import Broker, embedded_broker
from ingest.codecs import decode_frame, encode_frame
from ingest.device import DeviceMeta
from ingest.frame import Frame
from ingest.journal import Journal
from ingest.pacing import Pace
from ingest.store_device import StoringDevice
from ingest.subscriber import Subscriber, SubscriberOptions

META = DeviceMeta("bed-1", 5, 250.0, ("MLII",), 200.0)
MANY = 3 * WINDOW


def frame(seq: int) -> bytes:
    """Make a frame of a tenth of a second."""
    units = np.full((25, 1), 3, np.int16)
    return encode_frame(Frame("bed-1", 5, seq, 25 * seq, 1000 * seq, 250.0, ("MLII",), 200.0, units))


def test_nothing_is_sent_before_the_service_has_spoken():
    """For a while; then it is taken for one that does not answer, until it does."""
    answers = Answers(10.0)
    answers.connected((), 100.0)
    assert not answers.may(109.0)
    assert answers.may(110.0)
    for number in range(2 * WINDOW):
        answers.sent(number, frame(number), 110.0)
    assert answers.may(110.0)
    assert answers.take([(5, 3), (5, 3), (9, 9)], 111.0) == [3]
    assert not answers.may(111.0)
    answers.end(3)
    assert len(answers) == 2 * WINDOW - 1
    assert set(answers.say(False)) == set(range(2 * WINDOW)) - {3}
    assert answers.may(111.0)


def test_a_new_connection_and_a_long_silence_begin_anew():
    """What the broker took before may be lost with it; what is under way is sent by the client itself."""
    answers = Answers()
    assert answers.say(True) == []
    for number in range(WINDOW):
        answers.sent(number, frame(number), 0.0)
    assert not answers.may(1.0)
    assert not answers.stalled(STALL_S - 1)
    assert answers.stalled(STALL_S)
    answers.take([(5, 0)], STALL_S)
    assert not answers.stalled(STALL_S)
    answers.connected({7, 8}, 2 * STALL_S)
    assert [number for number in range(WINDOW) if number in answers] == [7, 8]
    assert not answers.stalled(2 * STALL_S)


@pytest.mark.services
async def test_what_a_broker_loses_comes_again(tmp_path: Path):
    """A broker that had taken stored frames dies with them: the device has kept what the service had not answered."""
    journal = Journal(tmp_path / "journal", sync=False)
    for seq in range(MANY):
        journal.append(frame(seq))
    pressure = Pressure()
    pressure.note(80, 100)
    pace = Pace(device=2_000.0, whole=4_000.0, least=1e-6)
    async with embedded(tmp_path / "bus") as url, Bus(url) as bus:

        def ingest(broker: Broker) -> Subscriber:
            options = SubscriberOptions(broker.host, broker.port, broker.username, broker.password, mqtt5=True)
            return Subscriber(options, bus, pace=pace, pressure=pressure)

        async with embedded_broker(tmp_path / "broker", engine="mosquitto") as broker:
            held = ingest(broker)
            running = asyncio.create_task(held.run())
            await until(lambda: held.connected)
            async with StoringDevice(address(broker), META, journal, close_s=0.0) as bed:
                await until(lambda: held.backlog.waiting >= WINDOW - 1 and not bed._client.waiting)
                assert held.backlog.waiting + held.counts["stored"] <= WINDOW + 5
                assert journal.delivered <= 1
            await end([running])
        pressure.note(10, 100)
        async with embedded_broker(tmp_path / "another", engine="mosquitto") as broker:
            going = ingest(broker)
            running = asyncio.create_task(going.run())
            await until(lambda: going.connected)
            async with StoringDevice(address(broker), META, journal) as bed:
                await bed.drain()
            await end([running])
        ((_, records),) = await bus.read({partition_of("bed-1"): START}, count=10_000)
    entries = [unpack_inbound(record.data) for record in records]
    seen = [decode_frame(entry.payload).seq for entry in entries if entry.kind is Entry.BACKFILL]
    assert set(seen) == set(range(MANY))
    assert journal.delivered == MANY
    journal.close()
