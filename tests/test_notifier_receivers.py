"""Receivers of alarms: webhooks that hang, mail, device topics, and those that are gone for good."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from email import message_from_bytes
from pathlib import Path

import aiomqtt
import msgspec
import pytest
from aiosmtpd.controller import UnthreadedController
from notifier_desk import NOW, Desk, Taker, contact, desk, until, vtach
from receivers import web_server

from alerts.notify import AT_ONCE, FIRST_SILENCE_MS, LONGEST_SILENCE_MS, Line
from alerts.notify_senders import Mail, MailServer, SendError, Webhooks
from bus.child import free_port
from ingest.broker import embedded_broker
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.notifying import DeviceTopics

__all__ = ["desk"]


async def test_a_webhook_gets_a_signed_message_and_is_tried_again(desk: Desk) -> None:
    """Two refusals, then taken: one key throughout, each try signed afresh over what it sends."""
    tries: list[tuple[dict[str, str], bytes]] = []

    async def answer(headers: dict[str, str], body: bytes) -> int:
        tries.append((headers, body))
        return 503 if len(tries) < 3 else 204

    async with web_server(answer) as address, desk.running({"webhook": Webhooks()}):
        (kept,) = desk.contacts.replace([contact("pager", address=address)])
        desk.feed.put(vtach())
        for number in (1, 2):
            await until(lambda number=number: len(tries) == number)
            await until(lambda number=number: desk.outbox.recent()[0].tries == number)
            desk.now += 4_000
        await until(lambda: desk.states() == {"pager": "sent"})
    (sent,) = desk.outbox.recent()
    assert (sent.tries, sent.error) == (3, "")
    for headers, body in tries:
        assert headers["webhook-id"] == headers["idempotency-key"] == sent.id
        content = f"{sent.id}.{headers['webhook-timestamp']}.".encode() + body
        key = base64.b64decode(kept.secret.removeprefix("whsec_"))
        wanted = "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == wanted
    assert json.loads(tries[0][1])["bed"] == "12"
    assert tries[0][0]["webhook-timestamp"] != tries[2][0]["webhook-timestamp"]


async def test_a_hung_webhook_delays_nobody_else(desk: Desk) -> None:
    """One receiver never answers; the others have the alarm at once, and the hung one is tried again."""
    hangs = asyncio.Event()

    async def hang(headers: dict[str, str], body: bytes) -> int:
        hangs.set()
        await asyncio.sleep(3_600)
        return 200

    async def take(headers: dict[str, str], body: bytes) -> int:
        return 200

    mail = Taker()
    async with (
        web_server(hang) as dead,
        web_server(take) as alive,
        desk.running({"webhook": Webhooks(timeout_s=1.0), "email": mail}),
    ):
        desk.contacts.replace(
            [contact("dead", address=dead), contact("alive", address=alive), contact("mail", "email", "a@b.example")]
        )
        desk.feed.put(vtach())
        await hangs.wait()
        await until(lambda: desk.states() == {"dead": "waiting", "alive": "sent", "mail": "sent"})
        assert {item.label: item.tries for item in desk.outbox.recent()}["dead"] == 0
        desk.feed.put(vtach(reason="escalated", escalation=1, revision=1, changed_ms=NOW + 1, announced_ms=NOW + 1))
        await until(lambda: len(mail.got) == 2)
        await until(lambda: any("no answer within 1 s" in item.error for item in desk.outbox.recent()))


async def test_a_hung_webhook_is_asked_alone_and_gets_all_once_it_wakes(desk: Desk) -> None:
    """A socket that takes and never answers holds few requests, costs others nothing, and misses no message."""
    awake = asyncio.Event()
    asked: list[bytes] = []
    taken: list[dict[str, object]] = []
    heard: list[str] = []

    async def hang_until_awake(headers: dict[str, str], body: bytes) -> int:
        asked.append(body)
        if not awake.is_set():
            await asyncio.sleep(3_600)
        taken.append(json.loads(body))
        return 200

    async def take(headers: dict[str, str], body: bytes) -> int:
        heard.append(headers["webhook-id"])
        return 200

    raised = [vtach(id=f"alarm {number}") for number in range(10)]
    worse = [
        msgspec.structs.replace(event, reason="escalated", escalation=1, revision=1, changed_ms=at, announced_ms=at)
        for event in raised
        for at in [NOW + 1_000]
    ]
    async with (
        web_server(hang_until_awake) as dead,
        web_server(take) as alive,
        desk.running({"webhook": Webhooks(timeout_s=3.0)}) as notifier,
    ):
        desk.contacts.replace([contact("dead", address=dead), contact("alive", address=alive)])
        desk.feed.put(*raised)
        await until(lambda: len(asked) == AT_ONCE and len(heard) == len(raised))
        desk.feed.put(*worse)
        await until(lambda: len(heard) == 2 * len(raised))
        await until(lambda: notifier.counters.failed == AT_ONCE)
        desk.now += FIRST_SILENCE_MS
        await until(lambda: notifier.counters.failed == AT_ONCE + 1)
        assert len(asked) == AT_ONCE + 1
        awake.set()
        desk.now += LONGEST_SILENCE_MS
        await until(lambda: len(taken) == 2 * len(raised) and not desk.outbox.waiting_contacts())
    assert {item.state for item in desk.outbox.recent()} == {"sent"}
    for event in raised:
        assert [told["revision"] for told in taken if told["id"] == event.id] == [0, 1]


def test_a_contact_that_does_not_answer_is_asked_with_growing_pauses() -> None:
    """1, 2, 4, 8, 8 s apart, one message at a time; those that were under way together count once."""
    line = Line()
    assert line.room(1, NOW) == AT_ONCE - 1
    now, pauses = NOW, []
    for _ in range(5):
        line.silent(now)
        line.silent(now)
        pauses.append(line.until_ms - now)
        assert line.room(0, line.until_ms - 1) == 0
        now = line.until_ms
        assert (line.room(0, now), line.room(1, now)) == (1, 0)
    assert pauses == [1_000, 2_000, 4_000, 8_000, 8_000]
    line.answered()
    assert line.room(0, NOW) == AT_ONCE


async def test_a_receiver_that_is_gone_for_good_is_given_up(desk: Desk) -> None:
    """410, a channel that is not configured, a contact that was removed: shown, and not tried again."""

    async def gone(headers: dict[str, str], body: bytes) -> int:
        return 410

    async with web_server(gone) as address, desk.running({"webhook": Webhooks()}) as notifier:
        desk.contacts.replace([contact("hook", address=address), contact("mail", "email", "a@b.example")])
        desk.feed.put(vtach())
        await until(lambda: desk.states() == {"hook": "given_up", "mail": "given_up"})
        assert {item.error for item in desk.outbox.recent()} == {"answered 410", "the notifier runs without email"}
        await until(lambda: notifier.counters.given_up == 2)


class Inbox:
    """Handler of a mail server; refuses what it is told to."""

    def __init__(self) -> None:
        self.got: list[tuple[list[str], bytes]] = []

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:  # noqa: N802
        """Take or refuse an address."""
        if address.startswith("nobody"):
            return "550 no such mailbox"
        if address.startswith("busy"):
            return "450 later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802
        """Keep a mail."""
        self.got.append((envelope.rcpt_tos, envelope.content))
        return "250 OK"


async def test_mail_goes_through_a_real_server(desk: Desk) -> None:
    """Subject in words, a message id made of the key; a mailbox that is not there is given up, a busy one not."""
    inbox, port = Inbox(), free_port()
    controller = UnthreadedController(inbox, hostname="127.0.0.1", port=port, loop=asyncio.get_running_loop())
    server = await controller._create_server()
    mail = Mail(MailServer.parse(f"smtp+plain://127.0.0.1:{port}", "alarms@hospital.example"))
    try:
        async with desk.running({"email": mail}):
            desk.contacts.replace(
                [contact(name, "email", f"{name}@ward.example") for name in ("doctor", "nobody", "busy")]
            )
            desk.feed.put(vtach())
            await until(lambda: desk.states() == {"doctor": "sent", "nobody": "given_up", "busy": "waiting"})
            await until(lambda: {item.label: item.tries for item in desk.outbox.recent()}["busy"] == 1)
    finally:
        server.close()
        await server.wait_closed()
    ((receivers, content),) = inbox.got
    assert receivers == ["doctor@ward.example"]
    letter = message_from_bytes(content)
    assert letter["Subject"] == "high priority: Ventricular tachycardia, bed 12"
    assert letter["X-Priority"] == "1"
    key = next(item.id for item in desk.outbox.recent() if item.label == "doctor")
    assert letter["Message-ID"].strip() == f"<{key}@hospital.example>"
    assert "7 at 168/min" in letter.get_payload()


@pytest.mark.services
async def test_a_device_is_told_on_its_topic(desk: Desk, tmp_path: Path) -> None:
    """The broker has it (QoS 1) before it counts as sent; a broker that is away is tried again."""
    async with embedded_broker(tmp_path / "broker") as broker:
        topics = DeviceTopics(BrokerAddress(broker.host, broker.port, broker.username, broker.password))
        device = aiomqtt.Client(
            broker.host, broker.port, username=broker.device_username, password=broker.device_password
        )
        async with device, desk.running({"mqtt": topics}):
            await device.subscribe("rw/v1/dev/commands", qos=1)
            desk.contacts.replace([contact("device", "mqtt", "")])
            desk.feed.put(vtach())
            async with asyncio.timeout(10):
                message = await anext(aiter(device.messages))
            assert json.loads(message.payload)["kind"] == "VTACH"
            await until(lambda: desk.states() == {"device": "sent"})
        await topics.close()
    with pytest.raises(SendError, match="broker: MqttError"):
        await topics.send(contact("device", "mqtt", ""), msgspec.structs.replace(desk.outbox.recent()[0]), NOW)
