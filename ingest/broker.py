"""The embedded broker: mosquitto as a child process, else amqtt in one.

Both listen on the loopback alone, refuse whoever has no password, and keep the session of a subscriber that is away.
Mosquitto speaks MQTT 5 (shared subscriptions, receive maximum, message expiry); amqtt 3.1.1 alone.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiomqtt
import msgspec

from bus.child import hold, make_folder, spawn, stop, tail
from bus.errors import ServerError

START_S: Final = 10.0
MAX_PACKET: Final = 4 << 20
"""Bytes; above what a codec takes, so that an oversized frame is counted by us and not lost in silence."""
SERVICE: Final = "rhythmwatch"
DEVICES: Final = "devices"
_PBKDF2_ROUNDS: Final = 10_000
_ATTEMPTS: Final = 3
_ROOT: Final = Path(__file__).resolve().parent.parent
"""Where a child finds our packages."""


class Broker(msgspec.Struct, frozen=True):
    """Where a broker listens, and two accounts on it.

    Attributes
    ----------
    username, password : str
        Account of the service: reads all of ``rw/v1``, writes commands.
    device_username, device_password : str
        Account of devices run by us (replay, simulator): writes as any device, reads commands.
    mqtt5 : bool
        Whether MQTT 5 is spoken, else 3.1.1.
    """

    host: str
    port: int
    username: str
    password: str
    device_username: str
    device_password: str
    mqtt5: bool


@contextlib.asynccontextmanager
async def embedded_broker(
    data_dir: Path, *, port: int = 0, engine: str | None = None, start_s: float = START_S
) -> AsyncIterator[Broker]:
    """Run a broker for as long as the block lasts.

    Parameters
    ----------
    data_dir : Path
        Holds passwords, configuration and sessions; one broker at a time may use it.
    port : int
        0 takes a free one.
    engine : str, optional
        ``"mosquitto"`` or ``"amqtt"``; else mosquitto where it is on the PATH.

    Yields
    ------
    Broker
        Address and accounts.

    Raises
    ------
    ServerError
        If it does not come up, or the directory is in use.
    """
    data_dir = make_folder(data_dir)
    program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if engine == "mosquitto" and program is None:
        raise ServerError("mosquitto is not on the PATH; install it (Debian: apt-get install mosquitto) or use amqtt")
    mosquitto = program if engine != "amqtt" else None
    with hold(data_dir / "broker.lock"):
        passwords = _passwords(data_dir / "broker-passwords.json")
        log = data_dir / "broker.log"
        for attempt in range(_ATTEMPTS):
            broker = Broker(
                "127.0.0.1",
                port or _free_port(),
                SERVICE,
                passwords[SERVICE],
                DEVICES,
                passwords[DEVICES],
                mosquitto is not None,
            )
            command = _mosquitto(mosquitto, data_dir, broker) if mosquitto is not None else _amqtt(data_dir, broker)
            process = await spawn(command, folder=_ROOT, output=log)
            try:
                up = await _until_up(process, broker, log, start_s)
                if up:
                    yield broker
                    return
            finally:
                await stop(process)
            if port or attempt == _ATTEMPTS - 1:
                where = f"with status {process.returncode} on port {broker.port}"
                raise ServerError(f"{command[0]} ended {where}; see {log}:\n{tail(log)}")


async def _until_up(process: asyncio.subprocess.Process, broker: Broker, log: Path, start_s: float) -> bool:
    """Wait until the login works; False if the child ended, for instance because another program has the port."""
    protocol = aiomqtt.ProtocolVersion.V5 if broker.mqtt5 else aiomqtt.ProtocolVersion.V311
    try:
        async with asyncio.timeout(start_s):
            while process.returncode is None:
                try:
                    async with aiomqtt.Client(
                        broker.host,
                        broker.port,
                        username=broker.username,
                        password=broker.password,
                        protocol=protocol,
                        timeout=1.0,
                    ):
                        return True
                except aiomqtt.MqttError:
                    await asyncio.sleep(0.02)
    except TimeoutError:
        raise ServerError(f"the broker did not come up in {start_s:g} s; see {log}:\n{tail(log)}") from None
    return False


def _passwords(path: Path) -> dict[str, str]:
    """Passwords of the accounts, made at the first start."""
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(path.read_text())
        if isinstance(known, dict) and {SERVICE, DEVICES} <= known.keys():
            return known
    made = {name: secrets.token_urlsafe(24) for name in (SERVICE, DEVICES)}
    _write_secret(path, json.dumps(made))
    return made


def _mosquitto(program: str, data_dir: Path, broker: Broker) -> list[str]:
    """Write mosquitto's files; returns the command."""
    users, rules, config = (data_dir / name for name in ("broker.users", "broker.acl", "broker.conf"))
    accounts = ((SERVICE, broker.password), (DEVICES, broker.device_password))
    _write_secret(users, "".join(f"{name}:{_pbkdf2(password)}\n" for name, password in accounts))
    _write_secret(
        rules,
        f"user {SERVICE}\ntopic read rw/v1/#\ntopic write rw/v1/+/commands\n"
        f"user {DEVICES}\n"
        + "".join(f"topic write rw/v1/+/{name}\n" for name in ("ecg", "meta", "status", "events", "backfill"))
        + "topic read rw/v1/+/commands\n"
        + "".join(f"pattern write rw/v1/%u/{name}\n" for name in ("ecg", "meta", "status", "events", "backfill"))
        + "pattern read rw/v1/%u/commands\n",
    )
    lines = [
        f"listener {broker.port} {broker.host}",
        "allow_anonymous false",
        f"password_file {users}",
        f"acl_file {rules}",
        "persistence true",
        f"persistence_location {data_dir}/",
        "persistence_file broker.db",
        "autosave_interval 30",
        "persistent_client_expiration 1d",
        "max_inflight_messages 2000",
        "max_queued_messages 200000",
        "max_queued_bytes 268435456",
        f"max_packet_size {MAX_PACKET}",
        "set_tcp_nodelay true",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "connection_messages false",
    ]
    if os.geteuid() == 0:
        # Mosquitto would change to a user that can't read these files, and lose the signal that ends it with us.
        lines.append("user root")
    _write_secret(config, "\n".join(lines) + "\n")
    return [program, "-c", str(config)]


def _amqtt(data_dir: Path, broker: Broker) -> list[str]:
    """Write the settings of the child that runs amqtt; returns the command."""
    settings = data_dir / "broker-amqtt.json"
    _write_secret(
        settings,
        json.dumps(
            {
                "host": broker.host,
                "port": broker.port,
                "service": [broker.username, broker.password],
                "devices": [broker.device_username, broker.device_password],
            }
        ),
    )
    return [sys.executable, "-m", "ingest.broker_amqtt", str(settings)]


def _pbkdf2(password: str) -> str:
    """Hash of a password as mosquitto keeps it: ``$7$rounds$salt$hash``, PBKDF2 with SHA-512."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _PBKDF2_ROUNDS)
    return f"$7${_PBKDF2_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _write_secret(path: Path, text: str) -> None:
    """Write a file that only we can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
