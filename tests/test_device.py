"""The device's end of MQTT against a real broker: order, outages, drops, wills and goodbyes."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import aiomqtt
import msgspec
import numpy as np
import pytest
import waiting

from ingest.broker import Broker, embedded_broker
from ingest.codecs import decode, decode_frame
from ingest.device import Connection, DeviceClient, DeviceMeta, FleetClient, topic_of
from ingest.frame import Frame
from ingest.notes import decode_event, decode_meta, decode_status

DEADLINE_S = 60.0


def frame(seq: int, device: str = "bed-1") -> Frame:
    samples = np.full((250, 2), seq % 1000, dtype=np.int16)
    return Frame(device, 5, seq, 250 * seq, 1000 * seq, 250.0, ("MLII", "V1"), 200.0, samples)


def meta(device: str = "bed-1") -> DeviceMeta:
    return DeviceMeta(device, 5, 250.0, ("MLII", "V1"), 200.0)


until = partial(waiting.until, seconds=DEADLINE_S)


class Line:
    """A TCP line to a broker that can be cut and mended."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.port = 0
        self.up = True
        self.mute = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: bool) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    if not (back and self.mute):
                        writer.write(data)
                        await writer.drain()
        finally:
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.up:
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection(self.broker.host, self.broker.port)
        self._writers = [writer, far_writer]
        for args in ((reader, far_writer, False), (far_reader, writer, True)):
            task = asyncio.create_task(self._carry(*args))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def cut(self) -> None:
        """Break the line as a reset does, and refuse new ones until `mend`."""
        self.up = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """Carry new connections again."""
        self.up, self.mute = True, False

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Line"]:
        """Listen on a free port for as long as the block lasts."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()


@contextlib.asynccontextmanager
async def ward(broker: Broker) -> AsyncIterator[list[aiomqtt.Message]]:
    """Collect all that devices publish."""
    got: list[aiomqtt.Message] = []
    async with aiomqtt.Client(
        broker.host,
        broker.port,
        username=broker.username,
        password=broker.password,
        protocol=aiomqtt.ProtocolVersion.V5 if broker.mqtt5 else aiomqtt.ProtocolVersion.V311,
    ) as client:
        await client.subscribe("rw/v1/#", qos=1)

        async def collect() -> None:
            async for message in client.messages:
                got.append(message)  # noqa: PERF401 - the list is read while it grows

        task = asyncio.create_task(collect())
        try:
            yield got
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def address(broker: Broker, port: int | None = None) -> Connection:
    return dataclasses.replace(Connection.of(broker), port=port or broker.port)


def frames_in(got: list[aiomqtt.Message]) -> list[Frame]:
    return [decode_frame(bytes(m.payload)) for m in got if str(m.topic).endswith("/ecg")]


def names_in(got: list[aiomqtt.Message], leaf: str) -> list[str]:
    return [msgspec.json.decode(m.payload)["name"] for m in got if str(m.topic).endswith(f"/{leaf}")]


def first_seen(frames: list[Frame]) -> list[int]:
    """Sequence numbers in the order in which each came first."""
    return list(dict.fromkeys(f.seq for f in frames))


@pytest.fixture(params=["amqtt", pytest.param("mosquitto", marks=pytest.mark.services)])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    async with embedded_broker(tmp_path, engine=request.param) as running:
        yield running


@pytest.fixture
async def mosquitto(tmp_path: Path) -> AsyncIterator[Broker]:
    async with embedded_broker(tmp_path, engine="mosquitto") as running:
        yield running


async def test_frames_arrive_in_order_with_meta_and_status_on_either_broker(broker: Broker):
    """One device says who it is, sends 300 frames that come in order, notes a button, and says goodbye."""
    async with ward(broker) as got:
        async with DeviceClient(address(broker), meta()) as client:
            for seq in range(300):
                assert client.offer(frame(seq))
            client.note("bed-1", "button", 1.0)
            async with asyncio.timeout(DEADLINE_S):
                await client.drain()
            assert client.stats.sent == client.stats.offered == 301
            await until(lambda: names_in(got, "events") == ["button"] and len(frames_in(got)) == 300)
        await until(lambda: names_in(got, "status") == ["online", "offline"])
        assert [f.seq for f in frames_in(got)] == list(range(300))
        np.testing.assert_array_equal(frames_in(got)[7].samples, frame(7).samples)
        metas = [msgspec.json.decode(m.payload, type=DeviceMeta) for m in got if str(m.topic).endswith("/meta")]
        assert metas == [meta()]
        assert names_in(got, "status")[0] == "online"
        for message in got:
            kind = str(message.topic).rsplit("/", 1)[1]
            {"ecg": decode, "status": decode_status, "events": decode_event, "meta": decode_meta}[kind](message.payload)


async def test_the_protocol_is_found_out(broker: Broker):
    """Without being told which MQTT the broker speaks, a device ends up with one that it takes."""
    unsaid = dataclasses.replace(address(broker), mqtt5=None)
    async with DeviceClient(unsaid, meta(), jitter=lambda: 0.0) as client:
        client.offer(frame(0))
        async with asyncio.timeout(DEADLINE_S):
            await client.drain()
        assert client.stats.sent == 1
        assert client.stats.failures == (0 if broker.mqtt5 else 1)


@pytest.mark.services
async def test_what_was_taken_during_an_outage_arrives_afterwards_in_order(mosquitto: Broker):
    """A line cut twice in the middle of sending loses nothing, and nothing newer overtakes what is older."""
    async with ward(mosquitto) as got, Line(mosquitto).open() as line:
        async with DeviceClient(address(mosquitto, line.port), meta(), jitter=lambda: 0.0) as client:
            async with asyncio.timeout(DEADLINE_S):
                await client.connected()
            for seq in range(400):
                client.offer(frame(seq))
                if seq in (100, 250):
                    await asyncio.sleep(0)
                    line.cut()
                    await until(lambda: not client._connected.is_set())
                if seq in (150, 300):
                    line.mend()
                    await until(client._connected.is_set)
            async with asyncio.timeout(DEADLINE_S):
                await client.drain()
            assert client.stats.connects == 3
            assert client.stats.failures >= 2
            assert client.stats.dropped == 0
        await until(lambda: len(first_seen(frames_in(got))) == 400)
        assert first_seen(frames_in(got)) == list(range(400))


@pytest.mark.services
async def test_frames_without_acknowledgement_are_sent_again_first(mosquitto: Broker, monkeypatch: pytest.MonkeyPatch):
    """A broker that falls silent after taking frames gets them again after the reconnect; none is lost."""
    monkeypatch.setattr("ingest.device._AGAIN_S", DEADLINE_S)  # a moment, on a busy machine too
    async with ward(mosquitto) as got, Line(mosquitto).open() as line:
        async with DeviceClient(address(mosquitto, line.port), meta(), inflight=8, jitter=lambda: 0.0) as client:
            async with asyncio.timeout(DEADLINE_S):
                await client.connected()
                client.offer(frame(0))
                await client.drain()
            line.mute = True
            for seq in range(1, 30):
                client.offer(frame(seq))
            await until(lambda: len(frames_in(got)) == 9)
            assert client.stats.sent == 1
            line.cut()
            line.mend()
            async with asyncio.timeout(DEADLINE_S):
                await client.drain()
            # The eight, and before them the one that it acknowledged a moment ago.
            assert client.stats.resent == 9
        await until(lambda: len(first_seen(frames_in(got))) == 30)
        assert first_seen(frames_in(got)) == list(range(30))
        assert len(frames_in(got)) == 39


@pytest.mark.services
async def test_a_break_that_is_noticed_late_forgets_nothing(mosquitto: Broker, monkeypatch: pytest.MonkeyPatch):
    """What was acknowledged last is sent again, however long the line was dead before that was seen."""
    monkeypatch.setattr("ingest.device._AGAIN_S", 0.05)
    async with ward(mosquitto) as got, Line(mosquitto).open() as line:
        async with DeviceClient(address(mosquitto, line.port), meta(), jitter=lambda: 0.0) as client:
            async with asyncio.timeout(DEADLINE_S):
                client.offer(frame(0))
                await client.drain()
            acknowledged = time.monotonic()
            await until(lambda: time.monotonic() > acknowledged + 0.1)
            line.cut()
            line.mend()
            await until(lambda: client.stats.connects == 2)
            async with asyncio.timeout(DEADLINE_S):
                await client.drain()
            assert client.stats.resent == 1
        await until(lambda: [f.seq for f in frames_in(got)] == [0, 0])


async def test_a_full_memory_drops_the_oldest_and_counts_it():
    """Without a broker the newest `keep` frames are kept, each drop is counted, and leaving the block says the rest."""
    gone = Connection("127.0.0.1", 9)
    async with DeviceClient(gone, meta(), keep=50, close_s=0.05) as client:
        kept = [client.offer(frame(seq)) for seq in range(80)]
        assert kept == [True] * 50 + [False] * 30
        await until(lambda: client.stats.failures >= 1)
    assert client.stats.offered == 80
    assert client.stats.dropped == 30
    assert client.stats.unsent == 50
    assert client.stats.last_error


@pytest.mark.services
@pytest.mark.parametrize("alone", [True, False], ids=["device", "fleet of one"])
async def test_a_device_that_dies_leaves_its_will(mosquitto: Broker, alone: bool):
    """A broken line makes the broker say offline, retained, for the device."""
    async with ward(mosquitto) as got, Line(mosquitto).open() as line:
        connection = address(mosquitto, line.port)
        client = (
            DeviceClient(connection, meta(), close_s=0.1) if alone else FleetClient(connection, [meta()], close_s=0.1)
        )
        async with client:
            await until(lambda: names_in(got, "status") == ["online"])
            line.cut()
            await until(lambda: names_in(got, "status") == ["online", "offline"])


@pytest.mark.services
async def test_one_connection_carries_a_fleet(mosquitto: Broker):
    """Sixty devices over one connection: each in its own order, offline at the end, waiting instead of dropping."""
    devices = [f"bed-{i}" for i in range(60)]
    async with ward(mosquitto) as got:
        async with FleetClient(address(mosquitto), [meta(d) for d in devices], keep=10) as client:
            async with asyncio.timeout(DEADLINE_S):
                for seq in range(30):
                    for device in devices:
                        await client.publish(frame(seq, device))
                await client.drain()
            assert client.stats.dropped == 0
        await until(lambda: names_in(got, "status").count("offline") == 60)
        order: dict[str, list[int]] = {}
        for f in frames_in(got):
            order.setdefault(f.device, []).append(f.seq)
        assert order == {device: list(range(30)) for device in devices}


@pytest.mark.services
async def test_commands_reach_the_device(mosquitto: Broker):
    """What the service writes on ``commands`` is handed to the device with its id."""
    got: list[tuple[str, bytes]] = []
    async with DeviceClient(
        address(mosquitto), meta(), on_command=lambda device, payload: got.append((device, payload))
    ) as client:
        async with asyncio.timeout(DEADLINE_S):
            await client.connected()
        async with aiomqtt.Client(
            mosquitto.host, mosquitto.port, username=mosquitto.username, password=mosquitto.password
        ) as service:
            for _ in range(1000):
                await service.publish(topic_of("bed-1", "commands"), b"ring", qos=1)
                if got:
                    break
                await asyncio.sleep(0.01)
    assert got[0] == ("bed-1", b"ring")


async def test_no_more_is_under_way_than_the_broker_takes():
    """A broker says at the login how much it takes unacknowledged; one that gets more ends the connection."""
    told, most, seen = 3, [0], [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting: list[bytes] = []
        while head := await reader.read(1):
            length = shift = 0
            while (more := (await reader.readexactly(1))[0]) & 0x80:
                length, shift = length | (more & 0x7F) << shift, shift + 7
            body = await reader.readexactly(length | more << shift)
            if head[0] == 0x10:
                writer.write(b"\x20\x06\0\0\x03\x21" + told.to_bytes(2, "big"))
            elif head[0] & 0xF0 == 0x30:
                topic = int.from_bytes(body[:2], "big")
                waiting.append(body[2 + topic : 4 + topic])
                seen[0] += 1
                most[0] = max(most[0], len(waiting))
                if len(waiting) == told or seen[0] == 2 + 20:
                    writer.write(b"".join(b"\x40\x02" + number for number in waiting))
                    waiting.clear()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with DeviceClient(Connection("127.0.0.1", port, mqtt5=True), meta(), close_s=0.05) as client:
            for number in range(20):
                client.offer(frame(number))
            await until(lambda: client.stats.sent >= 18)
    assert most[0] == told


@pytest.mark.services
async def test_a_wrong_password_is_told_and_tried_again(mosquitto: Broker):
    """The reason stands in the statistics; nothing is lost or sent."""
    wrong = Connection(mosquitto.host, mosquitto.port, "devices", "wrong")
    async with DeviceClient(wrong, meta(), close_s=0.05, jitter=lambda: 0.0) as client:
        client.offer(frame(0))
        await until(lambda: client.stats.failures >= 2)
    assert "wrong name or password" in client.stats.last_error
    assert (client.stats.sent, client.stats.unsent) == (0, 1)


async def test_what_is_no_device_of_the_client_is_refused():
    """Frames and notes of other devices, empty fleets, doubled ids and absurd limits are errors in words."""
    here = Connection("127.0.0.1", 9)
    client = FleetClient(here, [meta()])
    with pytest.raises(ValueError, match="'bed-2' is not one of this client's"):
        client.offer(frame(0, "bed-2"))
    with pytest.raises(ValueError, match="not one of"):
        client.note("bed-2", "button")
    with pytest.raises(RuntimeError, match="use it in an async with block"):
        await FleetClient(here, [meta()]).drain()
    for bad in ([], [meta(), meta()], [meta("a/b")]):
        with pytest.raises(ValueError, match="device"):
            FleetClient(here, bad)
    with pytest.raises(ValueError, match="at least 1"):
        FleetClient(here, [meta()], keep=0)


def test_a_password_is_not_shown():
    """The text of a connection, as a log may hold it, has no password in it."""
    assert "secret" not in repr(Connection("host", password="secret"))
