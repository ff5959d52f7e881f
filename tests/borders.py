"""Attempts across the borders between devices, topics, roles and tokens: what each one tried, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import aiomqtt
import numpy as np
from people_app import HOST, PASSWORD, ROLES, Site

from alerts.people import covers
from bus.passwords import hash_secret
from ingest.accounts import CONTROL, READS, WRITES
from ingest.broker import Broker
from ingest.codecs import decode, encode_frame, encode_json
from ingest.frame import Frame, FrameError

SECRET = "the secret of bed-1"
DEVICES = {"bed-1": hash_secret(SECRET), "bed-2": hash_secret("the secret of bed-2")}
CALM_S = 60.0


@dataclass(frozen=True)
class Attempt:
    """One row of the table."""

    border: str
    what: str
    refused: bool


def table(rows: list[Attempt]) -> str:
    """Write the attempts as a table, with a sum for each border."""
    lines = [f"{'border':<8} {'refused':<8} attempt"]
    lines += [f"{row.border:<8} {'yes' if row.refused else 'NO':<8} {row.what}" for row in rows]
    for border, group in itertools.groupby(sorted(rows, key=lambda row: row.border), key=lambda row: row.border):
        of = list(group)
        lines.append(f"{border}: {sum(row.refused for row in of)} of {len(of)} refused")
    lines.append(f"all: {sum(row.refused for row in rows)} of {len(rows)} refused")
    return "\n".join(lines)


def connect(broker: Broker, name: str | None, secret: str | None, *, door: bool = True, **more: Any) -> aiomqtt.Client:
    """Make a client at the door of devices, or at that of the service."""
    host, port = (broker.door_host, broker.door_port) if door else (broker.host, broker.port)
    more.setdefault("identifier", name or "nobody")
    version = aiomqtt.ProtocolVersion.V5 if broker.mqtt5 else aiomqtt.ProtocolVersion.V311
    if version is aiomqtt.ProtocolVersion.V311 and name is None:
        secret = None
    return aiomqtt.Client(host, port, username=name, password=secret, protocol=version, timeout=CALM_S, **more)


async def comes_in(broker: Broker, name: str | None, secret: str | None, **more: Any) -> bool:
    """Whether a log-in works."""
    with contextlib.suppress(aiomqtt.MqttError, ValueError, OSError):
        async with connect(broker, name, secret, **more):
            return True
    return False


async def device_attempts(broker: Broker) -> list[Attempt]:
    """Log in as what one is not. `bed-9` was revoked, and `bed-1` got another secret before."""
    tries: list[tuple[str, str | None, str | None]] = [
        ("no account", None, None),
        ("a name without a password", "bed-1", None),
        ("an empty password", "bed-1", ""),
        ("a wrong password", "bed-1", "wrong"),
        ("the secret of another device", "bed-1", "the secret of bed-2"),
        ("its own secret under another's name", "bed-2", SECRET),
        ("the secret with a blank behind", "bed-1", SECRET + " "),
        ("the secret in capitals", "bed-1", SECRET.upper()),
        ("the hash of the secret", "bed-1", DEVICES["bed-1"]),
        ("the name in capitals", "BED-1", SECRET),
        ("the name with a blank behind", "bed-1 ", SECRET),
        ("a secret that was rotated away", "bed-1", "an older secret"),
        ("a device that was revoked", "bed-9", "the secret of bed-9"),
        ("a device that never was", "bed-8", SECRET),
        ("an empty name", "", SECRET),
        ("a wildcard as name", "+", SECRET),
        ("all levels as name", "#", SECRET),
        ("a pattern as name", "%u", SECRET),
        ("the name of the service", "@service", SECRET),
        ("the name of the fleet", "@devices", SECRET),
        ("the name of the gate", "@gate", SECRET),
        ("the name of the service and no password", "@service", ""),
        ("the password of a member of staff", "the admin", PASSWORD),
    ]
    return [Attempt("device", what, not await comes_in(broker, name, secret)) for what, name, secret in tries]


async def topic_attempts(broker: Broker) -> list[Attempt]:
    """Publish and read where an enrolled device may not; the service and the gate watch what comes through."""
    rows: list[Attempt] = []
    tries = [f"rw/v1/bed-2/{leaf}" for leaf in (*WRITES, *READS)]
    tries += ["rw/v1/bed-1/commands", "rw/v1/bed-1/ecg/more", "rw/v1/bed-1", "rw/v1//ecg", "rw/v1/BED-1/ecg"]
    tries += ["rw/v1/bed-1 /ecg", "rw/v1/%u/ecg", "/rw/v1/bed-1/ecg", "rw/v1/bed-1/../bed-2/ecg", "rw/v1/bed-10/ecg"]
    tries += ["rw/limits/bed-2", "rw/limits/bed-1"]
    outside = [CONTROL, "$SYS/broker/version", "rw/v2/bed-1/ecg"]
    seen: list[tuple[str, bytes]] = []
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(
            connect(broker, broker.username, broker.password, door=False, identifier="rw-watch")
        )
        gate = await stack.enter_async_context(
            connect(broker, "@gate", broker.gate_password, door=False, identifier="rw-watch-gate")
        )
        await service.subscribe("rw/v1/#", qos=1)
        await gate.subscribe("rw/limits/+", qos=1)
        if broker.plugin:
            await gate.subscribe(f"{CONTROL}/response", qos=1)
        for watch in (service, gate):
            reader = asyncio.create_task(_watch(watch, seen))
            stack.callback(reader.cancel)
        for number, topic in enumerate((*tries, *outside)):
            mark = f"forged {number}".encode()
            if topic == CONTROL:
                mark = json.dumps({"commands": [{"command": "listClients"}]}).encode()
            await _say(broker, topic, mark)
        await _say(broker, "rw/v1/bed-2/meta", b"forged retained", retain=True)
        await _die_with_will(broker, "rw/v1/bed-2/status", b"forged will")
        async with connect(broker, "bed-1", SECRET) as device:
            await device.publish("rw/v1/bed-1/ecg", b"the last", qos=1)
        await _until(lambda: any(payload == b"the last" for _, payload in seen))
        through = {payload for _, payload in seen}
        for number, topic in enumerate((*tries, *outside)):
            came = f"forged {number}".encode() in through
            if topic == CONTROL:
                came = any(found.startswith(CONTROL) for found, _ in seen)
            rows.append(Attempt("topic", f"publish on {topic}", not came))
        rows.append(Attempt("topic", "a retained message for another device", b"forged retained" not in through))
        rows.append(Attempt("topic", "a last will for another device", b"forged will" not in through))
        rows += await _reading(broker, service)
        rows.append(Attempt("topic", "take the reader's session over by its client id", await _keeps(broker, service)))
    return rows


async def _reading(broker: Broker, service: aiomqtt.Client) -> list[Attempt]:
    """Subscribe wide; the secret command for another device, and its frames, must not come."""
    rows = []
    filters = ["#", "+/#", "rw/#", "rw/v1/#", "rw/v1/+/ecg", "rw/v1/+/commands", "rw/v1/bed-2/commands"]
    filters += ["rw/v1/bed-2/ecg", "rw/v1/bed-2/+", "rw/+/bed-2/#", "rw/limits/+", f"{CONTROL}/#", "+/+/+/+"]
    if broker.mqtt5:
        filters += ["$share/rw/rw/v1/+/ecg", "$share/mine/rw/v1/#", "$share/mine/rw/v1/bed-2/commands"]
    async with connect(broker, broker.device_username, broker.device_password, door=False, identifier="f") as fleet:
        for wanted in filters:
            got: list[tuple[str, bytes]] = []
            with contextlib.suppress(aiomqtt.MqttError):
                async with connect(broker, "bed-1", SECRET) as device:
                    reader = asyncio.create_task(_watch(device, got))
                    await device.subscribe("rw/v1/bed-1/commands", qos=1)
                    with contextlib.suppress(aiomqtt.MqttError):
                        await device.subscribe(wanted, qos=1)
                    await fleet.publish("rw/v1/bed-2/ecg", b"of another", qos=1)
                    await service.publish("rw/v1/bed-2/commands", b"for another", qos=1)
                    await service.publish("rw/v1/bed-1/commands", b"for me", qos=1)
                    await _until(lambda got=got: any(payload == b"for me" for _, payload in got))
                    reader.cancel()
            foreign = [topic for topic, _ in got if topic != "rw/v1/bed-1/commands"]
            rows.append(Attempt("topic", f"read {wanted}", not foreign))
    return rows


async def _keeps(broker: Broker, service: aiomqtt.Client) -> bool:
    for door in (True, False):
        await comes_in(broker, "bed-1", SECRET, identifier="rw-watch", door=door)
    with contextlib.suppress(aiomqtt.MqttError):
        await service.publish("rw/v1/bed-1/commands", b"still here", qos=1)
        return True
    return False


async def _watch(client: aiomqtt.Client, seen: list[tuple[str, bytes]]) -> None:
    with contextlib.suppress(aiomqtt.MqttError):
        async for message in client.messages:
            seen.append((str(message.topic), bytes(message.payload)))  # noqa: PERF401 - read while it grows


async def _say(broker: Broker, topic: str, payload: bytes, *, retain: bool = False) -> None:
    with contextlib.suppress(aiomqtt.MqttError, ValueError):
        async with connect(broker, "bed-1", SECRET) as device:
            await device.publish(topic, payload, qos=1, retain=retain, timeout=2.0)


async def _die_with_will(broker: Broker, topic: str, payload: bytes) -> None:
    """Connect by hand (MQTT 3.1.1) with a will, and break the line."""

    def text(value: bytes) -> bytes:
        return len(value).to_bytes(2, "big") + value

    body = text(b"MQTT") + bytes([4, 0b11001110, 0, 20])  # name, password, will at QoS 1, clean session
    body += b"".join(map(text, (b"bed-1", topic.encode(), payload, b"bed-1", SECRET.encode())))
    reader, writer = await asyncio.open_connection(broker.door_host, broker.door_port)
    writer.write(bytes([0x10, len(body)]) + body)
    async with asyncio.timeout(CALM_S):
        assert await reader.readexactly(4) == bytes([0x20, 2, 0, 0])
    writer.transport.abort()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(CALM_S):
        while not condition():
            await asyncio.sleep(0.01)


def payload_attempts() -> list[Attempt]:
    """Name another device inside the payload: the topic is what counts."""
    other = Frame("bed-2", 1, 0, 0, 1, 250.0, ("I",), 200.0, np.zeros((5, 1), np.int16))
    rows = []
    for what, payload in (("binary", encode_frame(other)), ("JSON", encode_json(other))):
        refused = False
        try:
            decode(payload, "bed-1")
        except FrameError as error:
            refused = error.reason == "topic"
        rows.append(Attempt("device", f"another's id in a {what} frame on the own topic", refused))
    return rows


def role_attempts(site: Site, routes: list[tuple[str, str, Any]]) -> Iterator[Attempt]:
    """Call every route with each role below the one it needs, and every act without the signs of our page."""
    for method, path, guard in routes:
        for role in ROLES:
            if not covers(role, guard.role):
                answer = site.client.request(method, path, json={}, headers=site.enter(role))
                yield Attempt("role", f"{role}: {method} {path}", answer.status_code == 403)
    acting = [(method, path) for method, path, guard in routes if guard.acting]
    for method, path in acting[:3]:
        good = site.enter("admin")
        for what, headers in (
            ("without the page's token", {key: value for key, value in good.items() if key != "x-csrf-token"}),
            ("from a foreign page", good | {"origin": "https://evil.example"}),
        ):
            answer = site.client.request(method, path, json={}, headers=headers)
            yield Attempt("role", f"admin {what}: {method} {path}", answer.status_code == 403)


def token_attempts(site: Site, acts: list[tuple[str, str, Any]]) -> Iterator[Attempt]:
    """Come with tokens that are none, ran out, were taken away, or say too little."""
    now = int(time.time() * 1000)
    hour = 3_600_000
    _, good = site.people.make_token("good", "admin", "test", now, now + hour)
    _, old = site.people.make_token("old", "admin", "test", now - 2 * hour, now - hour)
    gone_token, gone = site.people.make_token("gone", "admin", "test", now, now + hour)
    site.people.drop_token(gone_token.id)
    _, small = site.people.make_token("small", "viewer", "test", now, now + hour)
    path = "/api/devices"
    assert site.client.get(path, headers={"authorization": f"Bearer {good}"}).status_code == 200
    for what, headers in {
        "no token": {},
        "an empty token": {"authorization": "Bearer "},
        "a made-up token": {"authorization": "Bearer rw_" + "x" * 43},
        "a token that ran out": {"authorization": f"Bearer {old}"},
        "a token that was taken away": {"authorization": f"Bearer {gone}"},
        "half a token": {"authorization": f"Bearer {good[:-4]}"},
        "a token in capitals": {"authorization": f"Bearer {good.upper()}"},
        "a token as a password": {"authorization": f"Basic {good}"},
        "a token as the cookie": {"cookie": f"rw_session={good}"},
        "a token in the address": {},
        "the secret of a device as token": {"authorization": f"Bearer {SECRET}"},
        "the id of a token as token": {"authorization": f"Bearer {gone_token.id}"},
        "a viewer's token for an admin's list": {"authorization": f"Bearer {small}"},
        "a session that never was": {"cookie": "rw_session=guess"},
    }.items():
        where = f"{path}?token={good}" if "address" in what else path
        answer = site.client.get(where, headers=headers)
        yield Attempt("token", what, answer.status_code in (401, 403))
    for method, where, guard in acts:
        if guard.role != "viewer":
            answer = site.client.request(method, where, json={}, headers={"authorization": f"Bearer {small}"})
            yield Attempt("token", f"a viewer's token: {method} {where}", answer.status_code == 403)
    answer = site.client.post("/login", data={"name": "bed-1", "password": SECRET}, headers={"origin": HOST})
    yield Attempt("token", "a device logs in to the page", "rw_session" not in answer.headers.get("set-cookie", ""))


async def all_of(broker: Broker, *parts: Callable[[Broker], Awaitable[list[Attempt]]]) -> list[Attempt]:
    """Run the attempts at a broker one kind after the other."""
    return [row for part in parts for row in await part(broker)]
