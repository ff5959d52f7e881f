"""Latency of an alarm through the real chain: broker, bus, worker, web; generator and client apart from them."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np

from rhythmwatch.load import Load
from rhythmwatch.measuring import Receipt, bus_pid, latencies, listen, usage
from rhythmwatch.station import Station, running_station, until_ready

SETTLE_S: Final = 5.0
CONNECT_S: Final = 120.0


def measure(data: Path | None, patients: int, seconds: float) -> dict[str, float | int]:
    """Measure the latency of new alarms (`rhythmwatch.measuring.latencies`).

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
    station = Station(state=folder, host="127.0.0.1", port=0)
    async with running_station(station, asyncio.Event()) as running:
        if not await until_ready(running.url):
            raise RuntimeError("the service did not become ready; the log above says why")
        bus = await bus_pid(running.bus)
        receipts: list[Receipt] = []
        listener = asyncio.create_task(listen(running, receipts))
        load = Load(running.devices, data, 0, patients)
        try:
            await asyncio.to_thread(load.wait_ready, CONNECT_S)
            await asyncio.sleep(SETTLE_S)
            before, began = usage(running, bus), time.monotonic()
            await asyncio.sleep(seconds)
            spent, wall = usage(running, bus).since(before), time.monotonic() - began
            report = await asyncio.to_thread(load.report)
        finally:
            load.kill()
            listener.cancel()
    times = latencies(receipts, report.published)
    figures: dict[str, float | int] = {"patients": patients, "alarms": len(times)}
    if len(times):
        for name, level in (("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99), ("max_ms", 100)):
            figures[name] = round(float(np.percentile(times, level)), 1)
    for name, value in spent.items():
        figures[f"core_share_{name}"] = round(value / wall, 4)
    figures["core_share_total"] = round(sum(spent.values()) / wall, 4)
    return figures
