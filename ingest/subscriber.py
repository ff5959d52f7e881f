"""From the broker to the bus: each message is checked, stored, and only then acknowledged.

The broker keeps what is not acknowledged and sends it again, so that a crash of this process or of the bus loses
nothing. How much may be under way is MQTT 5's receive maximum: when the bus slows down, the broker does. What exceeds
the bytes that may wait is left with the broker, and the connection renewed once the rest is stored. Nothing of a
patient is kept here; any number of subscribers may share the load.

With amqtt the promise is weaker: it gives a message up 5 s after it was sent, acknowledged or not.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import aiomqtt
import msgspec
import structlog

from bus.errors import BusError
from bus.messages import Entry, Inbound, pack, pack_inbound, partition_of
from bus.streams import Bus
from bus.tasks import run_all
from ingest.codecs import MAGIC, MAX_BYTES, decode, encode_frame
from ingest.connection import Connection, Received, connect_error
from ingest.frame import DEVICE_ID, FrameError
from ingest.notes import decode_event, decode_meta, decode_status

KINDS: Final = ("ecg", "meta", "status", "events", "backfill")
BATCH: Final = 500
IN_HAND: Final = 2_000
IN_HAND_BYTES: Final = 64 << 20
BACKOFF_S: Final = (0.1, 10.0)
TICK_S: Final = 1.0
STORE_BACKOFF_S: Final = (0.05, 2.0)

_log = structlog.get_logger(__name__)


class SubscriberOptions(msgspec.Struct, frozen=True):
    """Where the broker is and how to subscribe.

    Attributes
    ----------
    client_id : str
        The broker keeps the session of this id; each ingest process needs its own.
    mqtt5 : bool or None
        None finds out by trying both.
    shared : bool
        Share the load with the other subscribers of the group ``rw`` (MQTT 5). The broker does not repeat retained
        messages to a shared subscription.
    tls : bool
        Check the broker's certificate against `ca_file`, or the system's.
    """

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    client_id: str = "rw-ingest-1"
    mqtt5: bool | None = None
    shared: bool = False
    tls: bool = False
    ca_file: str | None = None
    session_s: int = 86_400


def patient_of(device: str) -> str:
    """Patient whom a device measures: a device is a patient until they are paired."""
    return device


def server_ms() -> int:
    """Server's wall clock, ms since the Unix epoch."""
    return time.time_ns() // 1_000_000


class Subscriber:
    """Receives from the broker for as long as `run` runs.

    Attributes
    ----------
    counts : Counter
        ``received``, ``stored``, what was dropped as ``drop_<reason>`` (reasons of `FrameError`, and ``overflow`` for
        messages of QoS 0 that nobody could wait for), ``resend`` (left with the broker, which sends them again),
        ``reconnects``, ``bus_retries``.
    connected : bool
        Whether the broker is there.
    """

    def __init__(
        self,
        options: SubscriberOptions,
        bus: Bus,
        *,
        clock: Callable[[], int] = server_ms,
        in_hand: int = IN_HAND,
        in_hand_bytes: int = IN_HAND_BYTES,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.connected = False
        self._options = options
        self._bus = bus
        self._clock = clock
        self._in_hand = in_hand
        self._in_hand_bytes = in_hand_bytes
        self._waiting: deque[Received] = deque()
        self._bytes = 0
        self._some = asyncio.Event()
        self._drained = asyncio.Event()
        self._overflow = asyncio.Event()

    async def run(self) -> None:
        """Receive and store until cancelled; the broker or the bus may come and go meanwhile."""
        await run_all([asyncio.create_task(self._store_forever()), asyncio.create_task(self._receive_forever())])

    async def _receive_forever(self) -> None:
        """Stay connected, with growing, jittered pauses between attempts."""
        attempt = 0
        mqtt5 = self._options.mqtt5 is not False
        while True:
            connection = Connection(self._options, mqtt5=mqtt5, receive_maximum=self._in_hand, take=self._take)
            try:
                async with connection:
                    await connection.subscribe_all(KINDS)
                    self.connected, attempt = True, 0
                    _log.info("broker_connected", mqtt=5 if mqtt5 else 3, shared=self._options.shared and mqtt5)
                    await connection.lost_or(self._overflow)
            except (aiomqtt.MqttError, OSError) as error:
                if self._options.mqtt5 is None and not self.connected:
                    mqtt5 = not mqtt5
                _log.warning("broker_lost" if self.connected else "broker_refused", why=connect_error(error))
            finally:
                connection.live = False
                self.connected = False
            self.counts["reconnects"] += 1
            if self._overflow.is_set():
                await self._drained.wait()
                self._overflow.clear()
            low, high = BACKOFF_S
            await asyncio.sleep(min(high, low * 2**attempt) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            attempt = min(attempt + 1, 16)

    def _take(self, message: Received) -> None:
        """Take a message from the connection, in its callback; never raises, never waits."""
        self.counts["received"] += 1
        size = len(message.payload)
        if size > MAX_BYTES:
            message.payload, message.oversize, size = b"", size, 0
        if self._waiting and self._bytes + size > self._in_hand_bytes:
            if message.qos == 0:
                self._drop("overflow")
            else:
                self.counts["resend"] += 1
                self._overflow.set()
            return
        message.server_ms = self._clock()
        self._bytes += size
        self._waiting.append(message)
        self._some.set()

    async def _store_forever(self) -> None:
        """Hand over what waits, batch by batch; a batch is what came while the last one was stored."""
        waiting = self._waiting
        while True:
            if not waiting:
                self._some.clear()
                self._drained.set()
                await self._some.wait()
                self._drained.clear()
            batch = [waiting.popleft() for _ in range(min(len(waiting), BATCH))]
            items = []
            for message in batch:
                self._bytes -= len(message.payload)
                item = self._entry(message)
                if item is not None:
                    items.append(item)
            if items:
                await self._store(items)
            for message in batch:
                message.acknowledge()

    def _entry(self, message: Received) -> tuple[int, bytes] | None:
        """Partition and bytes for the bus; None for what is dropped (and counted) or needs no entry."""
        try:
            device, kind = _device_and_kind(message.topic)
            if message.oversize:
                raise FrameError("oversize", f"payload of {message.oversize} bytes, at most {MAX_BYTES} are taken")
            payload = message.payload
            if kind in ("ecg", "backfill"):
                frame = decode(payload, device)
                entry = Entry.FRAME if kind == "ecg" else Entry.BACKFILL
                body = payload if payload[:2] == MAGIC else encode_frame(frame)
            elif kind == "status":
                entry, body = Entry.DEVICE, pack(decode_status(payload))
            elif kind == "events":
                entry, body = Entry.DEVICE, pack(decode_event(payload))
            else:
                decode_meta(payload)
                self.counts["meta"] += 1
                return None
        except FrameError as error:
            self._drop(error.reason)
            return None
        patient = patient_of(device)
        return partition_of(patient, self._bus.partitions), pack_inbound(
            Inbound(entry, message.server_ms, patient, body)
        )

    async def _store(self, items: list[tuple[int, bytes]]) -> None:
        """Put a batch on the bus, however long the bus is away."""
        pause, longest = STORE_BACKOFF_S
        while True:
            try:
                await self._bus.append_in(items)
            except BusError as error:
                self.counts["bus_retries"] += 1
                _log.warning("bus_retry", why=str(error), waiting=len(self._waiting))
                await asyncio.sleep(pause)
                pause = min(longest, 2 * pause)
            else:
                self.counts["stored"] += len(items)
                return

    def _drop(self, reason: str) -> None:
        name = f"drop_{reason}"
        self.counts[name] += 1
        count = self.counts[name]
        if count & (count - 1) == 0:
            # The 1st, 2nd, 4th, 8th ...: a device gone mad does not fill the log.
            _log.warning("message_dropped", reason=reason, count=count)


def _device_and_kind(topic: str) -> tuple[str, str]:
    """Split ``rw/v1/{device}/{kind}``; `FrameError` with reason ``topic`` for any other."""
    parts = topic.split("/")
    if len(parts) != 4 or parts[3] not in KINDS or DEVICE_ID.fullmatch(parts[2]) is None:
        raise FrameError("topic", "topics are rw/v1/{device}/" + "|".join(KINDS))
    return parts[2], parts[3]


async def tick_forever(
    bus: Bus, *, clock: Callable[[], int] = server_ms, period_s: float = TICK_S, counts: Counter[str] | None = None
) -> None:
    """Append a TICK to every partition each period, so that time goes on where no frame comes.

    One process need do so; several do no harm. A tick that can't be stored is left out and counted: the next one says
    all that it would have said.
    """
    counts = Counter() if counts is None else counts
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        tick = pack_inbound(Inbound(Entry.TICK, clock(), "", b""))
        try:
            await bus.append_in([(partition, tick) for partition in range(bus.partitions)])
            counts["ticks"] += 1
        except BusError as error:
            counts["drop_tick"] += 1
            _log.warning("tick_dropped", why=str(error))
        due = max(due + period_s, loop.time())
        await asyncio.sleep(due - loop.time())
