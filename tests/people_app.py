"""The application with real stores of people and care in SQLite, and a ward that isn't there."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.testclient import TestClient
from wall_fakes import FakePatient, FakeWard, make_loop

from alerts.access import Access
from alerts.archive import Archive
from alerts.audit import Audit
from alerts.care import Care
from alerts.database import open_engine, upgrade
from alerts.people import People
from alerts.store import Store
from alerts.stores import AlarmStores
from web.app import create_app
from web.auth import COOKIE, Passwords, Session, session_key
from web.parts import Parts
from web.settings import WebSettings

QUICK = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
HOST = "http://testserver"
ROLES = ("viewer", "monitor", "clinician", "admin")
PASSWORD = "a long enough password"


class Site:
    """An application, its stores and its client.

    Attributes
    ----------
    csrf : str
        Token of every session that `enter` makes.
    """

    csrf = "the-csrf-token"

    def __init__(self, folder: Path, **settings: object) -> None:
        self.url = f"sqlite:///{folder / 'site.db'}"
        self.engine: Engine = open_engine(self.url)
        upgrade(self.engine)
        self.people = People(self.engine)
        self.audit = Audit(self.engine)
        self.store = Store(self.url)
        self.care = Care(self.engine)
        self.archive = Archive(self.url, folder / "recordings")
        self.ward = FakeWard([FakePatient("Bed 1", make_loop(1, "N", 70, 0))])
        hashed = QUICK.hash(PASSWORD)
        for role in ROLES:
            self.people.add_user(f"the {role}", hashed, role, 1)
        fast = {"redis_url": "redis://nowhere", "session_check_s": 0.02, "clock_s": 0.02} | settings
        self.app: FastAPI = create_app(WebSettings(**fast), parts=self.open, announce=lambda _: None)
        self.client = TestClient(self.app, follow_redirects=False, base_url=HOST)

    @contextlib.asynccontextmanager
    async def open(self, _settings: WebSettings) -> AsyncIterator[Parts]:
        """Give the parts of the app."""
        yield self.parts()

    def parts(self) -> Parts:
        """Make the parts of the app."""
        return Parts(
            feed=self.ward,
            actions=self.ward,
            alarms=self.ward,
            accounts=self.people,
            sessions=self.ward,
            tokens=self.people,
            audit=self.audit,
            people=self.people,
            care=self.care,
            access=Access(self.care, self.archive),
            archive=self.archive,
            alarm_stores=AlarmStores(self.engine),
        )

    def enter(self, role: str, user: str = "") -> dict[str, str]:
        """Begin a session without the log-in; headers of its acts."""
        cookie = secrets.token_urlsafe(8)
        now = int(time.time() * 1000)
        self.ward.kept[session_key(cookie)] = Session(user or f"the {role}", self.csrf, now + 3_600_000, since_ms=now)
        return {"cookie": f"{COOKIE}={cookie}", "x-csrf-token": self.csrf, "origin": HOST}


@contextmanager
def running_site(folder: Path, **settings: object) -> Iterator[Site]:
    """Run the application for as long as the block lasts."""
    site = Site(folder, **settings)
    with site.client:
        site.app.state.gate.passwords = Passwords(QUICK)
        yield site
    site.store.close()
    site.archive.close()
    site.engine.dispose()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Run an application of the test's own."""
    with running_site(tmp_path) as site:
        yield site


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run an application that no test puts anything into."""
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site
