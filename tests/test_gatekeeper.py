"""Devices let in and shut out while the broker runs: mosquitto with and without its plug-in, and amqtt."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiomqtt
import pytest

from bus.passwords import hash_secret
from bus.tasks import end
from ingest.accounts import held_in
from ingest.broker import Broker, embedded_broker
from ingest.gatekeeper import Gatekeeper

DEADLINE_S = 60.0
ANSWER_S = 20.0
ONE = hash_secret("one", rounds=10)
KINDS = [
    pytest.param(("mosquitto", True), marks=pytest.mark.services, id="plug-in"),
    pytest.param(("mosquitto", False), marks=pytest.mark.services, id="files"),
    pytest.param(("amqtt", False), id="amqtt"),
]


def client(broker: Broker, name: str, secret: str, *, door: bool = True, identifier: str = "") -> aiomqtt.Client:
    """Make a client as a device would."""
    version = aiomqtt.ProtocolVersion.V5 if broker.mqtt5 else aiomqtt.ProtocolVersion.V311
    host, port = (broker.door_host, broker.door_port) if door else (broker.host, broker.port)
    return aiomqtt.Client(
        host, port, username=name, password=secret, identifier=identifier or name, protocol=version, timeout=ANSWER_S
    )


async def comes_in(broker: Broker, name: str, secret: str, **options: bool | str) -> bool:
    """Whether the broker lets someone in."""
    with contextlib.suppress(aiomqtt.MqttError):
        async with client(broker, name, secret, **options):
            return True
    return False


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():
            await asyncio.sleep(0.02)


@pytest.fixture(params=KINDS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    engine, plugin = request.param
    async with embedded_broker(tmp_path, engine=engine, plugin=plugin, devices={"bed-1": ONE}) as running:
        assert running.plugin is plugin
        yield running


async def test_devices_come_and_go_without_a_restart(broker: Broker):
    """A device that is enrolled gets in, one that is revoked or has an old secret does not, others stay connected."""
    keeper = Gatekeeper(broker, {"bed-1": ONE})
    hashes = {"bed-1": ONE}
    async with client(broker, broker.username, broker.password, door=False, identifier="reader") as reader:
        await reader.subscribe("rw/v1/#", qos=1)
        async with client(broker, "bed-1", "one") as old:
            assert not await comes_in(broker, "bed-2", "two")
            hashes["bed-2"] = hash_secret("two", rounds=10)
            await keeper.apply(hashes)
            await until(lambda: comes_in(broker, "bed-2", "two"))
            async with client(broker, "bed-2", "two") as fresh:
                await fresh.publish("rw/v1/bed-2/ecg", b"fresh", qos=1)
            hashes["bed-2"] = hash_secret("three", rounds=10)
            await keeper.apply(hashes)
            await until(lambda: comes_in(broker, "bed-2", "three"))
            assert not await comes_in(broker, "bed-2", "two")
            del hashes["bed-2"]
            await keeper.apply(hashes)

            async def gone() -> bool:
                return not await comes_in(broker, "bed-2", "three")

            await until(gone)
            await old.publish("rw/v1/bed-1/ecg", b"stays", qos=1)
        got: list[bytes] = []
        async with asyncio.timeout(DEADLINE_S):
            while b"stays" not in got:
                got.append(bytes((await anext(aiter(reader.messages))).payload))
        assert got == [b"fresh", b"stays"]
    assert not await keeper.apply(hashes)


async def test_a_revoked_device_is_cut_off(broker: Broker):
    """Nothing of a connected device passes any more once it was revoked."""
    keeper = Gatekeeper(broker, {"bed-1": ONE})
    async with client(broker, broker.username, broker.password, door=False, identifier="reader") as reader:
        await reader.subscribe("rw/v1/#", qos=1)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(contextlib.suppress(aiomqtt.MqttError))
            device = await stack.enter_async_context(client(broker, "bed-1", "one"))
            await device.publish("rw/v1/bed-1/ecg", b"before", qos=1)
            await keeper.apply({})

            async def shut() -> bool:
                return not await comes_in(broker, "bed-1", "one")

            await until(shut)
            with contextlib.suppress(aiomqtt.MqttError):
                await device.publish("rw/v1/bed-1/ecg", b"after", qos=1)
        async with client(broker, broker.device_username, broker.device_password, door=False, identifier="x") as fleet:
            await fleet.publish("rw/v1/bed-9/ecg", b"last", qos=1)
        got: list[bytes] = []
        async with asyncio.timeout(DEADLINE_S):
            while b"last" not in got:
                got.append(bytes((await anext(aiter(reader.messages))).payload))
        assert got == [b"before", b"last"]


async def test_a_rotated_secret_ends_on_an_open_connection(broker: Broker):
    """Soon nothing passes any more of a device that is connected by a secret that was rotated away."""
    keeper = Gatekeeper(broker, {"bed-1": ONE})
    got: list[bytes] = []

    async def collect(reader: aiomqtt.Client) -> None:
        async for message in reader.messages:
            got.append(bytes(message.payload))  # noqa: PERF401 - read while it grows

    async def sent(device: aiomqtt.Client, mark: bytes) -> None:
        """Send a message and wait until it is there."""
        await device.publish("rw/v1/bed-1/ecg", mark, qos=1)
        await until(lambda: seen(mark))

    async def seen(mark: bytes) -> bool:
        return mark in got

    async def passes(device: aiomqtt.Client, mark: bytes) -> bool:
        """Whether a message comes through before what another client sends after it."""
        with contextlib.suppress(aiomqtt.MqttError):
            await device.publish("rw/v1/bed-1/ecg", mark, qos=1)
        await sent(fleet, b"behind " + mark)
        return mark in got

    async with (
        client(broker, broker.username, broker.password, door=False, identifier="reader") as reader,
        client(broker, broker.device_username, broker.device_password, door=False, identifier="x") as fleet,
    ):
        await reader.subscribe("rw/v1/#", qos=1)
        task = asyncio.create_task(collect(reader))
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(contextlib.suppress(aiomqtt.MqttError))
            device = await stack.enter_async_context(client(broker, "bed-1", "one"))
            await sent(device, b"before")
            await keeper.apply({"bed-1": hash_secret("two", rounds=10)})
            numbers = itertools.count()

            async def shut() -> bool:
                return not await passes(device, b"%d" % next(numbers))

            await until(shut)
            assert not await passes(device, b"after")
        await until(lambda: comes_in(broker, "bed-1", "two"))
        async with client(broker, "bed-1", "two") as fresh:
            await sent(fresh, b"fresh")
        assert b"after" not in got
        await end([task])


async def test_a_device_can_not_take_the_session_of_another_client(broker: Broker):
    """With the client id of the reader a device does not push it off, on neither door that it can reach."""
    async with client(broker, broker.username, broker.password, door=False, identifier="rw-ingest") as reader:
        await reader.subscribe("rw/v1/#", qos=1)
        await comes_in(broker, "bed-1", "one", identifier="rw-ingest")
        async with client(broker, broker.device_username, broker.device_password, door=False, identifier="x") as fleet:
            await fleet.publish("rw/v1/bed-9/ecg", b"still here", qos=1)
        async with asyncio.timeout(DEADLINE_S):
            assert bytes((await anext(aiter(reader.messages))).payload) == b"still here"


async def test_the_registry_is_followed(broker: Broker):
    """The loop lets in who appears in the registry, and shuts out for a while whom ingest complains of."""
    registry = {"bed-1": ONE}

    async def read() -> dict[str, str]:
        return dict(registry)

    keeper = Gatekeeper(broker, registry)
    task = asyncio.create_task(keeper.run(read))
    try:
        registry["bed-3"] = hash_secret("three", rounds=10)
        await until(lambda: comes_in(broker, "bed-3", "three"))
        async with client(broker, broker.username, broker.password, door=False, identifier="rw-ingest") as service:
            await service.publish("rw/limits/bed-3", b"{}", qos=1)

        async def shut() -> bool:
            return not await comes_in(broker, "bed-3", "three")

        await until(shut)
        assert await comes_in(broker, "bed-1", "one")
        keeper.shut["bed-3"] = 0.0
        await until(lambda: comes_in(broker, "bed-3", "three"))
    finally:
        await end([task])


@pytest.mark.parametrize("broker", KINDS[:2], indirect=True)
async def test_a_device_that_is_held_sends_what_it_measures_alone(broker: Broker):
    """Of a device that ingest complained of nothing stored is taken for a while, but all that is live."""
    keeper = Gatekeeper(broker, {"bed-1": ONE})
    got: list[bytes] = []

    async def registry() -> dict[str, str]:
        return {"bed-1": ONE}

    async def collect(reader: aiomqtt.Client) -> None:
        async for message in reader.messages:
            got.append(bytes(message.payload))  # noqa: PERF401 - read while it grows

    async def both(mark: bytes) -> bool:
        """Send something stored and something live; whether the first came through when the second had."""
        with contextlib.suppress(aiomqtt.MqttError):
            async with client(broker, "bed-1", "one") as device:
                with contextlib.suppress(aiomqtt.MqttError):
                    await device.publish("rw/v1/bed-1/backfill", b"stored " + mark, qos=1)
                await device.publish("rw/v1/bed-1/ecg", mark, qos=1)
                await until(lambda: seen(mark))
        return b"stored " + mark in got

    async def seen(mark: bytes) -> bool:
        return mark in got

    async with client(broker, broker.username, broker.password, door=False, identifier="reader") as reader:
        await reader.subscribe("rw/v1/#", qos=1)
        tasks = [asyncio.create_task(collect(reader)), asyncio.create_task(keeper.run(registry))]
        numbers = itertools.count()
        assert await both(b"before")
        await reader.publish("rw/limits/bed-1", b"backfill", qos=1)

        async def held() -> bool:
            return not await both(b"%d" % next(numbers))

        await until(held)
        assert not await both(b"while")
        assert b"while" in got
        keeper.held["bed-1"] = 0.0

        async def free() -> bool:
            return await both(b"%d" % next(numbers))

        await until(free)
        await end(tasks)


@pytest.mark.services
async def test_who_is_held_is_read_from_what_the_plug_in_keeps(tmp_path: Path):
    """A gate that starts again beside a broker that runs knows whom the one before it held, and lets go of them."""
    devices = {"bed-1": ONE, "bed-2": ONE}
    async with embedded_broker(tmp_path, engine="mosquitto", devices=devices) as broker:
        rules = tmp_path / "broker-rules.json"
        keeper = Gatekeeper(broker, devices)
        keeper.hold("bed-2")
        await keeper.apply(devices)
        assert held_in(rules.read_text()) == ["bed-2"]
        assert await Gatekeeper(broker, devices, held_in(rules.read_text())).apply(devices)
        assert held_in(rules.read_text()) == []
