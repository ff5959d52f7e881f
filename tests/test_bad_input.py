"""Ten thousand bad payloads on every topic: nothing stops, each is counted with its reason, good frames pass."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import aiomqtt
import numpy as np
import pytest

from bus.messages import Entry, partition_of, unpack_inbound
from bus.server import embedded
from bus.streams import START, Bus
from bus.tasks import end
from ingest.broker import embedded_broker
from ingest.codecs import MAX_BYTES, decode, encode_frame, encode_json
from ingest.frame import Frame, FrameError
from ingest.notes import decode_event, decode_meta, decode_status
from ingest.routes import KINDS
from ingest.subscriber import Subscriber, SubscriberOptions

BAD = 10_000
GOOD_EACH = 50
READERS = {"status": decode_status, "events": decode_event, "meta": decode_meta}


def frame(seq: int) -> Frame:
    """Make a frame of one second."""
    samples = np.full((250, 2), seq, np.int16)
    return Frame("bed-7", 1, seq, 250 * seq, 1000, 250.0, ("MLII", "V5"), 200.0, samples)


def bad_payload(kind: str, rng: random.Random) -> bytes:
    """Make something that is no valid payload: random, truncated, bit-flipped, or too large (rarely)."""
    good = encode_frame(frame(rng.randrange(1000))) if rng.random() < 0.7 else encode_json(frame(1))
    while True:
        match rng.choices(("random", "magic", "truncated", "flipped", "large"), (30, 10, 30, 29.8, 0.2))[0]:
            case "random":
                payload = rng.randbytes(rng.randrange(400))
            case "magic":
                payload = b"RW\x01\x02" + rng.randbytes(rng.randrange(200))
            case "truncated":
                payload = good[: rng.randrange(len(good))]
            case "flipped":
                damaged = bytearray(good)
                damaged[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
                payload = bytes(damaged)
            case _:
                payload = bytes(MAX_BYTES + 1)
        if reason_of(kind, payload) is not None:
            return payload


def reason_of(kind: str, payload: bytes) -> str | None:
    """Reason for which the reader of a topic refuses a payload; None if it takes it."""
    try:
        if kind in READERS:
            READERS[kind](payload)
        else:
            decode(payload, "bed-7")
    except FrameError as error:
        # The subscriber drops what exceeds any codec's limit before it looks at it.
        return "oversize" if len(payload) > MAX_BYTES else error.reason
    return None


@pytest.mark.services
@pytest.mark.timeout(300)
async def test_bad_payloads_on_every_topic_stop_nothing(tmp_path: Path):
    """Through a real broker and a real bus: the counts by reason are exact, and every good frame arrives in order."""
    rng = random.Random(11)
    wanted: dict[str, int] = {}
    async with (
        embedded(tmp_path / "bus") as url,
        Bus(url) as bus,
        embedded_broker(tmp_path / "broker", engine="mosquitto") as broker,
        asyncio.timeout(240),
    ):
        options = SubscriberOptions(broker.host, broker.port, broker.username, broker.password)
        subscriber = Subscriber(options, bus, clock=lambda: 77)
        running = asyncio.create_task(subscriber.run())
        while not subscriber.connected:
            await asyncio.sleep(0.01)
        async with aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.device_username,
            password=broker.device_password,
            protocol=aiomqtt.ProtocolVersion.V5,
        ) as device:
            device.pending_calls_threshold = 1_000
            for start in range(0, BAD, GOOD_EACH):
                messages = []
                for number in range(start, start + GOOD_EACH):
                    kind = KINDS[number % len(KINDS)]
                    payload = bad_payload(kind, rng)
                    reason = f"drop_{reason_of(kind, payload)}"
                    wanted[reason] = wanted.get(reason, 0) + 1
                    messages.append((kind, payload))
                messages.insert(rng.randrange(GOOD_EACH), ("ecg", encode_frame(frame(start // GOOD_EACH))))
                await asyncio.gather(
                    *(device.publish(f"rw/v1/bed-7/{kind}", payload, qos=1) for kind, payload in messages)
                )
            await device.publish("rw/v1/bed 7!/ecg", encode_frame(frame(0)), qos=1)
            wanted["drop_topic"] = wanted.get("drop_topic", 0) + 1
        good = BAD // GOOD_EACH
        while subscriber.counts["received"] < BAD + good + 1 or subscriber.counts["stored"] < good:
            assert not running.done()
            await asyncio.sleep(0.02)
        assert subscriber.connected
        await end([running])
        ((_, records),) = await bus.read({partition_of("bed-7"): START}, count=10_000)
    entries = [unpack_inbound(record.data) for record in records]
    assert {entry.kind for entry in entries} == {Entry.FRAME}
    assert [decode(entry.payload).seq for entry in entries] == list(range(good))
    counted = Counter({reason: count for reason, count in subscriber.counts.items() if reason.startswith("drop_")})
    # A damaged copy of a frame that is on the bus is dropped as a copy: its checksum is that of the frame.
    counted["drop_checksum"] += subscriber.counts["known"]
    assert counted == wanted
    assert {"drop_magic", "drop_length", "drop_checksum", "drop_oversize", "drop_json", "drop_note"} <= wanted.keys()
    assert sum(wanted.values()) == BAD + 1
