"""What the benches see of a running station: alarms as a page receives them, core time and memory by process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar
from pathlib import Path
from time import time

import msgspec
import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.typing import Origin

from bus.streams import key
from rhythmwatch.station import Running
from web.auth import FIRST_USER
from web.wire import Alarm


@dataclass(frozen=True, slots=True)
class Receipt:
    """A new alarm and the wall time, ms, at which the websocket gave it."""

    alarm: Alarm
    at_ms: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Core time so far (s) and resident memory (bytes) by process."""

    core_s: dict[str, float]
    memory: dict[str, int]

    def since(self, before: Usage) -> dict[str, float]:
        """Core seconds spent since `before`, by process."""
        return {name: value - before.core_s.get(name, 0.0) for name, value in self.core_s.items()}


@dataclass(frozen=True, slots=True)
class BusUse:
    """What the bus server carries and holds, bytes.

    Attributes
    ----------
    moved : int
        Received and sent since the server started.
    events : int
        Of all ``events`` streams, which are kept for a time.
    rest : int
        Of entries, views and checkpoints, which stay as large as they are while patients stay as many.
    """

    moved: int
    events: int
    rest: int


async def bus_use(url: str, partitions: int) -> BusUse:
    """Ask a bus server what it carries and holds."""
    async with Redis.from_url(url, protocol=2) as server:
        about = await server.info("stats")
        held = {}
        for name in ("events", "in", "view", "checkpoint"):
            sizes = [await server.memory_usage(key(partition, name)) for partition in range(partitions)]
            held[name] = sum(int(size or 0) for size in sizes)
    moved = int(about["total_net_input_bytes"]) + int(about["total_net_output_bytes"])
    events = held.pop("events")
    return BusUse(moved, events, sum(held.values()))


async def hear(running: Running, take: Callable[[Alarm, float], None]) -> None:
    """Receive as a page does; `take` gets each state of an alarm and the wall time, ms, at which it came."""
    cookies = await asyncio.to_thread(log_in, running)
    address = running.url.replace("http", "ws", 1) + "/ws"
    async with connect(
        address, origin=Origin(running.url), additional_headers={"Cookie": cookies}, max_size=None
    ) as socket:
        async for data in socket:
            at = time() * 1000
            for message in msgspec.msgpack.decode(data) if isinstance(data, bytes) else ():
                if message[0] == "alarm":
                    take(msgspec.convert(message, Alarm), at)


async def listen(running: Running, receipts: list[Receipt]) -> None:
    """Receive as a page does, noting when each new alarm came."""
    seen: set[str] = set()

    def take(alarm: Alarm, at_ms: float) -> None:
        if alarm.id not in seen:
            seen.add(alarm.id)
            receipts.append(Receipt(alarm, at_ms))

    await hear(running, take)


def log_in(running: Running) -> str:
    """Log in as a person does; returns the cookies to send."""
    jar = CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    form = urllib.parse.urlencode({"user": FIRST_USER, "password": running.password}).encode()
    request = urllib.request.Request(f"{running.url}/login", form, {"Origin": running.url})  # noqa: S310 (our own)
    with opener.open(request, timeout=10):
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)


async def bus_pid(url: str) -> int:
    """Process id of the bus server at `url`, which must be on this machine."""
    async with Redis.from_url(url, protocol=2) as server:
        answer = await server.info("server")
    return int(answer["process_id"])


def usage(running: Running, bus: int) -> Usage:
    """Core time and memory of each process of the station and of the bus server (Linux)."""
    pids = {part.name: running.supervisor.pid(part.name) for part in running.supervisor.parts}
    core, memory = {}, {}
    for name, pid in {**pids, "bus": bus}.items():
        if pid is not None:
            with contextlib.suppress(OSError):
                core[name], memory[name] = usage_of(pid)
    return Usage(core, memory)


def usage_of(pid: int) -> tuple[float, int]:
    """Core time so far (s) and resident memory (bytes) of a process (Linux); `OSError` if there is none."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    core_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return core_s, int(fields[21]) * os.sysconf("SC_PAGE_SIZE")


def latencies(receipts: Sequence[Receipt], published: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Time of new alarms on their way, ms.

    The clock of an alarm runs from the publish of the frame whose arrival let it be raised (the last sample of
    evidence, filters included, was in it) to its receipt. NO_DATA and its like are left out: the lack of a frame raised
    them.
    """
    out = []
    for receipt in receipts:
        times = published.get(receipt.alarm.patient)
        if times is None or receipt.alarm.technical:
            continue
        # `raised_ms` is the server's whole ms at which that frame was stored.
        number = int(np.searchsorted(times, receipt.alarm.raised_ms + 1, side="right")) - 1
        if number >= 0:
            out.append(receipt.at_ms - times[number])
    return np.array(out, np.float64)
