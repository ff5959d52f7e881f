"""The web application over HTTP and websocket: log-in, limits, headers, acts, health, and what the page is told."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import httpx2
import msgspec
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect
from test_hub import rows
from wall_fakes import PASSWORD, USER, FakePatient, FakeWard, alarm, make_loop

from alerts.model import Kind
from bus.errors import BusUnavailableError
from bus.messages import Action, AlarmEvent, Entry, StatusEvent, pack, partition_of, unpack_action, unpack_inbound
from bus.server import embedded
from bus.streams import Bus
from web import wire
from web.app import create_app
from web.auth import COOKIE, Passwords, RedisSessions, Session, Throttle, first_account, same_secret
from web.client import Client
from web.feed import BusFeed, FeedItem, FeedKind
from web.hub import Hub
from web.production import open_parts
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


def test_every_page_asks_for_a_log_in(client: TestClient) -> None:
    """Without a session pages lead to the log-in, and calls of the page say 401."""
    for path in ("/", "/alarms", "/patient/Bed%201"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
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
    assert wrong.text == unknown.text
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


def test_pages_name_no_foreign_host_and_hold_nothing_inline() -> None:
    """The policy would break what it forbids: no inline script or style, no address of another host in the pages."""
    for file in UI.glob("*.html"):
        html = file.read_text()
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", html), file.name
        assert not re.search(r"https?://", html), file.name
    for file in [*UI.glob("*.css"), *UI.glob("*.js")]:
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", file.read_text()), file.name


def test_intended_use_is_on_every_page(client: TestClient) -> None:
    """Log-in and pages say that this is not a medical device."""
    assert "Not a medical device" in client.get("/login").text
    assert "Not a medical device" in (UI / "texts.js").read_text()


def test_ward_name_is_text_in_the_log_in(client: TestClient) -> None:
    """A name with markup stays text."""
    assert "Ward &lt;7&gt;" in client.get("/login").text


def test_acknowledge_needs_the_token_and_our_origin(client: TestClient, ward: FakeWard) -> None:
    """A session alone changes nothing: token and origin must be ours."""
    headers = log_in(client)
    path = f"/api/alarms/{next(iter(ward.alarms))}/ack"
    assert client.post(path).status_code == 403
    assert client.post(path, headers={"x-csrf-token": "wrong"}).status_code == 403
    assert client.post(path, headers=headers | {"origin": "https://evil.example"}).status_code == 403
    assert ward.actions == []
    assert client.post(path, headers=headers).status_code == 202
    assert ward.actions == [("Bed 1", Action("ack", USER, next(iter(ward.alarms))))]


def test_acknowledge_of_unknown_and_of_seen_alarms(client: TestClient, ward: FakeWard) -> None:
    """An unknown alarm is said to be unknown; one that is acknowledged already is left as it is."""
    headers = log_in(client)
    assert client.post("/api/alarms/Bed%201/VFIB/7/1/ack", headers=headers).status_code == 404
    seen = alarm("Bed 3", "TACHY", 2, presence="ack")
    ward.raise_alarm(seen)
    with client.websocket_connect("/ws", headers=OWN) as socket:
        wait_for(socket, lambda row: row[0] == "alarm" and row[1] == seen.id)
    answer = client.post(f"/api/alarms/{seen.id}/ack", headers=headers)
    assert answer.json() == {"presence": "ack"}
    assert ward.actions == []


def test_acknowledge_says_so_when_the_bus_is_away(
    client: TestClient, ward: FakeWard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An acknowledgement that could not be stored is never taken for one."""
    headers = log_in(client)

    async def fail(patient: str, action: Action) -> None:
        raise BusUnavailableError("gone")

    monkeypatch.setattr(ward, "append", fail)
    answer = client.post(f"/api/alarms/{next(iter(ward.alarms))}/ack", headers=headers)
    assert answer.status_code == 503
    assert "Not acknowledged" in answer.json()["detail"]


def wait_for(socket, wanted) -> list[object]:
    """Receive until a message is as wanted."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for row in rows(socket.receive_bytes()):
            if wanted(row):
                return row
    pytest.fail("the message did not come")


def test_websocket_gives_snapshot_then_changes(client: TestClient, ward: FakeWard) -> None:
    """A page gets what is, and then an alarm the moment it is raised."""
    log_in(client)
    with client.websocket_connect("/ws", headers=OWN) as socket:
        wait_for(socket, lambda row: row[0] == "synced")
        ward.raise_alarm(alarm("Bed 1", "VTACH", 3))
        row = wait_for(socket, lambda row: row[0] == "alarm")
        assert dict(zip(wire.Alarm.__struct_fields__, row[1:], strict=True))["kind"] == "VTACH"
        assert wait_for(socket, lambda row: row[0] == "clock")[2] < 5000


def test_acknowledge_is_seen_by_another_page(client: TestClient, ward: FakeWard) -> None:
    """What one page acknowledges the other sees, with the name of who did it."""
    headers = log_in(client)
    ident = next(iter(ward.alarms))
    with client.websocket_connect("/ws", headers=OWN) as socket:
        wait_for(socket, lambda row: row[0] == "synced")
        client.post(f"/api/alarms/{ident}/ack", headers=headers)
        row = wait_for(socket, lambda row: row[0] == "alarm" and row[1] == ident)
        seen = dict(zip(wire.Alarm.__struct_fields__, row[1:], strict=True))
        assert (seen["presence"], seen["acked_by"]) == ("ack", USER)


@pytest.mark.parametrize(("origin", "logged_in"), [(None, True), ("https://evil.example", True), (HOST, False)])
def test_websocket_is_refused_to_strangers(client: TestClient, origin: str | None, logged_in: bool) -> None:
    """No origin, a foreign one, or no session: the handshake fails."""
    if logged_in:
        log_in(client)
    del client.headers["origin"]
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/ws", headers={"origin": origin} if origin else {}),
    ):
        pass


def test_websocket_closes_when_its_session_ends(client: TestClient, ward: FakeWard) -> None:
    """A session that is ended elsewhere ends the open page too."""
    log_in(client)
    with client.websocket_connect("/ws", headers=OWN) as socket:
        wait_for(socket, lambda row: row[0] == "synced")
        ward.kept.clear()
        with pytest.raises(WebSocketDisconnect) as closed:
            wait_for(socket, lambda row: False)
    assert closed.value.code == 4401


@pytest.mark.parametrize("text", ["nonsense", '{"beds": 5}', "[]"])
def test_websocket_closes_on_what_is_no_message(client: TestClient, text: str) -> None:
    """Garbage from a page ends that page's socket and nothing else."""
    log_in(client)
    with client.websocket_connect("/ws", headers=OWN) as socket:
        socket.send_text(text)
        with pytest.raises(WebSocketDisconnect) as closed:
            wait_for(socket, lambda row: False)
    assert closed.value.code == 1007
    assert client.get("/healthz").json()["clients"] == 0


async def test_page_that_leaves_in_the_middle_of_a_message_leaves_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Reader and writer each find the page gone, one after the other: neither error is reported, no page is left."""
    sending, left = asyncio.Event(), asyncio.Event()
    messages = iter([{"type": "websocket.connect"}])

    async def receive() -> dict[str, object]:
        if (first := next(messages, None)) is not None:
            return first
        await sending.wait()
        return {"type": "websocket.disconnect", "code": 1001}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "websocket.send":
            sending.set()
            await left.wait()
            raise OSError("the page is gone")
        if message["type"] == "websocket.close":
            left.set()
            for _ in range(5):
                await asyncio.sleep(0)

    async def alive() -> bool:
        return True

    async def seen(_patient: str) -> None:
        pass

    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    hub = Hub(FakeWard([]), FakeWard([]), SETTINGS)
    socket = WebSocket({"type": "websocket"}, receive, send)
    await Client(socket, hub, SETTINGS, alive, seen).run("nurse")
    gc.collect()
    assert reported == []
    assert [record for record in caplog.records if record.name == "web.client"] == []
    assert hub.clients == 0


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


def test_wire_fields_are_the_same_on_both_sides() -> None:
    """The page decodes each message by the field names and order of the server."""
    text = (UI / "wire.js").read_text()
    block = re.search(r"FIELDS = (\{.*?\n\});?", text, re.DOTALL).group(1)
    quoted = re.sub(r"(?m)^  (\w+):", r'  "\1":', block.removesuffix(";"))
    fields = json.loads(re.sub(r",(\s*[\]}])", r"\1", quoted))
    ours = {str(kind.__struct_config__.tag): list(kind.__struct_fields__) for kind in wire.ALL}
    assert fields == ours


def test_every_alarm_kind_has_a_text() -> None:
    """Staff never read the code of an alarm."""
    text = (UI / "vocabulary.js").read_text()
    block = re.search(r"KINDS = \{(.*?)\n\};", text, re.DOTALL).group(1)
    assert set(re.findall(r"(?m)^  (\w+):", block)) == {kind.value for kind in Kind}


def test_modules_import_only_what_is_there() -> None:
    """Each name that a module of the page imports is exported by the module that it names."""
    for file in UI.glob("*.js"):
        for names, source in re.findall(r"import \{([^}]*)\} from \"\./([\w.]+)\"", file.read_text()):
            exported = (UI / source).read_text()
            for name in (part.strip() for part in names.split(",")):
                assert re.search(rf"export (async )?(class|const|function\*?|let) {name}\b", exported), (
                    file.name,
                    name,
                )


@asynccontextmanager
async def live(tmp_path: Path) -> AsyncIterator[tuple[WebSettings, FastAPI, httpx2.AsyncClient, Bus]]:
    """Run the real parts on a real bus and database, the application without a network."""
    async with embedded(tmp_path / "bus") as url:
        settings = WebSettings(redis_url=url, database_url=f"sqlite:///{tmp_path}/web.db", partitions=4)
        said: list[str] = []
        app = create_app(settings, announce=said.append)
        async with Bus(url, partitions=4) as bus, app.router.lifespan_context(app):
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url=HOST, headers=OWN) as client:
                password = re.search(r"password (\S+)", said[0]).group(1)
                answer = await client.post("/login", data={"user": USER, "password": password})
                assert answer.status_code == 303
                yield settings, app, client, bus


async def put_event(bus: Bus, event: AlarmEvent | StatusEvent) -> None:
    """Write an event as a worker does."""
    partition = partition_of(event.patient, bus.partitions)
    epoch = await bus.claim(partition)
    position = (await bus.append_in([(partition, b"tick")]))[0]
    await bus.commit(partition, epoch, [pack(event)], [], None, position)


async def until(condition) -> None:
    """Let the loop run until something is so."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.services
async def test_real_bus_carries_alarm_in_and_acknowledgement_out(tmp_path: Path) -> None:
    """An event on the bus reaches the board; an acknowledgement becomes an entry of the patient's partition."""
    async with live(tmp_path) as (_, app, client, bus):
        hub: Hub = app.state.hub
        raised = alarm("p 1", "VTACH", 3)
        await put_event(bus, raised)
        await until(lambda: raised.id in hub.board.alarms)
        token = (await client.get("/api/session")).json()["csrf"]
        answer = await client.post(f"/api/alarms/{raised.id}/ack", headers={"x-csrf-token": token})
        assert answer.status_code == 202
        partition = partition_of("p 1", 4)
        records = (await bus.read({partition: "0-0"}))[0][1]
        entry = unpack_inbound(records[-1].data)
        assert (entry.kind, entry.patient) == (Entry.ACTION, "p 1")
        assert unpack_action(entry.payload) == Action("ack", USER, raised.id)
        assert abs(entry.server_ms - time.time() * 1000) < 60_000


@pytest.mark.services
async def test_session_outlives_a_restart_of_the_web_process(tmp_path: Path) -> None:
    """Sessions live beside the bus: a page stays logged in when the web process starts again."""
    async with live(tmp_path) as (settings, _, client, _bus):
        again = create_app(settings, announce=lambda text: pytest.fail("a second account was made"))
        async with again.router.lifespan_context(again):
            transport = httpx2.ASGITransport(again)
            cookies = {COOKIE: client.cookies[COOKIE]}
            async with httpx2.AsyncClient(transport=transport, base_url=HOST, cookies=cookies) as other:
                assert (await other.get("/api/session")).json()["user"] == USER


@pytest.mark.services
async def test_feed_reads_events_from_before_it_started_once(tmp_path: Path) -> None:
    """Events between the store's last write and the start are read again, in order; each of them once."""
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=2) as bus, Bus(url, partitions=2) as reader:
        sent = [alarm("p", "TACHY", 2, revision=i) for i in range(5)]
        for event in sent:
            await put_event(bus, event)
        feed = BusFeed(reader)
        got: list[bytes] = []
        for _ in range(2):  # the second time it goes on where it stopped
            async with aclosing(feed.items()) as items, asyncio.timeout(30):
                async for item in items:
                    if item.kind is FeedKind.EVENT:
                        got.append(item.data)
                        assert item.written_ms > 0
                    elif len(got) >= 5:
                        break
        assert got == [pack(event) for event in sent]


@pytest.mark.services
async def test_feed_hands_on_what_broke_it(tmp_path: Path) -> None:
    """When the server stops, the feed raises the bus's own error within the time limit, instead of staying silent."""

    async def drain(feed: AsyncGenerator[FeedItem, None]) -> None:
        async for _ in feed:
            pass

    async with AsyncExitStack() as stack:
        async with embedded(tmp_path / "bus") as url:
            reader = await stack.enter_async_context(Bus(url, partitions=2))
            feed = await stack.enter_async_context(aclosing(BusFeed(reader).items()))
            assert (await anext(feed)).kind is FeedKind.PULSE
        with pytest.raises(BusUnavailableError):
            await asyncio.wait_for(drain(feed), 30)


@pytest.mark.services
async def test_redis_sessions_end_by_themselves(tmp_path: Path) -> None:
    """A stored session has a time to live, and dropping it is final."""
    async with (
        embedded(tmp_path / "bus") as url,
        open_parts(WebSettings(redis_url=url, database_url=f"sqlite:///{tmp_path}/w.db", partitions=1)) as parts,
    ):
        sessions = parts.sessions
        assert isinstance(sessions, RedisSessions)
        session = Session("a", "token", 10**15)
        await sessions.put("k", session, 100)
        assert await sessions.get("k") == session
        assert 0 < await sessions._redis.pttl("rw:session:k") <= 100_000
        await sessions.drop("k")
        assert await sessions.get("k") is None
        assert msgspec.msgpack.encode(session)
