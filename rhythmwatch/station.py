"""All processes of one machine: bus and broker where none is named, the service, for the demo a source of patients."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.console import Console

from bus.child import free_port
from bus.server import embedded
from bus.tasks import end
from ingest.recordings import data_folder, list_records
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.certificates import broker_certificates
from rhythmwatch.demo_people import admit_played, played_devices
from rhythmwatch.devices import guarded_broker
from rhythmwatch.metrics import parse_address
from rhythmwatch.ranges import READERS, equal_ranges, span
from rhythmwatch.supervisor import Part, Supervisor
from web.auth import FIRST_USER

DEMO_RECORDS: Final = ("200", "203", "207", "208", "214", "232", "105", "119", "106", "201", "221", "223")
"""Records of mitdb that a demo takes first: they alarm."""
SPARE: Final = "spare"
"""Part that stands by and forks what runs the pipeline."""
READY_S: Final = 60.0
POLL_S: Final = 0.1

console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Station:
    """What runs.

    Attributes
    ----------
    state : Path
        Directory of the embedded bus and broker, the database, the recordings and the first password.
    bus, broker, history : str
        Addresses; empty means an embedded one.
    workers : int
        Worker processes; each gets an equal range of partitions.
    readers : int
        Historians, and as many of each of the others in `READERS`, with equal ranges too.
    source : tuple of str
        Arguments of a source of patients, without the broker; empty for none.
    """

    state: Path
    host: str
    port: int
    bus: str = ""
    broker: str = ""
    history: str = ""
    workers: int = 1
    readers: int = 1
    source: tuple[str, ...] = ()
    door: tuple[str, int] = ("127.0.0.1", 0)
    """Where enrolled devices reach the embedded broker; port 0 takes a free one."""
    certificates: Path | None = None
    """Folder of ``certs init``: devices and pages are encrypted with it."""
    client_certificates: bool = False
    """Devices must show a certificate too."""
    metrics: str = ""
    """``host:port`` where Prometheus finds the first process; the others follow on the next ports."""


def choose_source(data: Path | None, patients: int, speed: float) -> tuple[str, ...]:
    """Choose what a demo plays: recordings of mitdb where there are some, else simulated patients.

    Raises
    ------
    RecordingError
        If a folder was named that does not exist.
    """
    folder = data_folder(data)
    records = list_records(folder / "mitdb") if folder and (folder / "mitdb").is_dir() else []
    if folder and not records:
        records = list_records(folder)
    if not records:
        console.print(
            "No recordings found, so the patients are simulated. For real ones: rhythmwatch data fetch mitdb",
            style="yellow",
        )
        return ("simulate", "--patients", str(patients), "--speed", str(speed))
    names = {path.name: path for path in records}
    first = [name for name in DEMO_RECORDS if name in names]
    order = [*first, *(name for name in names if name not in first)]
    chosen = [str(names[order[number % len(order)]].resolve()) for number in range(patients)]
    return ("replay", *chosen, "--loop", "--speed", str(speed))


@dataclass(frozen=True, slots=True)
class Running:
    """A station that runs: its addresses and its processes."""

    supervisor: Supervisor
    url: str
    password: str
    devices: str
    bus: str
    ready: asyncio.Task[bool]
    """Whether the page answered, once it does or `READY_S` have passed."""


@contextlib.asynccontextmanager
async def running_station(station: Station, stop: asyncio.Event) -> AsyncIterator[Running]:
    """Run the station for as long as the block lasts; nothing of it is left behind.

    Raises
    ------
    OSError
        If another program has the port of the page.
    """
    _claim(station.host, station.port)
    state = station.state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    console.print(f"state is kept in {state}", highlight=False, soft_wrap=True)
    async with contextlib.AsyncExitStack() as stack:
        bus = station.bus or await stack.enter_async_context(embedded(state / "bus"))
        broker, devices, told = station.broker, station.broker, ""
        history = station.history or f"sqlite:///{state / 'history.db'}"
        if not broker:
            files = station.certificates
            certificates = broker_certificates(files, clients=station.client_certificates) if files else None
            inner = await stack.enter_async_context(
                guarded_broker(state, history, door=station.door, certificates=certificates)
            )
            told = inner.address
            broker = BrokerAddress(inner.host, inner.port, inner.username, inner.password).url()
            devices = BrokerAddress(inner.host, inner.port, inner.device_username, inner.device_password).url()
        port = station.port or free_port(station.host)
        password = _password(state / "password")
        if station.source:
            await asyncio.to_thread(admit_played, history, played_devices(station.source))
        supervisor = Supervisor(_parts(station, bus, broker, devices, told, history, port, password))
        url = f"{'https' if station.certificates else 'http'}://{station.host}:{port}"
        answers = asyncio.Event()
        running = asyncio.create_task(supervisor.run(stop, answers), name="supervisor")
        ready = asyncio.create_task(until_ready(url, answers), name="ready")
        try:
            yield Running(supervisor, url, password, devices, bus, ready)
        finally:
            stop.set()
            await end([ready])
            await running


async def serve_station(station: Station, stop: asyncio.Event) -> None:
    """Run the station until `stop` is set, and say where the page is once it answers."""
    async with running_station(station, stop) as running:
        stopped, ready = asyncio.create_task(stop.wait(), name="stop"), running.ready
        try:
            while await _first(ready, stopped) and not ready.result():
                console.print(f"the page did not answer in {READY_S:.0f} s; the log above says why", style="red")
                ready = asyncio.create_task(until_ready(running.url), name="ready")
            if not stopped.done():
                _welcome(running)
            await stop.wait()
        finally:
            await end([stopped, ready])


async def _first(one: asyncio.Task[bool], other: asyncio.Task[bool]) -> bool:
    """Wait until the first of two tasks is done; whether it is `one` alone."""
    await asyncio.wait([one, other], return_when=asyncio.FIRST_COMPLETED)
    return not other.done()


def _parts(
    station: Station, bus: str, broker: str, devices: str, told: str, history: str, port: int, password: str
) -> list[Part]:
    shared = {
        "RHYTHMWATCH_SUPERVISED": "1",
        "RHYTHMWATCH_METRICS": "",
        "RHYTHMWATCH_BUS": bus,
        "RHYTHMWATCH_HISTORY": history,
    }
    shared["RHYTHMWATCH_RECORDINGS"] = str(station.state.resolve() / "recordings")
    web = {**shared, "RHYTHMWATCH_ADMIN_PASSWORD": password}
    if told:
        web["RHYTHMWATCH_DEVICES_ADDRESS"] = told
    if station.certificates:
        files = station.certificates.resolve()
        web |= {"RHYTHMWATCH_CERTIFICATE": str(files / "web.pem"), "RHYTHMWATCH_KEY": str(files / "web.key")}
    parts = [
        Part("web", ("web", "--host", station.host, "--port", str(port)), web),
        Part("ingest", ("ingest",), {**shared, "RHYTHMWATCH_BROKER": broker}),
    ]
    # To fork what has loaded libraries is safe where these are known to start no threads.
    spare = SPARE if sys.platform == "linux" else ""
    parts += [
        Part(f"worker-{number}", ("worker", "--partitions", span(mine)), shared, spare=spare)
        for number, mine in enumerate(equal_ranges(station.workers), 1)
    ]
    sending = {**shared, "RHYTHMWATCH_BROKER": broker}
    parts += [
        Part(
            f"{name}-{number}",
            (name, "--partitions", span(mine)),
            sending if name == "notifier" else shared,
            later=True,
            spare=spare if name == "evidence" else "",
        )
        for name in READERS
        for number, mine in enumerate(equal_ranges(station.readers), 1)
    ]
    # What it does is for the whole database.
    parts.append(Part("keeper", ("keeper",), shared, later=True))
    if station.metrics:
        host, first = parse_address(station.metrics)
        parts = [
            replace(part, environment={**part.environment, "RHYTHMWATCH_METRICS": f"{host}:{first + number}"})
            for number, part in enumerate(parts)
        ]
    if station.source:
        source = Part("source", station.source, {**shared, "RHYTHMWATCH_BROKER": devices}, restart=False)
        parts.insert(next(number for number, part in enumerate(parts) if part.later), source)
    return [Part(spare, ("spare",), shared), *parts] if spare else parts


def _claim(host: str, port: int) -> None:
    # Another service at the port would answer the question whether ours is well.
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    with socket.socket(family) as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((host, port))
        except OSError as error:
            raise OSError(f"port {port} of {host} can't be had ({error.strerror}): name another with --port") from error


def _password(path: Path) -> str:
    """Read the first account's password, made at the first start."""
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    password = secrets.token_urlsafe(12)
    path.touch(mode=0o600)
    path.write_text(password + "\n", encoding="utf-8")
    return password


async def until_ready(url: str, answers: asyncio.Event | None = None) -> bool:
    """Wait until the page and what feeds it are well, and set `answers`; False after `READY_S`."""
    loop = asyncio.get_running_loop()
    until = loop.time() + READY_S
    while loop.time() < until:
        if await loop.run_in_executor(None, _healthy, f"{url}/healthz"):
            if answers is not None:
                answers.set()
            return True
        await asyncio.sleep(POLL_S)
    return False


def _healthy(url: str) -> bool:
    # The process is our own child: whether its certificate fits this address is for browsers to judge.
    context = ssl._create_unverified_context() if url.startswith("https") else None  # noqa: S323
    try:
        with urllib.request.urlopen(url, timeout=2, context=context) as answer:  # noqa: S310 (an address of our own)
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def _welcome(running: Running) -> None:
    sys.stdout.write(
        f"\nRhythmWatch is live:  {running.url}\n"
        f"  user {FIRST_USER}, password {running.password}\n"
        "  Not a medical device: not for diagnosis or treatment. Ctrl-C stops everything.\n\n"
    )
    sys.stdout.flush()
