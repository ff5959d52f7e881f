"""Memory of the processes of a station at one moment (Linux)."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Final

from day_report import Look, Memory
from redis.asyncio import Redis
from rich.console import Console

from rhythmwatch.measuring import bus_pid
from rhythmwatch.station import Running

ROLLUP: Final = re.compile(r"^(Rss|Pss|Private_Clean|Private_Dirty):\s+(\d+) kB", re.MULTILINE)

console = Console(stderr=True)


def memory_of(pid: int, data: float = 0.0) -> Memory:
    """Memory of a process; `OSError` when it has ended."""
    found = {name: int(kb) / 1000 for name, kb in ROLLUP.findall(Path(f"/proc/{pid}/smaps_rollup").read_text("ascii"))}
    return Memory(pid, found["Rss"], found["Pss"], found["Private_Clean"] + found["Private_Dirty"], data)


async def data_of(bus: str) -> float:
    """Ask a bus server how much it has allocated, MB."""
    async with Redis.from_url(bus, protocol=2) as server:
        return int((await server.info("memory"))["used_memory"]) / 1e6


def broker_pid() -> int | None:
    """Process id of the embedded mosquitto, our child; None where the broker is another."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue
            if name == "mosquitto" and int(rest.split()[1]) == os.getpid():
                return int(entry.name)
    return None


async def look(running: Running, hours: float, began: float) -> Look:
    """Take the memory of all processes, after some hours of signal; `began` is on the monotonic clock."""
    pids = {part.name: running.supervisor.pid(part.name) for part in running.supervisor.parts}
    pids |= {"bus": await bus_pid(running.bus), "broker": broker_pid()}
    data = {"bus": await data_of(running.bus)}
    found = {}
    for name, pid in pids.items():
        if pid is not None:
            try:
                found[name] = memory_of(pid, data.get(name, 0.0))
            except OSError:
                console.print(f"{name} could not be looked at", style="yellow")
    return Look(hours, time.monotonic() - began, found)
