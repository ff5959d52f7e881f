"""Who is told of an alarm: levels and wards, signed webhooks, mail, device topics; dead receivers and restarts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from email import message_from_bytes
from pathlib import Path

import aiomqtt
import msgspec
import pytest
from aiosmtpd.controller import UnthreadedController
from receivers import web_server
from sqlalchemy import Engine, delete
from wall_fakes import alarm

from alerts.contacts import Contact, Contacts, is_told
from alerts.database import open_engine, upgrade
from alerts.deliveries import NOTIFIED, Deliveries, Delivery
from alerts.notifier import CLAIM_MS, Notifier
from alerts.notify import (
    AT_ONCE,
    FIRST_SILENCE_MS,
    LATE_MS,
    LONGEST_SILENCE_MS,
    Line,
    after_failure,
    messages_for,
)
from alerts.notify_senders import Mail, MailServer, Sender, SendError, Webhooks, signature
from alerts.words import KIND_WORDS, sentence
from bus.child import free_port
from bus.errors import BusUnavailableError
from bus.messages import AlarmEvent, BeatEvent, Event, is_beat, pack
from bus.streams import Record
from ingest.broker import embedded_broker
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.notifying import DeviceTopics

NOW = 1_760_000_000_000
TEXTS = Path(__file__).parent.parent / "web" / "ui" / "vocabulary.js"


def vtach(**more: object) -> AlarmEvent:
    """Make a ventricular tachycardia that was announced now."""
    usual = {"raised_ms": NOW, "changed_ms": NOW, "announced_ms": NOW, "reason": "raised", "detail": "7 at 168/min"}
    return msgspec.structs.replace(alarm("bed-1", "VTACH", 3, **usual), **more)


def contact(label: str, channel: str = "webhook", address: str = "http://localhost/", **more: object) -> Contact:
    """Make a contact with an id."""
    return Contact(label, channel, address, id=label, **more)  # type: ignore[arg-type]


# --- who hears what -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, {"nurse", "ward 7"}),
        ({"escalation": 1, "reason": "escalated"}, {"nurse", "ward 7", "doctor"}),
        ({"escalation": 3, "reason": "escalated"}, {"nurse", "ward 7", "doctor", "chief"}),
        ({"priority": 2}, {"ward 7"}),
        ({"patient": "bed-2"}, {"ward 7"}),
    ],
)
def test_contacts_hear_what_their_level_priority_patient_and_ward_cover(change: dict[str, object], told: set[str]):
    """Level 0 at once, others with the escalations; each for its patient, its ward, from its priority on."""
    contacts = [
        contact("nurse", patient="bed-1"),
        contact("doctor", patient="bed-1", level=1),
        contact("chief", level=3),
        contact("ward 7", ward="7", priority=2),
        contact("ward 8", ward="8", priority=1),
    ]
    event = vtach(**change)
    assert {item.label for item in messages_for(event, contacts, NOW, ward="7")} == told
    assert {c.label for c in contacts if is_told(c, event, "7")} == told


def test_only_announcements_are_messages_and_the_same_one_has_the_same_key():
    """A new value, a pause or an acknowledgement calls nobody; neither does what was found afterwards."""
    nurse = [contact("nurse")]
    (first,) = messages_for(vtach(), nurse, NOW)
    (again,) = messages_for(vtach(), nurse, NOW + 5_000)
    assert again.id == first.id
    (reminder,) = messages_for(vtach(reason="reminded", changed_ms=NOW + 9, announced_ms=NOW + 9), nurse, NOW + 9)
    assert reminder.id != first.id
    assert messages_for(vtach(reason="acknowledged", changed_ms=NOW + 1), nurse, NOW) == []
    assert messages_for(vtach(retrospective=True), nurse, NOW) == []


def test_a_message_says_what_and_where_and_names_nobody():
    """Words, bed, ward and figures; no name of a patient or of staff."""
    (made,) = messages_for(vtach(acked_by="anna"), [contact("nurse")], NOW, bed="12", ward="7")
    told = json.loads(made.message)
    assert told["text"] == "high priority: Ventricular tachycardia, bed 12. 7 at 168/min"
    assert (told["key"], told["kind"], told["ward"], told["escalation"]) == (made.id, "VTACH", "7", 0)
    assert "anna" not in made.message
    assert "not acknowledged, level 2" in sentence(vtach(escalation=2))


def test_a_message_that_comes_too_late_is_given_up_and_says_so():
    """After a stand-still nobody is paged for what was ten minutes ago."""
    (made,) = messages_for(vtach(), [contact("nurse")], NOW + LATE_MS + 1)
    assert (made.state, made.done_ms) == ("given_up", NOW + LATE_MS + 1)
    assert "too long ago" in made.error


def test_failures_are_tried_again_with_growing_pauses_and_an_end():
    """2, 4, 8 ... 60 s apart, until the message would be late."""
    (made,) = messages_for(vtach(), [contact("nurse")], NOW)
    now, pauses = NOW, []
    while made.state == "waiting":
        made = after_failure(made, now, "no answer")
        pauses.append((made.due_ms - now) // 1000)
        now = made.due_ms
    assert pauses[:7] == [2, 4, 8, 16, 32, 60, 60]
    assert 10 < len(pauses) < 20
    assert (made.state, made.error) == ("given_up", "no answer")
    assert after_failure(made, NOW, "gone", permanent=True).state == "given_up"


def test_words_are_those_of_the_page():
    """A message calls a kind what the wall calls it."""
    block = re.search(r"KINDS = \{(.*?)\n\};", TEXTS.read_text(), re.DOTALL)
    assert block is not None
    assert dict(re.findall(r'(?m)^  (\w+): \{ name: "([^"]*)"', block.group(1))) == KIND_WORDS


def test_webhooks_are_signed_as_the_specification_says():
    """The example of Standard Webhooks gives the signature that it names."""
    made = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("url", ["http://x", "smtps://", "smtp://host:99999", "mail"])
def test_a_wrong_mail_server_is_refused(url: str):
    """In one line and without its password."""
    with pytest.raises(ValueError, match="mail server"):
        MailServer.parse(url, "a@b.example")
    with pytest.raises(ValueError, match="from whom"):
        MailServer.parse("smtps://u:secret@host", "nobody")
    assert MailServer.parse("smtps://u%40x:p%2F@host", "a@b.c").username == "u@x"


# --- the process ----------------------------------------------------------------------------------------------------


class Feed:
    """A bus that gives what was put on it, or fails."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.fails = 0
        self.news = asyncio.Event()

    def put(self, *events: Event) -> None:
        """Publish events."""
        for event in events:
            self.records.append(Record(f"{NOW}-{len(self.records)}", pack(event)))
        self.news.set()

    async def read_events(
        self, cursors: Mapping[int, str], *, count: int = 500, block_ms: int = 0
    ) -> list[tuple[int, list[Record]]]:
        """Read after the cursor."""
        if self.fails:
            self.fails -= 1
            raise BusUnavailableError("gone")
        found = [r for r in self.records if _order(r.position) > _order(cursors[0])]
        if not found:
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), block_ms / 1000)
            except TimeoutError:
                return []
            return await self.read_events(cursors)
        return [(0, found[:count])]

    async def last(self, cursors: Sequence[int], name: str = "events") -> dict[int, str]:
        """Newest position."""
        return {0: self.records[-1].position}


def _order(position: str) -> tuple[int, int]:
    ms, _, number = position.partition("-")
    return int(ms), int(number)


class Desk:
    """Database, bus and clock of a notifier."""

    def __init__(self, folder: Path) -> None:
        self.engine: Engine = open_engine(f"sqlite:///{folder / 'history.db'}")
        upgrade(self.engine)
        self.contacts, self.outbox, self.feed, self.now = Contacts(self.engine), Deliveries(self.engine, 1), Feed(), NOW

    @asynccontextmanager
    async def running(self, senders: Mapping[str, Sender]) -> AsyncIterator[Notifier]:
        """Run a notifier for as long as the block lasts."""
        stop = asyncio.Event()
        notifier = Notifier(
            self.feed, self.engine, senders, stop, place_of=lambda _: ("12", "7"), clock=lambda: self.now,
            total=1, poll_s=0.02, wait_s=0.02,
        )  # fmt: skip
        task = asyncio.create_task(notifier.run([0]))
        try:
            yield notifier
        finally:
            stop.set()
            await task

    def states(self) -> dict[str, str]:
        """State of the newest message to each contact, by label."""
        return {item.label: item.state for item in reversed(self.outbox.recent())}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.engine.dispose()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)


class Taker:
    """A sender that notes what it got; it may fail or hang."""

    def __init__(self, answer: Callable[[Delivery], Awaitable[None]] | None = None) -> None:
        self.got: list[Delivery] = []
        self._answer = answer

    async def send(self, contact: Contact, delivery: Delivery, now_ms: int) -> None:
        """Take a message."""
        if self._answer is not None:
            await self._answer(delivery)
        self.got.append(delivery)


async def test_a_webhook_gets_a_signed_message_and_is_tried_again(desk: Desk):
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


async def test_a_hung_webhook_delays_nobody_else(desk: Desk):
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


async def test_a_hung_webhook_is_asked_alone_and_gets_all_once_it_wakes(desk: Desk):
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


def test_a_contact_that_does_not_answer_is_asked_with_growing_pauses():
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


async def test_what_waited_too_long_behind_others_is_given_up(desk: Desk):
    """It was never tried, and its page would mislead now."""
    sent = Taker()
    (pager,) = desk.contacts.replace([contact("pager")])
    (made,) = messages_for(vtach(), [pager], NOW)
    desk.outbox.add([made], {0: f"{NOW}-0"})
    desk.now = NOW + LATE_MS + 1
    async with desk.running({"webhook": sent}):
        await until(lambda: desk.states() == {"pager": "given_up"})
    assert (sent.got, desk.outbox.recent()[0].error) == ([], "waited too long: others had no answer")


async def test_beats_are_passed_over_and_the_position_behind_them_is_kept(desk: Desk):
    """They cost the database nothing until an alarm comes; entries that are no event are counted."""
    beat = BeatEvent("bed-1", "dev", 1, 0, NOW, "N", 0.9, "S", 0.1, 800)
    assert is_beat(pack(beat))
    assert not is_beat(pack(vtach()))
    desk.contacts.replace([contact("hook")])
    async with desk.running({"webhook": Taker()}) as notifier:
        desk.feed.put(beat)
        await until(lambda: desk.outbox.cursors() == {0: f"{NOW}-0"})
        desk.feed.records.append(Record(f"{NOW}-1", b"nothing"))
        desk.feed.put(beat)
        await until(lambda: notifier.counters.unreadable == 1)
        assert desk.outbox.cursors() == {0: f"{NOW}-0"}
        desk.feed.put(vtach())
        await until(lambda: desk.outbox.cursors() == {0: f"{NOW}-3"} and desk.states() == {"hook": "sent"})


async def test_a_receiver_that_is_gone_for_good_is_given_up(desk: Desk):
    """410, a channel that is not configured, a contact that was removed: shown, and not tried again."""

    async def gone(headers: dict[str, str], body: bytes) -> int:
        return 410

    async with web_server(gone) as address, desk.running({"webhook": Webhooks()}) as notifier:
        desk.contacts.replace([contact("hook", address=address), contact("mail", "email", "a@b.example")])
        desk.feed.put(vtach())
        await until(lambda: desk.states() == {"hook": "given_up", "mail": "given_up"})
        assert {item.error for item in desk.outbox.recent()} == {"answered 410", "the notifier runs without email"}
        await until(lambda: notifier.counters.given_up == 2)


async def test_a_message_that_breaks_its_sender_is_tried_with_pauses(desk: Desk, caplog: pytest.LogCaptureFixture):
    """A fault of the sender is one failed try, shown and logged, and the contact's next message goes out."""

    async def break_once(delivery: Delivery) -> None:
        if delivery.alarm == "first":
            raise KeyError("device")

    taker = Taker(break_once)
    async with desk.running({"webhook": taker}):
        desk.contacts.replace([contact("hook")])
        desk.feed.put(vtach(id="first"), vtach(id="second"))
        await until(lambda: {item.alarm: item.tries for item in desk.outbox.recent()} == {"first": 1, "second": 1})
        assert [item.alarm for item in taker.got] == ["second"]
        broken = next(item for item in desk.outbox.recent() if item.alarm == "first")
        assert (broken.state, broken.tries, broken.error) == ("waiting", 1, "can't be sent: KeyError")
        assert broken.due_ms > desk.now
    assert "can't be sent" in caplog.text


async def test_a_removed_contact_gets_nothing(desk: Desk):
    """What waits for it is given up."""

    async def fail(_: Delivery) -> None:
        raise SendError("not now")

    async with desk.running({"webhook": Taker(fail)}):
        desk.contacts.replace([contact("hook")])
        desk.feed.put(vtach())
        await until(lambda: [item.tries for item in desk.outbox.recent()] == [1])
        desk.contacts.replace([])

        def given_up() -> bool:
            # A try with the contact as it was may still be under way.
            desk.now += 1_000
            return desk.states() == {"hook": "given_up"}

        await until(given_up)
    assert desk.outbox.recent()[0].error == "the contact was removed"


async def test_an_acknowledgement_settles_what_waits(desk: Desk):
    """Somebody is there: a page that has not gone out is not sent, and says by whom it was settled."""

    async def fail(_: Delivery) -> None:
        raise SendError("not now")

    acked = vtach(reason="acknowledged", presence="ack", revision=1, changed_ms=NOW + 9, acked_by="anna")
    async with desk.running({"webhook": Taker(fail)}) as notifier:
        desk.contacts.replace([contact("hook")])
        desk.feed.put(vtach())
        await until(lambda: [item.tries for item in desk.outbox.recent()] == [1])
        desk.feed.put(acked)
        await until(lambda: notifier.counters.settled == 1)
    assert desk.states() == {"hook": "settled"}
    assert desk.outbox.recent()[0].error == "acknowledged by anna"


async def test_an_alarm_acknowledged_while_the_notifier_stood_still_calls_nobody(desk: Desk):
    """Raised and acknowledged in one read: the message is there, settled, and was never sent."""
    sent = Taker()
    desk.contacts.replace([contact("hook")])
    desk.feed.put(vtach(), vtach(reason="acknowledged", presence="ack", revision=1, changed_ms=NOW + 9))
    async with desk.running({"webhook": sent}):
        await until(lambda: desk.states() == {"hook": "settled"})
    assert sent.got == []


async def test_a_restart_sends_nothing_twice_and_loses_nothing(desk: Desk):
    """Killed before it had sent, it goes on; events that it reads again are the same messages."""
    held = asyncio.Event()

    async def hold(_: Delivery) -> None:
        held.set()
        await asyncio.sleep(3_600)

    desk.contacts.replace([contact("hook")])
    desk.feed.put(vtach())
    async with desk.running({"webhook": Taker(hold)}):
        await held.wait()
    sent = Taker()
    desk.feed.put(vtach(reason="escalated", escalation=1, revision=1, changed_ms=NOW + 1, announced_ms=NOW + 1))
    async with desk.running({"webhook": sent}):
        # Ended between a message and the note that it went, it would rightly send it again, under the same key.
        await until(lambda: len(sent.got) == 2 and not desk.outbox.waiting_contacts())
    # A cursor that was not kept: everything comes again.
    with desk.engine.begin() as connection:
        connection.execute(delete(NOTIFIED))
    async with desk.running({"webhook": sent}):
        await until(lambda: desk.outbox.cursors() == {0: f"{NOW}-1"})
    assert len(sent.got) == len({item.id for item in sent.got}) == 2


async def test_two_notifiers_of_one_range_send_nothing_twice(desk: Desk):
    """While ranges are moved two may read and send the same: each message goes out once, and the position stays."""
    desk.contacts.replace([contact("hook")])
    one, other = Taker(), Taker()
    async with desk.running({"webhook": one}), desk.running({"webhook": other}):
        desk.feed.put(*(vtach(id=f"alarm {number}") for number in range(30)))
        await until(lambda: len(desk.outbox.recent()) == 30 and not desk.outbox.waiting_contacts())
    assert sorted(item.alarm for item in one.got + other.got) == sorted(f"alarm {number}" for number in range(30))
    assert desk.outbox.cursors() == {0: f"{NOW}-29"}


async def test_a_message_under_way_at_a_killed_notifier_goes_out_when_its_claim_has_run_out(desk: Desk):
    """Nobody knows whether it was taken; until the time that a sender may take is over nobody sends it again."""
    (pager,) = desk.contacts.replace([contact("pager")])
    made = messages_for(vtach(), [pager], NOW)
    desk.outbox.add(made, {0: f"{NOW}-0"})
    desk.outbox.claim(made, NOW + CLAIM_MS)
    sent = Taker()
    async with desk.running({"webhook": sent}):
        desk.feed.put(vtach(), vtach(id="another"))
        await until(lambda: [item.alarm for item in sent.got] == ["another"])
        desk.now += CLAIM_MS
        await until(lambda: len(sent.got) == 2)


async def test_failures_of_bus_and_database_are_waited_out(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    """Nothing that was announced meanwhile is missed."""
    desk.contacts.replace([contact("hook")])
    desk.feed.fails = 2
    broken = [OSError("no disk"), OSError("no disk")]
    add = Deliveries.add

    def fail_first(self: Deliveries, *values: object) -> int:
        if broken:
            raise broken.pop()
        return add(self, *values)  # type: ignore[arg-type]

    monkeypatch.setattr(Deliveries, "add", fail_first)
    sent = Taker()
    async with desk.running({"webhook": sent}) as notifier:
        desk.feed.put(vtach())
        await until(lambda: len(sent.got) == 1)
        assert notifier.counters.failures == 4


class Inbox:
    """Handler of a mail server; refuses what it is told to."""

    def __init__(self) -> None:
        self.got: list[tuple[list[str], bytes]] = []

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        """Take or refuse an address."""
        if address.startswith("nobody"):
            return "550 no such mailbox"
        if address.startswith("busy"):
            return "450 later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        """Keep a mail."""
        self.got.append((envelope.rcpt_tos, envelope.content))
        return "250 OK"


async def test_mail_goes_through_a_real_server(desk: Desk):
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
async def test_a_device_is_told_on_its_topic(desk: Desk, tmp_path: Path):
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
