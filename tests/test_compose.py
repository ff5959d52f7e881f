"""docker-compose.yml: valid, and its commands with its settings carry a beat from the broker to the page."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from bus.messages import BeatEvent, unpack_event
from bus.streams import START, Bus
from ingest.device import Connection, DeviceMeta, FleetClient
from ingest.simulator import SimulatedSource

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docker-compose.yml"
DEADLINE_S = 60.0
SECRETS = {"RHYTHMWATCH_MQTT_PASSWORD": "broker-secret", "RHYTHMWATCH_ADMIN_PASSWORD": "a long station secret"}


def compose() -> dict[str, Any]:
    """Read the file with its variables filled in, as compose does."""
    text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda match: SECRETS[match[1]], FILE.read_text(encoding="utf-8"))
    parsed: dict[str, Any] = yaml.safe_load(text.replace("$$", "$"))
    return parsed


def free_port() -> int:
    """Find a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process for the block; its output goes to a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(15)


def test_the_file_meets_the_compose_schema():
    """The compose specification's own schema accepts the file."""
    tool = Path(sys.executable).with_name("check-jsonschema")
    answer = subprocess.run(
        [tool, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_setting_is_an_option_of_its_command():
    """Each RHYTHMWATCH_ variable of a service is one that its command reads."""
    for service in ("ingest", "worker", "historian", "recorder", "web"):
        spec = compose()["services"][service]
        shown = subprocess.run(
            [sys.executable, "-m", "rhythmwatch", spec["command"][0], "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "300", "TERM": "dumb"},
        ).stdout
        for name in spec.get("environment", {}):
            assert name in shown or name == "RHYTHMWATCH_ADMIN_PASSWORD", (service, name)


@asynccontextmanager
async def started(tmp_path: Path) -> AsyncIterator[tuple[int, str, int]]:
    """Start every service of the file as a plain process; gives the broker's port, the bus and the page's port."""
    services = compose()["services"]
    ports = {"1883": free_port(), "6379": free_port(), "8800": free_port()}
    history = tmp_path / "history"
    history.mkdir()
    configuration = (ROOT / "deploy" / "mosquitto.conf").read_text(encoding="utf-8")
    data = tmp_path / "mosquitto"
    data.mkdir()
    configuration = configuration.replace("/mosquitto/data", str(data)).replace(
        "listener 1883", f"listener {ports['1883']} 127.0.0.1\nuser root"
    )
    (tmp_path / "mosquitto.conf").write_text(configuration, encoding="utf-8")
    script = services["mosquitto"]["entrypoint"][-1]
    script = script.replace("/mosquitto/config", str(tmp_path)).replace("/mosquitto/data", str(data))
    valkey = list(services["valkey"]["command"])
    valkey[0] = shutil.which("valkey-server") or shutil.which("redis-server") or "redis-server"
    valkey += ["--port", str(ports["6379"]), "--dir", str(tmp_path)]

    def local(value: str) -> str:
        value = value.replace("valkey:6379", f"127.0.0.1:{ports['6379']}")
        value = value.replace("mosquitto:1883", f"127.0.0.1:{ports['1883']}")
        return value.replace("/var/lib/rhythmwatch", str(history)).replace("0.0.0.0", "127.0.0.1")  # noqa: S104

    commands: list[tuple[str, list[str], dict[str, str]]] = [
        ("mosquitto", [*services["mosquitto"]["entrypoint"][:2], script], services["mosquitto"]["environment"]),
        ("valkey", valkey, {}),
    ]
    for name in ("ingest", "worker", "historian", "recorder", "web"):
        spec = services[name]
        words = [str(ports["8800"]) if word == "8800" else local(str(word)) for word in spec["command"]]
        environment = {key: local(str(value)) for key, value in spec["environment"].items()}
        commands.append((name, [sys.executable, "-m", "rhythmwatch", *words], environment))
    stack: list[Any] = []
    try:
        for name, command, environment in commands:
            context = running(command, {k: str(v) for k, v in environment.items()}, tmp_path / f"{name}.log")
            context.__enter__()
            stack.append(context)
        yield ports["1883"], f"redis://127.0.0.1:{ports['6379']}/0", ports["8800"]
    finally:
        for context in reversed(stack):
            context.__exit__(None, None, None)


@pytest.mark.services
@pytest.mark.timeout(180)
async def test_its_commands_carry_a_beat_from_the_broker_to_the_page(tmp_path: Path):
    """mosquitto, redis-server and our commands as the file starts them: frames in, beats out, log-in accepted."""
    async with started(tmp_path) as (broker, bus_url, page):
        source = SimulatedSource("compose-1", "sinus:60,hr=80", 1)
        connection = Connection("127.0.0.1", broker, "rhythmwatch", SECRETS["RHYTHMWATCH_MQTT_PASSWORD"])
        meta = DeviceMeta(source.device, 1, source.rate, source.leads, source.gain)
        async with asyncio.timeout(DEADLINE_S), FleetClient(connection, [meta]) as device, Bus(bus_url) as bus:
            await device.connected()
            stream = source.frames(1, 0)
            found: list[BeatEvent] = []
            cursors = dict.fromkeys(range(bus.partitions), START)
            while len(found) < 5:
                device.offer(next(stream))
                await asyncio.sleep(0.05)
                try:
                    batches = await bus.read_events(cursors)
                except OSError:
                    continue
                for partition, records in batches:
                    cursors[partition] = records[-1].position
                    events = [unpack_event(record.data) for record in records]
                    found += [event for event in events if isinstance(event, BeatEvent)]
            assert {event.device for event in found} == {"compose-1"}
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{page}") as client:
                while (await healthz(client)) != 200:
                    await asyncio.sleep(0.1)
                form = {"user": "station", "password": SECRETS["RHYTHMWATCH_ADMIN_PASSWORD"]}
                answer = await client.post("/login", data=form, headers={"Origin": f"http://127.0.0.1:{page}"})
                assert answer.status_code == 303
                assert "rw_session" in client.cookies


async def healthz(client: httpx2.AsyncClient) -> int:
    """Status of the health page; 0 while nothing answers."""
    try:
        return (await client.get("/healthz")).status_code
    except httpx2.TransportError:
        return 0
