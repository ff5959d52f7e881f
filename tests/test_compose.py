"""docker-compose.yml: valid, and its commands with its settings carry a beat from the broker to the page."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from ports import free_ports

from bus.errors import BusError
from bus.messages import BeatEvent, unpack_event
from bus.streams import START, Bus
from ingest import room
from ingest.broker import find_plugin
from ingest.device import Connection, DeviceClient, DeviceMeta
from ingest.simulator import SimulatedSource
from rhythmwatch.certificates import client_context

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docker-compose.yml"
DEADLINE_S = 120.0
SECRETS = {
    "RHYTHMWATCH_MQTT_PASSWORD": "broker-secret",
    "RHYTHMWATCH_GATE_PASSWORD": "gate-secret",
    "RHYTHMWATCH_ADMIN_PASSWORD": "a long station secret",
    "RHYTHMWATCH_HOST_NAME": "127.0.0.1",
}
PROCESSES = ("ingest", "worker", "historian", "recorder", "evidence", "notifier", "keeper", "web")
PASSWORDS = {"RHYTHMWATCH_ADMIN_PASSWORD", "RHYTHMWATCH_MQTT_PASSWORD"}


def compose() -> dict[str, Any]:
    """Read the file with its variables filled in, as compose does."""
    text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda match: SECRETS[match[1]], FILE.read_text(encoding="utf-8"))
    text = re.sub(r"\$\{\w+:-\}", "", text)
    parsed: dict[str, Any] = yaml.safe_load(text.replace("$$", "$"))
    return parsed


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process for the block; its output goes to a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(DEADLINE_S)
            finally:
                process.kill()
                process.wait()


def test_the_file_meets_the_compose_schema():
    """The compose specification's own schema accepts the file."""
    tool = Path(sys.executable).with_name("check-jsonschema")
    answer = subprocess.run(
        [tool, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.timeout(300)
def test_every_setting_is_an_option_of_its_command():
    """Each RHYTHMWATCH_ variable of a service is one that its command reads."""
    for service in ("certs", "gate", *PROCESSES):
        spec = compose()["services"][service]
        words = list(itertools.takewhile(lambda word: not word.startswith("-"), spec["command"]))
        shown = "".join(
            subprocess.run(
                [sys.executable, "-m", "rhythmwatch", *command, "--help"],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "COLUMNS": "300", "TERM": "dumb"},
            ).stdout
            # By hand, devices are added in the same container.
            for command in ([words, ["devices", "add"]] if service == "gate" else [words])
        )
        for name in spec.get("environment", {}):
            assert name in shown or name in PASSWORDS, (service, name)


def test_the_broker_has_the_room_that_ingest_counts_with():
    """What it keeps for one session at most is what devices are held by."""
    lines = (ROOT / "deploy" / "mosquitto.conf").read_text(encoding="utf-8").splitlines()
    assert {f"max_queued_messages {room.MESSAGES}", f"max_queued_bytes {room.BYTES}"} <= set(lines)


@asynccontextmanager
async def started(tmp_path: Path) -> AsyncIterator[tuple[int, str, int]]:
    """Start every service of the file as a plain process; gives the broker's port, the bus and the page's port."""
    services = compose()["services"]
    ports = dict(zip(("1883", "8883", "6379", "8800"), free_ports(4), strict=True))
    folders = {"/broker": str(tmp_path / "broker"), "/certs": str(tmp_path / "certs")}
    history = tmp_path / "history"
    history.mkdir()
    configuration = (ROOT / "deploy" / "mosquitto.conf").read_text(encoding="utf-8")
    plugin = find_plugin()
    assert plugin is not None
    configuration = configuration.replace("/usr/lib/mosquitto_dynamic_security.so", plugin)
    for port in ("1883", "8883"):
        configuration = configuration.replace(f"listener {port}", f"listener {ports[port]} 127.0.0.1")
    script = services["mosquitto"]["entrypoint"][-1].replace("/mosquitto/config", str(tmp_path))
    for name, folder in folders.items():
        configuration = configuration.replace(f"{name}/", f"{folder}/")
        script = script.replace(f"{name}/", f"{folder}/")
    (tmp_path / "mosquitto.conf").write_text(configuration + "user root\n", encoding="utf-8")
    valkey = list(services["valkey"]["command"])
    valkey[0] = shutil.which("valkey-server") or shutil.which("redis-server") or "redis-server"
    valkey += ["--port", str(ports["6379"]), "--dir", str(tmp_path)]

    def local(value: str) -> str:
        value = value.replace("valkey:6379", f"127.0.0.1:{ports['6379']}")
        value = value.replace("mosquitto:1883", f"127.0.0.1:{ports['1883']}")
        value = re.sub(r"^/(broker|certs)\b", lambda found: folders[found[0]], value)
        return value.replace("/var/lib/rhythmwatch", str(history)).replace("0.0.0.0", "127.0.0.1")  # noqa: S104

    commands: list[tuple[str, list[str], dict[str, str]]] = [
        ("mosquitto", [*services["mosquitto"]["entrypoint"][:2], script], {}),
        ("valkey", valkey, {}),
    ]
    for name in ("certs", "gate", *PROCESSES):
        spec = services[name]
        words = [str(ports["8800"]) if word == "8800" else local(str(word)) for word in spec["command"]]
        environment = {key: local(str(value or "")) for key, value in spec["environment"].items()}
        if "RHYTHMWATCH_METRICS" in environment:
            environment["RHYTHMWATCH_METRICS"] = "127.0.0.1:0"
        commands.append((name, [sys.executable, "-m", "rhythmwatch", *words], environment))
    stack = ExitStack()
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        (certs,) = [entry for entry in commands if entry[0] == "certs"]
        await asyncio.to_thread(subprocess.run, certs[1], env={**os.environ, **certs[2]}, check=True)
        for name, command, environment in commands:
            if name == "certs":
                continue
            context = running(command, {k: str(v) for k, v in environment.items()}, tmp_path / f"{name}.log")
            processes[name] = stack.enter_context(context)
        yield ports["8883"], f"redis://127.0.0.1:{ports['6379']}/0", ports["8800"]
        assert {name for name, process in processes.items() if process.poll() is not None} == set()
    finally:
        stack.close()


@pytest.mark.services
@pytest.mark.timeout(300)
async def test_its_commands_carry_a_beat_from_the_broker_to_the_page(tmp_path: Path):
    """All services as the file starts them: a device is enrolled, encrypted frames in, beats out, log-in by HTTPS."""
    async with started(tmp_path) as (broker, bus_url, page):
        source = SimulatedSource("compose-1", "sinus:60,hr=80", 1)
        enrol = [sys.executable, "-m", "rhythmwatch", "devices", "add", "compose-1", "--json", "--history"]
        added = await asyncio.to_thread(
            subprocess.run, [*enrol, f"sqlite:///{tmp_path}/history/history.db"], capture_output=True, check=True
        )
        trusted = client_context(tmp_path / "certs" / "ca.pem")
        connection = Connection("127.0.0.1", broker, "compose-1", json.loads(added.stdout)["password"], trusted)
        meta = DeviceMeta(source.device, 1, source.rate, source.leads, source.gain)
        async with asyncio.timeout(DEADLINE_S), DeviceClient(connection, meta) as device, Bus(bus_url) as bus:
            await device.connected()
            stream = source.frames(1, 0)
            found: list[BeatEvent] = []
            cursors = dict.fromkeys(range(bus.partitions), START)
            while len(found) < 5:
                device.offer(next(stream))
                await asyncio.sleep(0.05)
                try:
                    batches = await bus.read_events(cursors)
                except BusError:
                    continue
                for partition, records in batches:
                    cursors[partition] = records[-1].position
                    events = [unpack_event(record.data) for record in records]
                    found += [event for event in events if isinstance(event, BeatEvent)]
            assert {event.device for event in found} == {"compose-1"}
            async with httpx2.AsyncClient(base_url=f"https://127.0.0.1:{page}", verify=trusted) as client:
                while (await healthz(client)) != 200:
                    await asyncio.sleep(0.1)
                form = {"user": "station", "password": SECRETS["RHYTHMWATCH_ADMIN_PASSWORD"]}
                answer = await client.post("/login", data=form, headers={"Origin": f"https://127.0.0.1:{page}"})
                assert answer.status_code == 303
                assert "rw_session" in client.cookies


async def healthz(client: httpx2.AsyncClient) -> int:
    """Status of the health page; 0 while nothing answers."""
    try:
        return (await client.get("/healthz")).status_code
    except httpx2.TransportError:
        return 0
