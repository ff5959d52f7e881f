"""What an app is made of, so that a test can put another part in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import tzinfo
from typing import Protocol, TypeAlias, TypeVar, cast

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from alerts.access import Access
from alerts.archive import Archive
from alerts.audit import Audit
from alerts.care import Care
from alerts.devices import Devices
from alerts.people import People
from alerts.stores import AlarmStores
from bus.messages import Action
from web.auth import Accounts, Sessions, Tokens
from web.feed import Feed
from web.hub import OpenAlarms
from web.settings import WebSettings


class Actions(Protocol):
    """Where staff actions go: the patient's partition, so that they are entries of its one order."""

    async def append(self, patient: str, action: Action) -> None:
        """Store an action; returns once the bus has it, raises `bus.errors.BusError` when it can't."""
        ...


class FileRefusedError(Exception):
    """A file can't be classified; the message says why and what to do."""


class Classifier(Protocol):
    """Classifies files that staff give."""

    async def classify(self, name: str, data: bytes) -> bytes:
        """Give the result as JSON; raises `FileRefusedError`."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything outside the process that the pages need.

    What has a default is left out by apps that need less (tests of one thing); its routes answer 503 then.
    """

    feed: Feed
    actions: Actions
    alarms: OpenAlarms
    accounts: Accounts
    sessions: Sessions
    classifier: Classifier | None = None
    tokens: Tokens | None = None
    audit: Audit | None = None
    people: People | None = None
    care: Care | None = None
    access: Access | None = None
    archive: Archive | None = None
    alarm_stores: AlarmStores | None = None
    devices: Devices | None = None


OpenParts: TypeAlias = Callable[[WebSettings], AbstractAsyncContextManager[Parts]]


_Part = TypeVar("_Part")


def part(connection: HTTPConnection, name: str, kind: type[_Part]) -> _Part:
    """Give a part of the app that may be left out; `HTTPException` 503 where it is."""
    found = getattr(connection.app.state.parts, name)
    if not isinstance(found, kind):
        raise HTTPException(503, f"This server runs without {name.replace('_', ' ')}.")
    return found


def zone_of(connection: HTTPConnection) -> tzinfo | None:
    """Give the time zone of the ward; None for that of the server."""
    return cast(WebSettings, connection.app.state.settings).time_zone()
