"""Load generator of the benches: many recordings as devices at speed 1, in a process of its own.

It is no part of the service, so it runs apart and its core time is told apart.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import uvloop
from scipy.signal import resample_poly

from ingest.codecs import encode_frame
from ingest.connection import BrokerLostError, Connection
from ingest.device_model import DeviceMeta, topic_of
from ingest.packets import MOST, publish_packet
from ingest.recordings import Recording, data_folder, list_records, read_record
from ingest.replay import FRAME_SECONDS, RecordingSource, Source
from ingest.simulator_cast import cast_sources
from ingest.subscriber import SubscriberOptions
from rhythmwatch.addresses import BrokerAddress

RATE: Final = 250
LONGEST_S: Final = 600
"""Each recording is cut to this, so that hundreds fit into memory; it begins anew when it ends."""
SLOT_S: Final = 0.004
"""Between two looks at what is due."""
READ_SLOTS: Final = 32
MOST_AT_ONCE: Final = 64
"""Frames in one write, so that a generator that is behind notes when each went."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a generator did.

    Attributes
    ----------
    published : dict of str to ndarray of float64
        For each device the wall time, ms, at which each frame was handed to the connection.
    late_s : float
        The most by which a frame was handed over after its time.
    cpu_s : float
        Core time of the generator.
    """

    published: dict[str, np.ndarray]
    late_s: float
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


def _generate(pipe: Pipe, broker: str, data: Path | None, first: int, count: int, leads: int) -> None:
    uvloop.run(_run(pipe, BrokerAddress.parse(broker), first, load_sources(data, first, count, leads)))


async def _run(pipe: Pipe, broker: BrokerAddress, first: int, sources: Sequence[Source]) -> None:
    options = SubscriberOptions(broker.host, broker.port, broker.username, broker.password, f"load-{first}")
    async with Connection(options, mqtt5=False, receive_maximum=1, take=lambda _: None) as connection:
        generator = _Generator(sources, connection)
        pipe.send("ready")
        began = time.process_time()
        playing = asyncio.create_task(generator.play(), name="playing")
        while not playing.done():
            await asyncio.to_thread(pipe.recv)
            times = {device: np.array(handed, np.float64) for device, handed in generator.times.items()}
            pipe.send(LoadReport(times, generator.late_s, time.process_time() - began))


class _Generator:
    """Plays devices on one connection, staggered over the length of a frame as devices that know nothing of each other.

    The fleet client of `ingest.device` keeps and repeats what a broker did not take, which costs more than the service
    spends on a frame. A bench wants frames that come on time: what fell due since the last look goes out in one write,
    at QoS 1 as the service has it from devices, and nobody waits for the acknowledgements.
    """

    def __init__(self, sources: Sequence[Source], connection: Connection) -> None:
        now = time.time_ns() // 1_000_000
        self.times: dict[str, list[float]] = {source.device: [] for source in sources}
        self.late_s = 0.0
        self._connection = connection
        self._streams = [
            (topic_of(source.device, "ecg"), self.times[source.device], source.frames(now, now)) for source in sources
        ]
        self._number = 0
        for source in sources:
            meta = DeviceMeta(source.device, now, source.rate, source.leads, source.gain)
            connection.write(self._packet(topic_of(source.device, "meta"), msgspec.json.encode(meta), retain=True))

    async def play(self) -> None:
        """Publish for ever; `BrokerLostError` when the connection ends."""
        loop, count = asyncio.get_running_loop(), len(self._streams)
        begin = loop.time() + FRAME_SECONDS
        sent = slots = 0
        while self._connection.live:
            # Acknowledgements are read now and then only: nobody waits for them.
            slots += 1
            self._connection.pause() if slots % READ_SLOTS else self._connection.resume()
            passed = loop.time() - begin
            due = int(passed / FRAME_SECONDS * count) + 1
            self.late_s = max(self.late_s, passed - sent * FRAME_SECONDS / count)
            packets: list[bytes] = []
            while sent < due and len(packets) < MOST_AT_ONCE:
                topic, times, frames = self._streams[sent % count]
                packets.append(self._packet(topic, encode_frame(next(frames))))
                times.append(time.time() * 1000)
                sent += 1
            self._connection.write(b"".join(packets))
            await asyncio.sleep(SLOT_S if sent == due else 0)
        raise BrokerLostError("the broker closed the connection")

    def _packet(self, topic: str, payload: bytes, *, retain: bool = False) -> bytes:
        self._number = self._number % MOST + 1
        return publish_packet(topic, payload, mid=self._number, retain=retain)
