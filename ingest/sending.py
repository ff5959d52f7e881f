"""The device's connection to a broker: frames go out at QoS 1, many in one write, and what was acknowledged is told.

A client library spends more on a message than ingest, bus and sequencer together (a task, a timer, objects of
properties). One process that plays a whole ward then keeps a core from the service that it tries. Here is what
a device needs beside `ingest.connection`: a session that begins anew, a last will, an own TLS context.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable
from typing import Final, Self

import msgspec
from paho.mqtt import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ingest.connection import BrokerLostError, Connection, Received
from ingest.device_model import Connection as Address
from ingest.packets import ASK_FOR_LIFE, MOST, PUBACK, connect_packet, publish_packet, subscribe_packet

LOOK_S: Final = 3.0
SILENT: Final = 3
"""Looks in a row, one each `LOOK_S`, at which a broker must have been silent, or have acknowledged nothing of what is
under way, to be held for gone."""
_EXPIRY: Final = 2


class Will(msgspec.Struct, frozen=True):
    """What the broker publishes, retained and at least once, when the connection breaks."""

    topic: str
    payload: bytes


class _Options(msgspec.Struct, frozen=True):
    """What `Connection` asks for."""

    host: str
    port: int
    username: str | None
    password: str | None
    client_id: str
    shared: bool = False
    tls: bool = False
    ca_file: str | None = None
    session_s: int = 0


class Sender(Connection):
    """A connection that publishes. Use it as an async context manager.

    Parameters
    ----------
    address : ingest.device_model.Connection
        Where the broker is.
    mqtt5 : bool
        Version to speak.
    client_id : str
        Empty lets the broker choose.
    will : Will, optional
        Last will.
    timeout_s : float
        How long the broker may take to let us in, s.
    commands : callable
        Gets each message that comes.
    acknowledged : callable
        Gets the number that `publish` gave when the broker has the message.
    lost : callable
        Called when the connection is lost.

    Attributes
    ----------
    most : int
        Messages that may be under way unacknowledged, as the broker has it.
    """

    def __init__(
        self,
        address: Address,
        *,
        mqtt5: bool,
        client_id: str,
        will: Will | None,
        timeout_s: float,
        commands: Callable[[Received], None],
        acknowledged: Callable[[int], None],
        lost: Callable[[], None],
    ) -> None:
        options = _Options(address.host, address.port, address.username, address.password, client_id)
        super().__init__(options, mqtt5=mqtt5, receive_maximum=MOST, take=commands)
        self.most = MOST
        self._address, self._will, self._timeout_s = address, will, timeout_s
        self._told_of, self._told_lost = acknowledged, lost
        self._expiring = struct.pack(">BI", _EXPIRY, address.expiry_s)
        self._under_way: set[int] = set()
        self._some_acknowledged = False
        self._last = 0
        self._looks = 0

    async def __aenter__(self) -> Self:
        """Connect; raises `BrokerLostError` or another `OSError`."""
        address = self._address
        body = await self._log_in(address.host, address.port, address.tls, self._timeout_s)
        if self._mqtt5:
            try:
                self.most = _receive_maximum(body[2:])
            except BrokerLostError:
                self._drop()
                raise
        self._ping()
        return self

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Ask for messages of topics, at QoS 1; whoever may not read them gets none."""
        async with asyncio.timeout(self._timeout_s):
            await self._asked(subscribe_packet(topics, 1, mqtt5=self._mqtt5))

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expires: bool = False) -> tuple[int, bytes]:
        """Lay a message out for `write`.

        Returns
        -------
        int
            Number that `acknowledged` gets.
        bytes
            The packet.
        """
        number = self._last % MOST + 1
        while number in self._under_way:
            number = number % MOST + 1
        self._last = number
        self._under_way.add(number)
        properties = self._expiring if expires else b""
        packet = publish_packet(topic, payload, mid=number, retain=retain, mqtt5=self._mqtt5, properties=properties)
        return number, packet

    def check(self) -> None:
        """Raise `BrokerLostError` if the connection is lost."""
        if self._lost.done():
            self._lost.result()

    def _connect(self) -> bytes:
        """Lay CONNECT out."""
        options, will = self._options, self._will
        return connect_packet(
            options.client_id,
            options.username,
            options.password,
            keepalive_s=self._address.keepalive_s,
            mqtt5=self._mqtt5,
            clean=True,
            will=(will.topic, will.payload) if will is not None else None,
        )

    def _packet(self, first: int, data: bytes, at: int, end: int) -> None:
        if first & 0xF0 == PUBACK:
            number = data[at] << 8 | data[at + 1]
            if number in self._under_way:
                self._under_way.discard(number)
                self._some_acknowledged = True
                self._told_of(number)
        else:
            super()._packet(first, data, at, end)

    def _ping(self) -> None:
        """Look whether the broker is there, and ask where it has said nothing."""
        if self._lost.done() or self._transport is None:
            return
        well = self._some_acknowledged if self._under_way else self._heard
        self._silent = 0 if well else self._silent + 1
        if self._silent >= SILENT:
            self._end(BrokerLostError("the broker fell silent"))
            self._drop()
            return
        # A broker that does nothing but talk must hear of us within the keep-alive, too.
        self._looks += 1
        if not well or self._looks * LOOK_S >= self._address.keepalive_s / 2:
            self._looks = 0
            self._transport.write(ASK_FOR_LIFE)
        self._heard = self._some_acknowledged = False
        self._pinger = self._loop.call_later(LOOK_S, self._ping)

    def _end(self, error: BrokerLostError) -> None:
        super()._end(error)
        self._told_lost()


def _receive_maximum(properties: bytes) -> int:
    """Read from the properties of a CONNACK how much may be under way; `BrokerLostError` where they make no sense."""
    known = Properties(PacketTypes.CONNACK)  # type: ignore[no-untyped-call]
    try:
        known.unpack(properties)  # type: ignore[no-untyped-call]
    except (MQTTException, IndexError, struct.error, UnicodeDecodeError) as error:
        raise BrokerLostError(f"the broker's answer to the login can't be read: {error}") from error
    return int(getattr(known, "ReceiveMaximum", MOST))
