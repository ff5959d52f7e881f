"""The embedded broker, mosquitto or amqtt: passwords, rights, kept sessions, nothing left behind."""

import asyncio
import os
import platform
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bus.errors import ServerError
from ingest.broker import Broker, embedded_broker

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 60.0
ENGINES = [pytest.param("mosquitto", marks=pytest.mark.services), "amqtt"]


def client(broker: Broker, name: str | None = None, password: str | None = None, **options: Any) -> aiomqtt.Client:
    """Make a client of the protocol that the broker speaks."""
    version = aiomqtt.ProtocolVersion.V5 if broker.mqtt5 else aiomqtt.ProtocolVersion.V311
    return aiomqtt.Client(broker.host, broker.port, username=name, password=password, protocol=version, **options)


@pytest.mark.parametrize("engine", ENGINES)
async def test_messages_pass_from_devices_to_the_service(tmp_path: Path, engine: str):
    """What the device account publishes reaches the service account, a frame of a megabyte too."""
    async with (
        embedded_broker(tmp_path, engine=engine) as broker,
        client(broker, broker.username, broker.password) as service,
        client(broker, broker.device_username, broker.device_password) as device,
    ):
        await service.subscribe("rw/v1/+/ecg", qos=1)
        await device.publish("rw/v1/bed-7/ecg", bytes(1 << 20), qos=1)
        async with asyncio.timeout(DEADLINE_S):
            message = await anext(aiter(service.messages))
        assert (str(message.topic), len(message.payload)) == ("rw/v1/bed-7/ecg", 1 << 20)


@pytest.mark.parametrize("engine", ENGINES)
async def test_nobody_without_the_password_comes_in(tmp_path: Path, engine: str):
    """No name, a wrong password and an unknown name are refused, and the broker listens on the loopback alone."""
    async with embedded_broker(tmp_path, engine=engine) as broker:
        for name, password in ((None, None), (broker.username, "wrong"), ("someone", broker.password)):
            with pytest.raises(aiomqtt.MqttError):
                async with client(broker, name, password):
                    pass
        assert broker.host == "127.0.0.1"
        hosts = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for host in hosts - {"127.0.0.1"}:
            if not host.startswith("127."):
                with pytest.raises(OSError, match=r".+"):
                    await asyncio.open_connection(host, broker.port)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_device_can_not_read_other_devices(tmp_path: Path, engine: str):
    """The device account gets no frames, even where a subscription is accepted, and can't give commands."""
    async with (
        embedded_broker(tmp_path, engine=engine) as broker,
        client(broker, broker.username, broker.password) as service,
        client(broker, broker.device_username, broker.device_password) as device,
    ):
        await device.subscribe("rw/v1/+/ecg", qos=1)
        await device.subscribe("rw/v1/+/commands", qos=1)
        await service.subscribe("rw/v1/+/ecg", qos=1)
        await device.publish("rw/v1/bed-7/ecg", b"frame", qos=1)
        await device.publish("rw/v1/bed-7/commands", b"forged", qos=0)
        async with asyncio.timeout(DEADLINE_S):
            assert (await anext(aiter(service.messages))).payload == b"frame"
            await service.publish("rw/v1/bed-7/commands", b"real", qos=1)
            assert (await anext(aiter(device.messages))).payload == b"real"


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_session_of_an_absent_subscriber_is_kept(tmp_path: Path, engine: str):
    """What is published while the subscriber is away waits for it."""
    async with embedded_broker(tmp_path, engine=engine) as broker:
        options: dict[str, Any] = {"identifier": "reader"} | ({} if broker.mqtt5 else {"clean_session": False})
        if broker.mqtt5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 60
            options |= {"clean_start": False, "properties": properties}
        async with client(broker, broker.username, broker.password, **options) as reader:
            await reader.subscribe("rw/v1/+/ecg", qos=1)
        async with client(broker, broker.device_username, broker.device_password) as device:
            await device.publish("rw/v1/bed-7/ecg", b"waits", qos=1)
        async with client(broker, broker.username, broker.password, **options) as reader, asyncio.timeout(DEADLINE_S):
            assert (await anext(aiter(reader.messages))).payload == b"waits"


@pytest.mark.services
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
async def test_a_queue_that_was_read_is_given_back(tmp_path: Path):
    """The broker is not as large for ever as what it once had to keep for a reader that was away."""
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 60
    options: dict[str, Any] = {"identifier": "reader", "clean_start": False, "properties": properties}
    count, frame = 500, bytes(40_000)
    async with embedded_broker(tmp_path, engine="mosquitto") as broker:
        async with client(broker, broker.username, broker.password, **options) as reader:
            await reader.subscribe("rw/v1/+/ecg", qos=1)
        empty = resident(broker.pid)
        async with client(broker, broker.device_username, broker.device_password) as device:
            for _ in range(count):
                await device.publish("rw/v1/bed-7/ecg", frame, qos=1)
        assert resident(broker.pid) - empty > count * len(frame) * 0.9
        async with client(broker, broker.username, broker.password, **options) as reader, asyncio.timeout(DEADLINE_S):
            messages = aiter(reader.messages)
            for _ in range(count):
                await anext(messages)
            while resident(broker.pid) - empty > count * len(frame) * 0.2:
                await asyncio.sleep(0.05)


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("engine", ENGINES)
async def test_passwords_stay_and_are_secret(tmp_path: Path, engine: str):
    """A restart keeps the passwords, and nobody else can read a file that holds one."""
    async with embedded_broker(tmp_path, engine=engine) as first:
        pass
    async with embedded_broker(tmp_path, engine=engine) as second:
        assert first.password == second.password
    for path in tmp_path.iterdir():  # noqa: ASYNC240 - the test has nothing else to do
        if any(secret in path.read_bytes() for secret in (first.password.encode(), first.device_password.encode())):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_broker_that_can_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A port in use, a directory in use and a missing mosquitto give one clear error each."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port}"):
            async with embedded_broker(tmp_path / "a", port=port, engine="amqtt"):
                pass
    async with embedded_broker(tmp_path / "b", engine="amqtt"):
        with pytest.raises(ServerError, match="in use"):
            async with embedded_broker(tmp_path / "b", engine="amqtt"):
                pass
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(ServerError, match="apt-get install mosquitto"):
        async with embedded_broker(tmp_path / "c", engine="mosquitto"):
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
@pytest.mark.parametrize("engine", ENGINES)
async def test_the_broker_dies_with_a_killed_parent(tmp_path: Path, engine: str):
    """A parent that gets SIGKILL leaves no broker behind."""
    code = (
        "import asyncio, sys, pathlib\n"
        "from ingest.broker import embedded_broker\n"
        "async def main():\n"
        "    async with embedded_broker(pathlib.Path(sys.argv[1]), engine=sys.argv[2]) as broker:\n"
        "        print(broker.port, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), engine]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - its end is tested
    assert parent.stdout is not None
    port = int(await asyncio.to_thread(parent.stdout.readline))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                break
            writer.close()
            await asyncio.sleep(0.02)
