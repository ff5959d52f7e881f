"""One connection to a broker, with the acknowledgements in our hands.

aiomqtt 2 acknowledges a message before it is read from its queue. The paho client beneath has a public switch for that
(`manual_ack_set`, `ack`) and a public callback (`on_message`), but aiomqtt gives no access to it except by its
attribute `_client`; this module is the only place that reads it. Taking messages in the callback also saves the task
that aiomqtt makes for each message read.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import aiomqtt
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

GROUP: Final = "rw"
KEEPALIVE_S: Final = 30
TIMEOUT_S: Final = 5.0


class ConnectionOptions(Protocol):
    """What a connection needs to know; see `SubscriberOptions`."""

    @property
    def host(self) -> str: ...  # noqa: D102
    @property
    def port(self) -> int: ...  # noqa: D102
    @property
    def username(self) -> str | None: ...  # noqa: D102
    @property
    def password(self) -> str | None: ...  # noqa: D102
    @property
    def client_id(self) -> str: ...  # noqa: D102
    @property
    def shared(self) -> bool: ...  # noqa: D102
    @property
    def tls(self) -> bool: ...  # noqa: D102
    @property
    def ca_file(self) -> str | None: ...  # noqa: D102
    @property
    def session_s(self) -> int: ...  # noqa: D102


class Received:
    """A message that came and is not acknowledged yet."""

    __slots__ = ("_connection", "_mid", "oversize", "payload", "qos", "server_ms", "topic")

    def __init__(self, connection: Connection, topic: str, payload: bytes, qos: int, mid: int) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.server_ms = 0
        self.oversize = 0
        self._connection = connection
        self._mid = mid

    def reply(self, topic: str, payload: bytes) -> None:
        """Publish something at once on the connection that the message came by, at most once."""
        if self._connection.live:
            self._connection.say(topic, payload)

    def acknowledge(self) -> None:
        """Tell the broker that we have it; nothing if its connection has ended, the broker then sends it again."""
        if self.qos and self._connection.live:
            self._connection.acknowledge(self._mid, self.qos)


class Connection(aiomqtt.Client):
    """A session that the broker keeps; messages go to `take`, which must neither raise nor wait.

    Attributes
    ----------
    live : bool
        Whether acknowledgements can still be sent.
    """

    def __init__(
        self, options: ConnectionOptions, *, mqtt5: bool, receive_maximum: int, take: Callable[[Received], None]
    ) -> None:
        properties = None
        if mqtt5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = options.session_s
            properties.ReceiveMaximum = min(receive_maximum, 65_535)
        super().__init__(
            options.host,
            options.port,
            username=options.username,
            password=options.password,
            identifier=options.client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if mqtt5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if mqtt5 else False,
            clean_start=False if mqtt5 else MQTT_CLEAN_START_FIRST_ONLY,
            properties=properties,
            keepalive=KEEPALIVE_S,
            timeout=TIMEOUT_S,
            tls_context=ssl.create_default_context(cafile=options.ca_file) if options.tls else None,
        )
        self.live = True
        self._shared = options.shared and mqtt5
        self._take = take
        self._client.manual_ack_set(True)
        self._client.on_message = self._received
        self._client.disable_logger()

    def _received(self, client: Any, userdata: Any, message: Any) -> None:
        self._take(Received(self, message.topic, message.payload, message.qos, message.mid))

    def acknowledge(self, mid: int, qos: int) -> None:
        """Acknowledge a message by its packet id."""
        self._client.ack(mid, qos)

    def say(self, topic: str, payload: bytes) -> None:
        """Publish at most once, without waiting."""
        self._client.publish(topic, payload, 0)

    async def subscribe_all(self, kinds: Iterable[str]) -> None:
        """Subscribe to topics of all devices with QoS 1; raises `aiomqtt.MqttError` if the broker refuses one."""
        prefix = f"$share/{GROUP}/" if self._shared else ""
        granted = await self.subscribe([(f"{prefix}rw/v1/+/{kind}", 1) for kind in kinds])
        for code in granted:
            value = code if isinstance(code, int) else code.value
            if value >= 0x80:
                raise aiomqtt.MqttError(f"the broker refuses the subscription ({code}); check the account's rights")

    async def lost_or(self, event: asyncio.Event) -> None:
        """Wait until `event` is set; raises `aiomqtt.MqttError` when the connection is lost before."""
        wanted = asyncio.create_task(event.wait())
        lost = asyncio.create_task(self._until_lost())
        try:
            await asyncio.wait((wanted, lost), return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                lost.result()
        finally:
            wanted.cancel()
            lost.cancel()
            await asyncio.gather(wanted, lost, return_exceptions=True)

    async def _until_lost(self) -> None:
        async for _ in self.messages:
            raise AssertionError("messages go to the callback")


def connect_error(error: BaseException) -> str:
    """One line for people on why there is no connection."""
    if isinstance(error, aiomqtt.MqttCodeError):
        return f"the broker refuses the login or the protocol: {error.rc}"
    return str(error) or type(error).__name__
