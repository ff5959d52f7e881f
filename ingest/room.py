"""Whose stored frames fill the room of the broker, so that none can take that of the others.

To a device the broker acknowledges a frame for which it has no room, and drops it. Ingest reads stored frames in their
turn and does not see what stands behind them. So it looks on as they are published, at most once, and at the answers,
which say what is stored: the rest is with the broker. A device that has far more there than others, or at all more than
it should while the room runs out, is told of, and the gate has the broker refuse what it had stored
(`ingest.gatekeeper`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from ingest.accounts import LIMITS, STORED
from ingest.answers import WINDOW
from ingest.codecs import UNREADABLE
from ingest.connection import Connection, Pauses, Received, connect_error
from ingest.connection_options import ConnectionOptions
from ingest.limits import DeviceLimits
from ingest.packets import MOST

MESSAGES: Final = 200_000
BYTES: Final = 512 << 20
"""What the broker keeps for one session at most."""
PRESSED: Final = 0.5
"""Share of the room that is taken from which on each device must keep to what one that looks for answers keeps to."""
ANSWERED: Final = 2 * WINDOW
AGAIN_S: Final = 2.0
BACKOFF_S: Final = (0.1, 10.0)
_SAYS_STORED: Final = b'{"name":"stored"'

_log = structlog.get_logger(__name__)


class _Answer(msgspec.Struct):
    frames: list[tuple[int, int]]


_answer = msgspec.json.Decoder(_Answer)


class _Part:
    """What one device has with the broker."""

    __slots__ = ("bytes", "messages", "told_s")

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0.0
        self.told_s = -math.inf


class Room:
    """What of the stored frames waits with the broker. Pure: time is an argument.

    Parameters
    ----------
    most, most_bytes : float
        Messages and bytes of one device at most, while there is room enough.
    whole_messages, whole_bytes : float
        The room.
    """

    def __init__(
        self, most: float, most_bytes: float, *, whole_messages: float = MESSAGES, whole_bytes: float = BYTES
    ) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._pressed, self._pressed_bytes = PRESSED * whole_messages, PRESSED * whole_bytes
        self._parts: dict[str, _Part] = {}
        self.messages = 0
        self.bytes = 0.0

    def sent(self, device: str, size: int, now_s: float) -> bool:
        """Take in that a device published a frame of `size` bytes; True where it is to be told of now."""
        part = self._parts.get(device)
        if part is None:
            part = self._parts[device] = _Part()
        part.messages += 1
        part.bytes += size
        self.messages += 1
        self.bytes += size
        pressed = self.messages > self._pressed or self.bytes > self._pressed_bytes
        over = part.messages > self._most or part.bytes > self._most_bytes
        if not (over or (pressed and part.messages > ANSWERED)) or now_s - part.told_s < AGAIN_S:
            return False
        part.told_s = now_s
        return True

    def stored(self, device: str, count: int) -> None:
        """Take in that `count` frames of a device are stored."""
        part = self._parts.get(device)
        if part is None:
            return
        gone = min(count, part.messages)
        size = part.bytes * gone / part.messages
        part.messages -= gone
        part.bytes -= size
        self.messages -= gone
        self.bytes -= size
        if not part.messages:
            del self._parts[device]

    def clear(self) -> None:
        """Take in that nothing waits: what came twice, or was no frame, was counted and never answered."""
        self._parts.clear()
        self.messages, self.bytes = 0, 0.0


class RoomWatch:
    """Looks on as stored frames are published and answered.

    Parameters
    ----------
    options : ConnectionOptions
        Of a session of its own, that ends with the connection.
    limits : DeviceLimits
        Of each device.
    pass_on : callable
        Gets a message of a device that takes the room of others, without its payload: staff are told.
    clock : callable
        Server time, ms, noted as its arrival.
    """

    def __init__(
        self,
        options: ConnectionOptions,
        limits: DeviceLimits,
        pass_on: Callable[[Received], None],
        clock: Callable[[], int],
    ) -> None:
        limited = limits.messages > 0
        self._room = Room(limits.message_burst if limited else math.inf, limits.byte_burst if limited else math.inf)
        self.clear = self._room.clear
        self._options, self._pass_on, self._clock = options, pass_on, clock

    async def watch(self, mqtt5: Callable[[], bool]) -> None:
        """Stay connected until cancelled."""
        pauses = Pauses(*BACKOFF_S)
        while True:
            connection = Connection(self._options, mqtt5=mqtt5(), receive_maximum=MOST, take=self.take)
            try:
                async with connection:
                    await connection.subscribe_all((STORED, "commands"), qos=0)
                    pauses.begin_anew()
                    await connection.lost_or(asyncio.Event())
            except OSError as error:
                _log.warning("room_unwatched", why=connect_error(error))
            finally:
                connection.live = False
            await pauses.rest()

    def take(self, message: Received) -> None:
        """Take a message from the connection, in its callback; never raises, never waits."""
        _, _, device, leaf = message.topic.split("/", 3)
        if leaf == STORED:
            if self._room.sent(device, len(message.payload), time.monotonic()):
                message.reply(f"{LIMITS}/{device}", STORED.encode())
                message.payload, message.refused, message.server_ms = b"", "backlog", self._clock()
                self._pass_on(message)
        elif message.payload.startswith(_SAYS_STORED):
            try:
                self._room.stored(device, len(_answer.decode(message.payload).frames))
            except UNREADABLE:
                _log.warning("answer_unread")
