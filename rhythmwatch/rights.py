"""The keeper: tells streams of admissions, enforces retention, and carries erasures through until nothing is left.

An erasure reaches, for each channel and time of the person's stays: recordings, rows of every table, entries of the
streams, the worker's checkpoint (told to forget by a discharge, waited for), and folders exported for training. What
can't be reached now (no worker, a bus that is away) is said in the erasure and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from alerts.archive import Archive
from alerts.audit import Audit
from alerts.care import Care
from alerts.care_desk import Desk
from alerts.care_erasure import Erasure, Erasures
from alerts.care_retention import expire_events
from alerts.care_rows import Span
from alerts.database import open_engine, upgrade
from bus.clock import LOST_MS, SLEW, keeping_time, now_ms, server_ms
from bus.erasing import erase_entries, forget_on_disk
from bus.errors import BusError
from bus.messages import (
    Action,
    AlarmEvent,
    Entry,
    Event,
    Inbound,
    View,
    pack,
    pack_inbound,
    partition_of,
    unpack_event,
    unpack_inbound,
    unpack_view,
)
from bus.streams import Bus, Position, Record, order
from ingest.codecs import decode_frame
from ingest.frame import FrameError
from rhythmwatch.metrics import Figure, exposing

log = structlog.get_logger()

POLL_S: Final = 2.0
RETENTION_S: Final = 3600.0
SURE_S: Final = 86_400.0
"""A clock that leapt ahead is believed by what deletes only after so long."""
CHECKPOINT_S: Final = 30.0
"""Longest wait for a worker's next checkpoint."""
LATE_MS: Final = 10_000
"""What the device gave up to so long after the end of a stay is the person's, too."""
DAY_MS: Final = 86_400_000
WHO: Final = "keeper"


@dataclass(frozen=True, slots=True)
class Stores:
    """What the keeper works on."""

    bus: Bus
    care: Care
    erasures: Erasures
    audit: Audit
    archive: Archive


async def erase(stores: Stores, erasure: Erasure, *, checkpoint_s: float = CHECKPOINT_S) -> str:
    """Carry an erasure on.

    Parameters
    ----------
    stores : Stores
    erasure : Erasure
        That is not done.
    checkpoint_s : float
        Longest wait for a worker's next checkpoint.

    Returns
    -------
    str
        What is left to do, in words; empty when nothing is.
    """
    left: list[str] = []
    try:
        left += await _forget(stores, erasure.spans, checkpoint_s)
        for span in erasure.spans:
            await _erase_streams(stores.bus, span)
        await forget_on_disk(stores.bus)
    except BusError as error:
        left.append(f"streams: {error}")
    # After the streams, so that nobody writes them again from there.
    try:
        for span in erasure.spans:
            await asyncio.to_thread(stores.archive.erase, span.patient, span.from_ms, span.to_ms)
        for path in await asyncio.to_thread(stores.erasures.exports, erasure.person):
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=False, onerror=_absent)
        await asyncio.to_thread(stores.erasures.forget_exports, erasure.person)
    except OSError as error:
        left.append(f"files: {error.strerror}")
    await asyncio.to_thread(stores.erasures.delete_rows, erasure.spans)
    # The whole database is worked through, so only once all else is done.
    if not left and not await asyncio.to_thread(stores.erasures.scrub):
        left.append("database: its log is in use")
    said = "; ".join(left)
    done = None if left else now_ms()
    await asyncio.to_thread(stores.erasures.note, erasure.id, said, done)
    if done is not None:
        await asyncio.to_thread(stores.audit.add, done, WHO, "person.erased", erasure.person)
    return said


async def retain(stores: Stores, now_ms: int) -> dict[str, int]:
    """Delete what is older than its kind of data is kept; returns how many of each went."""
    days = await asyncio.to_thread(stores.care.retention)
    before = {kind.removesuffix("_days"): now_ms - value * DAY_MS for kind, value in days.items()}
    counts = {"recordings": await asyncio.to_thread(stores.archive.expire, before["recordings"])}
    counts |= await asyncio.to_thread(expire_events, stores.care.engine, before)
    counts["audit"] = await asyncio.to_thread(stores.audit.trim, now_ms, WHO, before["audit"])
    return counts


class Retention:
    """When old data is deleted: each hour, and never because a clock was set ahead, which can't be made good.

    Parameters
    ----------
    passing : callable
        Clock of the machine, s; never set.
    """

    def __init__(self, passing: Callable[[], float] = time.monotonic) -> None:
        self._passing = passing
        # Not at once: a machine that starts with a wrong clock mostly has the right one soon.
        self._due_s = passing() + RETENTION_S
        self._seen_s, self._seen_ms = passing(), 0

    def due(self, ours_ms: int, servers_ms: int) -> int | None:
        """Give the time from which age is counted, ms, when old data is to be deleted; else None.

        Parameters
        ----------
        ours_ms, servers_ms : int
            Time of the service, and what the clock of the bus's server says; the earlier one counts.
        """
        now_s = self._passing()
        passed_ms = 1000 * (now_s - self._seen_s)
        if self._seen_ms and ours_ms - self._seen_ms > passed_ms * (1 + SLEW) + LOST_MS / 2:
            self._due_s = now_s + SURE_S
            log.error("the clock leapt ahead, nothing is deleted for a day", by_ms=ours_ms - self._seen_ms)
        self._seen_s, self._seen_ms = now_s, ours_ms
        if now_s < self._due_s:
            return None
        self._due_s = now_s + RETENTION_S
        return min(ours_ms, servers_ms)


@dataclass(slots=True)
class Counters:
    """What the keeper did since its start."""

    pending: int = 0
    """Erasures that are not done."""
    failures: int = 0
    """Of bus, disk and database."""
    deleted: dict[str, int] = field(default_factory=dict)
    """By kind of data."""


def figures(counters: Counters) -> Iterator[Figure]:
    """Figures of the keeper for Prometheus."""
    yield Figure("pending_erasures", counters.pending, "Erasures that are not done.", counts=False)
    yield Figure("failures", counters.failures, "Failures of bus, disk and database, tried again.")
    for kind, count in sorted(dict(counters.deleted).items()):
        yield Figure("deleted", count, "What was older than its kind is kept.", label=("kind", kind))


async def keep_rights(
    bus_url: str,
    history: str,
    recordings: Path,
    stop: asyncio.Event,
    *,
    poll_s: float = POLL_S,
    metrics: str = "",
) -> None:
    """Run the keeper as a process until `stop` is set.

    Parameters
    ----------
    bus_url, history : str
        Addresses of the bus and the history database.
    recordings : Path
        Folder of the recordings.
    stop : asyncio.Event
        Set to end it.
    metrics : str
        ``host:port`` for Prometheus; empty for none.
    """
    counters = Counters()
    engine = open_engine(history)
    archive = Archive(history, recordings)
    stores_ready = False
    retention = Retention()
    try:
        async with Bus(bus_url) as bus, keeping_time(bus):
            care = Care(engine)
            stores = Stores(bus, care, Erasures(engine), Audit(engine), archive)
            desk = Desk(care, Sender(bus).append)
            with exposing(metrics, "keeper", lambda: figures(counters)):
                while not stop.is_set():
                    try:
                        if not stores_ready:
                            await asyncio.to_thread(upgrade, engine)
                            stores_ready = True
                        await desk.flush()
                        await _carry_on(stores, counters)
                        if (due_ms := retention.due(now_ms(), server_ms())) is not None:
                            await _retain(stores, counters, due_ms)
                    except (SQLAlchemyError, OSError) as error:
                        counters.failures += 1
                        # The message of the database may hold values of the statement.
                        log.warning("keeper waits", why=type(error).__name__)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), poll_s)
    finally:
        archive.close()
        engine.dispose()


async def _carry_on(stores: Stores, counters: Counters) -> None:
    pending = await asyncio.to_thread(stores.erasures.list, pending=True)
    counters.pending = len(pending)
    for erasure in pending:
        left = await erase(stores, erasure)
        counters.pending -= not left
        log.info("erasure", number=erasure.id, left=left)


async def _retain(stores: Stores, counters: Counters, due_ms: int) -> None:
    counts = await retain(stores, due_ms)
    for kind, count in counts.items():
        counters.deleted[kind] = counters.deleted.get(kind, 0) + count
    if any(counts.values()):
        log.info("old data deleted", **counts)


class Sender:
    """Actions as entries of a channel's partition."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def append(self, channel: str, action: Action) -> None:
        """Append an action; `BusError` when the bus can't take it."""
        await self.position(channel, action)

    async def position(self, channel: str, action: Action) -> Position:
        """Append an action and tell where it stands."""
        entry = pack_inbound(Inbound(Entry.ACTION, now_ms(), channel, pack(action)))
        return (await self._bus.append_in([(partition_of(channel, self._bus.partitions), entry)]))[0]


async def _forget(stores: Stores, spans: Iterable[Span], wait_s: float) -> list[str]:
    """Let workers forget what they know of the channels, and wait until their checkpoints say so."""
    wanted: dict[int, Position] = {}
    for patient in sorted({span.patient for span in spans}):
        partition = partition_of(patient, stores.bus.partitions)
        if await asyncio.to_thread(stores.care.open_stay, patient=patient) is None:
            wanted[partition] = await Sender(stores.bus).position(patient, Action("discharge", WHO))
        else:
            # Somebody else is there: the worker forgot at that admission, the checkpoint since then.
            wanted[partition] = (await stores.bus.last([partition], "in"))[partition]
    until = time.monotonic() + wait_s
    left: list[str] = []
    for partition, position in wanted.items():
        while True:
            checkpoint = await stores.bus.load_checkpoint(partition)
            if checkpoint.state is None or order(checkpoint.state_position) >= order(position):
                break
            if time.monotonic() >= until:
                left.append(f"checkpoint of partition {partition}: no worker wrote one since")
                break
            await asyncio.sleep(0.1)
    return left


async def _erase_streams(bus: Bus, span: Span) -> None:
    partition = partition_of(span.patient, bus.partitions)
    end = min(span.to_ms + LATE_MS, span.later_ms)

    def entry_goes(record: Record) -> bool:
        try:
            entry = unpack_inbound(record.data)
        except ValueError:
            return False
        if entry.patient != span.patient or entry.server_ms < span.from_ms:
            return False
        if entry.server_ms - _duration_ms(entry) >= span.to_ms:
            return False
        # A replay needs the words that make the fold begin anew; they hold nothing of the patient.
        return not (entry.kind is Entry.ACTION and _turns_over(entry.payload))

    # By the time of its matter, as rows of the database are: ids hold that of a server whose clock may have been set.
    def goes_by(message: Event | View) -> bool:
        ms = message.onset_ms if isinstance(message, AlarmEvent) else message.ms
        return message.patient == span.patient and span.from_ms <= ms < end

    def event_goes(record: Record) -> bool:
        with contextlib.suppress(msgspec.MsgspecError):
            return goes_by(unpack_event(record.data))
        return False

    def view_goes(record: Record) -> bool:
        with contextlib.suppress(msgspec.MsgspecError):
            return goes_by(unpack_view(record.data))
        return False

    for name, goes in (("in", entry_goes), ("events", event_goes), ("view", view_goes)):
        await erase_entries(bus, partition, name, goes)


class _Named(msgspec.Struct, tag="action"):
    name: str


def _duration_ms(entry: Inbound) -> float:
    """Time that a frame covers, which ends no later than it arrives; 0 of what is no frame."""
    if entry.kind not in (Entry.FRAME, Entry.BACKFILL):
        return 0.0
    try:
        frame = decode_frame(entry.payload)
    except FrameError:
        return 0.0
    return 1000 * len(frame.samples) / frame.rate


def _turns_over(payload: bytes) -> bool:
    try:
        return msgspec.msgpack.decode(payload, type=_Named).name in ("admit", "discharge")
    except msgspec.MsgspecError:
        return False


def _absent(_function: object, _path: str, info: tuple[type[BaseException], BaseException, object]) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]
