"""The embedded broker: mosquitto as a child process, else amqtt in one.

It has two doors. That of the service is on the loopback alone, for processes of ours. That of devices takes only
enrolled devices, each under its own client id, and speaks TLS where there are certificates. Both refuse whoever has no
password, and both keep the session of a client that is away. Mosquitto speaks MQTT 5 (shared subscriptions, receive
maximum, message expiry); amqtt 3.1.1 alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import aiomqtt
import msgspec

from bus.child import Child, free_port, hold, kept, make_folder, spawn, stop, tail
from bus.errors import ServerError
from bus.passwords import hash_secret, new_secret
from ingest import room
from ingest.accounts import FLEET, GATE, OWN, SERVICE, acl_file, dynamic_security, password_file

START_S: Final = 10.0
MAX_PACKET: Final = 4 << 20
"""Bytes; above what a codec takes, so that an oversized frame is counted by us and not lost in silence."""
ALLOCATOR: Final = {"MALLOC_MMAP_THRESHOLD_": str(16 << 10)}
"""Variables of glibc: blocks above 16 kB are given back as soon as they are free. Mosquitto does not ask the allocator
for that, and would be as large for ever as the longest queue of stored data or of long frames that it ever had."""
PLUGIN: Final = "mosquitto_dynamic_security.so"
_PLUGIN_FOLDERS: Final = ("/usr/lib/*", "/usr/lib", "/usr/local/lib", "/opt/homebrew/lib")
_ATTEMPTS: Final = 3
_ROOT: Final = Path(__file__).resolve().parent.parent
"""Where a child finds our packages."""


class Certificates(msgspec.Struct, frozen=True):
    """Files for TLS on the door of devices.

    Attributes
    ----------
    certificate, key : str
        PEM files of the broker.
    authority : str
        PEM file of the authority that signs clients' certificates; used where `clients` asks for them.
    clients : bool
        Whether a device must show a certificate beside its password.
    """

    certificate: str
    key: str
    authority: str = ""
    clients: bool = False


class Broker(msgspec.Struct, frozen=True):
    """Where a broker listens, and our accounts on it.

    Attributes
    ----------
    host, port
        Door of the service.
    username, password : str
        Account of the service: reads all of ``rw/v1``, writes commands.
    device_username, device_password : str
        Account of devices run by us (replay, simulator): writes as any device, reads commands.
    mqtt5 : bool
        Whether MQTT 5 is spoken, else 3.1.1.
    door_host, door_port
        Door of enrolled devices.
    tls : bool
        Whether that door is encrypted.
    folder : str
        Directory of its files.
    hashes : dict of str to str
        Hashes of our own accounts, by name.
    gate_password : str
        Password of the account that changes accounts.
    plugin : bool
        Whether mosquitto's dynamic-security plug-in makes the rules.
    process : Child, optional
        What runs; a broker that dies is started again.
    """

    host: str
    port: int
    username: str
    password: str
    device_username: str
    device_password: str
    mqtt5: bool
    door_host: str = "127.0.0.1"
    door_port: int = 0
    tls: bool = False
    folder: str = ""
    hashes: dict[str, str] = {}
    gate_password: str = ""
    plugin: bool = False
    process: Child | None = None

    @property
    def pid(self) -> int:
        """Process id of the broker that runs now; 0 before it does."""
        return self.process.pid if self.process is not None else 0

    @property
    def address(self) -> str:
        """Address that devices are told, without an account."""
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.door_host}:{self.door_port}"


@contextlib.asynccontextmanager
async def embedded_broker(
    data_dir: Path,
    *,
    port: int = 0,
    engine: str | None = None,
    start_s: float = START_S,
    devices: Mapping[str, str] | None = None,
    door: tuple[str, int] = ("127.0.0.1", 0),
    certificates: Certificates | None = None,
    plugin: bool = True,
) -> AsyncIterator[Broker]:
    """Run a broker for as long as the block lasts; one that dies is started again.

    Parameters
    ----------
    data_dir : Path
        Holds passwords, configuration and sessions; one broker at a time may use it.
    port : int
        Of the service's door; 0 takes a free one.
    engine : str, optional
        ``"mosquitto"`` or ``"amqtt"``; else mosquitto where it is on the PATH.
    devices : mapping of str to str, optional
        Hash of the secret of each enrolled device, by id; `ingest.gatekeeper` changes them while the broker runs.
    door : tuple of (str, int)
        Where devices come in; port 0 takes a free one.
    certificates : Certificates, optional
        Encrypts the door of devices.
    plugin : bool
        Use mosquitto's dynamic-security plug-in where it is on the machine.

    Yields
    ------
    Broker
        Addresses and accounts.

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
    library = find_plugin() if mosquitto is not None and plugin else None
    with hold(data_dir / "broker.lock"):
        passwords = _passwords(data_dir / "broker-passwords.json")
        log = data_dir / "broker.log"
        for attempt in range(_ATTEMPTS):
            broker = Broker(
                "127.0.0.1",
                port or free_port(),
                SERVICE,
                passwords[SERVICE],
                FLEET,
                passwords[FLEET],
                mosquitto is not None,
                door_host=door[0],
                door_port=door[1] or free_port(door[0]),
                tls=certificates is not None,
                folder=str(data_dir),
                hashes={name: hash_secret(passwords[name]) for name in OWN},
                gate_password=passwords[GATE],
                plugin=library is not None,
            )
            write_accounts(broker, devices or {})
            if mosquitto is not None:
                command = _mosquitto(mosquitto, library, data_dir, broker, list(devices or ()), certificates)
            else:
                command = _amqtt(data_dir, broker, certificates)
            start = partial(_start, command, broker, log, start_s)
            async with contextlib.AsyncExitStack() as stack:
                try:
                    child = await stack.enter_async_context(kept(start))
                except _EndedError:
                    # Another program may have taken a port that was free a moment ago.
                    if port or door[1] or attempt == _ATTEMPTS - 1:
                        raise
                    continue
                yield msgspec.structs.replace(broker, process=child)
                return


class _EndedError(ServerError):
    """The broker ended instead of coming up."""


async def _start(command: Sequence[str], broker: Broker, log: Path, start_s: float) -> asyncio.subprocess.Process:
    process = await spawn(command, folder=_ROOT, output=log, environment=ALLOCATOR)
    try:
        if await _until_up(process, broker, log, start_s):
            return process
    except BaseException:
        await stop(process)
        raise
    await stop(process)
    where = f"with status {process.returncode} on port {broker.port} or {broker.door_port}"
    raise _EndedError(f"{command[0]} ended {where}; see {log}:\n{tail(log)}")


def find_plugin() -> str | None:
    """Path of mosquitto's dynamic-security plug-in, None where there is none."""
    for folder in _PLUGIN_FOLDERS:
        root = Path(folder.rstrip("*"))
        for found in sorted(root.glob(f"*/{PLUGIN}" if folder.endswith("*") else PLUGIN)):
            return str(found)
    return None


def write_accounts(broker: Broker, devices: Mapping[str, str], held: Collection[str] = ()) -> None:
    """Write the files that the broker reads: our accounts and those of `devices`, and rules where it has no plug-in.

    Devices that are `held` may send nothing that they had stored.
    """
    folder = Path(broker.folder)
    if broker.mqtt5:
        # Only the plug-in ties a device to its client id at the service's door; without it no device comes in there.
        write_secret(folder / "broker.users", password_file({**broker.hashes, **(devices if broker.plugin else {})}))
        write_secret(folder / "broker.devices", password_file(devices))
        if not broker.plugin:
            write_secret(folder / "broker.acl", acl_file(held))
    else:
        write_secret(folder / "broker-devices.json", json.dumps(dict(devices)))


def write_secret(path: Path, text: str) -> None:
    """Replace a file, in one step, by one that only we can read."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)


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
    """Passwords of our own accounts, made at the first start."""
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(path.read_text())
        if isinstance(known, dict) and set(OWN) <= known.keys():
            return known
    made = {name: new_secret() for name in OWN}
    write_secret(path, json.dumps(made))
    return made


def _mosquitto(
    program: str,
    library: str | None,
    data_dir: Path,
    broker: Broker,
    devices: list[str],
    certificates: Certificates | None,
) -> list[str]:
    """Write mosquitto's files; returns the command."""
    config = data_dir / "broker.conf"
    users, enrolled = data_dir / "broker.users", data_dir / "broker.devices"
    service = [f"listener {broker.port} {broker.host}"]
    door = [
        f"listener {broker.door_port} {broker.door_host}",
        # Whoever has the client id of another takes its session over: here everyone has that of the account.
        "use_username_as_clientid true",
    ]
    if certificates is not None:
        door += [f"certfile {certificates.certificate}", f"keyfile {certificates.key}", "tls_version tlsv1.2"]
        if certificates.clients:
            door += [f"cafile {certificates.authority}", "require_certificate true"]
    if library is not None:
        rules = data_dir / "broker-rules.json"
        write_secret(rules, dynamic_security(devices))
        lines = ["allow_anonymous false", f"password_file {users}"]
        lines += [f"plugin {library}", f"plugin_opt_config_file {rules}", *service, *door]
    else:
        rules = data_dir / "broker.acl"
        lines = ["per_listener_settings true"]
        for listener, accounts in ((service, users), (door, enrolled)):
            lines += [*listener, "allow_anonymous false", f"password_file {accounts}", f"acl_file {rules}"]
    lines += [
        "persistence true",
        f"persistence_location {data_dir}/",
        "persistence_file broker.db",
        # What is queued or subscribed since the last save is lost where the broker is killed.
        "autosave_interval 5",
        "persistent_client_expiration 1d",
        "max_inflight_messages 2000",
        f"max_queued_messages {room.MESSAGES}",
        f"max_queued_bytes {room.BYTES}",
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
    write_secret(config, "\n".join(lines) + "\n")
    return [program, "-c", str(config)]


def _amqtt(data_dir: Path, broker: Broker, certificates: Certificates | None) -> list[str]:
    """Write the settings of the child that runs amqtt; returns the command."""
    settings = data_dir / "broker-amqtt.json"
    write_secret(
        settings,
        json.dumps(
            {
                "host": broker.host,
                "port": broker.port,
                "door": [broker.door_host, broker.door_port],
                "certificates": None if certificates is None else msgspec.to_builtins(certificates),
                "service": [broker.username, broker.password],
                "fleet": [broker.device_username, broker.device_password],
                "gate": [GATE, broker.gate_password],
                "devices": str(data_dir / "broker-devices.json"),
            }
        ),
    )
    return [sys.executable, "-m", "ingest.broker_amqtt", str(settings)]
