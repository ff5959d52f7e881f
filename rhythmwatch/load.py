"""Load generator of the benches: many recordings as devices at speed 1, in a process of its own.

It is no part of the service, so it runs apart and its core time is told apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Final

import numpy as np
from scipy.signal import resample_poly

from ingest.device import Connection, DeviceMeta, FleetClient
from ingest.frame import Frame
from ingest.recordings import Recording, data_folder, list_records, read_record
from ingest.replay import PlayStats, RecordingSource, Source, play
from ingest.simulator_cast import cast_sources
from rhythmwatch.addresses import BrokerAddress

RATE: Final = 250
LONGEST_S: Final = 600
"""Each recording is cut to this, so that hundreds fit into memory; it begins anew when it ends."""
CONNECTIONS: Final = 4
"""Connections a generator spreads its devices over."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a generator did.

    Attributes
    ----------
    published : dict of str to ndarray of float64
        For each device the wall time, ms, at which each frame was handed to the client.
    late_s : float
        The most by which a frame was handed over after its time.
    dropped : int
        Frames that the client could not keep.
    cpu_s : float
        Core time of the generator.
    """

    published: dict[str, np.ndarray]
    late_s: float
    dropped: int
    cpu_s: float


def load_sources(data: Path | None, first: int, count: int, leads: int = 1) -> Sequence[Source]:
    """Give patients number `first` and on: records of mitdb at 250 Hz, each from another place on; else the cast.

    Parameters
    ----------
    data : Path, optional
        Folder of recordings.
    first, count : int
        Which patients.
    leads : int
        Leads a device sends, at most as many as its record has.
    """
    folder = data_folder(data)
    records = list_records(folder / "mitdb") if folder else []
    if not records:
        return cast_sources(first + count)[first:]
    known: dict[int, Recording] = {}
    sources: list[Source] = []
    for number in range(first, first + count):
        index, turn = number % len(records), number // len(records)
        if index not in known:
            known[index] = _at_rate(read_record(records[index]), leads)
        recording = known[index]
        start = (turn * 37 * RATE) % len(recording.samples)
        sources.append(RecordingSource(f"{recording.name}-{number}", recording, start=start, loop=True))
    return sources


def _at_rate(recording: Recording, leads: int) -> Recording:
    samples = recording.samples[: round(LONGEST_S * recording.rate), :leads].astype(np.float64)
    up, down = RATE, round(recording.rate)
    resampled = np.rint(resample_poly(samples, up, down, axis=0)).clip(-32767, 32767).astype(np.int16)
    return Recording(recording.name, float(RATE), recording.leads[:leads], recording.gain, resampled)


class Load:
    """A generator that runs until it is killed.

    Parameters
    ----------
    broker : str
        ``mqtt://`` address with the account of devices.
    data, first, count, leads
        As of `load_sources`.
    """

    def __init__(self, broker: str, data: Path | None, first: int, count: int, leads: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self.count = count
        self._mine, theirs = context.Pipe()
        self._process = context.Process(
            target=_generate, args=(theirs, broker, data, first, count, leads), daemon=True, name=f"load-{first}"
        )
        self._process.start()
        theirs.close()

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until all devices are connected; `TimeoutError` when they aren't in time."""
        if not self._mine.poll(timeout_s):
            raise TimeoutError(f"the load generator did not connect in {timeout_s:g} s")
        self._mine.recv()

    def report(self) -> LoadReport:
        """Give what it has done so far; blocks for a moment."""
        self._mine.send("report")
        answer: LoadReport = self._mine.recv()
        return answer

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join()


class _Clock:
    """Publisher that notes when each frame was handed over."""

    def __init__(self, clients: Sequence[FleetClient], homes: dict[str, int]) -> None:
        self._clients, self._homes = clients, homes
        self.times: dict[str, list[float]] = {device: [] for device in homes}

    def offer(self, frame: Frame) -> bool:
        """Note the time and pass the frame on."""
        self.times[frame.device].append(time.time() * 1000)
        return self._clients[self._homes[frame.device]].offer(frame)

    async def publish(self, frame: Frame) -> None:
        """Note the time and pass the frame on, waiting for room."""
        self.times[frame.device].append(time.time() * 1000)
        await self._clients[self._homes[frame.device]].publish(frame)


def _generate(pipe: Pipe, broker: str, data: Path | None, first: int, count: int, leads: int) -> None:
    asyncio.run(_run(pipe, broker, load_sources(data, first, count, leads)))


async def _run(pipe: Pipe, broker: str, sources: Sequence[Source]) -> None:
    address = BrokerAddress.parse(broker)
    connection = Connection(address.host, address.port, address.username, address.password)
    now = time.time_ns() // 1_000_000
    homes = {source.device: number % CONNECTIONS for number, source in enumerate(sources)}
    metas = [DeviceMeta(source.device, now, source.rate, source.leads, source.gain) for source in sources]
    parts = [[meta for meta in metas if homes[meta.device] == part] for part in range(CONNECTIONS)]
    stats = PlayStats()
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(FleetClient(connection, part)) for part in parts if part]
        for client in clients:
            await client.connected()
        pipe.send("ready")
        clock = _Clock(clients, homes)
        began = time.process_time()
        player = asyncio.create_task(play(sources, clock, epoch=now, start_ms=now, stats=stats))
        while not player.done():
            await asyncio.to_thread(pipe.recv)
            times = {device: np.array(handed, np.float64) for device, handed in clock.times.items()}
            pipe.send(LoadReport(times, stats.late_s, stats.dropped, time.process_time() - began))
