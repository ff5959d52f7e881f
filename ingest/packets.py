"""Packets of MQTT 3.1.1 and 5 as bytes: the part that readers and devices of ours need.

Pure: nothing here knows a connection. Properties of MQTT 5 come laid out, without their length; 3.1.1 has none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
SUBSCRIBE: Final = 0x82
SUBACK: Final = 0x90
UNSUBSCRIBE: Final = 0xA2
DISCONNECT: Final = 0xE0
GOODBYE: Final = bytes((DISCONNECT, 0))
ASK_FOR_LIFE: Final = bytes((0xC0, 0))
"""PINGREQ."""
MOST: Final = 65_535
"""Greatest packet id, and how much may be under way where nobody says less."""

_CONNECT: Final = 0x10
_CLEAN: Final = 0x02
_WILL: Final = 0x2C
"""There is one, retained and at least once."""
_REFUSED: Final = {
    1: "it does not speak this version of MQTT",
    2: "it does not take our client id",
    3: "it is not ready",
    4: "wrong name or password",
    5: "wrong name or password",
    0x84: "it does not speak this version of MQTT",
    0x85: "it does not take our client id",
    0x86: "wrong name or password",
    0x87: "wrong name or password",
    0x8E: "another client came with our client id",
    0x93: "more was under way than we allowed",
    0x95: "a packet is too large",
}


def reason(code: int) -> str:
    """Say for people what a broker's code means."""
    return _REFUSED.get(code, f"code {code}")


def connect_packet(
    client_id: str,
    username: str | None,
    password: str | None,
    *,
    keepalive_s: int,
    mqtt5: bool,
    clean: bool,
    properties: bytes = b"",
    will: tuple[str, bytes] | None = None,
) -> bytes:
    """Lay CONNECT out.

    Parameters
    ----------
    client_id : str
        Empty lets the broker choose.
    username, password : str or None
    keepalive_s : int
        Longest silence of ours, s.
    mqtt5 : bool
        Version to speak.
    clean : bool
        Begin the session anew, where the broker keeps one.
    properties : bytes
        Of MQTT 5.
    will : (str, bytes), optional
        Topic and payload of the last will, which is retained.
    """
    flags = (username is not None) << 7 | (password is not None) << 6
    flags |= (_CLEAN if clean else 0) | (_WILL if will is not None else 0)
    body = text_field("MQTT") + struct.pack(">BBH", 5 if mqtt5 else 4, flags, keepalive_s)
    body += _properties(properties, mqtt5) + text_field(client_id)
    if will is not None:
        topic, payload = will
        body += _properties(b"", mqtt5) + text_field(topic) + struct.pack(">H", len(payload)) + payload
    body += b"".join(text_field(text) for text in (username, password) if text is not None)
    return _packet(_CONNECT, body)


def subscribe_packet(topics: Iterable[str], qos: int, *, mqtt5: bool) -> bytes:
    """Lay SUBSCRIBE out, all topics at one quality."""
    fields = b"".join(text_field(topic) + bytes((qos,)) for topic in topics)
    return _packet(SUBSCRIBE, b"\0\1" + _properties(b"", mqtt5) + fields)


def unsubscribe_packet(topics: Iterable[str], *, mqtt5: bool) -> bytes:
    """Lay UNSUBSCRIBE out."""
    return _packet(UNSUBSCRIBE, b"\0\2" + _properties(b"", mqtt5) + b"".join(text_field(topic) for topic in topics))


def publish_packet(
    topic: str, payload: bytes, *, mid: int = 0, retain: bool = False, mqtt5: bool = False, properties: bytes = b""
) -> bytes:
    """Lay PUBLISH out; with a packet id the broker acknowledges it (QoS 1), else it goes at most once."""
    number = struct.pack(">H", mid) if mid else b""
    body = text_field(topic) + number + _properties(properties, mqtt5) + payload
    return _packet(PUBLISH | bool(mid) << 1 | retain, body)


def puback_packet(mid: int) -> bytes:
    """Lay PUBACK out."""
    return struct.pack(">BBH", PUBACK, 2, mid)


def text_field(text: str) -> bytes:
    """Write a text: its length in bytes, and it."""
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def length_field(size: int) -> bytes:
    """Write a length: seven bits a byte, lowest first."""
    out = bytearray()
    while True:
        size, low = size >> 7, size & 0x7F
        out.append(low | (0x80 if size else 0))
        if not size:
            return bytes(out)


def read_length(data: bytes, at: int) -> tuple[int, int]:
    """Read a length; gives it and where it ends. `ValueError` if it has more than four bytes."""
    size = 0
    for number in range(4):
        byte = data[at + number]
        size |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            return size, at + number + 1
    raise ValueError("a length of more than four bytes")


def _properties(properties: bytes, mqtt5: bool) -> bytes:
    return length_field(len(properties)) + properties if mqtt5 else b""


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + length_field(len(body)) + body
