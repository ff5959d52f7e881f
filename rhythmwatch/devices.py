"""The registry of devices and the broker brought together: enrolling, and keeping the broker's accounts as it says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import segno
from sqlalchemy.exc import SQLAlchemyError

from alerts.database import open_engine, upgrade
from alerts.devices import Credentials, Devices
from bus.tasks import end
from ingest.broker import Broker, Certificates, embedded_broker
from ingest.gatekeeper import Gatekeeper

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

        async def registry() -> Mapping[str, str]:
            try:
                return await asyncio.to_thread(devices.accounts)
            except SQLAlchemyError as error:
                raise OSError(f"the registry of devices can't be read ({type(error).__name__})") from error

        known = await registry()
        async with embedded_broker(state / "broker", devices=known, door=door, certificates=certificates) as broker:
            (state / PLACE).write_text(broker.address + "\n", encoding="utf-8")
            keeper = asyncio.create_task(Gatekeeper(broker, known).run(registry), name="gatekeeper")
            try:
                yield broker
            finally:
                await end([keeper])
    finally:
        await asyncio.to_thread(engine.dispose)


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
