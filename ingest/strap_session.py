"""Packets of straps on their way in: one of all ingests takes them, in a session at the broker that passes on.

Numbering needs all packets of a strap in one process and in their order. So whoever holds the lease ``straps`` on the
bus subscribes to them, unshared and always under the same client id: the broker sends a successor what the former
holder has not acknowledged and what came meanwhile, and pushes that one off. Where the numbering of each strap stands
is stored in one step with its frames, under the epoch of the lease: nothing is lost, no packet becomes a frame twice,
and a former holder that wakes writes nothing.

The broker has no more than `WINDOW` packets under way, so that a strap's marks cover all that may come again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, Literal

import structlog

from bus.errors import BusError
from bus.lease import Lease, LeaseLostError
from bus.messages import Entry, pack_inbound_parts
from bus.numbered import MARKS, Kept, Numbered, NumberedStore
from bus.pressure import Pressure
from bus.streams import Bus
from bus.tasks import run_all
from ingest.codecs import encode_frame
from ingest.complaints import Complaints
from ingest.connection import Connection, Pauses, Received, connect_error
from ingest.connection_options import ConnectionOptions
from ingest.frame import FrameError
from ingest.limits import LATE_MS, Quotas
from ingest.notes import decode_meta
from ingest.routes import STRAPS, Route, Routes
from ingest.storing import until_done
from ingest.straps import COPIES, MAX_PACKET, MOVESENSE_GAIN, StrapStream, decode_strap, mark_of

LEASE: Final = "straps"
WINDOW: Final = min(MARKS, COPIES)
PACE_S: Final = 0.016
RENEW_S: Final = 0.5
TRY_S: Final = 0.5
BACKOFF_S: Final = (0.1, 2.0)
_STREAMS: Final = 16_384
"""Kept in memory; the bus has them all."""
_RATES: Final = 65_536

_log = structlog.get_logger(__name__)


class _Made:
    """What a batch gives of one strap."""

    __slots__ = ("entries", "marks", "route")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.entries: list[bytes] = []
        self.marks: list[bytes] = []


class StrapSession:
    """Takes packets of straps while this process holds the lease, and waits for it otherwise.

    Parameters
    ----------
    options : ConnectionOptions
        Of the session, the same for all who may take the lease.
    bus : Bus
    holder : str
        Name of this process, no other's.
    routes : Routes
    quotas : Quotas
        What devices may send.
    counts : Counter
        As of `ingest.subscriber.Subscriber`.
    pressure : Pressure
        How the memory of the bus stands.
    clock : callable
        Server time, ms.
    monotonic : callable
        s.
    drop : callable
        Gets the reason of what is dropped.

    Attributes
    ----------
    connected : bool
        Whether this process holds the lease and the broker sends to it.
    counts : Counter
    """

    def __init__(
        self,
        options: ConnectionOptions,
        bus: Bus,
        *,
        holder: str,
        routes: Routes,
        quotas: Quotas,
        counts: Counter[str],
        pressure: Pressure,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        drop: Callable[[str], None],
    ) -> None:
        self.connected = False
        self._options, self._bus = options, bus
        self.counts = counts
        self._routes, self._quotas, self._complaints = routes, quotas, Complaints(quotas, counts)
        self._pressure, self._clock, self._monotonic = pressure, clock, monotonic
        self._drop = drop
        self._lease = Lease(bus, LEASE, holder)
        self._store = NumberedStore(bus, self._lease)
        self._streams: dict[str, StrapStream] = {}
        self._rates: dict[str, float] = {}
        self._waiting: deque[Received] = deque()
        self._some = asyncio.Event()
        self._connection: Connection | None = None
        self._pauses = Pauses(*BACKOFF_S)

    async def run(self, mqtt5: Callable[[], bool], subscribed: Callable[[], None]) -> None:
        """Take packets whenever the lease is ours, until cancelled; `subscribed` is called once the broker sends."""
        while True:
            try:
                if not await self._lease.take():
                    await asyncio.sleep(TRY_S)
                    continue
                _log.info("straps_taken", epoch=self._lease.epoch)
                await self._hold(mqtt5(), subscribed)
            except LeaseLostError as error:
                _log.warning("straps_given_up", why=str(error))
            except BusError as error:
                _log.warning("straps_refused", why=str(error))
            except OSError as error:
                _log.warning("straps_lost", why=connect_error(error))
            await self._pauses.rest()

    def take(self, message: Received) -> None:
        """Take a message from the connection, in its callback; never raises, never waits."""
        if len(message.payload) > MAX_PACKET:
            message.payload, message.oversize = b"", len(message.payload)
        message.server_ms = self._clock()
        self._waiting.append(message)
        self._some.set()
        self._bound()

    async def _hold(self, mqtt5: bool, subscribed: Callable[[], None]) -> None:
        """Take packets until the lease or the broker is lost, which is raised."""
        parts = (self._renew_forever(), self._store_forever(), self._receive(mqtt5, subscribed))
        try:
            await run_all([asyncio.create_task(part) for part in parts])
        finally:
            # What is not acknowledged comes again, to whoever has the lease then.
            self._waiting.clear()
            self._streams.clear()
            with contextlib.suppress(BusError):
                await self._lease.release()

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self._lease.renew()
            except LeaseLostError:
                raise
            except BusError as error:
                # Whoever can reach the bus says whose the lease is.
                _log.warning("straps_not_renewed", why=str(error))

    async def _receive(self, mqtt5: bool, subscribed: Callable[[], None]) -> None:
        connection = Connection(self._options, mqtt5=mqtt5, receive_maximum=WINDOW, take=self.take)
        try:
            # Who was stalled since it took the lease must not push its holder off the broker.
            await self._lease.renew()
            async with connection:
                self._connection = connection
                await connection.subscribe_all(("meta", *STRAPS))
                self.connected = True
                self._pauses.begin_anew()
                self._bound()
                subscribed()
                await connection.lost_or(asyncio.Event())
        finally:
            connection.live = False
            self.connected = False

    def _bound(self) -> None:
        """Read no more than may wait; MQTT 3.1.1 has no other way to say so."""
        connection = self._connection
        if connection is None or not self.connected:
            # The answer to the subscription may come behind a whole window of messages.
            return
        if len(self._waiting) >= WINDOW and not connection.paused:
            connection.pause()
        elif connection.paused and len(self._waiting) <= WINDOW // 2:
            connection.resume()

    async def _store_forever(self) -> None:
        """Give what waits its numbers and store it, batch by batch, each acknowledged before the next one."""
        waiting = self._waiting
        while True:
            if not waiting:
                self._some.clear()
                await self._some.wait()
            await self._pressure.room()
            batch = [waiting.popleft() for _ in range(min(len(waiting), WINDOW))]
            await self._load(batch)
            now_s = self._monotonic()
            made: dict[str, _Made] = {}
            for message in batch:
                self._entries(message, now_s, made)
            await self._put([self._numbered(device, each) for device, each in made.items() if each.entries])
            for message in batch:
                message.acknowledge()
            self._bound()
            if len(waiting) < WINDOW:
                await asyncio.sleep(PACE_S)

    async def _load(self, batch: list[Received]) -> None:
        """Get from the bus where the numbering of straps stands that are new here."""
        wanted = self._places(batch)
        if len(self._streams) + len(wanted) > _STREAMS:
            self._streams.clear()
            wanted = self._places(batch)
        sources = [(partition, device) for device, partition in wanted.items()]
        kept: list[Kept | None] = []
        if sources:
            kept, _ = await until_done(lambda: self._store.load(sources), self.counts, len(self._waiting))
        for device, found in zip(wanted, kept, strict=True):
            stream = StrapStream(device)
            if found is not None:
                try:
                    stream = StrapStream.from_bytes(device, found.state, found.number, found.marks)
                except ValueError as error:
                    _log.error("strap_begins_anew", device=device, why=str(error))
                    stream.number = found.number
            self._streams[device] = stream

    def _places(self, batch: list[Received]) -> dict[str, int]:
        """Partitions of the straps of a batch whose streams are not here."""
        wanted: dict[str, int] = {}
        for message in batch:
            with contextlib.suppress(FrameError):
                route = self._routes.of(message.topic)
                if route.kind in STRAPS and route.device not in self._streams:
                    wanted[route.device] = route.partition
        return wanted

    def _entries(self, message: Received, now_s: float, made: dict[str, _Made]) -> None:
        """Add what the bus gets of a message; what is dropped is counted."""
        try:
            route = self._routes.of(message.topic)
            if route.kind not in STRAPS:
                self._meta(route.device, message)
                return
            self.counts["received"] += 1
            each = made.setdefault(route.device, _Made(route))
            if not self._quotas.take(route.share, message.oversize or len(message.payload), now_s):
                self._refuse(route, message, now_s, each)
                return
            if message.oversize:
                raise FrameError("oversize", f"packet of {message.oversize} bytes, at most {MAX_PACKET} are taken")
            self._number(route, message, now_s, each)
        except FrameError as error:
            self._drop(error.reason)
        except Exception as error:
            # A fault of ours that one payload brings to light must not hold all others up.
            _log.error("message_broke_a_codec", kind=type(error).__name__)
            self._drop("fault")

    def _number(self, route: Route, message: Received, now_s: float, each: _Made) -> None:
        """Make a frame of a packet that did not come before."""
        kind: Literal["polar", "movesense"] = "polar" if route.kind == "polar" else "movesense"
        stream = self._streams[route.device]
        rate = self._rates.get(route.device) or stream.rate_at(MOVESENSE_GAIN)
        packet = decode_strap(kind, message.payload, rate)
        before = stream.counts.copy()
        frame = stream.push(packet, message.server_ms)
        for what, count in (stream.counts - before).items():
            self.counts[f"strap_{what}"] += count
        if stream.late_ms > LATE_MS:
            each.entries += self._complaints.note(route, "late", message, now_s, stream.late_ms / 1000)
        if frame is not None:
            each.marks.append(mark_of(packet))
            each.entries.append(pack_inbound_parts(Entry.FRAME, message.server_ms, route.patient, encode_frame(frame)))

    def _meta(self, device: str, message: Received) -> None:
        """Remember a strap's rate; who counts what is wrong with ``meta`` is the session of live data."""
        with contextlib.suppress(FrameError):
            rate = decode_meta(message.payload).rate
            if device not in self._rates and len(self._rates) >= _RATES:
                del self._rates[next(iter(self._rates))]
            self._rates[device] = rate

    def _refuse(self, route: Route, message: Received, now_s: float, each: _Made) -> None:
        """Drop what a device sends beyond its share, tell staff, and have the broker shut it out if it goes on."""
        self._drop("flood")
        each.entries += self._complaints.note(route, "flood", message, now_s)
        self._complaints.shut_out(route, message, now_s)

    def _numbered(self, device: str, each: _Made) -> Numbered:
        if not each.marks:
            return Numbered(each.route.partition, device, each.entries)
        stream = self._streams[device]
        return Numbered(each.route.partition, device, each.entries, stream.number, stream.to_bytes(), each.marks)

    async def _put(self, items: list[Numbered]) -> None:
        """Put a batch on the bus, and on its replicas where that is asked."""
        if not items:
            return
        partitions = {item.partition for item in items}

        async def put() -> bool:
            await self._store.store(items)
            return await self._bus.until_replicated(partitions)

        replicated, _ = await until_done(put, self.counts, len(self._waiting))
        count = sum(len(item.entries) for item in items)
        self.counts["stored"] += count
        if not replicated:
            self.counts["unreplicated"] += count
