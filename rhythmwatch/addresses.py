"""Addresses of brokers: ``mqtt://user:password@host:port`` and ``mqtts://`` taken apart and put together."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is and who we are there.

    Attributes
    ----------
    tls : bool
        ``mqtts``: encrypted, the certificate is checked.
    """

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> BrokerAddress:
        """Take a URL apart.

        Raises
        ------
        ValueError
            If it is no address of a broker; the message does not hold its password.
        """
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError("broker address: the port is no number from 0 to 65535") from error
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ValueError("broker address: write mqtt://user:password@host:1883 or mqtts://...:8883")
        tls = parts.scheme == "mqtts"
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        return cls(parts.hostname, port or (8883 if tls else 1883), username, password, tls)

    def url(self) -> str:
        """Put it together again, secrets and all."""
        who = f"{quote(self.username, safe='')}:{quote(self.password or '', safe='')}@" if self.username else ""
        return f"{'mqtts' if self.tls else 'mqtt'}://{who}{self.host}:{self.port}"


def host_and_port(text: str) -> tuple[str, int]:
    """Take ``host:port`` apart.

    Raises
    ------
    ValueError
        If it is none.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{text!r} is no host:port; write for instance 0.0.0.0:8883")
    return host.strip("[]"), int(port)
