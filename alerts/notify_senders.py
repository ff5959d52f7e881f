"""How a message reaches its receiver: signed webhooks and e-mail. Each try ends within its time limit."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import aiosmtplib
import httpx2

from alerts.contacts import Contact
from alerts.deliveries import Delivery

TIMEOUT_S: Final = 10.0
_GONE: Final = 410


class SendError(Exception):
    """A message was not taken.

    Attributes
    ----------
    permanent : bool
        The receiver does not want it, now or later.
    silent : bool
        The receiver gave no answer at all, so that another message would have none either.
    """

    def __init__(self, message: str, *, permanent: bool = False, silent: bool = False) -> None:
        super().__init__(message)
        self.permanent, self.silent = permanent, silent


class Sender(Protocol):
    """A channel."""

    async def send(self, contact: Contact, delivery: Delivery, now_ms: int) -> None:
        """Send a message once; `SendError` if it was not taken. It may have been taken all the same: keys tell."""
        ...


def signature(secret: str, key: str, seconds: int, body: bytes) -> str:
    """Signature of a webhook as the Standard Webhooks specification has it.

    Parameters
    ----------
    secret : str
        ``whsec_`` and base64.
    key : str
        Id of the message.
    seconds : int
        Time of the try, since 1970; a receiver refuses old ones.
    body : bytes
        As it is sent.

    Returns
    -------
    str
        ``v1,`` and the base64 of HMAC-SHA256 over id, time and body, joined by dots.
    """
    raw = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(raw, f"{key}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


class Webhooks:
    """HTTP POST of JSON with ``webhook-id`` (the idempotency key), ``webhook-timestamp``, ``webhook-signature``."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        # Made once: reading the authorities costs more than all else of a message.
        self._tls = httpx2.create_ssl_context()

    async def send(self, contact: Contact, delivery: Delivery, now_ms: int) -> None:
        """Post a message; every answer but 2xx is a failure, 410 for good. Redirects are not followed."""
        body = delivery.message.encode()
        seconds = now_ms // 1000
        headers = {
            "content-type": "application/json",
            "user-agent": "rhythmwatch",
            "idempotency-key": delivery.id,
            "webhook-id": delivery.id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": signature(contact.secret, delivery.id, seconds, body),
        }
        try:
            # A connection of its own: nothing of one receiver can hold up another.
            async with (
                asyncio.timeout(self._timeout_s),
                httpx2.AsyncClient(timeout=self._timeout_s, verify=self._tls) as client,
            ):
                answer = await client.post(contact.address, content=body, headers=headers)
        except TimeoutError as error:
            raise SendError(f"no answer within {self._timeout_s:g} s", silent=True) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise SendError(f"not reached: {type(error).__name__}", silent=True) from error
        if not answer.is_success:
            raise SendError(f"answered {answer.status_code}", permanent=answer.status_code == _GONE)


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed in."""

    host: str
    port: int
    sender: str
    username: str | None = None
    password: str | None = None
    tls: str = "starttls"
    """``tls`` from the first byte, ``starttls``, or ``plain``."""

    @classmethod
    def parse(cls, url: str, sender: str) -> MailServer:
        """Take ``smtps://``, ``smtp://`` (STARTTLS) or ``smtp+plain://`` ``user:password@host:port`` apart.

        Raises
        ------
        ValueError
            If it is no such address or there is no sender; the message holds no password.
        """
        schemes = {"smtps": ("tls", 465), "smtp": ("starttls", 587), "smtp+plain": ("plain", 25)}
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError("mail server: the port is no number from 0 to 65535") from error
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError("mail server: write smtps://user:password@host, smtp://... or smtp+plain://host:25")
        if "@" not in sender:
            raise ValueError("mail server: say from whom the mail comes, such as alarms@hospital.example")
        tls, usual = schemes[parts.scheme]
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        return cls(parts.hostname, port or usual, sender, username, password, tls)


class Mail:
    """E-mail by SMTP; the message id is made of the key, so that a mail sent twice is seen to be one."""

    def __init__(self, server: MailServer, timeout_s: float = TIMEOUT_S) -> None:
        self._server = server
        self._timeout_s = timeout_s

    async def send(self, contact: Contact, delivery: Delivery, now_ms: int) -> None:
        """Hand a mail in; an address that the server refuses for good is given up."""
        server = self._server
        try:
            async with asyncio.timeout(self._timeout_s):
                await aiosmtplib.send(
                    letter(server.sender, contact, delivery),
                    hostname=server.host,
                    port=server.port,
                    username=server.username,
                    password=server.password,
                    use_tls=server.tls == "tls",
                    start_tls=server.tls == "starttls",
                    timeout=self._timeout_s,
                )
        except TimeoutError as error:
            raise SendError(f"mail server: no answer within {self._timeout_s:g} s", silent=True) from error
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = {refused.code for refused in error.recipients}
            raise SendError("the mail server refused the address", permanent=min(codes, default=0) >= 550) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise SendError(f"mail server: {type(error).__name__}") from error


def letter(sender: str, contact: Contact, delivery: Delivery) -> EmailMessage:
    """Write the mail of a message."""
    told = json.loads(delivery.message)
    mail = EmailMessage()
    mail["From"], mail["To"] = sender, contact.address
    text = " ".join(str(told["text"]).split())
    mail["Subject"] = text.split(". ")[0][:200]
    mail["Message-ID"] = f"<{delivery.id}@{sender.rpartition('@')[2].strip('>')}>"
    mail["Auto-Submitted"] = "auto-generated"
    if told["priority"] == 3:
        mail["X-Priority"], mail["Importance"] = "1", "high"
    place = ", ".join(part for part in (told["bed"] and f"bed {told['bed']}", told["ward"], told["patient"]) if part)
    mail.set_content(
        f"{text}\n\n{place}\nAlarm {told['id']}\n\nNot a medical device: not for diagnosis or treatment.\n"
    )
    return mail
