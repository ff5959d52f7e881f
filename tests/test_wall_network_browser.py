"""Pages in a real Chromium that lose their server, their line or their session."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from browser_station import DEADLINE_S, LIVE, Station, chromium, make_station, until
from playwright.async_api import expect
from wall_fakes import alarm

from bus.tasks import end

__all__ = ["chromium", "make_station"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.services,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]


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


async def test_log_out_in_one_tab_closes_the_other(make_station) -> None:
    """Tabs share a session; when it ends in one, the other is back at the log-in by itself."""
    station = await make_station()
    page = await station.open()
    other = await page.context.new_page()
    await other.goto(station.url + "/alarms")
    await until(other, LIVE)
    await page.get_by_text("Log out").click()
    await page.wait_for_url(station.url + "/login")
    await other.wait_for_url(station.url + "/login?target=%2Falarms")


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
