"""The reader's connection to a broker: the part of MQTT 3.1.1 and 5 that ingest needs, acknowledgements in our hands.

A client library spends most of ingest's time on what ingest does not use (a property object a message, a queue, a
task). This is a protocol of asyncio that takes PUBLISH apart where it lies and gives it to a callback; packets of
acknowledgement are gathered and written together. `ingest.packets` lays them out. QoS 2 is never asked for, so it
never comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import struct
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Self, cast

from ingest.connection_options import ConnectionOptions
from ingest.packets import (
    ASK_FOR_LIFE,
    CONNACK,
    DISCONNECT,
    GOODBYE,
    MOST,
    PUBLISH,
    SUBACK,
    connect_packet,
    puback_packet,
    publish_packet,
    read_length,
    reason,
    subscribe_packet,
    unsubscribe_packet,
)

GROUP: Final = "rw"
KEEPALIVE_S: Final = 30
PING_S: Final = 2.0
SILENT: Final = 3
"""Looks in a row, one each `PING_S`, at which a broker must have been silent to be held for gone.

Where the network was cut, TCP may take half a minute after it is whole again to find that out.
"""
TIMEOUT_S: Final = 5.0
MOST_TOPICS: Final = 65_536
_SESSION_ENDS, _RECEIVE_MAXIMUM = 0x11, 0x21
"""Properties of CONNECT."""


class BrokerLostError(ConnectionError):
    """There is no connection to the broker (any more); the text says why."""


class Received:
    """A message that came and is not acknowledged yet."""

    __slots__ = ("_connection", "_mid", "oversize", "payload", "qos", "refused", "server_ms", "stored", "topic")

    def __init__(self, connection: Connection, topic: str, payload: bytes, qos: int, mid: int) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.server_ms = self.oversize = 0
        self.refused = ""
        self.stored = b""
        self._connection = connection
        self._mid = mid

    def reply(self, topic: str, payload: bytes) -> None:
        """Publish something at once on the connection that the message came by, at most once."""
        if self._connection.live:
            self._connection.say(topic, payload)

    def answer(self, topic: str, payload: bytes) -> None:
        """Publish something on the connection that the message came by, at least once while that lasts."""
        if self._connection.live:
            self._connection.tell(topic, payload)

    def acknowledge(self) -> None:
        """Tell the broker that we have it; nothing if its connection has ended, the broker then sends it again."""
        if self.qos and self._connection.live:
            self._connection.acknowledge(self._mid)


class Connection(asyncio.Protocol):
    """A session that the broker keeps; messages go to `take`, which must neither raise nor wait.

    Parameters
    ----------
    options : ConnectionOptions
        Where the broker is.
    mqtt5 : bool
        Version to speak.
    receive_maximum : int
        Messages that may be under way unacknowledged (MQTT 5).
    take : callable
        Gets each message.

    Attributes
    ----------
    live : bool
        Whether acknowledgements can still be sent.
    refused : bool
        Whether the broker answered, and did not let us in.
    """

    def __init__(
        self, options: ConnectionOptions, *, mqtt5: bool, receive_maximum: int, take: Callable[[Received], None]
    ) -> None:
        self.live = self.refused = False
        self._options, self._mqtt5, self._maximum = options, mqtt5, min(receive_maximum, MOST)
        self._shared = options.shared and mqtt5
        self._take = take
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._topics: dict[bytes, str] = {}
        self._acknowledged: list[bytes] = []
        self._heard = True
        self._silent = 0
        self._told = 2
        self._paused = False
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._answer: asyncio.Future[bytes] = loop.create_future()
        self._lost: asyncio.Future[None] = loop.create_future()
        self._pinger: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        """Connect; raises `BrokerLostError` or `OSError`."""
        options = self._options
        context = ssl.create_default_context(cafile=options.ca_file) if options.tls else None
        await self._log_in(options.host, options.port, context, TIMEOUT_S)
        self._ping()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say goodbye; the broker keeps the session."""
        self.live = False
        if self._transport is not None and not self._transport.is_closing():
            self._flush()
            self._transport.write(GOODBYE)
            self._transport.close()
        if self._pinger is not None:
            self._pinger.cancel()
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(TIMEOUT_S):
                await asyncio.shield(self._lost)
        self._drop()

    async def subscribe_all(self, kinds: Iterable[str], qos: int = 1) -> None:
        """Subscribe to topics of all devices; raises `BrokerLostError` if the broker refuses one."""
        prefix = f"$share/{GROUP}/" if self._shared else ""
        packet = subscribe_packet((f"{prefix}rw/v1/+/{kind}" for kind in kinds), qos, mqtt5=self._mqtt5)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._asked(packet)
        except TimeoutError:
            raise BrokerLostError("the broker does not answer") from None
        codes = answer[2:]
        if self._mqtt5:
            size, at = read_length(answer, 2)
            codes = answer[at + size :]
        bad = [code for code in codes if code >= 0x80]
        if bad:
            raise BrokerLostError(f"the broker refuses the subscription (code {bad[0]}); check the account's rights")

    def unsubscribe_all(self, kinds: Iterable[str]) -> None:
        """End the subscription to topics of all devices, where there is one, without waiting."""
        prefix = f"$share/{GROUP}/" if self._shared else ""
        self.write(unsubscribe_packet((f"{prefix}rw/v1/+/{kind}" for kind in kinds), mqtt5=self._mqtt5))

    async def lost_or(self, event: asyncio.Event) -> None:
        """Wait until `event` is set; raises `BrokerLostError` when the connection is lost before."""
        wanted = asyncio.create_task(event.wait())
        try:
            await asyncio.wait((wanted, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if self._lost.done():
                self._lost.result()
        finally:
            wanted.cancel()
            await asyncio.gather(wanted, return_exceptions=True)

    def acknowledge(self, mid: int) -> None:
        """Acknowledge a message by its packet id; written with the others of this turn of the loop."""
        if not self._acknowledged:
            self._loop.call_soon(self._flush)
        self._acknowledged.append(puback_packet(mid))

    def say(self, topic: str, payload: bytes) -> None:
        """Publish at most once, without waiting."""
        self.write(publish_packet(topic, payload, mqtt5=self._mqtt5))

    def tell(self, topic: str, payload: bytes) -> None:
        """Publish at least once, without waiting; nobody looks for the broker's acknowledgement."""
        self._told = self._told % MOST + 1
        self.write(publish_packet(topic, payload, mid=self._told, mqtt5=self._mqtt5))

    def write(self, packets: bytes) -> None:
        """Write packets as they are, without waiting; nothing if the connection has ended."""
        if self._transport is not None:
            self._transport.write(packets)

    def pause(self) -> None:
        """Leave what comes with the kernel until `resume`: one wake-up for many messages costs less than one each."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._paused = True

    @property
    def paused(self) -> bool:
        """Whether what comes is left with the kernel."""
        return self._paused

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._paused = False

    # --- called by asyncio ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._end(BrokerLostError(str(exc) if exc else "the broker closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Take packets apart, as many as came whole."""
        self._heard = True
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        try:
            while end - at >= 2:
                size, body = data[at + 1], at + 2
                if size & 0x80:
                    if not any(byte < 0x80 for byte in data[at + 1 : at + 5]) and end - at < 5:
                        break
                    size, body = read_length(data, at + 1)
                if body + size > end:
                    break
                self._packet(data[at], data, body, body + size)
                at = body + size
        except (IndexError, ValueError, UnicodeDecodeError) as error:
            self._end(BrokerLostError(f"what the broker sent is no MQTT: {error}"))
            self._drop()
            return
        self._rest = data[at:]

    def _packet(self, first: int, data: bytes, at: int, end: int) -> None:
        kind = first & 0xF0
        if kind == PUBLISH:
            named = at + 2 + (data[at] << 8 | data[at + 1])
            said = data[at + 2 : named]
            topic = self._topics.get(said)
            if topic is None:
                if len(self._topics) >= MOST_TOPICS:
                    self._topics.clear()
                topic = self._topics[said] = said.decode()
            qos, mid = first >> 1 & 3, 0
            if qos:
                mid = data[named] << 8 | data[named + 1]
                named += 2
            if self._mqtt5:
                size, named = (data[named], named + 1) if data[named] < 0x80 else read_length(data, named)
                named += size
            if named > end:
                raise ValueError("a message ends before its payload")
            self._take(Received(self, topic, data[named:end], qos, mid))
        elif kind in (CONNACK, SUBACK):
            # What the session holds may come right behind, and be acknowledged before anybody has woken up.
            self.live |= kind == CONNACK and data[at + 1 : end][:1] == b"\0"
            if not self._answer.done():
                self._answer.set_result(data[at:end])
        elif kind == DISCONNECT:
            code = data[at] if end > at else 0
            self._end(BrokerLostError(f"the broker ended the connection: {reason(code)}"))

    # --- own -----------------------------------------------------------------------------------------------------

    def _connect(self) -> bytes:
        """Lay CONNECT out: the session is kept, and begun only where there is none."""
        options = self._options
        return connect_packet(
            options.client_id,
            options.username,
            options.password,
            keepalive_s=KEEPALIVE_S,
            mqtt5=self._mqtt5,
            clean=False,
            properties=struct.pack(">BIBH", _SESSION_ENDS, options.session_s, _RECEIVE_MAXIMUM, self._maximum),
        )

    async def _log_in(self, host: str, port: int, context: ssl.SSLContext | None, timeout_s: float) -> bytes:
        """Connect; gives the broker's answer once it has let us in."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._loop.create_connection(lambda: self, host, port, ssl=context)
                body = await self._asked(self._connect())
            if len(body) < 2 or body[1]:
                self.refused = True
                code = body[1] if len(body) > 1 else 0
                raise BrokerLostError(f"the broker refuses the login: {reason(code)}")
        except TimeoutError:
            self._drop()
            raise BrokerLostError("the broker does not answer") from None
        except BaseException:
            self._drop()
            raise
        return body

    async def _asked(self, packet: bytes) -> bytes:
        """Write a packet and wait for its answer."""
        if self._transport is None or self._lost.done():
            raise BrokerLostError("the broker closed the connection")
        self._answer = self._loop.create_future()
        self._transport.write(packet)
        await asyncio.wait((self._answer, self._lost), return_when=asyncio.FIRST_COMPLETED)
        if not self._answer.done():
            self._lost.result()
        return self._answer.result()

    def _flush(self) -> None:
        if self._acknowledged and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._acknowledged))
        self._acknowledged.clear()

    def _ping(self) -> None:
        """Ask for a sign of life now and then, and give up when none has come for a while."""
        if self._lost.done() or self._transport is None:
            return
        # Where we do not read we can't hear.
        self._silent = 0 if self._heard or self._paused else self._silent + 1
        if self._silent >= SILENT:
            self._end(BrokerLostError("the broker fell silent"))
            self._drop()
            return
        self._heard = False
        self._transport.write(ASK_FOR_LIFE)
        self._pinger = self._loop.call_later(PING_S, self._ping)

    def _end(self, error: BrokerLostError) -> None:
        self.live = False
        if not self._lost.done():
            self._lost.set_exception(error)
            # Whoever waits gets it; where nobody does, it is no fault.
            self._lost.exception()

    def _drop(self) -> None:
        self.live = False
        if self._pinger is not None:
            self._pinger.cancel()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None


def connect_error(error: BaseException) -> str:
    """Say in one line for people why there is no connection."""
    return str(error) or type(error).__name__


class Pauses:
    """Pauses between attempts to connect, each twice as long as the one before, and jittered.

    Parameters
    ----------
    low, high : float
        First and longest, s.
    """

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high
        self._next = low

    def begin_anew(self) -> None:
        """Make the next pause a short one: an attempt succeeded."""
        self._next = self._low

    async def rest(self) -> None:
        """Wait until the next attempt is due."""
        pause, self._next = self._next, min(self._high, 2 * self._next)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
