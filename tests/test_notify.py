"""Who is told of an alarm, in which words, how often and until when."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from notifier_desk import NOW, contact, vtach

from alerts.contacts import is_told
from alerts.notify import LATE_MS, after_failure, messages_for
from alerts.notify_senders import MailServer, signature
from alerts.words import KIND_WORDS, sentence

TEXTS = Path(__file__).parent.parent / "web" / "ui" / "vocabulary.js"


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
