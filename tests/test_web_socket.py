"""What a page is told over its websocket, and acknowledgements that it sends."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect
from test_hub import rows
from wall_fakes import USER, FakeWard, alarm
from web_client import HOST, OWN, SETTINGS, client, log_in, password_hash, ward

from bus.errors import BusUnavailableError
from bus.messages import Action
from web import wire
from web.client import Client
from web.hub import Hub

__all__ = ["client", "password_hash", "ward"]


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
