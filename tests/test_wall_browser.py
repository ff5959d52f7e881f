"""The pages in a real Chromium: a real server on a real bus, with a ward that is played into the streams."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect
from uvicorn import Server
from wall_fakes import USER, FakeWard, alarm, ward_of

from bus.messages import Entry, partition_of, unpack_action, unpack_inbound
from bus.server import embedded
from bus.streams import Bus
from bus.tasks import end, run_all
from rhythmwatch.classifying import open_all_parts
from web.app import create_app
from web.feed import FeedKind
from web.server import make_server
from web.settings import WebSettings

pytestmark = [
    pytest.mark.browser,
    pytest.mark.services,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
PARTITIONS = 4
DEADLINE_S = 60.0
"""Longest wait for anything that a page should show: a machine with two busy cores is slow."""
LIVE = "window.rhythmwatch?.link.state === 'live'"
VTACH = {"value": 168.0, "limit": 100.0, "detail": "7 ventricular beats in a row"}


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


PIXELS = """([name, selector]) => {
  const canvas = document.querySelector(name === null ? selector : `[data-bed="${name}"] ${selector}`);
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let hash = 0, painted = 0;
  for (let i = 3; i < data.length; i += 4) {
    if (data[i] > 100 && data[i - 3] + data[i - 2] + data[i - 1] > 150) { painted++; hash = (hash * 31 + i) | 0; }
  }
  return [painted, hash];
}"""
ORANGE = """(name) => {
  const canvas = document.querySelector(`[data-bed="${name}"] canvas`);
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, 14).data;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] > 240 && data[i + 1] > 130 && data[i + 1] < 180 && data[i + 2] < 90) return true;
  }
  return false;
}"""


async def test_wall_shows_every_bed_with_a_moving_trace(make_station) -> None:
    """After the log-in eight beds are there, each with a waveform that moves, its rate and its rhythm."""
    station = await make_station()
    page = await station.open()
    await expect(page.locator(".tile")).to_have_count(8)
    for name in ("Bed 01", "Bed 08"):
        _, before = await until(page, f"(a) => (found => found[0] > 300 && found)(({PIXELS})(a))", [name, "canvas"])
        await until(page, f"(a) => ({PIXELS})(a.slice(0, 2))[1] !== a[2]", [name, "canvas", before])
        await expect(page.locator(f'[data-bed="{name}"] .tile-hr b')).to_have_text(re.compile(r"^\d+$"))
    await expect(page.locator('[data-bed="Bed 03"] .tile-rhythm')).to_have_text("Atrial fibrillation")
    await expect(page.locator("#foot")).to_contain_text("Not a medical device")
    await expect(page.locator("#banner")).to_be_hidden()


async def test_sweep_draws_only_what_is_new(make_station) -> None:
    """Frames draw the samples that came since the last one; the whole canvas is painted only when it must be."""
    station = await make_station()
    page = await station.open()
    stats = "rhythmwatch.view().tiles[0].sweep.stats"
    ready = f"rhythmwatch.view().tiles[0]?.sweep.stats.samples > 500 && {stats}.repaints > 0"
    first = await until(page, f"{ready} && {{...{stats}}}")
    after = await until(page, f"(n) => {stats}.samples > n + 500 && {{...{stats}}}", first["samples"])
    assert after["repaints"] - first["repaints"] <= 2  # a change of gain may cost one
    assert after["samples"] - first["samples"] < 2_000


async def test_ectopic_beats_are_marked_on_the_wall(make_station) -> None:
    """A bed in ventricular tachycardia carries the marks of its V beats above the trace."""
    station = await make_station(alarming=True)
    page = await station.open()
    await until(page, ORANGE, "Bed 02")


async def test_patient_page_shows_spectrogram_beats_and_alarms(make_station) -> None:
    """One patient: waveform, spectrogram under it, each beat with its class, and the alarms of this patient alone."""
    station = await make_station(alarming=True)
    page = await station.open("/patient/Bed%2002")
    await until(page, f"(a) => ({PIXELS})(a)[0] > 2000", [None, "canvas.wave"])
    await until(page, f"(a) => ({PIXELS})(a)[0] > 20000", [None, "canvas.heat"])
    await expect(page.locator(".latest tbody tr").first.locator(".cls")).to_have_text("V")
    await expect(page.locator(".legend")).to_contain_text("Premature ventricular")
    await expect(page.locator(".block.alarms .al")).to_have_count(1)
    await expect(page.locator(".block.alarms")).to_contain_text("Ventricular tachycardia")
    # A beat that the page marks lies on the largest sample near it: both share one axis.
    offsets = await until(
        page,
        """(() => {
      const trace = rhythmwatch.view().sweep.trace;
      const inside = trace.beats.filter((b) => b.index > trace.start + 50 && b.index < trace.end - 50);
      return inside.length > 3 && inside.map((b) => {
        let best = b.index;
        for (let i = b.index - 20; i <= b.index + 20; i++) if (trace.at(i) > trace.at(best)) best = i;
        return best - b.index;
      });
    })()""",
    )
    assert max(abs(offset) for offset in offsets) <= 2


async def test_alarm_appears_sounds_and_is_acknowledged_for_all(make_station) -> None:
    """An alarm comes up by itself on two pages; one acknowledges, the other sees it at once, with the name."""
    station = await make_station()
    one = await station.open()
    two = await station.open("/alarms")
    await expect(one.locator("#bar")).to_contain_text("No alarm waits")
    await one.mouse.click(640, 20)  # a gesture, so that the browser lets it sound
    raised = alarm("Bed 05", "VTACH", 3, **VTACH)
    station.ward.raise_alarm(raised)
    for page in (one, two):
        bar = page.locator("#bar .bar-first")
        await expect(bar).to_contain_text("Bed 05")
        await expect(bar).to_contain_text("Ventricular tachycardia")
        await expect(bar).to_contain_text("Rate 168 > 100/min")
    await expect(one.locator('[data-bed="Bed 05"]')).to_have_attribute("data-level", "high")
    await until(one, "rhythmwatch.signals.played.high > 0 && rhythmwatch.signals.allowed")
    await expect(two.locator("tbody tr")).to_have_count(1)
    asked: list[str] = []
    two.on("request", lambda request: asked.append(request.url))
    await one.locator("#bar .bar-ack").click()
    await expect(two.locator("tbody tr")).to_contain_text(f"Acknowledged by {USER}")
    # The page of the list did not ask: it was told, over the connection that it has.
    assert [url for url in asked if not url.endswith("/api/beds")] == []
    await expect(two.locator("#bar")).to_contain_text("1 acknowledged")
    await expect(one.locator('[data-bed="Bed 05"]')).to_have_attribute("data-seen", "")
    assert await one.evaluate("rhythmwatch.signals.tone") is None


async def test_most_urgent_alarm_stands_first_and_technical_hides_none(make_station) -> None:
    """Six alarms: the lethal one leads the bar, the rest are counted, a technical one has its own place."""
    station = await make_station(alarming=True)
    page = await station.open()
    await expect(page.locator("#bar .bar-first .bar-bed")).to_have_text("Bed 02")
    await expect(page.locator("#bar .chip-more")).to_have_text("+5 more")
    station.ward.raise_alarm(alarm("Bed 06", "BRADY", 2, value=44.0, limit=50.0))
    tile = page.locator('[data-bed="Bed 06"]')
    await expect(tile.locator(".tile-tech")).to_contain_text("Leads off")
    await expect(tile.locator(".tile-alarm")).to_contain_text("HR 44 < 50")
    await expect(tile).to_have_attribute("data-level", "medium")
    await expect(tile.locator(".tile-hr b")).to_have_text("--")


async def test_bed_that_falls_silent_looks_stale(make_station) -> None:
    """Two seconds after the last samples a trace is grey and says since when; it recovers with the data."""
    station = await make_station()
    page = await station.open()
    tile = page.locator('[data-bed="Bed 04"]')
    await expect(tile.locator(".tile-hr b")).to_have_text(re.compile(r"^\d+$"))
    station.ward.patients["Bed 04"].silent = True
    await expect(tile.locator(".tile-stale")).to_contain_text(re.compile(r"No new signal since \d\d:\d\d:\d\d"))
    await expect(tile.locator(".tile-hr b")).to_have_text("--")
    await expect(page.locator(".tile[data-stale]")).to_have_count(1)
    assert "grayscale" in await tile.locator("canvas").evaluate("(c) => getComputedStyle(c).filter")
    station.ward.patients["Bed 04"].silent = False
    await expect(tile.locator(".tile-stale")).to_be_hidden()


async def test_page_says_when_the_server_is_gone_and_comes_back_to_the_true_state(make_station) -> None:
    """A stopped server raises the banner; what happened meanwhile is there after the restart, without a new log-in."""
    station = await make_station()
    page = await station.open()
    await expect(page.locator(".tile")).to_have_count(8)
    before = alarm("Bed 01", "TACHY", 2, value=131.0, limit=120.0)
    station.ward.raise_alarm(before)
    await expect(page.locator("#bar .bar-bed")).to_have_text("Bed 01")
    await station.stop()
    await expect(page.locator("#banner")).to_contain_text("Connection lost at")
    await expect(page.locator(".tile[data-stale]")).to_have_count(8)
    station.ward.raise_alarm(alarm("Bed 01", "TACHY", 2, revision=1, presence="off"))
    station.ward.raise_alarm(alarm("Bed 07", "VFIB", 3))
    await station.start()
    await expect(page.locator("#banner")).to_be_hidden()
    await expect(page.locator("#bar .bar-bed")).to_have_text("Bed 07")
    await expect(page.locator(".tile[data-stale]")).to_have_count(0)
    await until(page, "rhythmwatch.ward.open().length === 1")


async def test_beds_keep_their_places_until_somebody_arranges_them(make_station) -> None:
    """An alarm moves no bed; "by urgency" does, once; a reload keeps what was chosen."""
    station = await make_station()
    page = await station.open()
    names = "[...document.querySelectorAll('.tile')].map((tile) => tile.dataset.bed)"
    await expect(page.locator(".tile")).to_have_count(8)
    order = await page.evaluate(names)
    assert order == sorted(order)
    station.ward.raise_alarm(alarm("Bed 08", "VFIB", 3))
    await expect(page.locator("#bar .bar-bed")).to_have_text("Bed 08")
    assert await page.evaluate(names) == order
    await page.get_by_text("By urgency").click()
    assert (await page.evaluate(names))[0] == "Bed 08"
    await page.reload()
    await expect(page.locator(".tile")).to_have_count(8)
    assert (await page.evaluate(names))[0] == "Bed 08"


async def test_a_chosen_beat_is_explained(make_station) -> None:
    """A click and the arrow keys choose a beat; the panel has classes, figures and the map."""
    station = await make_station(alarming=True)
    page = await station.open("/patient/Bed%2002")
    panel = page.locator(".chosen")
    await expect(panel).to_contain_text("Click a beat")
    await until(
        page, "(({ beats, head }) => beats.length > 4 && beats[3].index < head - 20)(rhythmwatch.view().sweep.trace)"
    )
    await page.keyboard.press("ArrowLeft")
    newest = int(await panel.get_attribute("data-sample"))
    await page.keyboard.press("ArrowLeft")
    before = int(await panel.get_attribute("data-sample"))
    assert before < newest
    await page.keyboard.press("ArrowRight")
    assert int(await panel.get_attribute("data-sample")) == newest
    place = await page.evaluate("""() => {
      const { sweep } = rhythmwatch.view(), { trace } = sweep;
      const beat = trace.beats.filter((beat) => beat.index < trace.head - 20).at(-2);
      const box = sweep.canvas.getBoundingClientRect();
      const x = ((beat.index % sweep.span) + sweep.span) % sweep.span * sweep.scale / sweep.ratio;
      return [box.x + x, box.y + box.height / 2, beat.sample];
    }""")
    await page.mouse.click(place[0], place[1])
    await expect(panel).to_have_attribute("data-sample", str(place[2]))
    await expect(panel).to_contain_text("800 ms")
    await expect(panel).to_contain_text("Premature ventricular")
    await expect(panel).to_contain_text("70 % of the network's verdict")
    await expect(panel).to_have_attribute("data-map", "yes")


async def test_a_file_is_classified(make_station) -> None:
    """A picture gives class, probabilities, map and its warnings; a file that is none gives one clear line."""
    station = await make_station()
    page = await station.open("/files")
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64)).astype(np.uint8)).save(out, "PNG")
    result = page.locator(".file-result")
    await page.set_input_files("#file", {"name": "beat.png", "mimeType": "image/png", "buffer": out.getvalue()})
    await page.get_by_role("button", name="Classify").click()
    await expect(result.locator("tbody tr")).to_have_count(8, timeout=150_000)
    await expect(result).to_contain_text("resized from 64 x 64")
    await expect(result.locator("canvas")).to_be_visible()
    assert station.problems == []
    await page.set_input_files("#file", {"name": "a.csv", "mimeType": "text/csv", "buffer": b"II\n1\n2\n"})
    await page.get_by_role("button", name="Classify").click()
    await expect(result).to_contain_text("says no sampling rate", timeout=150_000)
    # The browser notes every 422 on its console.
    assert [text for text in station.problems if "422" not in text] == []
    station.problems.clear()


async def test_keyboard_does_it_all(make_station) -> None:
    """With keys alone: acknowledge, go from bed to bed, open one, come back, see the list."""
    station = await make_station()
    page = await station.open()
    station.ward.raise_alarm(alarm("Bed 02", "TACHY", 2, value=131.0, limit=120.0))
    await expect(page.locator("#bar .bar-bed")).to_have_text("Bed 02")
    await page.keyboard.press("a")
    await expect(page.locator("#bar")).to_contain_text("1 acknowledged")
    await expect(page.locator(".tile")).to_have_count(8)
    await page.locator(".tile").first.focus()
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile("/patient/Bed%2005"))
    await page.keyboard.press("Escape")
    await expect(page.locator(".tile")).to_have_count(8)
    await page.keyboard.press("l")
    await expect(page.locator("tbody tr")).to_have_count(1)


REFUSING = """
  let touched = false;
  addEventListener("pointerdown", () => { touched = true; }, { capture: true });
  window.AudioContext = class extends AudioContext {
    get state() { return touched ? super.state : "suspended"; }
    resume() { return touched ? super.resume() : Promise.reject(new DOMException("no gesture", "NotAllowedError")); }
  };
"""


async def test_sounds_that_the_browser_refuses_are_announced_loudly(make_station) -> None:
    """Until a person clicks, a bar says that alarms are silent; after a click it goes and sounds are on.

    Whether a page may sound is Chromium's guess from what it saw before, so its refusal is played.
    """
    station = await make_station()
    page = await (await station.open()).context.new_page()
    await page.add_init_script(REFUSING)
    await page.goto(station.url + "/alarms")
    await until(page, LIVE)
    await expect(page.locator("#quiet")).to_be_visible()
    await page.locator("#quiet").click()
    await expect(page.locator("#quiet")).to_be_hidden()
    await page.get_by_role("link", name="Help").click()
    await page.get_by_role("button", name="Low").click()
    assert await page.evaluate("rhythmwatch.signals.played.low") == 1


async def test_log_out_in_one_tab_closes_the_other(make_station) -> None:
    """Tabs share a session; when it ends in one, the other is back at the log-in by itself."""
    station = await make_station()
    page = await station.open()
    other = await page.context.new_page()
    await other.goto(station.url + "/alarms")
    await until(other, LIVE)
    await page.get_by_text("Log out").click()
    await page.wait_for_url(station.url + "/login")
    await other.wait_for_url(station.url + "/login")


async def test_pages_fit_a_phone(make_station) -> None:
    """On a narrow screen nothing sticks out sideways, on any page, and the alarm can be acknowledged."""
    station = await make_station(alarming=True)
    page = await station.open(width=390, height=780)
    for path in ("/", "/alarms", "/patient/Bed%2002"):
        await page.goto(station.url + path)
        await until(page, LIVE)
        await expect(page.locator("#bar .bar-ack")).to_be_visible()
        await page.wait_for_load_state("networkidle")
        assert await page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), path
        assert await page.evaluate("document.querySelector('#page').scrollWidth <= innerWidth"), path


class SlowLine:
    """A line between browser and server that lets through what it is allowed to."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.rate = 0.0
        """Bytes a second towards the browser; 0 for no limit."""
        self.carried = 0
        """Bytes towards the browser."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.whole = asyncio.Event()
        """Cleared: nothing passes, either way, and nobody is told."""
        self.whole.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection both ways; the buffers on the way are small."""
        self.tasks.add(asyncio.current_task())
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.setblocking(False)
        await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", self.port))
        there, back = await asyncio.open_connection(sock=line, limit=4096)
        try:
            done = [asyncio.create_task(self.carry(reader, back)), asyncio.create_task(self.carry(there, writer, True))]
            await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
            await end(done)
        finally:
            for end_of_line in (writer, back):
                end_of_line.close()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, slow: bool = False) -> None:
        """Carry one direction until it ends."""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1024):
                await self.whole.wait()
                writer.write(data)
                await writer.drain()
                self.carried += len(data) * slow
                if slow and self.rate:
                    await asyncio.sleep(len(data) / self.rate)


@contextlib.asynccontextmanager
async def slow_line(station: Station) -> AsyncIterator[SlowLine]:
    """Put a line between the server of a station and pages that are opened in the block."""
    line = SlowLine(station.port)
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    station.proxy = server.sockets[0].getsockname()[1]
    before = len(station.contexts)
    try:
        yield line
    finally:
        station.proxy = 0
        for context in station.contexts[before:]:
            await context.close()
        del station.contexts[before:]
        server.close()
        await end(line.tasks)


async def test_network_cut_of_30_s_ends_in_the_true_state(make_station) -> None:
    """Nothing passes for 30 s: the page says so, and comes back by itself with each alarm of the cut exactly once."""
    station = await make_station()
    async with slow_line(station) as line:
        page = await station.open()
        await expect(page.locator(".tile")).to_have_count(8)
        station.ward.raise_alarm(alarm("Bed 01", "TACHY", 2, value=131.0, limit=120.0))
        await expect(page.locator("#bar .bar-bed")).to_have_text("Bed 01")
        line.whole.clear()
        await expect(page.locator("#banner")).to_contain_text("Connection lost at")
        station.ward.raise_alarm(alarm("Bed 01", "TACHY", 2, revision=1, presence="off"))
        for revision in range(3):
            station.ward.raise_alarm(alarm("Bed 07", "VFIB", 3, revision=revision))
        station.ward.raise_alarm(alarm("Bed 04", "BRADY", 2, value=41.0, limit=50.0))
        cut = await page.evaluate("performance.now()")
        await until(page, "(ms) => performance.now() - ms > 30000", cut, seconds=30 + DEADLINE_S)
        await expect(page.locator("#banner")).to_be_visible()
        line.whole.set()
        await expect(page.locator("#banner")).to_be_hidden()
        await expect(page.locator("#bar .bar-bed")).to_have_text("Bed 07")
        await expect(page.locator(".tile[data-stale]")).to_have_count(0)
        await until(page, "rhythmwatch.ward.open().length === 2")
        await page.goto(station.url + "/alarms")
        await expect(page.locator(".list tbody tr:not([data-presence=off])")).to_have_count(2)


GAP = """[...rhythmwatch.ward.beds.values()].some(({ trace }) => {
  for (let i = Math.floor(trace.start); i < trace.end; i++) if (Number.isNaN(trace.at(i))) return true;
  return false;
})"""


async def test_slow_client_loses_waveform_but_no_alarm_and_slows_nobody(make_station) -> None:
    """At 10 kB/s a page misses stretches of waveform, says so, and gets every alarm; another page misses nothing."""
    # Room for all that a page gets at first, and for the seconds in which a busy machine does something else.
    station = await make_station(count=64, wave_queue_bytes=512 * 1024)
    quick = await station.open()
    async with slow_line(station) as line:
        slow = await station.open()
        await expect(slow.locator(".tile")).to_have_count(64)
        line.rate = 10_000
        await until(slow, "rhythmwatch.ward.dropped > 100", seconds=2 * DEADLINE_S)
        await expect(slow.locator("#foot")).to_contain_text("stretches of waveform were dropped")
        await until(slow, GAP, seconds=2 * DEADLINE_S)
        before = line.carried
        for number in (3, 17, 40):
            station.ward.raise_alarm(alarm(f"Bed {number:02d}", "TACHY", 2, value=131.0, limit=120.0))
        for page in (quick, slow):
            await until(page, "rhythmwatch.ward.open().length === 3")
        # An alarm waits for what is under way already, not for the waveform that is queued.
        assert line.carried - before < 160_000
        assert await quick.evaluate("rhythmwatch.ward.dropped") == 0
