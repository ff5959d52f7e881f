"""Latency of an alarm through the real chain: broker, bus, worker, web; publisher and client in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from websockets.asyncio.client import connect
from websockets.typing import Origin

from ingest.device import Connection, DeviceMeta, FleetClient
from ingest.frame import Frame
from ingest.replay import Source, play
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.costs import bench_sources
from rhythmwatch.station import Running, Station, running_station, until_ready
from web.auth import FIRST_USER
from web.wire import Alarm

SETTLE_S: Final = 5.0


class _Publisher:
    """Remembers when the frames of each device were handed to the broker's client."""

    def __init__(self, client: FleetClient) -> None:
        self.client = client
        self.times: dict[str, list[float]] = defaultdict(list)

    def offer(self, frame: Frame) -> bool:
        """Note the time and pass the frame on."""
        self.times[frame.device].append(time.time() * 1000)
        return self.client.offer(frame)

    async def publish(self, frame: Frame) -> None:
        """Note the time and pass the frame on, waiting for room."""
        self.times[frame.device].append(time.time() * 1000)
        await self.client.publish(frame)


def measure(data: Path | None, patients: int, seconds: float) -> dict[str, float | int]:
    """Measure the latency of new alarms.

    The clock of an alarm runs from the publish of the frame whose arrival let it be raised (the last sample of
    evidence, filters included, was in it) to its receipt by a websocket client.

    Parameters
    ----------
    data : Path, optional
        Folder of recordings; without any the patients are simulated.
    patients : int
        Devices at speed 1, a frame a second each.
    seconds : float
        Length of the measurement.

    Returns
    -------
    dict
        Number of alarms, percentiles of the latency (ms), and the share of one core by process.
    """
    with tempfile.TemporaryDirectory(prefix="rw-latency-") as folder:
        return asyncio.run(_measure(Path(folder), data, patients, seconds))


async def _measure(folder: Path, data: Path | None, patients: int, seconds: float) -> dict[str, float | int]:
    sources = bench_sources(data, patients)
    station = Station(state=folder, host="127.0.0.1", port=0)
    async with running_station(station, asyncio.Event()) as running:
        if not await until_ready(running.url):
            raise RuntimeError("the service did not become ready; the log above says why")
        address = BrokerAddress.parse(running.devices)
        now = time.time_ns() // 1_000_000
        metas = [DeviceMeta(item.device, now, item.rate, item.leads, item.gain) for item in sources]
        connection = Connection(address.host, address.port, address.username, address.password)
        async with FleetClient(connection, metas) as client, asyncio.TaskGroup() as group:
            await client.connected()
            publisher = _Publisher(client)
            receipts: list[tuple[Alarm, float]] = []
            listener = group.create_task(_listen(running, receipts))
            player = group.create_task(_play(sources, publisher, now))
            await asyncio.sleep(SETTLE_S)
            before, began = _cpu(running), time.monotonic()
            await asyncio.sleep(seconds)
            spent = {name: value - before.get(name, 0.0) for name, value in _cpu(running).items()}
            wall = time.monotonic() - began
            listener.cancel()
            player.cancel()
    return _figures(receipts, publisher.times, spent, wall, patients)


async def _play(sources: Sequence[Source], publisher: _Publisher, now: int) -> None:
    await play(sources, publisher, epoch=now, start_ms=now)


async def _listen(running: Running, receipts: list[tuple[Alarm, float]]) -> None:
    """Receive as a page does, noting when each new alarm came."""
    cookies = await asyncio.to_thread(_log_in, running)
    address = running.url.replace("http", "ws", 1) + "/ws"
    async with connect(
        address, origin=Origin(running.url), additional_headers={"Cookie": cookies}, max_size=None
    ) as socket:
        seen: set[str] = set()
        async for data in socket:
            at = time.time() * 1000
            for message in msgspec.msgpack.decode(data) if isinstance(data, bytes) else ():
                if message[0] != "alarm":
                    continue
                alarm = msgspec.convert(message, Alarm)
                if alarm.id not in seen:
                    seen.add(alarm.id)
                    receipts.append((alarm, at))


def _log_in(running: Running) -> str:
    """Log in as a person does; returns the cookies to send."""
    jar = CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    form = urllib.parse.urlencode({"user": FIRST_USER, "password": running.password}).encode()
    request = urllib.request.Request(f"{running.url}/login", form, {"Origin": running.url})  # noqa: S310 (our own)
    with opener.open(request, timeout=10):
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)


def _cpu(running: Running) -> dict[str, float]:
    """CPU seconds of each process of the station so far (Linux)."""
    spent = {}
    tick = os.sysconf("SC_CLK_TCK")
    for part in running.supervisor.parts:
        pid = running.supervisor.pid(part.name)
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            spent[part.name] = (int(fields[11]) + int(fields[12])) / tick
    return spent


def _figures(
    receipts: Sequence[tuple[Alarm, float]],
    published: dict[str, list[float]],
    spent: dict[str, float],
    wall: float,
    patients: int,
) -> dict[str, float | int]:
    latencies = []
    for alarm, at in receipts:
        times = published.get(alarm.patient, [])
        number = int(np.searchsorted(times, alarm.raised_ms + 1, side="right")) - 1
        # NO_DATA is raised by the lack of a frame, and the first answer of all holds what stood before.
        if number >= 0 and not alarm.technical:
            latencies.append(at - times[number])
    figures: dict[str, float | int] = {"patients": patients, "alarms": len(latencies)}
    if latencies:
        for name, level in (("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99), ("max_ms", 100)):
            figures[name] = round(float(np.percentile(latencies, level)), 1)
    for name, value in spent.items():
        figures[f"core_share_{name}"] = round(value / wall, 4)
    figures["core_share_total"] = round(sum(spent.values()) / wall, 4)
    return figures
