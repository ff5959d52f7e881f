"""What a second worker gains: the same backlog on a real bus, worked off by one process and by two.

A backlog that waits on the bus is worked off as fast as the workers can, so that what is measured is their throughput
and not the pace of devices. Writing it costs core time too: it is written while the workers stand still, and that time
is told apart. The workers have seen their patients before, so that neither start-up nor the first, small batches are
timed. What is left beside the workers is the bus server. On two cores it takes its share from the second worker: the
core time of workers and bus says how much, and whether two workers do more work than one for the same backlog.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bus.messages import DEFAULT_PARTITIONS, Entry, Inbound, pack_inbound, partition_of
from bus.server import embedded
from bus.streams import Bus
from ingest.codecs import encode_frame
from ingest.frame import Frame
from rhythmwatch.load import load_sources
from rhythmwatch.measuring import bus_pid, usage_of

WARM_S: Final = 15
"""Signal seconds that go ahead, so that start-up and first batches are not timed."""
POLL_S: Final = 0.02
LONGEST_S: Final = 300.0


def measure_scaling(data: Path | None, patients: int, seconds: int) -> dict[str, float]:
    """Time one worker and two on the same backlog.

    The workers are stopped (SIGSTOP) while the backlog is written, so that the writer takes nothing from them.

    Parameters
    ----------
    data : Path, optional
        Folder of recordings; without any the patients are simulated.
    patients : int
        Each with a frame a second.
    seconds : int
        Length of the backlog.

    Returns
    -------
    dict of str to float
        Seconds that one and two workers took, patient-seconds a second of each, the gain; core time of the workers
        and of the bus in each case, and of the writer.
    """
    streams = [source.frames(1, 0) for source in load_sources(data, 0, patients)]
    rounds = [[next(stream) for stream in streams] for _ in range(WARM_S + seconds)]
    wall, core, server, writer = {}, {}, {}, 0.0
    for workers in (1, 2):
        with tempfile.TemporaryDirectory(prefix="rw-scaling-") as folder:
            wall[workers], core[workers], server[workers], spent = asyncio.run(_drain(Path(folder), workers, rounds))
            writer = max(writer, spent)
    work = patients * seconds
    return {
        "one_worker_s": round(wall[1], 2),
        "two_workers_s": round(wall[2], 2),
        "one_worker_patient_seconds_a_second": round(work / wall[1]),
        "two_workers_patient_seconds_a_second": round(work / wall[2]),
        "gain": round(wall[1] / wall[2], 2),
        "one_worker_core_s": round(core[1], 2),
        "two_workers_core_s": round(core[2], 2),
        "bus_core_s_with_one": round(server[1], 2),
        "bus_core_s_with_two": round(server[2], 2),
        "writer_core_s": round(writer, 2),
    }


async def _drain(folder: Path, workers: int, rounds: Sequence[Sequence[Frame]]) -> tuple[float, float, float, float]:
    """Work a backlog off; gives seconds, core seconds of the workers, of the bus and of the writer."""
    async with embedded(folder / "bus") as url, Bus(url) as bus:
        size = DEFAULT_PARTITIONS // workers
        environment = {**os.environ, "RHYTHMWATCH_BUS": url, "RHYTHMWATCH_SUPERVISED": "1"}
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "rhythmwatch", "worker", "--partitions", f"{n * size}-{(n + 1) * size - 1}",
                env=environment,
            )
            for n in range(workers)
        ]  # fmt: skip
        try:
            await _write(bus, rounds[:WARM_S], 0)
            await _until_drained(bus)
            for process in processes:
                process.send_signal(signal.SIGSTOP)
            began = time.process_time()
            await _write(bus, rounds[WARM_S:], WARM_S)
            spent = time.process_time() - began
            server, pids = await bus_pid(url), [process.pid for process in processes]
            before, bus_before = _core_s(pids), _core_s([server])
            start = time.monotonic()
            for process in processes:
                process.send_signal(signal.SIGCONT)
            await _until_drained(bus)
            return time.monotonic() - start, _core_s(pids) - before, _core_s([server]) - bus_before, spent
        finally:
            for process in processes:
                process.kill()
                await process.wait()


def _core_s(pids: Sequence[int]) -> float:
    return sum(usage_of(pid)[0] for pid in pids)


async def _write(bus: Bus, rounds: Sequence[Sequence[Frame]], first_second: int) -> None:
    for second, frames in enumerate(rounds, first_second):
        await bus.append_in(_entries(frames, second))


def _entries(frames: Sequence[Frame], second: int) -> Iterator[tuple[int, bytes]]:
    for frame in frames:
        entry = Inbound(Entry.FRAME, second * 1000, frame.device, encode_frame(frame))
        yield partition_of(frame.device), pack_inbound(entry)


async def _until_drained(bus: Bus) -> None:
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        stats = await bus.stats(range(DEFAULT_PARTITIONS))
        if all(item.position == item.last for item in stats):
            return
        await asyncio.sleep(POLL_S)
    raise TimeoutError(f"the workers did not work the backlog off in {LONGEST_S:g} s")
