"""The device's own MQTT: acknowledgements cut anywhere, brokers that refuse, fall silent or take nothing."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_connection import Wire
from test_device import until

from bus.passwords import hash_secret
from ingest.broker import embedded_broker
from ingest.connection import BrokerLostError
from ingest.device import DeviceClient
from ingest.device_model import Connection as Address
from ingest.device_model import DeviceMeta
from ingest.sending import Sender, Will
from rhythmwatch.certificates import broker_certificates, client_context, make_certificates

DEADLINE_S = 20.0
CONNACK = bytes((0x20, 3, 0, 0, 0))
PINGRESP = bytes((0xD0, 0))


def sender(
    port: int = 1, *, mqtt5: bool = True, acknowledged: list[int] | None = None, timeout_s: float = 10
) -> Sender:
    """Make a connection of a device."""
    told: list[int] = [] if acknowledged is None else acknowledged
    return Sender(
        Address("127.0.0.1", port, "bed-7", "secret"),
        mqtt5=mqtt5, client_id="bed-7", will=Will("rw/v1/bed-7/status", b"offline"), timeout_s=timeout_s,
        commands=lambda message: message.acknowledge(), acknowledged=told.append, lost=lambda: None,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def broker_that(login: bytes, *, pings: bool = False) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Run a broker that answers the login, and perhaps pings, and nothing else; gives its port and what it heard."""
    heard: list[bytes] = []
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            writer.write(login)
            with contextlib.suppress(OSError):
                while data := await reader.read(4096):
                    heard.append(data)
                    if pings and data.endswith(b"\xc0\0"):
                        writer.write(PINGRESP)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()


@pytest.mark.parametrize(("mqtt5", "code"), [(True, 0x87), (False, 5)])
async def test_a_refusal_is_told_from_silence(mqtt5: bool, code: int):
    """Whoever is refused is known to be; where nothing is heard, the broker may be anywhere."""
    async with broker_that(bytes((0x20, 2, 0, code))) as (port, _):
        refused = sender(port, mqtt5=mqtt5)
        with pytest.raises(BrokerLostError, match="wrong name or password"):
            await refused.__aenter__()
        assert refused.refused
    async with broker_that(b"") as (port, _):
        unheard = sender(port, mqtt5=mqtt5, timeout_s=0.1)
        with pytest.raises(BrokerLostError, match="does not answer"):
            await unheard.__aenter__()
        assert not unheard.refused


@pytest.mark.parametrize("pings", [True, False], ids=["answers pings", "is silent"])
async def test_a_broker_that_acknowledges_nothing_is_given_up(pings: bool, monkeypatch: pytest.MonkeyPatch):
    """That it answers otherwise does not help; without anything under way it does."""
    monkeypatch.setattr("ingest.sending.LOOK_S", 0.05)
    async with broker_that(CONNACK, pings=pings) as (port, heard), sender(port) as link:
        if pings:
            await until(lambda: b"".join(heard).count(b"\xc0\0") > 6)
            link.check()
        link.write(link.publish("rw/v1/bed-7/ecg", b"x")[1])
        await until(lambda: not link.live)
        with pytest.raises(BrokerLostError, match="silent"):
            link.check()


@pytest.mark.parametrize("engine", [pytest.param("mosquitto", marks=pytest.mark.services), "amqtt"])
async def test_a_device_comes_in_by_tls(tmp_path: Path, engine: str):
    """The broker's certificate must be of the authority that the device trusts."""
    for name in ("ours", "strange"):
        make_certificates(tmp_path / name, ["127.0.0.1"], now=datetime.now(UTC))
    meta = DeviceMeta("bed-7", 1, 250.0, ("MLII",), 200.0)
    async with embedded_broker(
        tmp_path / "broker", engine=engine, devices={"bed-7": hash_secret("secret")},
        certificates=broker_certificates(tmp_path / "ours"),
    ) as broker:  # fmt: skip

        def device(authority: str) -> DeviceClient:
            context = client_context(tmp_path / authority / "ca.pem")
            where = Address(broker.door_host, broker.door_port, "bed-7", "secret", context, broker.mqtt5)
            return DeviceClient(where, meta, close_s=1.0)

        async with device("ours") as bed:
            bed.note("bed-7", "button")
            async with asyncio.timeout(DEADLINE_S):
                await bed.drain()
        async with device("strange") as bed:
            await until(lambda: bed.stats.failures > 0)
            assert "certificate" in bed.stats.last_error


@settings(max_examples=100, deadline=None)
@given(answers=st.lists(st.tuples(st.integers(1, 8), st.booleans()), max_size=20), mqtt5=st.booleans(), data=st.data())
def test_each_acknowledgement_counts_once(answers: list[tuple[int, bool]], mqtt5: bool, data: st.DataObject):
    """However the bytes come, with a reason or without, for what is under way and for what never was."""

    async def run() -> None:
        told: list[int] = []
        link = sender(mqtt5=mqtt5, acknowledged=told)
        link.connection_made(Wire())  # type: ignore[arg-type]
        numbers = [link.publish("rw/v1/bed-7/ecg", b"x")[0] for _ in range(5)]
        stream = b"".join(
            struct.pack(">BBHBB", 0x40, 4, number, 0, 0) if long and mqtt5 else struct.pack(">BBH", 0x40, 2, number)
            for number, long in answers
        )
        at = 0
        while at < len(stream):
            size = data.draw(st.integers(1, len(stream) - at))
            link.data_received(stream[at : at + size])
            at += size
        assert told == list(dict.fromkeys(number for number, _ in answers if number in numbers))

    asyncio.run(run())


async def test_a_number_under_way_is_not_given_again():
    """Numbers go round; one that is not acknowledged is passed over."""
    told: list[int] = []
    link = sender(acknowledged=told)
    link.connection_made(Wire())  # type: ignore[arg-type]
    first = link.publish("rw/v1/bed-7/ecg", b"x")[0]
    given = []
    for _ in range(65_535):
        number = link.publish("rw/v1/bed-7/ecg", b"x")[0]
        given.append(number)
        link.data_received(struct.pack(">BBH", 0x40, 2, number))
    assert first not in given
    assert set(given) == set(range(1, 65_536)) - {first}
    assert told == given


async def test_the_broker_hears_of_an_idle_device_within_the_keep_alive(monkeypatch: pytest.MonkeyPatch):
    """One that is sent commands all the time, and says nothing itself, asks now and then all the same."""
    monkeypatch.setattr("ingest.sending.LOOK_S", 4.0)
    link = sender()
    wire = Wire()
    link.connection_made(wire)  # type: ignore[arg-type]
    for _ in range(6):
        link.data_received(PINGRESP)
        link._ping()
        assert link._pinger is not None
        link._pinger.cancel()
    assert wire.written.count(b"\xc0\0") == 2
