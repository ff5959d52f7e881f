"""`rhythmwatch demo` as a person runs it: recordings replayed, the page live, alarms, and nothing left after Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from rhythmwatch.station import Running, Station, running_station, serve_station
from rhythmwatch.supervisor import Supervisor

DEADLINE_S = 120.0
"""Longest wait for the page: eight processes start at once, on as few as two cores."""
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
ECTOPIC = re.compile("Ventricular tachycardia|Run of ventricular beats|PVC|Bigeminy|Trigeminy")


@dataclass
class Demo:
    """A demo that runs."""

    process: asyncio.subprocess.Process
    url: str
    password: str


def children(pid: int) -> set[int]:
    """Process ids of all descendants (Linux)."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text("ascii").split():
                found |= {int(child)} | children(int(child))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.asynccontextmanager
async def demo(folder: Path, *arguments: str, data: Path | None) -> AsyncIterator[Demo]:
    """Run the command until it says that the page is live; end it with Ctrl-C."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RHYTHMWATCH_")}
    if data is not None:
        environment["RHYTHMWATCH_DATA"] = str(data)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rhythmwatch", "demo", "--port", "0", *arguments),
        cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        text = ""
        async with asyncio.timeout(DEADLINE_S):
            while "password" not in text:
                line = await process.stdout.readline()
                assert line, "the demo ended before its page was live"
                text += line.decode()
        url = re.search(r"http://\S+", text)
        password = re.search(r"password (\S+)", text)
        assert url is not None
        assert password is not None
        yield Demo(process, url[0], password[1])
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGINT)
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await process.communicate()
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                raise


async def opened(page: Page, running: Demo) -> Page:
    """Log in."""
    await page.goto(running.url + "/login")
    await page.fill("#user", "station")
    await page.fill("#password", running.password)
    await page.click("button[type=submit]")
    await page.wait_for_url(running.url + "/")
    return page


@pytest.mark.data
@pytest.mark.browser
@pytest.mark.timeout(600)
async def test_eight_recordings_alarm_on_the_wall(tmp_path: Path, data_dir: Path):
    """Eight beds move, an ectopic alarm appears by itself, and an acknowledgement is seen at once on a second page."""
    async with demo(tmp_path, "--patients", "8", data=data_dir) as running, async_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = await playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        expect.set_options(timeout=60_000)
        one = await opened(await (await browser.new_context()).new_page(), running)
        two = await opened(await (await browser.new_context()).new_page(), running)
        await expect(one.locator(".tile")).to_have_count(8)
        await expect(one.locator('[data-bed="mitdb-208"] .tile-hr b')).to_have_text(re.compile(r"^\d+$"))
        await expect(one.locator("#bar .bar-bed")).not_to_be_empty()
        await two.goto(running.url + "/alarms")
        # All alarms, since a more urgent one may stand in the bar, and one that is over goes when it is acknowledged.
        await two.get_by_role("button", name="All", exact=True).click()
        await expect(two.locator("tbody")).to_contain_text(ECTOPIC)
        seen = re.compile("(Acknowledged|seen) by station")
        await expect(two.locator("tbody")).not_to_contain_text(seen)
        await one.goto(running.url + "/alarms")
        await one.locator("tbody tr").filter(has=one.locator("button")).first.locator("button").first.click()
        await expect(two.locator("tbody")).to_contain_text(seen)
        await one.goto(f"{running.url}/patient/mitdb-208")
        await expect(one.locator(".latest tbody tr .cls").first).to_be_visible()
        await browser.close()


async def test_page_that_answers_late_is_announced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    """A slow machine is told that the page takes long, and where it is once it answers."""
    answers = iter([False, True])

    async def until_ready(_url: str) -> bool:
        return next(answers)

    @contextlib.asynccontextmanager
    async def running_station(_station: Station, _stop: asyncio.Event) -> AsyncIterator[Running]:
        ready = asyncio.create_task(until_ready(""))
        yield Running(Supervisor([]), "http://page", "secret", "", "", ready)

    monkeypatch.setattr("rhythmwatch.station.until_ready", until_ready)
    monkeypatch.setattr("rhythmwatch.station.running_station", running_station)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve_station(Station(state=tmp_path, host="127.0.0.1", port=0), stop))
    said = ""
    async with asyncio.timeout(30):
        while "secret" not in said:
            await asyncio.sleep(0.01)
            said += capsys.readouterr().out
    stop.set()
    await serving
    assert "http://page" in said
    assert list(answers) == []


@pytest.mark.timeout(300)
async def test_ctrl_c_leaves_no_process_behind(tmp_path: Path):
    """Without recordings the demo simulates and says how to fetch some; after Ctrl-C everything it started is gone."""
    async with demo(tmp_path, "--patients", "2", data=None) as running:
        started = children(running.process.pid)
        assert len(started) >= 6
        assert (tmp_path / ".rhythmwatch" / "demo-simulated").is_dir()
    assert running.process.returncode == 0
    async with asyncio.timeout(30):
        while any(alive(pid) for pid in started):
            await asyncio.sleep(0.05)


async def test_port_of_another_service_is_refused(tmp_path: Path) -> None:
    """Before anything starts: the other one would answer the question whether ours is well."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        station = Station(state=tmp_path / "state", host="127.0.0.1", port=other.getsockname()[1])
        with pytest.raises(OSError, match="--port"):
            async with running_station(station, asyncio.Event()):
                pass
    assert not (tmp_path / "state").exists()
