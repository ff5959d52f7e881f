"""The reader's own MQTT: packets cut anywhere, brokers that refuse, fall silent or talk nonsense."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_device import until

from ingest.connection import BrokerLostError, Connection, Received, connect_error
from ingest.packets import length_field, read_length, text_field
from ingest.subscriber import SubscriberOptions


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False
        self.reading = True

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.written += data

    def is_closing(self) -> bool:
        """Whether it was let go."""
        return self.aborted

    def abort(self) -> None:
        """Let go."""
        self.aborted = True

    def pause_reading(self) -> None:
        """Read no more."""
        assert not self.aborted
        self.reading = False

    def resume_reading(self) -> None:
        """Read on."""
        assert not self.aborted
        self.reading = True


def publish(topic: str, payload: bytes, mid: int, *, mqtt5: bool, expiry: int | None = None) -> bytes:
    """Lay a message out as a broker does."""
    body = text_field(topic) + (struct.pack(">H", mid) if mid else b"")
    if mqtt5:
        properties = b"" if expiry is None else struct.pack(">BI", 2, expiry)
        body += length_field(len(properties)) + properties
    body += payload
    return bytes((0x32 if mid else 0x30,)) + length_field(len(body)) + body


def opened(got: list[Received], *, mqtt5: bool) -> tuple[Connection, Wire]:
    """Make a connection that is open, on a wire of ours."""
    connection = Connection(SubscriberOptions("127.0.0.1", 1), mqtt5=mqtt5, receive_maximum=10, take=got.append)
    wire = Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]
    connection.live = True
    return connection, wire


MESSAGES = st.lists(
    st.tuples(st.sampled_from(["rw/v1/a/ecg", "rw/v1/bed-7/meta"]), st.binary(max_size=400), st.integers(0, 65_535)),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(messages=MESSAGES, mqtt5=st.booleans(), expiry=st.none() | st.integers(0, 2**32 - 1), data=st.data())
def test_packets_come_whole_however_they_are_cut(
    messages: list[tuple[str, bytes, int]], mqtt5: bool, expiry: int | None, data: st.DataObject
):
    """Messages of both versions are taken in order with their payloads, whichever way the bytes come."""

    async def run() -> None:
        got: list[Received] = []
        connection, wire = opened(got, mqtt5=mqtt5)
        stream = b"".join(publish(*message, mqtt5=mqtt5, expiry=expiry) for message in messages)
        at = 0
        while at < len(stream):
            size = data.draw(st.integers(1, max(1, len(stream) - at)))
            connection.data_received(stream[at : at + size])
            at += size
        assert [(message.topic, message.payload, message.qos > 0) for message in got] == [
            (topic, payload, mid > 0) for topic, payload, mid in messages
        ]
        for message in got:
            message.acknowledge()
        await asyncio.sleep(0)
        wanted = b"".join(struct.pack(">BBH", 0x40, 2, mid) for _, _, mid in messages if mid)
        assert wire.written == wanted

    asyncio.run(run())


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_nonsense_ends_the_connection_and_nothing_else(pieces: list[bytes], mqtt5: bool):
    """No bytes of a broker raise an error; at worst the connection is over."""

    async def run() -> None:
        connection, _ = opened([], mqtt5=mqtt5)
        for piece in pieces:
            connection.data_received(piece)

    asyncio.run(run())


@given(st.integers(0, 268_435_455))
def test_lengths_come_back(size: int):
    """What is written as a length is read as it; one of five bytes is none."""
    assert read_length(length_field(size), 0) == (size, len(length_field(size)))
    with pytest.raises(ValueError, match="four"):
        read_length(b"\xff\xff\xff\xff\x7f", 0)


@pytest.mark.parametrize("mqtt5", [True, False])
async def test_what_comes_with_the_login_can_be_acknowledged(mqtt5: bool):
    """A session may hold messages, which come right behind; one that is acknowledged at once is."""
    wire = Wire()
    connection = Connection(
        SubscriberOptions("127.0.0.1", 1), mqtt5=mqtt5, receive_maximum=10, take=Received.acknowledge
    )
    connection.connection_made(wire)  # type: ignore[arg-type]
    login = bytes((0x20, 3, 1, 0, 0)) if mqtt5 else bytes((0x20, 2, 1, 0))
    connection.data_received(login + publish("rw/v1/a/ecg", b"x", 7, mqtt5=mqtt5))
    await asyncio.sleep(0)
    assert wire.written == struct.pack(">BBH", 0x40, 2, 7)


async def test_reading_stops_and_goes_on_for_as_long_as_there_is_a_connection():
    """One that was lost meanwhile is left alone."""
    connection, wire = opened([], mqtt5=True)
    connection.pause()
    assert not wire.reading
    connection.resume()
    assert wire.reading
    connection.pause()
    wire.abort()
    connection.resume()
    connection.pause()
    assert not wire.reading


@contextlib.asynccontextmanager
async def broker_that(*answers: bytes) -> AsyncIterator[int]:
    """Answer each packet with the next of some bytes; none left means silence, empty ones the end."""
    left = list(answers)
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            with contextlib.suppress(OSError):
                while await reader.read(4096):
                    if left:
                        answer = left.pop(0)
                        if not answer:
                            break
                        writer.write(answer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()


CONNACK = bytes((0x20, 3, 0, 0, 0))


@pytest.mark.parametrize(
    ("answers", "mqtt5", "said"),
    [
        ([bytes((0x20, 3, 0, 0x87, 0))], True, "wrong name or password"),
        ([bytes((0x20, 2, 0, 5))], False, "wrong name or password"),
        ([bytes((0x20, 2, 0, 1))], True, "does not speak"),
        ([bytes((0x20, 2, 0, 77))], False, "code 77"),
        ([b""], True, "closed"),
        ([b"\x30\xff\xff\xff\xff\xff"], True, "no MQTT"),
        ([CONNACK, bytes((0x90, 4, 0, 1, 0, 0x87))], True, "rights"),
        ([bytes((0x20, 2, 0, 0)), bytes((0x90, 3, 0, 1, 0x80))], False, "rights"),
        ([CONNACK, bytes((0xE0, 1, 0x8E))], True, "another client"),
    ],
)
async def test_what_goes_wrong_is_said_in_a_line(answers: list[bytes], mqtt5: bool, said: str):
    """Each refusal ends the connection with its reason for people."""
    async with broker_that(*answers) as port:
        options = SubscriberOptions("127.0.0.1", port, "a", "b")
        with pytest.raises(BrokerLostError, match=said) as caught:
            async with Connection(options, mqtt5=mqtt5, receive_maximum=5, take=lambda _: None) as connection:
                await connection.subscribe_all(["ecg"])
        assert connect_error(caught.value) == str(caught.value)


async def test_a_silent_broker_is_given_up(monkeypatch: pytest.MonkeyPatch):
    """One that never answers is noticed."""
    monkeypatch.setattr("ingest.connection.TIMEOUT_S", 0.1)
    async with broker_that() as port:
        with pytest.raises(BrokerLostError, match="answer"):
            async with Connection(
                SubscriberOptions("127.0.0.1", port), mqtt5=False, receive_maximum=5, take=lambda _: None
            ):
                pass


async def test_a_broker_that_stops_answering_is_noticed(monkeypatch: pytest.MonkeyPatch):
    """Some pings without a byte end the connection."""
    async with broker_that(bytes((0x20, 2, 0, 0))) as port:
        options = SubscriberOptions("127.0.0.1", port)
        connection = Connection(options, mqtt5=False, receive_maximum=5, take=lambda _: None)

        async def wait() -> None:
            async with connection:
                monkeypatch.setattr("ingest.connection.PING_S", 0.05)
                connection._ping()
                async with asyncio.timeout(10):
                    await connection.lost_or(asyncio.Event())

        with pytest.raises(BrokerLostError, match="silent"):
            await wait()
        await until(lambda: not connection.live)
