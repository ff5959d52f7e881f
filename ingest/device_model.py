"""What a publishing device is told and what it tells: topics, the broker's address, its meta, its statistics."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from ingest.frame import Frame

if TYPE_CHECKING:
    from ingest.broker import Broker

PREFIX: Final = "rw/v1"
FIRMWARE: Final = "rhythmwatch"


def topic_of(device: str, leaf: str) -> str:
    """Topic of a device: `leaf` is ``ecg``, ``meta``, ``status``, ``events``, ``backfill`` or ``commands``."""
    return f"{PREFIX}/{device}/{leaf}"


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the broker.

    Attributes
    ----------
    host : str
        Name or address.
    port : int
        TCP port.
    username, password : str, optional
        Account.
    tls : ssl.SSLContext, optional
        Encrypts and checks the broker's certificate.
    mqtt5 : bool, optional
        Speak MQTT 5, or 3.1.1 where False; without it each is tried in turn until one is taken.
    expiry_s : int
        MQTT 5: how long the broker keeps a frame for an absent reader, s.
    keepalive_s : int
        A silence of 1.5 times this makes the broker publish the last will, s.
    """

    host: str
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    mqtt5: bool | None = None
    expiry_s: int = 3600
    keepalive_s: int = 20

    @classmethod
    def of(cls, broker: Broker) -> Connection:
        """Take the address of an embedded broker, with its account for devices run by us."""
        return cls(broker.host, broker.port, broker.device_username, broker.device_password, mqtt5=broker.mqtt5)


class DeviceMeta(msgspec.Struct, frozen=True):
    """What a device says of itself, retained as JSON on ``meta``."""

    device: str
    epoch: int
    rate: float
    leads: tuple[str, ...]
    gain: float
    firmware: str = FIRMWARE


@dataclass(slots=True)
class PublishStats:
    """What became of the messages of a client.

    Attributes
    ----------
    offered : int
        Frames and notes taken.
    sent : int
        Acknowledged by the broker.
    dropped : int
        Given up for newer ones because the broker was away too long.
    unsent : int
        Left when the client closed.
    resent : int
        Sent again after a connection broke.
    connects : int
        Connections made.
    failures : int
        Connections refused, broken or timed out.
    last_error : str
        Why the last one failed.
    """

    offered: int = 0
    sent: int = 0
    dropped: int = 0
    unsent: int = 0
    resent: int = 0
    connects: int = 0
    failures: int = 0
    last_error: str = ""


def meta_of(frame: Frame, firmware: str = FIRMWARE) -> DeviceMeta:
    """Make the meta of a device from one of its frames."""
    return DeviceMeta(frame.device, frame.epoch, frame.rate, frame.leads, frame.gain, firmware)
