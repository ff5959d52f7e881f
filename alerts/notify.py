"""From alarm events to messages for contacts: who is told of what, and when a message is tried again. Pure.

A contact hears of each announcement of an alarm (raised, worse, escalated, reminded, the end of atrial fibrillation)
that its level and priority cover. An announcement that is old, because the notifier stood still, is kept as given up: a
page ten minutes late misleads. When somebody acknowledges, what still waits about that alarm is settled.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from alerts.contacts import Contact, is_told
from alerts.deliveries import Delivery, key_of
from alerts.words import sentence
from bus.messages import AlarmEvent

LATE_MS: Final = 600_000
"""A message this old is not sent any more."""
FIRST_RETRY_MS: Final = 2_000
LONGEST_RETRY_MS: Final = 60_000
AT_ONCE: Final = 4
"""Messages to one contact that may be under way together."""
FIRST_SILENCE_MS: Final = 1_000
LONGEST_SILENCE_MS: Final = 8_000
"""Pause between two tries with a contact that does not answer."""
SETTLING: Final = frozenset({"acknowledged", "discharged", "switched_off"})
"""Reasons after which nobody needs to be called any more."""


def is_announcement(alarm: AlarmEvent) -> bool:
    """Whether the change asks for attention now; a retrospective alarm never does."""
    return alarm.announced_ms == alarm.changed_ms and alarm.announced_ms > 0 and not alarm.retrospective


def messages_for(
    alarm: AlarmEvent, contacts: Sequence[Contact], now_ms: int, *, bed: str = "", ward: str = ""
) -> list[Delivery]:
    """Make the messages about a change of an alarm.

    Parameters
    ----------
    alarm : AlarmEvent
        After the change.
    contacts : sequence of Contact
        All there are.
    now_ms : int
        Server time.
    bed, ward : str
        Where the patient is now; empty when unknown.

    Returns
    -------
    list of Delivery
        One a contact; the same change gives the same keys.
    """
    if not is_announcement(alarm):
        return []
    late = now_ms - alarm.announced_ms > LATE_MS
    found = []
    for contact in contacts:
        if not is_told(contact, alarm, ward):
            continue
        key = key_of(alarm.id, alarm.announced_ms, alarm.escalation, alarm.reason, contact.id)
        found.append(
            Delivery(
                id=key,
                alarm=alarm.id,
                patient=alarm.patient,
                contact=contact.id,
                label=contact.label,
                channel=contact.channel,
                level=contact.level,
                made_ms=now_ms,
                state="given_up" if late else "waiting",
                due_ms=now_ms,
                done_ms=now_ms if late else None,
                error="announced too long ago: nobody was there to send it" if late else "",
                message=message_of(key, alarm, bed, ward),
            )
        )
    return found


def message_of(key: str, alarm: AlarmEvent, bed: str, ward: str) -> str:
    """JSON that a receiver gets; no name of a person is in it."""
    body = {
        "type": "alarm",
        "key": key,
        "text": sentence(alarm, bed),
        "bed": bed,
        "ward": ward,
        **{name: value for name, value in msgspec.structs.asdict(alarm).items() if name != "acked_by"},
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


@dataclass(slots=True)
class Line:
    """How a contact answers: one that does not is tried with one message at a time, while all others wait their turn.

    Attributes
    ----------
    pause_ms : int
        Pause after the next try that finds no answer; 0 while the contact answers.
    until_ms : int
        No try before.
    """

    pause_ms: int = 0
    until_ms: int = 0

    def room(self, under_way: int, now_ms: int) -> int:
        """How many messages more may be sent now."""
        if not self.pause_ms:
            return max(0, AT_ONCE - under_way)
        return int(not under_way and now_ms >= self.until_ms)

    def answered(self) -> None:
        """Let all go."""
        self.pause_ms = self.until_ms = 0

    def silent(self, now_ms: int) -> None:
        """Note that a try got no answer; several that were under way together count once."""
        if now_ms >= self.until_ms:
            self.pause_ms = min(2 * self.pause_ms, LONGEST_SILENCE_MS) or FIRST_SILENCE_MS
            self.until_ms = now_ms + self.pause_ms


def whose_turn(waiting: Sequence[Delivery], busy: Collection[str], now_ms: int, room: int) -> list[Delivery]:
    """Choose what a contact is sent now: of each alarm what was announced first, and never two at once.

    Parameters
    ----------
    waiting : sequence of Delivery
        What waits for the contact, the next due first.
    busy : collection of str
        Alarms of which a message is under way.
    now_ms : int
        Server time.
    room : int
        At most so many.
    """
    first: dict[str, Delivery] = {}
    for delivery in waiting:
        if delivery.due_ms <= now_ms and delivery.alarm not in busy:
            known = first.get(delivery.alarm)
            if known is None or _announced(delivery) < _announced(known):
                first[delivery.alarm] = delivery
    return list(first.values())[:room]


def _announced(delivery: Delivery) -> tuple[int, int]:
    told = json.loads(delivery.message)
    return told["announced_ms"], told["revision"]


def is_too_late(delivery: Delivery, now_ms: int) -> bool:
    """Whether a message has waited so long that it would mislead."""
    return now_ms - delivery.made_ms > LATE_MS


def after_failure(
    delivery: Delivery, now_ms: int, error: str, *, permanent: bool = False, due_ms: int | None = None
) -> Delivery:
    """State of a message after a try that failed: tried again with growing pauses until it would be late.

    Parameters
    ----------
    delivery : Delivery
        Before the try.
    now_ms : int
        When it failed.
    error : str
        For people.
    permanent : bool
        The receiver does not want it, now or later.
    due_ms : int, optional
        Next try, where it does not hang on how often this message failed.
    """
    tries = delivery.tries + 1
    due = now_ms + min(FIRST_RETRY_MS << min(tries - 1, 10), LONGEST_RETRY_MS) if due_ms is None else due_ms
    over = permanent or due - delivery.made_ms > LATE_MS
    return msgspec.structs.replace(
        delivery,
        state="given_up" if over else "waiting",
        tries=tries,
        due_ms=due,
        done_ms=now_ms if over else None,
        error=error,
    )


def after_success(delivery: Delivery, now_ms: int) -> Delivery:
    """State of a message that was taken."""
    return msgspec.structs.replace(delivery, state="sent", tries=delivery.tries + 1, done_ms=now_ms, error="")
