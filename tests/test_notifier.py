"""The notifier as a process: positions, acknowledgements, restarts, several at once, failures of what it needs."""

from __future__ import annotations

import asyncio

import pytest
from notifier_desk import NOW, Desk, Taker, contact, desk, until, vtach
from sqlalchemy import delete

from alerts.deliveries import NOTIFIED, Deliveries, Delivery
from alerts.notifier import CLAIM_MS
from alerts.notify import LATE_MS, messages_for
from alerts.notify_senders import SendError
from bus.messages import BeatEvent, is_beat, pack
from bus.streams import Record

__all__ = ["desk"]


async def test_what_waited_too_long_behind_others_is_given_up(desk: Desk) -> None:
    """It was never tried, and its page would mislead now."""
    sent = Taker()
    (pager,) = desk.contacts.replace([contact("pager")])
    (made,) = messages_for(vtach(), [pager], NOW)
    desk.outbox.add([made], {0: f"{NOW}-0"})
    desk.now = NOW + LATE_MS + 1
    async with desk.running({"webhook": sent}):
        await until(lambda: desk.states() == {"pager": "given_up"})
    assert (sent.got, desk.outbox.recent()[0].error) == ([], "waited too long: others had no answer")


async def test_beats_are_passed_over_and_the_position_behind_them_is_kept(desk: Desk) -> None:
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


async def test_a_message_that_breaks_its_sender_is_tried_with_pauses(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
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


async def test_a_removed_contact_gets_nothing(desk: Desk) -> None:
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


async def test_an_acknowledgement_settles_what_waits(desk: Desk) -> None:
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


async def test_an_alarm_acknowledged_while_the_notifier_stood_still_calls_nobody(desk: Desk) -> None:
    """Raised and acknowledged in one read: the message is there, settled, and was never sent."""
    sent = Taker()
    desk.contacts.replace([contact("hook")])
    desk.feed.put(vtach(), vtach(reason="acknowledged", presence="ack", revision=1, changed_ms=NOW + 9))
    async with desk.running({"webhook": sent}):
        await until(lambda: desk.states() == {"hook": "settled"})
    assert sent.got == []


async def test_a_restart_sends_nothing_twice_and_loses_nothing(desk: Desk) -> None:
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


async def test_two_notifiers_of_one_range_send_nothing_twice(desk: Desk) -> None:
    """While ranges are moved two may read and send the same: each message goes out once, and the position stays."""
    desk.contacts.replace([contact("hook")])
    one, other = Taker(), Taker()
    async with desk.running({"webhook": one}), desk.running({"webhook": other}):
        desk.feed.put(*(vtach(id=f"alarm {number}") for number in range(30)))
        await until(lambda: len(desk.outbox.recent()) == 30 and not desk.outbox.waiting_contacts())
    assert sorted(item.alarm for item in one.got + other.got) == sorted(f"alarm {number}" for number in range(30))
    assert desk.outbox.cursors() == {0: f"{NOW}-29"}


async def test_a_message_under_way_at_a_killed_notifier_goes_out_when_its_claim_has_run_out(desk: Desk) -> None:
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


async def test_failures_of_bus_and_database_are_waited_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
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
