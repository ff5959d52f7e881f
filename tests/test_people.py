"""Accounts, passwords, tokens and the audit trail, through the routes and on both databases."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from people_app import HOST, PASSWORD, Site, empty, site
from sqlalchemy import delete, update
from sqlalchemy.exc import OperationalError

from alerts.audit import AUDIT, GENESIS, Audit
from alerts.database import StoreError, open_engine, upgrade
from alerts.people import People
from web.auth import COOKIE
from web.trail import Trail

__all__ = ["empty", "site"]

DEADLINE_S = 60.0


def test_an_account_lives_from_making_to_removal(site: Site) -> None:
    """Made, listed, used, changed, removed; each act is in the trail with who did it."""
    admin, client = site.enter("admin"), site.client
    new = {"name": "cleo", "role": "monitor", "password": "quite a long one"}
    assert client.post("/api/users", json=new, headers=admin).json()["role"] == "monitor"
    assert client.post("/api/users", json=new, headers=admin).status_code == 409
    assert "cleo" in [row["name"] for row in client.get("/api/users", headers=admin).json()]
    login = {"user": "cleo", "password": "quite a long one"}
    assert client.post("/login", data=login, headers={"origin": HOST}).status_code == 303
    assert client.patch("/api/users/cleo", json={"disabled": True}, headers=admin).json()["disabled"]
    assert client.post("/login", data=login, headers={"origin": HOST}).status_code == 403
    assert client.patch("/api/users/cleo", json={"disabled": False}, headers=admin).status_code == 200
    assert client.delete("/api/users/cleo", headers=admin).status_code == 200
    assert client.delete("/api/users/cleo", headers=admin).status_code == 409
    trail = client.get("/api/audit", headers=admin).json()
    assert trail["intact"]
    acts = [(row["user"], row["act"], row["subject"]) for row in reversed(trail["rows"])]
    assert ("the admin", "user.add", "cleo") in acts
    assert ("cleo", "session.begin", "cleo") in acts
    assert ("", "session.refused", "cleo") in acts
    assert acts[-1] == ("the admin", "user.remove", "cleo")
    assert "quite a long one" not in str(trail)


@pytest.mark.parametrize(
    "new",
    [
        {"name": "x", "role": "monitor", "password": "short"},
        {"name": "", "role": "monitor", "password": "quite a long one"},
        {"name": "x", "role": "king", "password": "quite a long one"},
        {"name": "a\nb", "role": "viewer", "password": "quite a long one"},
        {"name": "x"},
    ],
)
def test_a_bad_account_is_refused_in_one_line(empty: Site, new: dict[str, str]) -> None:
    """What is wrong is said in one line that repeats no value."""
    answer = empty.client.post("/api/users", json=new, headers=empty.enter("admin"))
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
    assert "\n" not in answer.json()["detail"]
    assert "quite a long one" not in answer.text
    assert '"short"' not in answer.text


def test_the_last_admin_stays(site: Site) -> None:
    """Removed, switched off or given a lower role: each is refused as long as no other admin can log in."""
    admin, client = site.enter("admin"), site.client
    for answer in (
        client.delete("/api/users/the admin", headers=admin),
        client.patch("/api/users/the admin", json={"disabled": True}, headers=admin),
        client.patch("/api/users/the admin", json={"role": "viewer"}, headers=admin),
    ):
        assert answer.status_code == 409
        assert "last admin" in answer.json()["detail"]
    assert client.patch("/api/users/the monitor", json={"role": "admin"}, headers=admin).status_code == 200
    assert client.delete("/api/users/the admin", headers=admin).status_code == 200


def test_last_admins_who_remove_each_other_leave_one(url: str) -> None:
    """Two at the same moment: one succeeds, one is refused, on both databases."""
    engine = open_engine(url)
    upgrade(engine)
    people = People(engine)
    for name in ("a", "b"):
        people.add_user(name, "x", "admin", 1)
    barrier, refused = threading.Barrier(2), []

    def remove(name: str) -> None:
        barrier.wait(DEADLINE_S)
        try:
            people.remove(name)
        except StoreError as error:
            refused.append(error)

    threads = [threading.Thread(target=remove, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(refused) == 1
    assert len(people.accounts()) == 1
    engine.dispose()


def test_own_password_changes_and_ends_the_other_sessions(site: Site) -> None:
    """The old password is asked for; other pages are logged out; this one goes on with its new cookie."""
    mine, other, client = site.enter("monitor"), site.enter("monitor"), site.client
    body = {"old": "wrong", "new": "another long password"}
    assert client.post("/api/password", json=body, headers=mine).status_code == 403
    time.sleep(0.002)  # sessions are told apart by the millisecond
    answer = client.post("/api/password", json=body | {"old": PASSWORD}, headers=mine)
    assert answer.status_code == 200, answer.text
    assert "HttpOnly" in answer.headers["set-cookie"]
    client.cookies.clear()
    assert client.get("/api/session", headers=other).status_code == 401
    fresh = {"cookie": f"{COOKIE}={answer.cookies[COOKIE]}"}
    assert client.get("/api/session", headers=fresh).json()["csrf"] == answer.json()["csrf"]


def test_guessing_the_own_password_is_limited(site: Site) -> None:
    """A stolen session can't try passwords for ever."""
    mine = site.enter("viewer")
    body = {"old": "wrong", "new": "another long password"}
    codes = [site.client.post("/api/password", json=body, headers=mine).status_code for _ in range(6)]
    assert codes == [403] * 5 + [429]


def test_tokens_work_until_they_are_taken_away_or_run_out(site: Site) -> None:
    """The secret is shown once, kept as a hash, good for its role and time, and needs no CSRF token."""
    admin, client = site.enter("admin"), site.client
    made = client.post("/api/tokens", json={"label": "ehr", "role": "clinician", "days": 2}, headers=admin).json()
    bearer = {"authorization": f"Bearer {made['secret']}"}
    assert client.get("/api/session", headers=bearer).json()["user"] == "ehr (token)"
    assert client.get("/api/users", headers=bearer).status_code == 403
    assert made["secret"] not in client.get("/api/tokens", headers=admin).text
    assert made["secret"].encode() not in b"".join(path.read_bytes() for path in Path(site.url[10:]).parent.iterdir())
    assert client.post("/api/password", json={"old": "x", "new": "y" * 12}, headers=bearer).status_code == 403
    assert client.delete(f"/api/tokens/{made['id']}", headers=admin).status_code == 200
    assert client.get("/api/session", headers=bearer).status_code == 401
    _, old = site.people.make_token("old", "admin", "x", 1, int(time.time() * 1000) - 1)
    assert client.get("/api/session", headers={"authorization": f"Bearer {old}"}).status_code == 401


def test_openapi_describes_every_route(site: Site) -> None:
    """The description names the routes and needs a log-in itself."""
    assert site.client.get("/api/openapi.json").status_code == 401
    paths = site.client.get("/api/openapi.json", headers=site.enter("viewer")).json()["paths"]
    assert {"/api/users", "/api/tokens/{ident}", "/api/audit"} <= set(paths)


def test_a_look_at_a_patient_is_noted_once_in_a_while(site: Site) -> None:
    """Pages and programs alike: the first look leaves a row, the next ones soon after don't."""
    viewer, client = site.enter("viewer"), site.client
    for _ in range(3):
        client.get("/api/patients/dev-1/notes", headers=viewer)
        client.get("/fhir/R4/Flag", params={"patient": "Patient/p1"}, headers=viewer)
    with client.websocket_connect("/ws", headers=viewer) as socket:
        for _ in range(2):
            socket.send_text('{"beds": [], "detail": "Bed 1"}')
        deadline = time.monotonic() + DEADLINE_S
        while len(site.audit.rows()) < 3 and time.monotonic() < deadline:
            socket.receive_bytes()
    looks = [(row.user, row.act, row.subject) for row in reversed(site.audit.rows())]
    assert looks == [("the viewer", "patient.seen", subject) for subject in ("dev-1", "Patient/p1", "Bed 1")]


# --- the trail ---------------------------------------------------------------------------------------------------


@contextmanager
def audit_of(url: str) -> Iterator[Audit]:
    """Open a trail in an up-to-date database."""
    engine = open_engine(url)
    upgrade(engine)
    yield Audit(engine)
    engine.dispose()


@pytest.fixture
def trail(url: str) -> Iterator[Audit]:
    with audit_of(url) as trail:
        yield trail


def test_many_writers_make_one_chain(url: str, trail: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads with engines of their own: numbers without a gap, a whole chain, on both databases."""
    # SQLite is not fair to those who wait for its lock.
    monkeypatch.setattr("alerts.database.WAIT_S", DEADLINE_S)
    problems: list[BaseException] = []

    def write(who: int) -> None:
        engine = open_engine(url)
        try:
            for number in range(10):
                Audit(engine).add(number, f"u{who}", "act", "subject")
        except BaseException as error:
            problems.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=write, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert problems == []
    assert [row.seq for row in trail.rows(limit=1000)] == list(range(80, 0, -1))
    assert trail.verify() is None


def test_what_was_checked_is_not_read_again(trail: Audit) -> None:
    """New rows alone are checked, a forged one among them shows, as do rows taken away, put back, or trimmed."""
    for number in range(5):
        trail.add(1000 + number, "u", "act", "s")
    assert trail.verify(whole=False) is None
    with trail._writer.begin() as connection:
        connection.execute(update(AUDIT).where(AUDIT.c.seq == 2).values(who="forged"))
    assert trail.verify(whole=False) is None
    assert trail.verify() == 2
    assert trail.verify(whole=False) == 2
    with trail._writer.begin() as connection:
        connection.execute(update(AUDIT).where(AUDIT.c.seq == 2).values(who="u"))
    assert trail.verify(whole=False) is None
    trail.add(1005, "u", "act", "s")
    with trail._writer.begin() as connection:
        connection.execute(update(AUDIT).where(AUDIT.c.seq == 6).values(who="forged"))
    assert trail.verify(whole=False) == 6
    with trail._writer.begin() as connection:
        connection.execute(update(AUDIT).where(AUDIT.c.seq == 6).values(who="u"))
    assert trail.verify(whole=False) is None
    assert trail.trim(2000, "keeper", 1003) == 3
    assert trail.verify(whole=False) is None
    with trail._writer.begin() as connection:
        connection.execute(delete(AUDIT).where(AUDIT.c.seq == 4))
    assert trail.verify(whole=False) == 5


@pytest.mark.parametrize("column", ["ms", "who", "act", "subject", "detail", "former", "hash"])
def test_any_changed_column_shows(tmp_path: Path, column: str) -> None:
    """A change of any column of a row is found, at that row (or, of its hash alone, there as well)."""
    with audit_of(f"sqlite:///{tmp_path}/a.db") as trail:
        for number in range(5):
            trail.add(number, "u", "act", "s", {"n": number})
        with trail._writer.begin() as connection:
            value = 99 if column == "ms" else "forged"
            connection.execute(update(AUDIT).where(AUDIT.c.seq == 3).values({column: value}))
        assert trail.verify() == 3


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=3, max_size=8),
    pick=st.integers(0, 99),
)
def test_a_row_taken_out_shows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], pick: int
) -> None:
    """Any text can be a value; a row taken out of the middle or the start breaks the chain where it stood."""
    with audit_of(f"sqlite:///{tmp_path_factory.mktemp('audit')}/a.db") as trail:
        for user, subject in rows:
            trail.add(1, user, "act", subject.encode("utf-8", "replace").decode())
        assert trail.verify() is None
        gone = pick % (len(rows) - 1) + 1
        with trail._writer.begin() as connection:
            connection.execute(delete(AUDIT).where(AUDIT.c.seq == gone))
        assert trail.verify() == gone + 1


def test_old_rows_go_with_a_row_that_says_so(trail: Audit) -> None:
    """After a trim the chain is whole; the same rows taken away behind its back are missed."""
    assert trail.head() == (0, GENESIS)
    for number in range(6):
        trail.add(1000 + number, "u", "act", "s")
    assert trail.trim(2000, "keeper", 1003) == 3
    assert trail.verify() is None
    assert [row.seq for row in trail.rows()] == [7, 6, 5, 4]
    assert trail.trim(2000, "keeper", 1003) == 0
    with trail._writer.begin() as connection:
        connection.execute(delete(AUDIT).where(AUDIT.c.seq == 4))
    assert trail.verify() == 5


async def test_acts_wait_for_a_database_that_is_away() -> None:
    """Rows that could not be written are written in order, before the next, once the database is back."""

    class Flaky:
        def __init__(self) -> None:
            self.away, self.rows = True, []

        def add(self, ms: int, user: str, act: str, subject: str, detail: object = None) -> int:
            if self.away:
                raise OperationalError("insert", {}, Exception("gone"))
            self.rows.append(subject)
            return len(self.rows)

    store = Flaky()
    trail = Trail(store)
    await trail.add("u", "act", "1")
    await trail.add("u", "act", "2")
    assert trail.waiting == 2
    store.away = False
    await trail.add("u", "act", "3")
    assert store.rows == ["1", "2", "3"]
    assert trail.waiting == trail.lost == 0
