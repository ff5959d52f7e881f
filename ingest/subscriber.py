"""From the broker to the bus: each message is checked, stored, and only then acknowledged.

The broker keeps what is not acknowledged and sends it again, so that a crash of this process or of the bus loses
nothing. How much may be under way is MQTT 5's receive maximum: when the bus slows down, the broker does. What exceeds
the bytes that may wait is left with the broker, and the connection renewed once the rest is stored. What devices had
stored has a session of its own and is paced (`ingest.backlog`); packets of straps have one too, which a single one of
those that share the load takes (`ingest.strap_session`). Nothing of a patient is kept here but which frames came
lately (`ingest.known`), and nothing depends on that; any number of subscribers may share the load.

With amqtt the promise is weaker: what it holds is in its memory alone, and lost when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from bus.clock import now_ms
from bus.messages import Entry, pack, pack_inbound_parts
from bus.pace import rest_s
from bus.pressure import Pressure
from bus.streams import Bus
from bus.tasks import run_all
from ingest.backlog import Backlog
from ingest.codecs import MAGIC, MAX_BYTES, check_frame, decode, encode_frame
from ingest.complaints import Complaints
from ingest.connection import BrokerLostError, Connection, Pauses, Received, connect_error
from ingest.frame import FrameError
from ingest.known import KnownFrames
from ingest.limits import CLOCK_OFF_MS, DeviceLimits, Quotas
from ingest.notes import clock_answer, decode_event, decode_meta, decode_status
from ingest.pacing import Pace
from ingest.room import RoomWatch
from ingest.routes import LIVE, STORED, STRAPS, Route, Routes
from ingest.storing import Storing
from ingest.strap_session import StrapSession

BATCH: Final = 500
PACE_S: Final = (0.016, 0.05)
"""Least and most from one batch to the next, where many send: a frame waits for others half of this on average. Kernel
and loop cost a batch more than all that is done to its frames."""
PACE_SHARE: Final = 16.0
"""The pace as a multiple of the time that a batch took: the more there is to do, the larger are the batches."""
IN_HAND: Final = 2_000
IN_HAND_BYTES: Final = 64 << 20
BACKOFF_S: Final = (0.1, 1.0)

_OF_STRAPS: Final = tuple(f"/{kind}" for kind in STRAPS)

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

    @property
    def straps_id(self) -> str:
        """Client id of the session of straps: the same for all that share the load."""
        return "rw-ingest-straps" if self.shared else f"{self.client_id}-straps"


class Subscriber:
    """Receives from the broker for as long as `run` runs.

    Attributes
    ----------
    counts : Counter
        ``received``, ``stored``, ``known`` (copies of live frames that are stored, dropped), what was dropped as
        ``drop_<reason>`` (reasons of `FrameError`, and ``overflow`` for messages of QoS 0 that nobody could wait for,
        ``flood`` for what a device sent too much), ``resend`` (left with the broker, which sends them again),
        ``reconnects``, ``bus_retries``, ``flags`` (notes to staff), ``shut_out`` (devices that the broker was asked to
        shut out), ``unreplicated`` (stored where no replica could be waited for); of straps ``strap_<what>`` (see
        `StrapStream`).
    backlog : Backlog
        What devices had stored and is not let through yet.
    straps : StrapSession
        Packets of straps, whenever this is the one that takes them.
    """

    def __init__(
        self,
        options: SubscriberOptions,
        bus: Bus,
        *,
        clock: Callable[[], int] = now_ms,
        in_hand: int = IN_HAND,
        in_hand_bytes: int = IN_HAND_BYTES,
        limits: DeviceLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        pressure: Pressure | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._options = options
        self._storing = Storing(bus, self.counts, monotonic)
        self._known = KnownFrames()
        self._fresh: list[tuple[str, bytes]] = []
        self._clock = clock
        limits = limits or DeviceLimits()
        self._quotas = Quotas(limits)
        self._complaints = Complaints(self._quotas, self.counts)
        self._monotonic = monotonic
        self._pressure = pressure or Pressure()
        self._routes = Routes(bus)
        self._in_hand = in_hand
        self._in_hand_bytes = in_hand_bytes
        self._waiting: deque[Received] = deque()
        self._bytes = 0
        self._connection: Connection | None = None
        self._some = asyncio.Event()
        self._drained = asyncio.Event()
        self._overflow = asyncio.Event()
        self._live = False
        self._mqtt5 = False
        self._spoken = asyncio.Event()
        room = msgspec.structs.replace(options, client_id=f"{options.client_id}-room", shared=False, session_s=0)
        self.backlog = Backlog(
            msgspec.structs.replace(options, client_id=f"{options.client_id}-{STORED}"),
            bus,
            pass_on=self._pass_on,
            room=RoomWatch(room, limits, self._pass_on, clock),
            clear=lambda: len(self._waiting) < BATCH,
            counts=self.counts,
            pace=limits.within(pace or Pace()),
            pressure=self._pressure,
            clock=clock,
        )
        self.straps = StrapSession(
            msgspec.structs.replace(options, client_id=options.straps_id, shared=False),
            bus,
            holder=options.client_id,
            routes=self._routes,
            quotas=self._quotas,
            counts=self.counts,
            pressure=self._pressure,
            clock=clock,
            monotonic=monotonic,
            drop=self._drop,
        )

    @property
    def connected(self) -> bool:
        """Whether the broker is there and sends all that devices publish but packets of straps."""
        return self._live and self.backlog.connected

    async def run(self) -> None:
        """Receive and store until cancelled; the broker or the bus may come and go meanwhile."""
        parts = (
            self._store_forever(), self._receive_forever(), self._receive_stored(), self.backlog.work_off(),
            self._receive_straps(),
        )  # fmt: skip
        await run_all([asyncio.create_task(part) for part in parts])

    async def _receive_forever(self) -> None:
        """Stay connected, with growing, jittered pauses between attempts."""
        pauses = Pauses(*BACKOFF_S)
        mqtt5 = self._options.mqtt5 is not False
        while True:
            connection = Connection(self._options, mqtt5=mqtt5, receive_maximum=self._in_hand, take=self._take)
            try:
                async with connection:
                    self._connection = connection
                    await connection.subscribe_all(LIVE)
                    self._live = True
                    pauses.begin_anew()
                    self._mqtt5 = mqtt5
                    self._spoken.set()
                    self._leave_others()
                    _log.info("broker_connected", mqtt=5 if mqtt5 else 3, shared=self._options.shared and mqtt5)
                    await connection.lost_or(self._overflow)
            except OSError as error:
                # A broker that is not there says nothing about the MQTT that it speaks.
                if self._options.mqtt5 is None and not self._live and isinstance(error, BrokerLostError):
                    mqtt5 = not mqtt5
                _log.warning("broker_lost" if self._live else "broker_refused", why=connect_error(error))
            finally:
                connection.live = False
                self._live = False
            self.counts["reconnects"] += 1
            if self._overflow.is_set():
                await self._drained.wait()
                self._overflow.clear()
            await pauses.rest()

    async def _receive_stored(self) -> None:
        """Receive what devices had stored once it is known what the broker speaks."""
        await self._spoken.wait()
        await self.backlog.receive(lambda: self._mqtt5, self._leave_others)

    async def _receive_straps(self) -> None:
        """Receive packets of straps once it is known what the broker speaks."""
        await self._spoken.wait()
        await self.straps.run(lambda: self._mqtt5, self._leave_others)

    def _leave_others(self) -> None:
        """End the subscriptions that the session of live data once had, when another one has them."""
        if self._live and self._connection is not None:
            others = ((STORED,) if self.backlog.connected else ()) + (STRAPS if self.straps.connected else ())
            if others:
                self._connection.unsubscribe_all(others)

    def _pass_on(self, message: Received) -> None:
        """Take a stored message whose turn has come, or that takes the room of others."""
        if not message.refused:
            self._weigh(message)
        self._bytes += len(message.payload)
        self._waiting.append(message)
        self._some.set()

    def _take(self, message: Received) -> None:
        """Take a message from the connection, in its callback; never raises, never waits."""
        if message.topic.endswith(_OF_STRAPS):
            self.straps.take(message)
            return
        self.counts["received"] += 1
        if not self._overflow.is_set():
            self._weigh(message)
        size = len(message.payload)
        full = bool(self._waiting) and self._bytes + size > self._in_hand_bytes
        if full and message.qos == 0:
            self._drop("overflow")
            return
        if message.qos and (full or self._overflow.is_set()):
            # What is left with the broker is overtaken by nothing: the sequencer would not wait for it.
            self.counts["resend"] += 1
            self._overflow.set()
            return
        message.server_ms = self._clock()
        self._bytes += size
        self._waiting.append(message)
        self._some.set()

    def _weigh(self, message: Received) -> None:
        """See at once whether a device may send this: what it may not, or nobody may, takes no room here."""
        size = len(message.payload)
        with contextlib.suppress(FrameError):
            if not self._quotas.take(self._routes.of(message.topic).share, size, self._monotonic()):
                message.refused = "flood"
        message.oversize = size if size > MAX_BYTES else 0
        if message.refused or message.oversize:
            message.payload = message.stored = b""

    async def _store_forever(self) -> None:
        """Hand over what waits, batch by batch: after a silence at once, else with what comes within `PACE_S`."""
        waiting = self._waiting
        loop = asyncio.get_running_loop()
        while True:
            if not waiting:
                self._some.clear()
                self._drained.set()
                await self._some.wait()
                self._drained.clear()
            await self._pressure.room()
            began = loop.time()
            batch = [waiting.popleft() for _ in range(min(len(waiting), BATCH))]
            items: list[tuple[int, bytes]] = []
            now_s = self._monotonic()
            for message in batch:
                self._bytes -= len(message.payload)
                self._entries(message, now_s, items)
            if items:
                if await self._storing.put(items):
                    for device, frame in self._fresh:
                        self._known.note(device, frame, now_s)
                else:
                    self._known.forget()
                self._fresh.clear()
            self.backlog.answer(message for message in batch if message.stored)
            for message in batch:
                message.acknowledge()
            connection = self._connection
            if connection is not None and len(waiting) < BATCH:
                connection.pause()
                try:
                    await asyncio.sleep(rest_s(loop.time() - began, PACE_SHARE, PACE_S))
                finally:
                    connection.resume()

    def _entries(self, message: Received, now_s: float, items: list[tuple[int, bytes]]) -> None:
        """Add what the bus gets of a message; what is dropped is counted."""
        route: Route | None = None
        try:
            route = self._routes.of(message.topic)
            if message.refused:
                self._refuse(route, message, now_s, items)
                return
            if message.oversize:
                raise FrameError("oversize", f"payload of {message.oversize} bytes, at most {MAX_BYTES} are taken")
            body = message.stored or self._body(route, message, now_s, items)
        except FrameError as error:
            self._drop(error.reason)
            if error.reason == "topic" and route is not None:
                self._flag(route, "wrong_id", message, now_s, items)
            return
        except Exception as error:
            # A fault of ours that one payload brings to light must not hold all others up.
            _log.error("message_broke_a_codec", kind=type(error).__name__)
            self._drop("fault")
            return
        if body is not None:
            items.append((route.partition, pack_inbound_parts(route.entry, message.server_ms, route.patient, body)))
            if route.entry is Entry.BACKFILL:
                message.stored = body
            elif route.kind == "ecg":
                self._fresh.append((route.device, body))

    def _body(self, route: Route, message: Received, now_s: float, items: list[tuple[int, bytes]]) -> bytes | None:
        """Check a message and give the payload of its entry; None where it needs none."""
        kind, device, payload = route.kind, route.device, message.payload
        if kind == "ecg" or kind == "backfill":
            if payload[:2] == MAGIC:
                if kind == "ecg" and self._known.has(device, payload):
                    self.counts["known"] += 1
                    return None
                rate, rows, device_ms = check_frame(payload, device)
            else:
                frame = decode(payload, device)
                rate, rows, device_ms = frame.rate, len(frame.samples), frame.device_ms
                payload = encode_frame(frame)
            if kind == "ecg":
                if not self._quotas.take_signal(device, rows / rate, now_s):
                    self._flag(route, "bad_rate", message, now_s, items)
                if abs(device_ms - message.server_ms) > CLOCK_OFF_MS:
                    self._flag(route, "bad_clock", message, now_s, items)
            return payload
        if kind == "status":
            return pack(decode_status(payload))
        if kind == "events":
            note = decode_event(payload)
            if note.name != "clock":
                return pack(note)
            message.reply(f"rw/v1/{device}/commands", clock_answer(note.value, message.server_ms))
            self.counts["clocks"] += 1
            return None
        if kind == "meta":
            decode_meta(payload)
            self.counts["meta"] += 1
            return None
        raise FrameError("topic", "packets of straps are taken by their own session")

    def _refuse(self, route: Route, message: Received, now_s: float, items: list[tuple[int, bytes]]) -> None:
        """Tell staff of what a device sends beyond its share, drop it, have the broker shut it out if it goes on."""
        self._flag(route, message.refused, message, now_s, items)
        if message.refused != "flood":
            return
        self._drop("flood")
        self._complaints.shut_out(route, message, now_s)

    def _flag(
        self,
        route: Route,
        name: str,
        message: Received,
        now_s: float,
        items: list[tuple[int, bytes]],
        value: float = 0.0,
    ) -> None:
        """Tell staff what is wrong with a device, now and then."""
        notes = self._complaints.note(route, name, message, now_s, value)
        items += ((route.partition, note) for note in notes)

    def _drop(self, reason: str) -> None:
        name = f"drop_{reason}"
        self.counts[name] += 1
        count = self.counts[name]
        if count & (count - 1) == 0:
            # The 1st, 2nd, 4th, 8th ...: a device gone mad does not fill the log.
            _log.warning("message_dropped", reason=reason, count=count)
