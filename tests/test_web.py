"""The web application over HTTP: log-in, limits of tries, headers, health, first account."""

from __future__ import annotations

import re
import time
from html import escape, unescape
from urllib.parse import unquote

import pytest
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient
from wall_fakes import PASSWORD, USER, FakeWard
from web_client import OWN, QUICK, SETTINGS, UI, client, password_hash, ward

from web.app import create_app
from web.auth import COOKIE, Passwords, Throttle, first_account, same_secret
from web.settings import WebSettings

__all__ = ["client", "password_hash", "ward"]


def test_every_page_asks_for_a_log_in(client: TestClient) -> None:
    """Without a session pages lead to the log-in, and calls of the page say 401."""
    for path in ("/", "/alarms", "/patient/Bed%201"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["location"].split("?")[0]) == (303, "/login")
    assert client.get("/api/session").status_code == 401
    assert client.post("/api/alarms/x/ack").status_code == 401
    assert client.post("/api/logout").status_code == 401


def test_log_in_sets_a_strict_cookie_and_log_out_ends_the_session(client: TestClient, ward: FakeWard) -> None:
    """The cookie is HttpOnly and SameSite=Strict, holds no name of its own, and is worthless after log-out."""
    answer = client.post("/login", data={"user": USER, "password": PASSWORD})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    secret = answer.cookies[COOKIE]
    assert secret not in str(ward.kept)
    client.cookies.set(COOKIE, secret)
    assert client.get("/").status_code == 200
    headers = {"x-csrf-token": client.get("/api/session").json()["csrf"]}
    assert client.post("/api/logout", headers=headers).status_code == 200
    client.cookies.set(COOKIE, secret)
    assert client.get("/api/session").status_code == 401


def test_secure_cookie_where_tls_ends_in_front(ward: FakeWard) -> None:
    """With the setting the cookie travels over HTTPS only."""
    settings = WebSettings(redis_url="redis://nowhere", secure_cookie=True)
    with TestClient(create_app(settings, parts=ward.open), follow_redirects=False) as client:
        answer = client.post("/login", data={"user": USER, "password": PASSWORD}, headers=OWN)
    assert "; Secure" in answer.headers["set-cookie"]


def test_wrong_password_and_unknown_name_get_the_same_answer(client: TestClient) -> None:
    """The log-in does not tell whether an account exists."""
    wrong = client.post("/login", data={"user": USER, "password": "no"})
    unknown = client.post("/login", data={"user": "nobody", "password": "no"})
    assert wrong.status_code == unknown.status_code == 403
    assert wrong.text.replace(USER, "nobody") == unknown.text
    assert "Name or password is wrong." in wrong.text


def test_log_in_tries_are_limited(client: TestClient) -> None:
    """After five failures even the right password has to wait, and the page says how long."""
    for _ in range(5):
        assert client.post("/login", data={"user": USER, "password": "no"}).status_code == 403
    answer = client.post("/login", data={"user": USER, "password": PASSWORD})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert "Too many tries" in answer.text


def test_throttle_opens_again_and_forgets_old_keys() -> None:
    """The window slides with its clock, a success clears a key, and memory stays bounded."""
    now = 0.0
    throttle = Throttle(2, 10.0, lambda: now)
    throttle.failed("a")
    now = 4.0
    throttle.failed("a", "b")
    assert throttle.wait_s("a") == pytest.approx(6.0)
    assert throttle.wait_s("b") == 0
    now = 10.5
    assert throttle.wait_s("a") == 0
    throttle.failed("a")
    assert throttle.wait_s("a", "b") > 0
    throttle.succeeded("a")
    assert throttle.wait_s("a") == 0
    for i in range(20_000):
        throttle.failed(str(i))
    assert len(throttle._failures) <= 10_000


def test_log_in_from_a_foreign_page_is_refused(client: TestClient) -> None:
    """A form on another site can't log anybody in."""
    answer = client.post(
        "/login", data={"user": USER, "password": PASSWORD}, headers={"origin": "https://evil.example"}
    )
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_origin_may_be_allowed_by_setting(ward: FakeWard) -> None:
    """Behind a proxy that changes the host, the public origin works once it is named."""
    settings = WebSettings(redis_url="redis://nowhere", origins=("https://wall.example.org",))
    with TestClient(create_app(settings, parts=ward.open), follow_redirects=False) as client:
        answer = client.post(
            "/login",
            data={"user": USER, "password": PASSWORD},
            headers={"origin": "https://wall.example.org"},
        )
    assert answer.status_code == 303


@pytest.mark.parametrize(
    "asked", ["/alarms", "/patient/Bed%201?alarm=Bed%201%2FTACHY%2F7%2F1000", "/review/R%C3%B6m%2F1"]
)
def test_log_in_leads_to_the_page_that_was_asked_for(client: TestClient, asked: str) -> None:
    """A link to a patient or an alarm outlives the log-in, a wrong password among it."""
    form = client.get(client.get(asked).headers["location"])
    target = unescape(re.search(r'name="target" value="([^"]*)"', form.text).group(1))
    again = client.post("/login", data={"user": USER, "password": "no", "target": target})
    assert f'value="{escape(target)}"' in again.text
    answer = client.post("/login", data={"user": USER, "password": PASSWORD, "target": target})
    assert (answer.status_code, unquote(answer.headers["location"])) == (303, unquote(asked))


ELSEWHERE = ["https://evil.example", "//evil.example", "/\\evil.example", "/patient/..\\evil", "/api/logout",
             "/adminer", "alarms", "", "/alarms\r\nSet-Cookie: a=b", "/login"]  # fmt: skip


@pytest.mark.parametrize("target", ELSEWHERE)
def test_log_in_leads_nowhere_else(client: TestClient, target: str) -> None:
    """What is no page of ours is the wall."""
    answer = client.post("/login", data={"user": USER, "password": PASSWORD, "target": target})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_wrong_address_says_so_to_people_and_to_programs(client: TestClient) -> None:
    """A browser gets a page with a way on; everybody else the usual line."""
    page = client.get("/patients", headers={"accept": "text/html"})
    assert page.status_code == 404
    assert 'href="/"' in page.text
    assert client.get("/patients").json() == {"detail": "Not Found"}


def test_headers_are_strict_on_every_answer(client: TestClient) -> None:
    """Pages, files, errors and answers carry the policy; nothing foreign or inline may run."""
    for path in ("/login", "/ui/main.js", "/api/session", "/nothing", "/healthz"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == ("no-cache" if path.startswith("/ui/") else "no-store")


def test_intended_use_is_on_every_page(client: TestClient) -> None:
    """Log-in and pages say that this is not a medical device."""
    assert "Not a medical device" in client.get("/login").text
    assert "Not a medical device" in (UI / "texts.js").read_text()


def test_ward_name_is_text_in_the_log_in(client: TestClient) -> None:
    """A name with markup stays text."""
    assert "Ward &lt;7&gt;" in client.get("/login").text


def test_health_is_open_and_counts(client: TestClient) -> None:
    """Health needs no log-in and holds no patient data."""
    health = client.get("/healthz")
    assert health.status_code == 200
    assert {"feed_age_s", "bus_lag_ms", "clients", "dropped", "undecodable"} <= set(health.json())
    assert "Bed" not in health.text


def test_health_is_503_when_the_feed_is_dead(ward: FakeWard) -> None:
    """A silent bus makes the process unhealthy."""
    ward.broken = True
    settings = WebSettings(redis_url="redis://nowhere", feed_dead_s=0.01)
    with TestClient(create_app(settings, parts=ward.open)) as client:
        deadline = time.monotonic() + 30
        while (answer := client.get("/healthz")).status_code != 503 and time.monotonic() < deadline:
            pass
    assert answer.status_code == 503
    assert answer.json()["status"] == "feed dead"


def test_ready_says_what_is_not(client: TestClient, ward: FakeWard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready while bus and database answer; else 503 with the reason in words."""
    assert client.get("/readyz").json() == {"ready": True, "why": []}

    def broken() -> int:
        raise OperationalError("select", {}, Exception("gone"))

    monkeypatch.setattr(ward, "count_users", broken)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "why": ["the database does not answer"]}


def test_first_start_makes_one_account_and_says_its_password_once(password_hash: str) -> None:
    """The generated password is announced, works, and is not made again."""
    ward = FakeWard([])
    said: list[str] = []
    app = create_app(SETTINGS, parts=ward.open, announce=said.append)
    with TestClient(app, follow_redirects=False) as client:
        password = re.search(r"password (\S+)", said[0]).group(1)
        answer = client.post("/login", data={"user": USER, "password": password}, headers=OWN)
        assert answer.status_code == 303
    with TestClient(create_app(SETTINGS, parts=ward.open, announce=said.append)):
        pass
    assert len(said) == 1
    assert password not in str(ward.users)


def test_passwords_and_secrets() -> None:
    """Hashes fit their password alone; a broken hash or a missing account never fits."""
    passwords = Passwords(QUICK)
    kept = passwords.hash("right")
    assert passwords.matches(kept, "right")
    assert not passwords.matches(kept, "wrong")
    assert not passwords.matches(None, "right")
    assert not passwords.matches("broken", "right")
    assert not same_secret(None, "x")
    assert first_account(FakeWard([]), passwords)[0] == USER
