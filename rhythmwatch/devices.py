"""The registry of devices and the broker brought together: enrolling, and keeping the broker's accounts as it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import segno
from sqlalchemy.exc import SQLAlchemyError

from alerts.database import open_engine, upgrade
from alerts.devices import Credentials, Devices
from bus.passwords import hash_secret
from bus.tasks import end
from ingest.accounts import FLEET, GATE, OWN, SERVICE, dynamic_security, held_in
from ingest.broker import Broker, Certificates, embedded_broker, write_accounts, write_secret
from ingest.gatekeeper import Gatekeeper
from rhythmwatch.addresses import BrokerAddress

PLACE: str = "devices-address"
"""File in the state directory that says how devices reach the embedded broker."""


@contextlib.contextmanager
def open_registry(history: str) -> Iterator[Devices]:
    """Open the registry in the history database, its schema brought up to date."""
    engine = open_engine(history)
    try:
        upgrade(engine)
        yield Devices(engine)
    finally:
        engine.dispose()


@contextlib.asynccontextmanager
async def guarded_broker(
    state: Path, history: str, *, door: tuple[str, int], certificates: Certificates | None
) -> AsyncIterator[Broker]:
    """Run the embedded broker with the devices of the registry, and follow the registry, for the block.

    Parameters
    ----------
    state : Path
        State directory of the station.
    history : str
        Address of the history database.
    door, certificates
        As of `ingest.broker.embedded_broker`.
    """
    engine = await asyncio.to_thread(open_engine, history)
    try:
        await asyncio.to_thread(upgrade, engine)
        devices = Devices(engine)
        known = await read_accounts(devices)
        async with embedded_broker(state / "broker", devices=known, door=door, certificates=certificates) as broker:
            (state / PLACE).write_text(broker.address + "\n", encoding="utf-8")
            keeper = asyncio.create_task(
                Gatekeeper(broker, known).run(lambda: read_accounts(devices)), name="gatekeeper"
            )
            try:
                yield broker
            finally:
                await end([keeper])
    finally:
        await asyncio.to_thread(engine.dispose)


async def keep_gate(broker: str, folder: Path, history: str, service_password: str, stop: asyncio.Event) -> None:
    """Keep the accounts of a mosquitto that others run as the registry says, until `stop` is set.

    Parameters
    ----------
    broker : str
        ``mqtt://`` address with the account of the gate.
    folder : Path
        Where mosquitto finds ``broker.users`` and ``broker-rules.json``; whoever runs it has to make it read the first
        again when it was replaced.
    history : str
        Address of the history database.
    service_password : str
        Password of the account of our own processes.
    stop : asyncio.Event
        Set to end it.
    """
    address = BrokerAddress.parse(broker)
    own = {SERVICE: service_password, GATE: address.password or ""}
    if address.username != GATE or not all(own.values()):
        raise ValueError(f"the broker's address must hold the account {GATE}, and RHYTHMWATCH_MQTT_PASSWORD be set")
    outer = Broker(
        address.host,
        address.port,
        SERVICE,
        service_password,
        FLEET,
        "",
        mqtt5=True,
        folder=str(folder),
        hashes={name: hash_secret(secret) for name, secret in own.items()},
        gate_password=own[GATE],
        plugin=True,
    )
    engine = await asyncio.to_thread(open_engine, history)
    try:
        await asyncio.to_thread(upgrade, engine)
        devices = Devices(engine)
        known = await asyncio.to_thread(devices.accounts)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        rules = folder / "broker-rules.json"
        if not rules.exists():
            write_secret(rules, dynamic_security(known))
        write_accounts(outer, known)
        # What the plug-in knows may be old: with no hash, each of its devices counts as changed at the first look.
        keeper = Gatekeeper(outer, dict.fromkeys(known_to(rules), ""), held_in(rules.read_text(encoding="utf-8")))
        running = asyncio.create_task(keeper.run(lambda: read_accounts(devices)), name="gatekeeper")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        finally:
            await end((running, stopped))
    finally:
        await asyncio.to_thread(engine.dispose)


async def read_accounts(devices: Devices) -> Mapping[str, str]:
    """Hash of each device that may log in; `OSError` when the database can't be read."""
    try:
        return await asyncio.to_thread(devices.accounts)
    except SQLAlchemyError as error:
        raise OSError(f"the registry of devices can't be read ({type(error).__name__})") from error


def known_to(rules: Path) -> list[str]:
    """Devices in a file of the dynamic-security plug-in."""
    clients = json.loads(rules.read_text(encoding="utf-8")).get("clients", [])
    return [client["username"] for client in clients if client["username"] not in OWN]


def address_of(state: Path) -> str:
    """How devices reach the broker of a station that runs or ran with this state; empty if it never did."""
    with contextlib.suppress(OSError):
        return (state / PLACE).read_text(encoding="utf-8").strip()
    return ""


def card(credentials: Credentials, address: str) -> tuple[str, list[str]]:
    """Write what a person copies or scans into a device.

    Parameters
    ----------
    credentials : Credentials
        Shown now and never again.
    address : str
        Of the broker as devices reach it; empty where it is not known here.

    Returns
    -------
    text : str
        What the QR code holds.
    lines : list of str
        The same for people.
    """
    text = credentials.url(address) if address else f"{credentials.device}:{credentials.secret}"
    lines = [f"device    {credentials.device}", f"password  {credentials.secret}"]
    if address:
        lines += [f"broker    {address}", f"all in one: {text}"]
    return text, lines


def qr_lines(text: str) -> str:
    """Draw a QR code with characters, two rows of modules a line, for a terminal."""
    rows = [list(row) for row in segno.make(text, micro=False, error="m").matrix_iter(border=2)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    signs = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
    return "\n".join(
        "".join(signs[(int(bool(above)), int(bool(below)))] for above, below in zip(top, bottom, strict=True))
        for top, bottom in zip(rows[::2], rows[1::2], strict=True)
    )
