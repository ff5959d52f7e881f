"""Memory of each process over a simulated day: ``python benchmarks/day.py --patients 14 --speed 38 --looks day.jsonl``.

Patients (recordings of mitdb at 250 Hz that begin anew, else simulated) go through the whole chain of one machine:
broker, ingest, bus, workers, pages with one wall looking on, historian, notifier, recorder, evidence. Staff go round
and acknowledge what stands at each bed each half an hour of the signal: an alarm is kept until somebody does.

All is played as fast as the chain carries: who publishes holds back where the slowest partition is more than `AHEAD_S`
of signal behind, or a reader of the bus more than `HELD_S` of wall time. A ward of hundreds takes two workers
(`--workers`) and frames of some seconds (`--frame`), since the broker, ingest and the bus are paid by the frame.

Resident (RSS), proportional (PSS) and unshared (USS) memory, and what the bus has allocated, are looked at each
two minutes of the signal. The base is the first look after an hour, and after `--settle` seconds of wall time, since
checkpoints, flushes and ticks go by the wall. A process moves up and down by some percent with the size of its batches,
and once a minute it gives back what it has free; so the mean of the looks in the hour from the base on is compared with
the mean of those in the last hour. Growth above 5 % is a failure, and so is a process that was started again, or a day
that the chain did not work off. The two single looks, at the base and at the end, are told beside it.

Each simulated hour is told as it ends. With `--looks` every look is written to a file, from which `--report` makes the
same report again, also of a run that was cut short.

What waits on the bus is what is played in the minute between two flushes of the recorder, so it grows with the pace:
give a `--speed` that the machine carries throughout. The bus keeps an hour of events by the wall; a day in twenty
minutes would never see the end of that hour. So the bench forgets what is older than a simulated hour, as the worker
does in real time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Final

import msgspec
import structlog
import uvloop
from day_memory import look
from day_report import (
    ALLOWED,
    Look,
    Looks,
    as_json,
    columns,
    course_table,
    judge,
    plot,
    read_looks,
    verdict_table,
)
from day_staff import Staff
from rich.console import Console

from bus.errors import BusError
from bus.messages import Entry, partition_of, unpack_inbound
from bus.streams import START, Bus, Position, milliseconds, order
from bus.tasks import end
from ingest.codecs import decode_frame, encode_frame
from ingest.connection import Connection
from ingest.device_model import DeviceMeta, topic_of
from ingest.frame import Frame
from ingest.packets import MOST, publish_packet
from ingest.replay import FRAME_SECONDS, RecordingSource, Source, play
from ingest.subscriber import SubscriberOptions
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.demo_people import admit_played
from rhythmwatch.load import load_sources
from rhythmwatch.station import Running, Station, running_station, until_ready

HOUR_S: Final = 3600
LOOK_S: Final = 120
"""Signal between two looks at the memory."""
LOOKS_AN_HOUR: Final = HOUR_S // LOOK_S
AHEAD_S: Final = 240
"""Signal of each patient that may be under way between publisher and stored outputs."""
HELD_S: Final = 150.0
"""The recorder moves its position each minute."""
FASTEST: Final = 150.0
"""Times real time: a device may send 200 messages a second."""
POLL_S: Final = 0.5
TRIM_S: Final = 5.0
DRAIN_S: Final = 120.0

console = Console(stderr=True)


class Shortened:
    """A source that ends after some frames."""

    def __init__(self, source: Source, frames: int) -> None:
        self._source, self._frames = source, frames
        self.device, self.rate, self.leads, self.gain = source.device, source.rate, source.leads, source.gain

    def frames(self, epoch: int, start_ms: int) -> Iterator[Frame]:
        """Give the first frames."""
        for _, frame in zip(range(self._frames), self._source.frames(epoch, start_ms), strict=False):
            yield frame


def _framed(source: Source, seconds: float) -> Source:
    """Have a recording cut into frames of another length."""
    return replace(source, seconds=seconds) if isinstance(source, RecordingSource) else source


class HeldBack:
    """Publisher that goes no further than the chain allows.

    Attributes
    ----------
    first : str
        Device that begins each round.
    rounds : int
        Rounds begun.
    done_s : float
        Seconds of the signal whose outputs are stored, of all devices.
    """

    def __init__(self, connection: Connection, sources: Sequence[Source], speed: float, frame_s: float) -> None:
        self.rounds = 0
        self.done_s = 0.0
        self.first = sources[0].device
        self._connection = connection
        self._speed, self._frame_s = speed, frame_s
        self._sent = 0
        self._until_s = 0.0
        self._allowed = asyncio.Event()
        self._began = asyncio.get_running_loop().time()

    def offer(self, frame: Frame) -> bool:
        """Not for this player, which never drops a frame."""
        raise NotImplementedError

    async def publish(self, frame: Frame) -> None:
        """Send a frame, at QoS 1 as devices do; waits at the begin of each round of all patients."""
        if frame.device == self.first:
            await self._turn()
        self._sent += 1
        mid = self._sent % MOST + 1
        self._connection.write(publish_packet(topic_of(frame.device, "ecg"), encode_frame(frame), mid=mid))

    def allow(self, until_s: float) -> None:
        """Let the player go on up to a second of the signal."""
        self._until_s = until_s
        self._allowed.set()

    async def _turn(self) -> None:
        while self.rounds * self._frame_s >= self._until_s:
            self._allowed.clear()
            await self._allowed.wait()
        due = self._began + self.rounds * self._frame_s / self._speed
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        self.rounds += 1


@dataclass
class Watch:
    """Follows how far the chain is, and forgets events that are older than a simulated hour."""

    bus: Bus
    publisher: HeldBack
    _cursor: Position = START
    _under_way: deque[tuple[Position, float]] = field(default_factory=deque)
    _marks: deque[tuple[float, int]] = field(default_factory=deque)
    """Seconds of signal done, and the time of the bus then, ms."""
    _trimmed: float = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                if await self._behind_s() <= HELD_S:
                    self.publisher.allow(self.publisher.done_s + AHEAD_S)
                if time.monotonic() - self._trimmed > TRIM_S:
                    self._trimmed = time.monotonic()
                    await self._trim()
            except BusError as error:
                console.print(f"the bus can't be asked: {error}", style="yellow")
            await asyncio.sleep(POLL_S)

    async def _behind_s(self) -> float:
        """Follow the signal to where all outputs are stored; gives how far the slowest reader is behind."""
        partition = partition_of(self.publisher.first, self.bus.partitions)
        for _, records in await self.bus.read({partition: self._cursor}, count=5_000):
            for record in records:
                entry = unpack_inbound(record.data)
                if entry.kind is Entry.FRAME and entry.patient == self.publisher.first:
                    frame = decode_frame(entry.payload)
                    self._under_way.append((record.position, (frame.sample + len(frame.samples)) / frame.rate))
            self._cursor = records[-1].position
        found = await self.bus.stats(range(self.bus.partitions))
        # A round of all patients has one time on the bus, about; the partition with most of them is the slowest.
        slowest = min((order(item.position) for item in found if item.position != item.last), default=None)
        while self._under_way and (slowest is None or order(self._under_way[0][0]) < slowest):
            self.publisher.done_s = self._under_way.popleft()[1]
        behind = 0.0
        for item in found:
            for position in (await self.bus.held(item.partition)).values():
                if position != START:
                    behind = max(behind, (milliseconds(item.last) - milliseconds(position)) / 1e3)
        return behind

    async def _trim(self) -> None:
        """Forget the events of signal that was done more than an hour of it ago."""
        done_s = self.publisher.done_s
        found = await self.bus.stats(range(self.bus.partitions))
        self._marks.append((done_s, max(milliseconds(item.last) for item in found)))
        while len(self._marks) > 1 and self._marks[1][0] <= done_s - HOUR_S:
            self._marks.popleft()
        if self._marks[0][0] > done_s - HOUR_S:
            return
        for item in found:
            upto = f"{self._marks[0][1]}-0"
            held = (await self.bus.held(item.partition)).get("events", upto)
            await self.bus.trim(item.partition, min(upto, held, key=order), "events")


async def day(
    folder: Path,
    data: Path | None,
    looks: Looks,
    *,
    patients: int,
    hours: float,
    speed: float,
    frame_s: float,
    workers: int,
) -> None:
    """Play a day through a station and look at its memory.

    Raises
    ------
    RuntimeError
        If the station does not become ready, or does not work off what it was given.
    """
    seconds = round(hours * HOUR_S)
    sources = [
        Shortened(_framed(source, frame_s), ceil(seconds / frame_s)) for source in load_sources(data, 0, patients)
    ]
    admit_played(f"sqlite:///{folder / 'history.db'}", [source.device for source in sources])
    station = Station(state=folder, host="127.0.0.1", port=0, workers=workers)
    async with running_station(station, asyncio.Event()) as running, Bus(running.bus) as bus:
        # A machine that has other work may take more than one turn.
        if not (await running.ready or await until_ready(running.url) or await until_ready(running.url)):
            raise RuntimeError("the service did not become ready; the log above says why")
        staff = Staff(running, [source.device for source in sources])
        address = BrokerAddress.parse(running.devices)
        options = SubscriberOptions(address.host, address.port, address.username, address.password, "day")
        async with Connection(options, mqtt5=False, receive_maximum=1, take=lambda _: None) as connection:
            await _play(running, bus, connection, staff, sources, seconds, speed, frame_s, looks)


async def _play(
    running: Running,
    bus: Bus,
    connection: Connection,
    staff: Staff,
    sources: Sequence[Source],
    seconds: int,
    speed: float,
    frame_s: float,
    looks: Looks,
) -> None:
    now = time.time_ns() // 1_000_000
    for number, source in enumerate(sources, 1):
        meta = msgspec.json.encode(DeviceMeta(source.device, now, source.rate, source.leads, source.gain))
        connection.write(publish_packet(topic_of(source.device, "meta"), meta, mid=number, retain=True))
    publisher = HeldBack(connection, sources, speed, frame_s)
    watcher = asyncio.create_task(Watch(bus, publisher).run(), name="watch")
    duty = asyncio.create_task(staff.be_on_duty(lambda: publisher.done_s), name="staff")
    player = asyncio.create_task(play(sources, publisher, epoch=now, start_ms=now, speed=0), name="player")
    began = quiet_since = time.monotonic()
    known = 0.0
    try:
        while publisher.done_s < seconds:
            for part in (player, duty):
                if part.done():
                    part.result()
            if publisher.done_s > known:
                quiet_since, known = time.monotonic(), publisher.done_s
            if time.monotonic() - quiet_since > DRAIN_S:
                raise RuntimeError(f"the chain stands still at {known / HOUR_S:.2f} simulated hours")
            if publisher.done_s >= (len(looks.all) + 1) * LOOK_S:
                looks.add(await look(running, publisher.done_s / HOUR_S, began))
                if len(looks.all) % LOOKS_AN_HOUR == 0:
                    _tell(looks.all[-1], seconds)
            await asyncio.sleep(POLL_S)
        looks.add(await look(running, seconds / HOUR_S, began))
    finally:
        await end([player, watcher, duty])


def _tell(one: Look, seconds: float) -> None:
    """Say how far it is and how large the processes are."""
    speed = one.hours * HOUR_S / one.wall_s
    left = (seconds - one.hours * HOUR_S) / speed / 60
    sizes = ", ".join(f"{name} {size:.1f}" for name, size in columns(one).items())
    console.print(
        f"{one.hours:.1f} h at {speed:.0f} x, {left:.0f} min left; MB: {sizes}", highlight=False, soft_wrap=True
    )


def main() -> None:
    """Run the day, or report one; status 1 where memory grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=14)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--speed", type=float, default=FASTEST, help=f"times real time at most, up to {FASTEST:.0f}")
    parser.add_argument("--frame", type=float, default=FRAME_SECONDS, help="seconds of signal in a frame")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--settle", type=float, default=300.0, help="seconds of wall time before the base")
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--looks", type=Path, default=None, help="file for all looks, written as they are taken")
    parser.add_argument("--report", type=Path, default=None, help="report the looks of such a file and play nothing")
    parser.add_argument("--plot", type=Path, default=None, help="file for a picture; needs matplotlib")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    whole = None
    if given.report is not None:
        looks = read_looks(given.report)
    else:
        looks, whole = _run(given)
    if given.plot is not None and looks:
        plot(looks, given.plot)
    printed = Console(width=max(Console().width, 160))
    try:
        base, processes = judge(looks, given.settle)
    except ValueError as error:
        printed.print(course_table(looks))
        sys.exit(str(error))
    hours, wall_s = looks[-1].hours, looks[-1].wall_s
    head = {
        "hours": round(hours, 2), "took_s": round(wall_s), "speed": round(hours * HOUR_S / wall_s, 1),
        "base_at_h": round(base.hours, 2), "played to its end": whole,
    }  # fmt: skip
    grown = [name for name, one in processes.items() if not one.good]
    if given.json:
        print(json.dumps({**head, "grown": grown, **as_json(looks, processes)}))
    else:
        printed.print(course_table(looks))
        printed.print(verdict_table(processes))
        printed.print(", ".join(f"{name} {value}" for name, value in head.items()), highlight=False)
        printed.print(
            f"grew beyond {ALLOWED:.0f} % or was started again: {', '.join(grown) or 'none'}", highlight=False
        )
    sys.exit(1 if grown or whole is False else 0)


def _run(given: argparse.Namespace) -> tuple[list[Look], bool]:
    """Play the day; gives the looks, and whether it was played to its end."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    os.environ.setdefault("RHYTHMWATCH_LOG_LEVEL", "warning")
    looks = Looks(given.looks)
    # Whoever started it may have had it ignore the one; asked to end by the other, it takes its processes along too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with tempfile.TemporaryDirectory(prefix="rw-day-", ignore_cleanup_errors=True) as folder:
        try:
            uvloop.run(
                day(
                    Path(folder), given.data, looks, patients=given.patients, hours=given.hours,
                    speed=min(given.speed, FASTEST), frame_s=given.frame, workers=given.workers,
                )
            )  # fmt: skip
        except (RuntimeError, KeyboardInterrupt) as error:
            console.print(f"ended early: {error}", style="red")
            return looks.all, False
    return looks.all, True


if __name__ == "__main__":
    main()
