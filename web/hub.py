"""One reader of the bus for all pages of this process: folds the board, deals messages out to the clients' outboxes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from bus.clock import now_ms, server_ms
from bus.messages import AlarmEvent, BeatEvent, Event, RhythmEvent, SettingsEvent, View, unpack_event, unpack_view
from web import wire
from web.board import Board
from web.feed import Feed, FeedItem, FeedKind
from web.outbox import Outbox
from web.settings import WebSettings

log = logging.getLogger("web.hub")

WALL_BACKLOG_S: Final = 6.0
"""A tile sweeps no longer than this; a patient page gets all that is kept."""
PENDING_VIEWS: Final = 4096
"""Undecoded views kept while no page is open."""
TIDY_S: Final = 600.0
"""The board is looked through for what is of no use any more this often."""
BACKOFF_S: Final = (0.2, 5.0)
"""First and longest pause before the feed is opened again."""


class OpenAlarms(Protocol):
    """Where open alarms come from at start (the alarm store)."""

    def open_alarms(self) -> Iterable[AlarmEvent]:
        """Alarms that are not over."""
        ...

    def settings_in_force(self) -> Iterable[SettingsEvent]:
        """Give the newest settings of each patient that has any."""
        ...


@dataclass(slots=True)
class Counters:
    """What this process counted since its start."""

    events: int = 0
    views: int = 0
    undecodable: int = 0
    unwatched: int = 0
    """Views that nobody watched and that made room undecoded."""
    dropped: int = 0
    """Waveform messages that clients were too slow for."""
    overruns: int = 0
    """Clients cut off to resynchronise."""
    feed_failures: int = 0


@dataclass(slots=True, eq=False)
class Subscription:
    """One client in the hub: its outbox and what it has in sight."""

    outbox: Outbox
    watch: wire.Watch = field(default_factory=lambda: wire.Watch(beds=frozenset()))

    def sees(self, patient: str) -> bool:
        """Whether this client draws the waveform of `patient`."""
        return self.watch.beds is None or patient in self.watch.beds or patient == self.watch.detail


class Hub:
    """Fan-out of one feed to many clients.

    Parameters
    ----------
    feed : Feed
        Events and views.
    store : OpenAlarms
        Open alarms at start.
    settings : WebSettings
        Bounds of the queues.
    clock : callable
        Server time, seconds since the Unix epoch.
    bus_clock : callable
        Clock that the bus writes by, in the same unit: its server's, which may be set.
    """

    def __init__(
        self,
        feed: Feed,
        store: OpenAlarms,
        settings: WebSettings,
        clock: Callable[[], float] = lambda: now_ms() / 1000,
        bus_clock: Callable[[], float] = lambda: server_ms() / 1000,
    ) -> None:
        self._feed = feed
        self._store = store
        self._settings = settings
        self._clock, self._bus_clock = clock, bus_clock
        self._pending: deque[bytes] = deque(maxlen=PENDING_VIEWS)
        self._subscriptions: set[Subscription] = set()
        self._heard = self._tidied = clock()
        self.board = Board(settings.backlog_s)
        self.counters = Counters()
        self.lag_ms = 0

    @property
    def clients(self) -> int:
        """Pages connected."""
        return len(self._subscriptions)

    @property
    def feed_age_s(self) -> float:
        """Since the bus last answered, seconds."""
        return max(0.0, self._clock() - self._heard)

    async def run(self) -> None:
        """Follow the feed until cancelled; a failure is logged, counted and tried again with a growing pause."""
        pause = BACKOFF_S[0]
        loaded = False
        while True:
            try:
                if not loaded:
                    try:
                        await self._feed.mark()
                    finally:
                        # What stands is shown though the bus is away, and read again once it is there.
                        self.board.now_ms = int(self._clock() * 1000)
                        self.board.load(await asyncio.to_thread(self._known))
                    loaded = True
                async with aclosing(self._feed.items()) as items:
                    async for item in items:
                        self.take(item)
                        pause = BACKOFF_S[0]
                raise ConnectionError("the feed ended")
            except Exception as error:
                # Whatever broke it, the wall must come back by itself; pages see the age of the feed meanwhile.
                self.counters.feed_failures += 1
                log.warning("feed failed, next try in %.1f s: %s: %s", pause, type(error).__name__, error)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311  (jitter, no secret)
            pause = min(2 * pause, BACKOFF_S[1])

    def _known(self) -> list[Event]:
        return [*self._store.settings_in_force(), *self._store.open_alarms()]

    def take(self, item: FeedItem) -> None:
        """Take one item of the feed in and deal it out."""
        if item.written_ms:
            self._hear()
            self.lag_ms = max(0, int(self._bus_clock() * 1000) - item.written_ms)
        elif item.kind is FeedKind.PULSE:
            self._hear()
            self.lag_ms = 0
        try:
            if item.kind is FeedKind.EVENT:
                self.counters.events += 1
                self._event(item.data)
            elif item.kind is FeedKind.VIEW:
                self.counters.views += 1
                if self._subscriptions:
                    self._view(unpack_view(item.data))
                else:
                    self.counters.unwatched += len(self._pending) == PENDING_VIEWS
                    self._pending.append(item.data)
        except msgspec.MsgspecError as error:
            self.counters.undecodable += 1
            log.warning("%s entry left out: %s", item.kind.name.lower(), error)

    def _hear(self) -> None:
        """Note that the bus has answered: once for all that came with one answer, as clocks cost more than items."""
        self._heard = self._clock()
        self.board.now_ms = int(self._heard * 1000)
        if self._heard - self._tidied >= TIDY_S:
            self._tidied = self._heard
            if self.board.tidy():
                self._announce()

    def _event(self, data: bytes) -> None:
        event = unpack_event(data)
        known = event.patient in self.board.beds
        if not self.board.apply(event):
            return
        if not known:
            self._announce()
        match event:
            case AlarmEvent():
                self._control(wire.alarm(event))
            case RhythmEvent():
                self._control(wire.rhythm(event))
            case BeatEvent():
                message = wire.beat(event)
                for subscription in self._subscriptions:
                    if subscription.sees(event.patient):
                        self.counters.dropped += subscription.outbox.put_wave(message)
            case SettingsEvent():
                self._control(wire.settings(event))
            case _:
                self._control(wire.status(event))

    def _view(self, view: View) -> None:
        known = view.patient in self.board.beds
        if not self.board.view(view):
            return
        if not known:
            self._announce()
        message = detail = b""
        for subscription in self._subscriptions:
            if not subscription.sees(view.patient):
                continue
            message = message or wire.wave(view)
            self.counters.dropped += subscription.outbox.put_wave(message)
            if subscription.watch.detail == view.patient and view.columns:
                detail = detail or wire.columns(view)
                self.counters.dropped += subscription.outbox.put_wave(detail)

    def _announce(self) -> None:
        """Tell every page which beds exist."""
        self._control(wire.encode(wire.Beds(tuple(self.board.beds))))

    def _control(self, message: bytes) -> None:
        for subscription in self._subscriptions:
            subscription.outbox.put_control(message)

    def subscribe(self, user: str) -> Subscription:
        """Open a client: its outbox starts with a snapshot of every state and goes on with all that follows."""
        while self._pending:
            try:
                self.board.view(unpack_view(self._pending.popleft()))
            except msgspec.MsgspecError as error:
                self.counters.undecodable += 1
                log.warning("view entry left out: %s", error)
        outbox = Outbox(self._settings.wave_queue_bytes, self._settings.control_queue)
        now_ms = int(self._clock() * 1000)
        states = [
            wire.encode(wire.Hello(wire.WIRE_VERSION, user, self._settings.ward, now_ms)),
            wire.encode(wire.Reset(tuple(self.board.beds))),
            *(wire.alarm(alarm) for alarm in self.board.alarms.values()),
        ]
        for bed in self.board.beds.values():
            if bed.status is not None:
                states.append(wire.status(bed.status))
            if bed.rhythm is not None:
                states.append(wire.rhythm(bed.rhythm))
            if bed.settings is not None:
                states.append(wire.settings(bed.settings))
        states.append(wire.encode(wire.Synced(now_ms)))
        outbox.put_snapshot(states)
        subscription = Subscription(outbox)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Close a client."""
        self._subscriptions.discard(subscription)

    def watch(self, subscription: Subscription, watch: wire.Watch) -> None:
        """Change what a client has in sight; beds that come into sight start with their last seconds."""
        before = subscription.watch
        seen = {patient for patient in self.board.beds if subscription.sees(patient)}
        subscription.watch = watch
        outbox = subscription.outbox
        for patient, bed in self.board.beds.items():
            opened = patient == watch.detail and before.detail != patient
            if not subscription.sees(patient) or (patient in seen and not opened):
                continue
            newest = bed.views[-1].index if bed.views else 0
            for view in bed.views:
                if patient not in seen and (opened or newest - view.index < WALL_BACKLOG_S * view.rate):
                    self.counters.dropped += outbox.put_wave(wire.wave(view))
                if opened and view.columns:
                    self.counters.dropped += outbox.put_wave(wire.columns(view))
            for beat in bed.beats:
                self.counters.dropped += outbox.put_wave(wire.beat(beat))

    def clock(self, subscription: Subscription) -> bytes:
        """Pulse for a client."""
        return wire.encode(
            wire.Clock(int(self._clock() * 1000), int(self.feed_age_s * 1000), self.lag_ms, subscription.outbox.dropped)
        )

    def health(self) -> dict[str, object]:
        """Figures of ``/healthz``."""
        alive = self.feed_age_s <= self._settings.feed_dead_s
        return {
            "status": "ok" if alive else "feed dead",
            "feed_age_s": round(self.feed_age_s, 3),
            "bus_lag_ms": self.lag_ms,
            "clients": self.clients,
            "beds": len(self.board.beds),
            "open_alarms": sum(1 for _ in self.board.open_alarms()),
            **{name: getattr(self.counters, name) for name in Counters.__dataclass_fields__},
        }
