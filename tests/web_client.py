"""The web application over a played ward, and a client that logs in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from starlette.testclient import TestClient
from wall_fakes import PASSWORD, USER, FakePatient, FakeWard, alarm, make_loop

from web.app import create_app
from web.auth import COOKIE
from web.settings import WebSettings

QUICK = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
SETTINGS = WebSettings(redis_url="redis://nowhere", ward="Ward <7>", session_check_s=0.05, clock_s=0.05)
HOST = "http://testserver"
OWN = {"origin": HOST}
UI = Path(__file__).parent.parent / "web" / "ui"


@pytest.fixture(scope="module")
def password_hash() -> str:
    return QUICK.hash(PASSWORD)


@pytest.fixture
def ward(password_hash: str) -> FakeWard:
    ward = FakeWard(
        [FakePatient("Bed 1", make_loop(1, "N", 70, 0))],
        [alarm("Bed 1", "TACHY", 2, value=134.0, limit=120.0), alarm("Bed 2", "PAUSE", 2, presence="latched")],
    )
    ward.add_user(USER, password_hash)
    return ward


@pytest.fixture
def client(ward: FakeWard) -> Iterator[TestClient]:
    with TestClient(create_app(SETTINGS, parts=ward.open), follow_redirects=False) as client:
        client.headers["origin"] = HOST
        yield client


def log_in(client: TestClient) -> dict[str, str]:
    """Log in; headers that an act needs."""
    answer = client.post("/login", data={"user": USER, "password": PASSWORD})
    assert answer.status_code == 303, answer.text
    client.cookies.set(COOKIE, answer.cookies[COOKIE])
    return {"x-csrf-token": client.get("/api/session").json()["csrf"]}
