"""Stored data on its way in: a session of its own with the broker, worked off at a pace that harms nobody live.

What may not go yet stays unacknowledged with the broker. In the session of live data a full window of such messages
would hold live ones up, so ``backfill`` has its own, with its own window; where that is full, this end stops reading.
Devices take turns. What is on the bus is answered on ``commands``, so that a device can keep on its disk what is not.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import structlog

from bus.errors import BusError
from bus.pressure import Pressure
from bus.streams import Bus
from bus.tasks import run_all
from ingest.codecs import MAGIC, check_frame, decode, encode_frame, frame_number
from ingest.connection import Connection, Pauses, Received, connect_error
from ingest.connection_options import ConnectionOptions
from ingest.notes import stored_answer
from ingest.pacing import Pace, Pacer
from ingest.room import RoomWatch
from ingest.routes import STORED

WINDOW: Final = 2_000
WINDOW_BYTES: Final = 32 << 20
TURN_S: Final = 0.05
LOOK_S: Final = 0.5
FORGET_S: Final = 10.0
BACKOFF_S: Final = (0.1, 10.0)

_log = structlog.get_logger(__name__)


class _Waiting(NamedTuple):
    """A message and its signal, s."""

    message: Received
    seconds: float


class Backlog:
    """Stored messages that wait, by device.

    Parameters
    ----------
    options : ConnectionOptions
        Of a session of its own.
    bus : Bus
        Asked how late the workers are.
    pass_on : callable
        Gets each message whose turn has come; what it does with it ends with `Received.acknowledge`.
    room : RoomWatch
        Looks on what of it waits with the broker.
    clear : callable
        Whether live messages go through without waiting; else stored ones wait.
    counts : Counter
        ``received`` and ``reconnects`` are counted.
    pace : Pace
        How fast.
    pressure : Pressure
        How the memory of the bus stands.
    clock : callable
        Server time, ms, noted as the arrival of a message that is passed on.

    Attributes
    ----------
    connected : bool
        Whether the broker keeps the session and sends.
    waiting : int
        Messages that are not passed on yet.
    """

    def __init__(
        self,
        options: ConnectionOptions,
        bus: Bus,
        *,
        pass_on: Callable[[Received], None],
        room: RoomWatch,
        clear: Callable[[], bool],
        counts: Counter[str],
        pace: Pace,
        pressure: Pressure,
        clock: Callable[[], int],
    ) -> None:
        self.connected = False
        self.waiting = 0
        self._options, self._bus = options, bus
        self._pass_on, self._room, self._clear, self._counts = pass_on, room, clear, counts
        self._pressure, self._clock = pressure, clock
        self._pacer = Pacer(pace, time.monotonic())
        # By what they hold: what the broker sends again, or a device, while it waits here is the same message.
        self._devices: dict[str, dict[bytes, _Waiting]] = {}
        self._turns: deque[str] = deque()
        self._bytes = 0
        self._some = asyncio.Event()
        self._connection: Connection | None = None

    @property
    def rate(self) -> float:
        """Seconds of signal a second that may go at the moment."""
        return self._pacer.rate if self.waiting else 0.0

    async def receive(self, mqtt5: Callable[[], bool], subscribed: Callable[[], None]) -> None:
        """Stay connected until cancelled; `subscribed` is called once the broker sends to this session."""
        parts = self._receive_forever(mqtt5, subscribed), self._room.watch(mqtt5)
        await run_all([asyncio.create_task(part) for part in parts])

    async def _receive_forever(self, mqtt5: Callable[[], bool], subscribed: Callable[[], None]) -> None:
        pauses = Pauses(*BACKOFF_S)
        while True:
            connection = Connection(self._options, mqtt5=mqtt5(), receive_maximum=WINDOW, take=self.take)
            try:
                async with connection:
                    self._connection = connection
                    await connection.subscribe_all((STORED,))
                    self.connected = True
                    pauses.begin_anew()
                    self._bound()
                    subscribed()
                    await connection.lost_or(asyncio.Event())
            except OSError as error:
                _log.warning("backlog_lost" if self.connected else "backlog_refused", why=connect_error(error))
            finally:
                connection.live = False
                self.connected = False
            self._counts["reconnects"] += 1
            await pauses.rest()

    def take(self, message: Received) -> None:
        """Take a message from the connection, in its callback; never raises, never waits."""
        self._counts["received"] += 1
        payload, device = message.payload, message.topic.split("/", 3)[2]
        try:
            message.stored, seconds = _checked(payload, device)
        except Exception:
            # It costs the bus nothing, and whoever decodes it once more says and counts what was wrong.
            self._go(message)
            return
        queue = self._devices.get(device)
        if queue is None:
            queue = self._devices[device] = {}
            self._turns.append(device)
        before = queue.get(payload)
        queue[payload] = _Waiting(message, seconds)
        if before is not None:
            before.message.acknowledge()
            return
        self.waiting += 1
        self._bytes += len(payload)
        self._some.set()
        self._bound()

    async def work_off(self) -> None:
        """Pass on what may go, turn by turn, until cancelled."""
        loop = asyncio.get_running_loop()
        looked = float("-inf")
        while True:
            if not self.waiting:
                self._some.clear()
                self._room.clear()
                await self._some.wait()
            silent_s = loop.time() - looked
            if silent_s >= LOOK_S:
                if silent_s >= FORGET_S:
                    # What the rate once rose to says nothing of how busy the workers are now.
                    self._pacer.stop()
                await self._look()
                looked = loop.time()
            self._turn(loop.time())
            await asyncio.sleep(TURN_S)

    def answer(self, messages: Iterable[Received]) -> None:
        """Tell devices which of their frames, `Received.stored` in the binary codec, are on the bus now."""
        frames: dict[str, list[tuple[int, int]]] = {}
        last: dict[str, Received] = {}
        for message in messages:
            frames.setdefault(message.topic, []).append(frame_number(message.stored))
            last[message.topic] = message
        for topic, message in last.items():
            message.answer(topic.removesuffix(STORED) + "commands", stored_answer(frames[topic]))

    async def _look(self) -> None:
        """See how late the latest worker is; a bus that does not say is no place for more."""
        try:
            lag_ms = max(item.lag_ms for item in await self._bus.stats(range(self._bus.partitions)))
        except BusError:
            self._pacer.stop()
            return
        if self._pressure.holding:
            self._pacer.stop()
        else:
            self._pacer.look(lag_ms, pressed=self._pressure.shedding)

    def _turn(self, now_s: float) -> None:
        """Pass on what may go now, a message of each device in turn."""
        pacer, turns = self._pacer, self._turns
        pacer.turn(self._devices, now_s)
        if not self._clear():
            return
        refused = 0
        while not pacer.done and refused < len(turns):
            device = turns.popleft()
            queue = self._devices[device]
            if pacer.may(device):
                refused = 0
                self._pass(device, queue)
            else:
                refused += 1
            if queue:
                turns.append(device)
            else:
                del self._devices[device]
        self._bound()

    def _pass(self, device: str, queue: dict[bytes, _Waiting]) -> None:
        payload = next(iter(queue))
        message, seconds = queue.pop(payload)
        self.waiting -= 1
        self._bytes -= len(payload)
        self._pacer.take(device, self._pacer.pace.cost(seconds, len(payload)))
        self._go(message)

    def _go(self, message: Received) -> None:
        message.server_ms = self._clock()
        self._pass_on(message)

    def _bound(self) -> None:
        """Read no more than may wait; MQTT 3.1.1 has no other way to say so."""
        connection = self._connection
        if connection is None or not self.connected:
            # The answer to the subscription may come behind a whole window of messages.
            return
        full = self.waiting >= WINDOW or self._bytes >= WINDOW_BYTES
        if full and not connection.paused:
            connection.pause()
        elif connection.paused and self.waiting <= WINDOW // 2 and self._bytes <= WINDOW_BYTES // 2:
            connection.resume()


def _checked(payload: bytes, device: str) -> tuple[bytes, float]:
    """Frame of a message in the binary codec, and its signal, s; `FrameError` where it is no frame of the device."""
    if payload[:2] == MAGIC:
        facts = check_frame(payload, device)
        return payload, facts.rows / facts.rate
    frame = decode(payload, device)
    return encode_frame(frame), len(frame.samples) / frame.rate
