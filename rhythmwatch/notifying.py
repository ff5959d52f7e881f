"""The notifier process: alarms to contacts by webhook, mail and the topic of the device, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import aiomqtt
import structlog

from alerts.care import Care
from alerts.contacts import Contact
from alerts.database import open_engine
from alerts.deliveries import Delivery
from alerts.notifier import Counters, Notifier
from alerts.notify_senders import Mail, MailServer, Sender, SendError, Webhooks
from bus.clock import keeping_time
from bus.streams import Bus
from ingest.device_model import topic_of
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.metrics import Figure, exposing

log = structlog.get_logger()

TIMEOUT_S: Final = 5.0
CLIENT: Final = "rw-notifier"
"""Begin of the name at the broker, which lets one client of a name in; several notifiers share the work."""


class DeviceTopics:
    """Messages on ``rw/v1/{device}/commands``, acknowledged by the broker (QoS 1); one connection, made when needed.

    Parameters
    ----------
    broker : BrokerAddress
    authority : Path, optional
        Certificate of the authority behind the broker's, for ``mqtts://``.
    """

    def __init__(self, broker: BrokerAddress, authority: Path | None = None) -> None:
        self._broker = broker
        self._authority = authority
        self._name = f"{CLIENT}-{secrets.token_hex(4)}"
        self._client: aiomqtt.Client | None = None
        self._turn = asyncio.Lock()

    async def send(self, contact: Contact, delivery: Delivery, now_ms: int) -> None:
        """Publish a message; `SendError` when the broker did not take it in time."""
        device = json.loads(delivery.message)["device"]
        try:
            async with asyncio.timeout(2 * TIMEOUT_S), self._turn:
                client = await self._open()
                await client.publish(topic_of(device, "commands"), delivery.message.encode(), qos=1, timeout=TIMEOUT_S)
        except (aiomqtt.MqttError, OSError, TimeoutError, ValueError) as error:
            await self.close()
            raise SendError(f"broker: {type(error).__name__}", silent=True) from error

    async def _open(self) -> aiomqtt.Client:
        if self._client is None:
            broker = self._broker
            context = ssl.create_default_context(cafile=self._authority) if broker.tls else None
            client = aiomqtt.Client(
                broker.host,
                broker.port,
                username=broker.username,
                password=broker.password,
                identifier=self._name,
                timeout=TIMEOUT_S,
                tls_context=context,
            )
            await client.__aenter__()
            self._client = client
        return self._client

    async def close(self) -> None:
        """Leave the broker."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(aiomqtt.MqttError, OSError):
                await client.__aexit__(None, None, None)


def bed_and_ward(care: Care) -> Callable[[str], tuple[str, str]]:
    """Give what tells bed and ward of a patient now."""

    def place_of(patient: str) -> tuple[str, str]:
        stay = care.open_stay(patient=patient)
        return (stay.bed, stay.ward) if stay is not None else ("", "")

    return place_of


def figures(counters: Counters) -> Iterator[Figure]:
    """Figures of the notifier for Prometheus."""
    for name in Counters.__dataclass_fields__:
        yield Figure(name, getattr(counters, name), f"{name.replace('_', ' ')} of the notifier.")


async def notify(
    bus_url: str,
    history: str,
    partitions: Sequence[int],
    stop: asyncio.Event,
    *,
    broker: str = "",
    authority: Path | None = None,
    mail: str = "",
    sender: str = "",
    metrics: str = "",
) -> None:
    """Tell contacts of alarms until `stop` is set.

    Parameters
    ----------
    bus_url, history : str
        Addresses of the bus and the history database.
    partitions : sequence of int
        Of the patients whose alarms are told.
    stop : asyncio.Event
        Set to end it.
    broker : str
        ``mqtt://`` address with account, for the topics of the devices; empty for none.
    authority : Path, optional
        See `DeviceTopics`.
    mail, sender : str
        Mail server (`MailServer.parse`) and from whom mail comes; empty for none.
    metrics : str
        ``host:port`` for Prometheus; empty for none.

    Raises
    ------
    ValueError
        If an address is none.
    """
    senders: dict[str, Sender] = {"webhook": Webhooks()}
    topics: DeviceTopics | None = None
    if broker:
        topics = senders["mqtt"] = DeviceTopics(BrokerAddress.parse(broker), authority)
    if mail:
        senders["email"] = Mail(MailServer.parse(mail, sender))
    engine = open_engine(history)
    try:
        async with Bus(bus_url) as bus, keeping_time(bus):
            log.info("notifier ready", channels=sorted(senders), partitions=len(partitions))
            notifier = Notifier(bus, engine, senders, stop, place_of=bed_and_ward(Care(engine)))
            with exposing(metrics, "notifier", lambda: figures(notifier.counters)):
                await notifier.run(partitions)
    finally:
        if topics is not None:
            await topics.close()
        engine.dispose()
    counters = notifier.counters
    log.info("notifier ended", messages=counters.messages, sent=counters.sent, given_up=counters.given_up)
