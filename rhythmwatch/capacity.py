"""How many patients one core carries: more and more recordings through the real chain until alarms come too late."""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from bus.messages import DEFAULT_PARTITIONS
from bus.streams import Bus
from ingest.codecs import encode_frame
from rhythmwatch.costs import measure_stages
from rhythmwatch.load import Load, load_sources
from rhythmwatch.measuring import Receipt, Usage, bus_pid, bus_use, latencies, listen, usage
from rhythmwatch.peers import OURS, measure_peers
from rhythmwatch.station import Running, Station, running_station, until_ready
from rhythmwatch.trimming import EVENTS_KEPT_MS

SETTLE_S: Final = 15.0
"""After patients were added: their first frames, the start of their rules and the growth of the worker's rows."""
CONNECT_S: Final = 180.0
LIMIT_MS: Final = 500.0
RESOLUTION: Final = 0.05
"""Share of the patients carried to which their largest number is found."""
COUNTED: Final = ("ingest", "worker", "web", "bus")
"""Processes that a patient needs live; the history is told apart."""
FEWEST_ALARMS: Final = 20
PEER_PATIENTS: Final = 200
PEER_SECONDS: Final = 5
"""Patients and signal seconds with which the stages and the peers are timed after the search."""


@dataclass(frozen=True, slots=True)
class Level:
    """A number of patients, measured.

    Attributes
    ----------
    patients : int
        Live at once.
    alarms : int
        New ones in the window.
    p50_ms, p99_ms : float
        Their latency; NaN without alarms.
    lag_ms : int
        Largest lag of a partition at the end.
    cores : dict of str to float
        Share of a core by process.
    memory : dict of str to int
        Resident bytes by process at the end.
    bus_bytes_a_second : float
        Through the bus server, in and out.
    bus_kb : float
        What a patient takes of the bus's memory once events have been kept for as long as they are.
    worker_kb : float
        What a patient has added to the memory of the workers.
    """

    patients: int
    alarms: int
    p50_ms: float
    p99_ms: float
    lag_ms: int
    cores: dict[str, float]
    memory: dict[str, int]
    bus_bytes_a_second: float = 0.0
    bus_kb: float = 0.0
    worker_kb: float = 0.0

    @property
    def cores_used(self) -> float:
        """Cores of ingest, workers, web and bus server."""
        return sum(share for name, share in self.cores.items() if name.startswith(COUNTED))

    def carried(self, limit_ms: float) -> bool:
        """Whether the alarms came in time and nothing piled up."""
        return self.alarms >= FEWEST_ALARMS and self.p99_ms <= limit_ms and self.lag_ms <= 2 * limit_ms


@dataclass(slots=True)
class _Stand:
    """A station under load."""

    running: Running
    bus: int
    data: Path | None
    leads: int
    receipts: list[Receipt]
    loads: list[Load]
    empty: int
    """Memory of the workers without patients, bytes."""

    async def grow(self, patients: int) -> None:
        """Add patients until there are so many."""
        first = sum(load.count for load in self.loads)
        load = Load(self.running.devices, self.data, first, patients - first, self.leads)
        self.loads.append(load)
        await asyncio.to_thread(load.wait_ready, CONNECT_S)

    async def measure(self, seconds: float, patients: int) -> tuple[Level, float, float]:
        """Watch for a while; gives the level but for its alarms, begin and end (wall ms)."""
        held = await bus_use(self.running.bus, DEFAULT_PARTITIONS)
        before, began, begin_ms = usage(self.running, self.bus), time.monotonic(), time.time() * 1000
        await asyncio.sleep(seconds)
        after, wall = usage(self.running, self.bus), time.monotonic() - began
        async with Bus(self.running.bus) as bus:
            lag = max(item.lag_ms for item in await bus.stats(range(bus.partitions)))
        end_ms = time.time() * 1000
        now = await bus_use(self.running.bus, DEFAULT_PARTITIONS)
        kept = max(0, now.events - held.events) / wall * EVENTS_KEPT_MS / 1000
        cores = {name: spent / wall for name, spent in after.since(before).items()}
        level = Level(
            patients, 0, math.nan, math.nan, lag, cores, after.memory, (now.moved - held.moved) / wall,
            (kept + now.rest) / patients / 1000, (_of_workers(after) - self.empty) / patients / 1000,
        )  # fmt: skip
        return level, begin_ms, end_ms


def _of_workers(used: Usage) -> int:
    return sum(held for name, held in used.memory.items() if name.startswith("worker"))


def search(
    data: Path | None,
    *,
    start: int,
    step: int,
    most: int,
    seconds: float,
    workers: int = 1,
    leads: int = 1,
    limit_ms: float = LIMIT_MS,
    tell: Callable[[Level], None] = lambda _: None,
) -> tuple[Level, ...]:
    """Add patients step by step until the alarms are late or `most` is reached, then look between.

    Between the last number that was carried and the first that was not the interval is halved, each time with a
    station of its own (patients who left would still cost, and so would what had piled up), until it is narrow.

    Parameters
    ----------
    data : Path, optional
        Folder of recordings; without any the patients are simulated.
    start, step, most : int
        Patients at first, added at a time, and at most.
    seconds : float
        Length of each measurement.
    workers : int
        Worker processes.
    leads : int
        Leads each device sends.
    limit_ms : float
        p99 of the alarm latency that still counts as carried.
    tell : callable
        Gets each level as it is known.

    Returns
    -------
    tuple of Level
        All levels, as they were measured; not each was carried.
    """
    found: list[Level] = []
    tries: Sequence[int] = range(start, most + 1, step)
    while tries:
        with tempfile.TemporaryDirectory(prefix="rw-capacity-") as folder:
            station = Station(state=Path(folder), host="127.0.0.1", port=0, workers=workers)
            found += asyncio.run(_climb(station, data, tries, seconds, leads, limit_ms, tell))
        middle = between(found, limit_ms)
        tries = () if middle is None else (middle,)
    return tuple(found)


def between(levels: Sequence[Level], limit_ms: float) -> int | None:
    """Give the number of patients half-way between what was carried and what was not; None where that is close."""
    carried = max((level.patients for level in levels if level.carried(limit_ms)), default=0)
    refused = min((level.patients for level in levels if not level.carried(limit_ms)), default=0)
    if not carried or refused - carried <= max(1.0, RESOLUTION * carried):
        return None
    return (carried + refused) // 2


async def _climb(
    station: Station,
    data: Path | None,
    levels: Sequence[int],
    seconds: float,
    leads: int,
    limit_ms: float,
    tell: Callable[[Level], None],
) -> list[Level]:
    found: list[Level] = []
    async with running_station(station, asyncio.Event()) as running:
        if not await until_ready(running.url):
            raise RuntimeError("the service did not become ready; the log above says why")
        server = await bus_pid(running.bus)
        stand = _Stand(running, server, data, leads, [], [], _of_workers(usage(running, server)))
        listener = asyncio.create_task(listen(running, stand.receipts))
        try:
            for patients in levels:
                await stand.grow(patients)
                await asyncio.sleep(SETTLE_S)
                found.append(await _level(stand, patients, seconds))
                tell(found[-1])
                if not found[-1].carried(limit_ms):
                    break
        finally:
            for load in stand.loads:
                load.kill()
            listener.cancel()
    return found


async def _level(stand: _Stand, patients: int, seconds: float) -> Level:
    level, begin_ms, end_ms = await stand.measure(seconds, patients)
    published: dict[str, np.ndarray] = {}
    for load in stand.loads:
        published |= (await asyncio.to_thread(load.report)).published
    window = [item for item in stand.receipts if begin_ms <= item.at_ms <= end_ms]
    times = latencies(window, published)
    p50, p99 = (float(np.percentile(times, share)) if len(times) else math.nan for share in (50, 99))
    return replace(level, alarms=len(times), p50_ms=p50, p99_ms=p99)


def report(levels: Sequence[Level], data: Path | None, limit_ms: float = LIMIT_MS) -> dict[str, object]:
    """Sum a search up, with the costs of our stages and of peers measured beside it.

    Parameters
    ----------
    levels : sequence of Level
        What `search` gave.
    data : Path, optional
        Folder of recordings.
    limit_ms : float
        p99 of the alarm latency that counts as carried.

    Returns
    -------
    dict
        ``patients_per_core``, ``patients``, ``cores_used``, ``p99_alarm_ms``, ``cores`` (by process), ``stages``
        (us a patient-second), ``peers`` (patients a core), ``against_best_peer``; for `rhythmwatch.planning`
        ``worker_kb_a_patient``, ``bus_kb_a_patient``, ``bus_bytes_a_second``, ``frame_bytes``.

    Raises
    ------
    ValueError
        If no level was carried.
    """
    carried = [level for level in levels if level.carried(limit_ms)]
    if not carried:
        raise ValueError(f"not even {levels[0].patients} patients were carried; begin with fewer (--first)")
    best = max(carried, key=lambda level: level.patients)
    costs = measure_peers(data, PEER_PATIENTS, PEER_SECONDS)
    ours = costs.pop(OURS)
    figures: dict[str, object] = {
        "patients_per_core": round(best.patients / best.cores_used),
        "patients": best.patients,
        "cores_used": round(best.cores_used, 3),
        "p50_alarm_ms": round(best.p50_ms, 1),
        "p99_alarm_ms": round(best.p99_ms, 1),
        "alarms": best.alarms,
        "cores": {name: round(share, 3) for name, share in best.cores.items()},
        "stages": measure_stages(data, PEER_PATIENTS, PEER_SECONDS),
        "peers": {name: round(1e6 / cost) for name, cost in costs.items()},
        "against_best_peer": round(min(costs.values()) / ours, 1) if costs else None,
        "worker_kb_a_patient": round(best.worker_kb),
        "bus_kb_a_patient": round(best.bus_kb),
        "bus_bytes_a_second": round(best.bus_bytes_a_second),
        "frame_bytes": len(encode_frame(next(iter(load_sources(data, 0, 1)[0].frames(1, 0))))),
    }
    return figures
