"""Cost of the wall in a browser: ``python benchmarks/wall.py --beds 64 --seconds 60``.

Chromium without a GPU before the real web application, with beds at 250 Hz that a made ward plays and of whom six
alarm. Figures: frames a second and frame times (gaps between animation frames), core time of the browser's whole
process tree by kind of process, heap of the page after a collection at begin and after each fifth, and the time from
the server's sending of an alarm to the frame that shows it. The server runs in a process of its own and is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import multiprocessing
import os
import re
import shutil
import socket
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from argon2 import PasswordHasher
from playwright.async_api import Page, async_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
)
WARM_S: Final = 10
ALARMS: Final = 20
PARTS: Final = 5
"""Times that the heap is looked at while it runs."""
TICKS: Final = os.sysconf("SC_CLK_TCK")
WATCH: Final = """() => {
  window.frames_ms = [];
  window.shown_ms = {};
  let before = 0;
  const frame = (now) => {
    if (before) window.frames_ms.push(now - before);
    before = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  new MutationObserver(() => {
    const id = document.querySelector(".bar-first")?.dataset.alarm;
    if (id && !(id in window.shown_ms)) requestAnimationFrame(() => { window.shown_ms[id] = Date.now(); });
  }).observe(document.querySelector("#bar"), { subtree: true, attributes: true, childList: true, characterData: true });
}"""


def serve(pipe: Connection, beds: int) -> None:
    """Run the application with its made ward until told to stop; raises an alarm each time it is told to."""
    fakes: Any = importlib.import_module("wall_fakes")
    from web.app import create_app
    from web.server import make_server
    from web.settings import WebSettings

    async def run() -> None:
        ward = fakes.ward_of(beds)
        ward.add_user(fakes.USER, PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(fakes.PASSWORD))
        server = make_server(create_app(WebSettings(redis_url="redis://nowhere"), parts=ward.open))
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            for event in ward.alarms.values():
                ward.send(event)
            tasks = [asyncio.create_task(ward.play()), asyncio.create_task(server.serve(sockets=[listener]))]
            async with asyncio.timeout(30):
                while not server.started:  # noqa: ASYNC110  (uvicorn has no event for it)
                    await asyncio.sleep(0.01)
            pipe.send((listener.getsockname()[1], fakes.USER, fakes.PASSWORD))
            number = 0
            while await asyncio.to_thread(pipe.recv) == "alarm":
                number += 1
                event = fakes.alarm(f"Bed {beds:02d}", "VFIB", 3, id=f"Bed {beds:02d}/VFIB/7/{number}")
                ward.raise_alarm(event)
                pipe.send((event.id, time.time() * 1000))
            server.should_exit = True
            tasks[0].cancel()
            await asyncio.wait(tasks)

    asyncio.run(run())


def core_time(root: int) -> dict[str, float]:
    """Core seconds so far of the processes below `root`, by kind of Chromium's process."""
    parents: dict[int, list[tuple[int, float]]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append((int(entry.name), (int(fields[11]) + int(fields[12])) / TICKS))
    spent: dict[str, float] = {}
    todo = [root]
    while todo:
        for process, seconds in parents.get(todo.pop(), []):
            todo.append(process)
            try:
                command = Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            if "chrom" in command:
                kind = re.search(r"--type=([\w-]+)", command)
                name = kind.group(1) if kind else "browser"
                spent[name] = spent.get(name, 0.0) + seconds
    return spent


async def heap(page: Page) -> int:
    """Bytes of the page's heap after a collection."""
    session = await page.context.new_cdp_session(page)
    await session.send("HeapProfiler.collectGarbage")
    used = await session.send("Runtime.getHeapUsage")
    await session.detach()
    return int(used["usedSize"])


async def latencies(page: Page, pipe: Connection) -> list[float]:
    """Measure from the sending of an alarm to the frame that shows it, ms."""
    out = []
    for _ in range(ALARMS):
        pipe.send("alarm")
        ident, sent = await asyncio.to_thread(pipe.recv)
        deadline = time.monotonic() + 10
        while (shown := await page.evaluate("(id) => window.shown_ms[id] ?? null", ident)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{ident} was not shown in 10 s")
            await asyncio.sleep(0.05)
        out.append(shown - sent)
    return out


async def measure(pipe: Connection, seconds: float, width: int, height: int) -> dict[str, Any]:
    """Open the wall and take the figures."""
    if not pipe.poll(60):
        raise TimeoutError("the server did not start in 60 s")
    port, user, password = pipe.recv()
    async with async_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = await playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        page = await (await browser.new_context(viewport={"width": width, "height": height})).new_page()
        await page.goto(f"http://127.0.0.1:{port}/login")
        await page.fill("#user", user)
        await page.fill("#password", password)
        await page.click("button[type=submit]")
        await page.wait_for_url(f"http://127.0.0.1:{port}/")
        await asyncio.sleep(WARM_S)
        heaps = [await heap(page)]
        await page.evaluate(WATCH)
        before, began = core_time(os.getpid()), time.monotonic()
        for _ in range(PARTS):
            await asyncio.sleep(seconds / PARTS)
            heaps.append(await heap(page))
        after, took = core_time(os.getpid()), time.monotonic() - began
        frames = await page.evaluate("window.frames_ms.splice(0)")
        shown = await latencies(page, pipe)
        await browser.close()
    percent = statistics.quantiles(frames, n=100)
    shares = {kind: round(100 * (after[kind] - before.get(kind, 0.0)) / took, 1) for kind in sorted(after)}
    return {
        "frames_per_s_median": round(1000 / statistics.median(frames), 1),
        "frames_per_s_mean": round(len(frames) / took, 1),
        "frame_ms_p95": round(percent[94], 1),
        "frame_ms_p99": round(percent[98], 1),
        "core_percent": {**shares, "all": round(sum(shares.values()), 1)},
        "heap_mib": [round(size / 2**20, 2) for size in heaps],
        "alarm_shown_ms": {"median": round(statistics.median(shown), 1), "longest": round(max(shown), 1)},
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Run the benchmark and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beds", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs, given.beds), daemon=True)
    server.start()
    try:
        print(json.dumps(asyncio.run(measure(mine, given.seconds, given.width, given.height)), indent=2))
        mine.send("stop")
        server.join(10)
    finally:
        server.kill()


if __name__ == "__main__":
    main()
