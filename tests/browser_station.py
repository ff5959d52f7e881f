"""A station with a played ward on a real bus, and a real Chromium before it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect
from uvicorn import Server
from wall_fakes import USER, FakeWard, ward_of

from bus.messages import Entry, partition_of, unpack_action, unpack_inbound
from bus.server import embedded
from bus.streams import Bus
from bus.tasks import end, run_all
from rhythmwatch.classifying import open_all_parts
from web.app import create_app
from web.feed import FeedKind
from web.server import make_server
from web.settings import WebSettings

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
PARTITIONS = 4
DEADLINE_S = 60.0
"""Longest wait for anything that a page should show: a machine with two busy cores is slow."""
LIVE = "window.rhythmwatch?.link.state === 'live'"


class Worker:
    """Stands in for the worker: puts a fake ward on the streams and answers acknowledgements that come in."""

    def __init__(self, bus: Bus, ward: FakeWard) -> None:
        self.bus, self.ward = bus, ward
        self.epochs: dict[int, int] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        for partition in range(PARTITIONS):
            self.epochs[partition] = await self.bus.claim(partition)
        # A gather is over with the first part that is; one that the bus's client kept from ending would go on for ever.
        await run_all([asyncio.create_task(part) for part in (self.ward.play(), self.write(), self.answer())])

    async def write(self) -> None:
        """Put what the ward sends on the streams."""
        while True:
            batch = [await self.ward.queue.get()]
            while not self.ward.queue.empty():
                batch.append(self.ward.queue.get_nowait())
            outputs: dict[int, tuple[list[bytes], list[bytes]]] = {}
            for item in batch:
                patient = re.search(rb"patient.(Bed \d+)", item.data).group(1).decode()
                events, views = outputs.setdefault(partition_of(patient, PARTITIONS), ([], []))
                (views if item.kind is FeedKind.VIEW else events).append(item.data)
            for partition, (events, views) in outputs.items():
                position = (await self.bus.append_in([(partition, b"tick")]))[0]
                await self.bus.commit(partition, self.epochs[partition], events, views, None, position)

    async def answer(self) -> None:
        """Give staff actions to the ward."""
        cursors = dict.fromkeys(range(PARTITIONS), "0-0")
        while True:
            for partition, records in await self.bus.read(cursors, block_ms=100):
                cursors[partition] = records[-1].position
                for record in records:
                    if record.data != b"tick" and (entry := unpack_inbound(record.data)).kind is Entry.ACTION:
                        await self.ward.append(entry.patient, unpack_action(entry.payload))


@dataclass
class Station:
    """A running system and a browser before it."""

    browser: Browser
    ward: FakeWard
    settings: WebSettings
    port: int
    proxy: int = 0
    """Port that a page opens instead of the server's; 0 for none."""
    password: str = ""
    problems: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)
    server: Server | None = None
    serving: asyncio.Task[None] | None = None
    place: socket.socket | None = None
    """Keeps the port for a web process that starts again."""

    @property
    def url(self) -> str:
        """Address of the pages."""
        return f"http://127.0.0.1:{self.proxy or self.port}"

    async def start(self) -> None:
        """Start the web process, on the same port each time."""
        said: list[str] = []
        self.place = self.place or self.bound()
        self.port = self.place.getsockname()[1]
        listener = self.bound()
        self.server = make_server(create_app(self.settings, parts=open_all_parts, announce=said.append))
        self.serving = asyncio.create_task(self.server.serve(sockets=[listener]))
        async with asyncio.timeout(DEADLINE_S):
            while not self.server.started:
                assert not self.serving.done(), "the web process ended before it had started"
                await asyncio.sleep(0.01)
        if said:
            self.password = said[0].split("password ")[1].split()[0]

    def bound(self) -> socket.socket:
        """Give a socket on the port of the station."""
        place = socket.socket()
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", self.port))
        return place

    async def stop(self) -> None:
        """Stop the web process as a restart does."""
        if self.server is not None and self.serving is not None:
            self.server.should_exit = True
            await self.serving
            # What it gave up waiting for ends before the parts that it used.
            await end(self.server.server_state.tasks)

    async def close(self) -> None:
        """Close the pages of this station, then its web process."""
        try:
            for context in self.contexts:
                await context.close()
        finally:
            await self.stop()
            if self.place is not None:
                self.place.close()

    async def open(self, path: str = "/", width: int = 1280, height: int = 720, user: str = USER, **more: Any) -> Page:
        """Log in with a browser of its own and open a page."""
        context = await self.browser.new_context(viewport={"width": width, "height": height}, **more)
        self.contexts.append(context)
        page = await context.new_page()

        def note(message: ConsoleMessage) -> None:
            # What a test provokes: no gesture yet, a server that is down, and its own look at pixels; and what anybody
            # does who adds an interface to this machine.
            expected = ("AudioContext", "ERR_CONNECTION", "WebSocket", "willReadFrequently", "ERR_NETWORK_CHANGED")
            if message.type in ("error", "warning") and not any(word in message.text for word in expected):
                self.problems.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        await page.goto(self.url + "/login")
        await page.fill("#user", user)
        await page.fill("#password", self.password)
        await page.click("button[type=submit]")
        await page.wait_for_url(self.url + "/")
        if path != "/":
            await page.goto(self.url + path)
        await until(page, LIVE)
        return page


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """One browser for all tests here; each page gets a context of its own."""
    async with async_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = await playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        expect.set_options(timeout=DEADLINE_S * 1000)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def make_station(tmp_path: Path, chromium: Browser) -> AsyncIterator[Callable[..., object]]:
    """Make a station with a ward; everything ends with the test, and no page may have complained."""
    async with contextlib.AsyncExitStack() as stack:
        stations: list[Station] = []
        workers: list[asyncio.Task[None]] = []

        async def make(count: int = 8, alarming: bool = False, **more: Any) -> Station:
            url = await stack.enter_async_context(embedded(tmp_path / "bus"))
            bus = await stack.enter_async_context(Bus(url, partitions=PARTITIONS))
            ward = ward_of(count, alarming)
            database = f"sqlite:///{tmp_path}/web.db"
            settings = WebSettings(
                redis_url=url,
                database_url=database,
                recordings=tmp_path / "recordings",
                partitions=PARTITIONS,
                session_check_s=0.2,
                clock_s=0.5,
                **more,
            )
            station = Station(chromium, ward, settings, 0)
            worker = asyncio.create_task(Worker(bus, ward).run())
            workers.append(worker)
            stack.push_async_callback(end, [worker])
            for event in ward.alarms.values():
                ward.send(event)
            stack.push_async_callback(station.close)
            await station.start()
            stations.append(station)
            return station

        yield make
        for worker in workers:
            if worker.done():
                worker.result()  # what ended it is why a page saw nothing more
        for station in stations:
            assert station.problems == []


async def until(page: Page, script: str, arg: object = None, seconds: float = DEADLINE_S) -> Any:
    """Ask the page until `script` holds, and give what it gave then.

    The page's policy forbids playwright's own way, which evaluates text.
    """
    async with asyncio.timeout(seconds):
        while not (found := await page.evaluate(script, arg)):
            await asyncio.sleep(0.02)
    return found
