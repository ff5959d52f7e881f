"""Life of an alarm: each sentence of the clinical design as one story."""

from __future__ import annotations

import msgspec
import pytest

from alerts.book import AlarmBook, AlarmChange, Presence, Reason, is_sounding
from alerts.events import to_event
from alerts.limits import KINDS, Policy
from alerts.model import Condition, Kind, Priority
from alerts.state import on_action, on_clock, on_condition, on_discharge, on_epoch, on_switched_off

MIN = 60_000


def begin(kind: Kind, onset: int = 1000, value: float | None = None) -> Condition:
    """Make a beginning."""
    return Condition(kind, True, onset, onset + 500, value, detail=f"{kind} is there")


def end(kind: Kind, onset: int = 1000, by: Kind | None = None) -> Condition:
    """Make an end."""
    return Condition(kind, False, onset, onset + 900, by=by)


def told(changes: list[AlarmChange]) -> list[tuple[Kind, Presence, Reason, bool]]:
    """Pick what matters of some changes."""
    return [(c.alarm.kind, c.alarm.presence, c.reason, c.announce) for c in changes]


def test_high_alarm_latches_with_sound_until_acknowledged():
    """off, on, latched, off: light and sound go on after the condition ended."""
    book = AlarmBook("p1", epoch=7)
    (raised,) = on_condition(book, begin(Kind.VTACH), 10_000)
    assert told([raised]) == [(Kind.VTACH, Presence.ON, Reason.RAISED, True)]
    assert raised.alarm.id == "p1/VTACH/7/1000"
    assert (raised.alarm.onset_ms, raised.alarm.raised_ms) == (8_000, 10_000)
    (latched,) = on_condition(book, end(Kind.VTACH), 12_000)
    assert told([latched]) == [(Kind.VTACH, Presence.LATCHED, Reason.LATCHED, False)]
    assert is_sounding(latched.alarm, 12_000)
    outcome = on_action(book, "ack", "anna", latched.alarm.id, {}, 20_000)
    assert outcome.accepted
    assert told(outcome.changes) == [(Kind.VTACH, Presence.OFF, Reason.ACKNOWLEDGED, False)]
    assert (outcome.changes[0].alarm.acked_by, outcome.changes[0].alarm.cleared_ms) == ("anna", 12_000)
    assert not book.alarms


@pytest.mark.parametrize(
    ("kind", "presence"),
    [
        (Kind.NSVT, Presence.LATCHED),
        (Kind.PVC_PAIR, Presence.OFF),
        (Kind.NOISY, Presence.OFF),
        (Kind.LEADS_OFF, Presence.OFF),
        (Kind.ASYSTOLE, Presence.LATCHED),
    ],
)
def test_what_latches(kind: Kind, presence: Presence):
    """High and medium latch, low and technical don't; a latched medium alarm is silent."""
    book = AlarmBook("p")
    on_condition(book, begin(kind), 0)
    (change,) = on_condition(book, end(kind), 5_000)
    assert change.alarm.presence is presence
    assert is_sounding(change.alarm, 5_000) is (kind is Kind.ASYSTOLE)


def test_technical_alarm_that_grew_to_medium_does_not_latch():
    """LEADS_OFF becomes medium after 30 s, asks for attention again even if acknowledged, and goes with its cause."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.LEADS_OFF), 0)
    on_action(book, "ack", "anna", None, {}, 5_000)
    assert on_clock(book, 29_999) == []
    (worse,) = on_clock(book, 30_000)
    assert told([worse]) == [(Kind.LEADS_OFF, Presence.ON, Reason.WORSE, True)]
    assert worse.alarm.priority is Priority.MEDIUM
    (gone,) = on_condition(book, end(Kind.LEADS_OFF), 40_000)
    assert gone.alarm.presence is Presence.OFF


def test_acknowledged_alarm_is_silent_visible_and_goes_with_its_condition():
    """on, ack, off; a reminder after each 3 min while it goes on."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.VFIB), 0)
    on_action(book, "ack", "anna", None, {}, MIN)
    (alarm,) = book.alarms.values()
    assert alarm.presence is Presence.ACK
    assert not is_sounding(alarm, MIN)
    assert told(on_clock(book, 4 * MIN)) == [(Kind.VFIB, Presence.ACK, Reason.REMINDED, True)]
    assert on_clock(book, 5 * MIN) == []
    assert told(on_clock(book, 7 * MIN)) == [(Kind.VFIB, Presence.ACK, Reason.REMINDED, True)]
    assert told(on_condition(book, end(Kind.VFIB), 8 * MIN)) == [(Kind.VFIB, Presence.OFF, Reason.ENDED, False)]


def test_new_alarm_is_announced_though_its_kind_was_acknowledged():
    """Each onset is an alarm of its own; the high ones before stay until somebody has seen them."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.VTACH, 1000), 0)
    on_condition(book, end(Kind.VTACH, 1000), 1_000)
    changes = on_condition(book, begin(Kind.VTACH, 9000), 2_000)
    assert told(changes) == [(Kind.VTACH, Presence.ON, Reason.RAISED, True)]
    assert [a.presence for a in book.alarms.values()] == [Presence.LATCHED, Presence.ON]


def test_latched_message_gives_way_to_the_next_of_its_kind():
    """Medium messages don't pile up, and the one that goes says so."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.PAUSE, 1000), 0)
    on_condition(book, end(Kind.PAUSE, 1000), 1_000)
    assert told(on_condition(book, begin(Kind.PAUSE, 9000), 2_000)) == [
        (Kind.PAUSE, Presence.OFF, Reason.SUPERSEDED, False),
        (Kind.PAUSE, Presence.ON, Reason.RAISED, True),
    ]


def test_end_by_a_higher_condition():
    """BRADY ended by EXTREME_BRADY is off; lethal VTACH ended by VFIB still waits for somebody."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.BRADY), 0)
    (plain,) = on_condition(book, end(Kind.BRADY, by=Kind.EXTREME_BRADY), 1_000)
    assert (plain.alarm.presence, plain.reason) == (Presence.OFF, Reason.REPLACED)
    on_condition(book, begin(Kind.VTACH), 2_000)
    (lethal,) = on_condition(book, end(Kind.VTACH, by=Kind.VFIB), 3_000)
    assert lethal.alarm.presence is Presence.LATCHED


def test_unacknowledged_high_alarm_escalates():
    """Levels at 30, 60 and 120 s, also once the condition has gone; none for medium alarms."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.ASYSTOLE), 0)
    on_condition(book, begin(Kind.NSVT), 0)
    assert on_clock(book, 29_999) == []
    levels = []
    for now in (30_000, 45_000, 60_000, 120_000, 500_000):
        if now == 45_000:
            on_condition(book, end(Kind.ASYSTOLE), now)
        levels += [(now, c.alarm.kind, c.alarm.escalation) for c in on_clock(book, now)]
    assert levels == [(30_000, Kind.ASYSTOLE, 1), (60_000, Kind.ASYSTOLE, 2), (120_000, Kind.ASYSTOLE, 3)]


def test_audio_pause_ends_by_itself_and_is_never_longer_than_two_minutes():
    """The alarms that stand are silent for 2 min, with the end in each; a longer pause is refused in words."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.TACHY), 0)
    refused = on_action(book, "pause", "anna", None, {"seconds": 600.0}, 1_000)
    assert not refused.accepted
    assert "at most 120" in refused.message
    outcome = on_action(book, "pause", "anna", None, {}, 1_000)
    assert told(outcome.changes) == [(Kind.TACHY, Presence.ON, Reason.PAUSED, False)]
    alarm = outcome.changes[0].alarm
    assert alarm.silent_until_ms == book.pause_until_ms == 121_000
    assert not is_sounding(alarm, 120_999)
    assert is_sounding(alarm, 121_000)
    assert told(on_clock(book, 121_000)) == [(Kind.TACHY, Presence.ON, Reason.RESUMED, False)]
    assert book.pause_until_ms == 0


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf"), True, "60"])
def test_no_strange_pause(seconds: float | str | bool):
    """What is no time in range pauses nothing."""
    book = AlarmBook("p")
    assert not on_action(book, "pause", "anna", None, {"seconds": seconds}, 0).accepted
    assert book.pause_until_ms == 0


def test_higher_alarm_breaks_through_a_pause_and_a_lower_one_does_not():
    """During a pause over a medium alarm a low one is silent, a high one sounds and ends the pause for all."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.TACHY), 0)
    on_action(book, "pause", "anna", None, {}, 1_000)
    (low,) = on_condition(book, begin(Kind.PVC_PAIR), 2_000)
    assert not is_sounding(low.alarm, 2_000)
    changes = on_condition(book, begin(Kind.EXTREME_TACHY), 3_000)
    assert [(c.alarm.kind, c.reason) for c in changes] == [
        (Kind.TACHY, Reason.RESUMED),
        (Kind.PVC_PAIR, Reason.RESUMED),
        (Kind.EXTREME_TACHY, Reason.RAISED),
    ]
    assert all(is_sounding(alarm, 3_000) for alarm in book.alarms.values())


def test_lethal_alarm_is_never_covered_by_a_pause_that_began_before():
    """Even if a lethal alarm stood when the pause began, the next one sounds."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.VTACH), 0)
    on_action(book, "pause", "anna", None, {}, 1_000)
    changes = on_condition(book, begin(Kind.ASYSTOLE), 2_000)
    assert is_sounding(changes[-1].alarm, 2_000)
    assert book.pause_until_ms == 0


def test_a_pause_can_be_ended():
    """Resume brings the sound back; there is nothing to resume twice."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.TACHY), 0)
    on_action(book, "pause", "anna", None, {"seconds": 60}, 1_000)
    assert told(on_action(book, "resume", "anna", None, {}, 2_000).changes) == [
        (Kind.TACHY, Presence.ON, Reason.RESUMED, False)
    ]
    assert not on_action(book, "resume", "anna", None, {}, 3_000).accepted


def test_what_can_not_be_done_has_no_effect_and_says_why():
    """Unknown actions and alarms, alarms that are off or acknowledged already."""
    book = AlarmBook("p")
    (raised,) = on_condition(book, begin(Kind.TACHY), 0)
    before = msgspec.msgpack.encode(book)
    for name, alarm in (("dance", None), ("ack", "p/TACHY/0/1"), ("", raised.alarm.id)):
        outcome = on_action(book, name, "anna", alarm, {}, 0)
        assert (outcome.accepted, outcome.changes) == (False, [])
        assert outcome.message
    assert msgspec.msgpack.encode(book) == before
    on_action(book, "ack", "anna", raised.alarm.id, {}, 1)
    assert "already" in on_action(book, "ack", "bert", raised.alarm.id, {}, 2).message
    on_condition(book, end(Kind.TACHY), 3)
    assert "is off" in on_action(book, "ack", "bert", raised.alarm.id, {}, 4).message
    assert not on_action(book, "ack", "bert", None, {}, 5).accepted


def test_atrial_fibrillation_is_announced_at_onset_and_end_only():
    """No reminder between; the end is announced."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.AFIB), 0)
    on_action(book, "ack", "anna", None, {}, 1_000)
    assert on_clock(book, 60 * MIN) == []
    (gone,) = on_condition(book, end(Kind.AFIB), 61 * MIN)
    assert (gone.announce, gone.alarm.presence) == (True, Presence.OFF)


def test_new_values_are_shown_and_not_announced():
    """One alarm, a revision each; the same again is no change."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.TACHY, value=130.0), 0)
    (change,) = on_condition(book, begin(Kind.TACHY, value=150.0), 1_000)
    assert (change.alarm.value, change.alarm.revision, change.announce) == (150.0, 1, False)
    assert on_condition(book, begin(Kind.TACHY, value=150.0), 2_000) == []


def test_a_condition_that_comes_back_with_an_older_onset_is_the_same_alarm():
    """An identity is never used for two: revisions go on."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.PVC_PAIR, 1000), 0)
    on_condition(book, end(Kind.PVC_PAIR, 1000), 1_000)
    (again,) = on_condition(book, begin(Kind.PVC_PAIR, 900), 2_000)
    assert (again.alarm.id, again.alarm.revision, again.announce) == ("p/PVC_PAIR/0/1000", 2, True)


def test_new_epoch_ends_what_stood():
    """What stood before the device started anew latches or goes; identities count from the new epoch."""
    book = AlarmBook("p", epoch=1)
    on_condition(book, begin(Kind.VTACH), 0)
    on_condition(book, begin(Kind.PVC_RATE), 0)
    assert told(on_epoch(book, 2, 1_000)) == [
        (Kind.VTACH, Presence.LATCHED, Reason.LATCHED, False),
        (Kind.PVC_RATE, Presence.OFF, Reason.ENDED, False),
    ]
    (raised,) = on_condition(book, begin(Kind.VTACH), 2_000)
    assert raised.alarm.id == "p/VTACH/2/1000"
    assert on_epoch(book, 2, 3_000) == []


def test_latching_is_a_setting_of_the_institution_but_not_for_lethal_alarms():
    """Without latching EXTREME_TACHY goes with its condition, VFIB does not."""
    policy = Policy(latch=frozenset())
    book = AlarmBook("p")
    for kind, presence in ((Kind.EXTREME_TACHY, Presence.OFF), (Kind.VFIB, Presence.LATCHED)):
        on_condition(book, begin(kind), 0, policy=policy)
        (change,) = on_condition(book, end(kind), 1_000, policy=policy)
        assert change.alarm.presence is presence


def test_time_never_runs_backwards():
    """An entry with an older clock counts as now."""
    book = AlarmBook("p")
    on_clock(book, 10_000)
    (raised,) = on_condition(book, begin(Kind.TACHY), 5_000)
    assert raised.alarm.raised_ms == 10_000


def test_end_of_a_condition_that_does_not_stand_is_counted():
    """It changes nothing."""
    book = AlarmBook("p")
    assert on_condition(book, end(Kind.TACHY), 0) == []
    assert book.strays == 1


def test_event_of_a_change():
    """All that the page needs is in the event; the onset counts at the device's rate."""
    book = AlarmBook("p", epoch=3)
    (raised,) = on_condition(book, begin(Kind.VFIB), 10_000, onset_ms=7_777)
    event = to_event(raised, "p", "d1", 360.0)
    assert (event.id, event.onset_sample, event.onset_ms) == ("p/VFIB/3/1000", 1440, 7_777)
    assert (event.presence, event.priority, event.lethal, event.technical) == ("on", 3, True, False)
    assert (event.reason, event.announced_ms, event.revision) == ("raised", 10_000, 0)


@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_lives_and_ends(kind: Kind):
    """On, acknowledged and off for each row of the table."""
    book = AlarmBook("p")
    (raised,) = on_condition(book, begin(kind), 0)
    assert raised.alarm.priority is KINDS[kind].priority
    assert on_action(book, "ack", "anna", raised.alarm.id, {}, 1).accepted
    (gone,) = on_condition(book, end(kind), 2)
    assert gone.alarm.presence is Presence.OFF
    assert not book.alarms
    assert not book.active


def test_a_kind_that_is_switched_off_ends_at_once():
    """Its alarm goes and says by whom; a lethal one that nobody acknowledged stays latched and loud."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.TACHY), 0)
    on_condition(book, begin(Kind.VFIB), 0)
    on_condition(book, begin(Kind.ASYSTOLE), 0)
    on_action(book, "ack", "anna", book.active[Kind.ASYSTOLE], {}, 1)
    changes = on_switched_off(book, {Kind.TACHY, Kind.VFIB, Kind.ASYSTOLE, Kind.PAUSE}, "bert", 5_000)
    assert told(changes) == [
        (Kind.ASYSTOLE, Presence.OFF, Reason.SWITCHED_OFF, False),
        (Kind.TACHY, Presence.OFF, Reason.SWITCHED_OFF, False),
        (Kind.VFIB, Presence.LATCHED, Reason.SWITCHED_OFF, False),
    ]
    assert all("switched off by bert" in change.alarm.detail for change in changes)
    assert is_sounding(changes[-1].alarm, 5_000)
    assert on_condition(book, end(Kind.TACHY), 6_000) == []
    assert book.strays == 1


def test_discharge_ends_all_and_says_who():
    """Standing, latched and acknowledged alarms go with the patient, and so does the audio pause."""
    book = AlarmBook("p")
    on_condition(book, begin(Kind.VTACH), 0)
    on_condition(book, end(Kind.VTACH), 1_000)
    on_condition(book, begin(Kind.TACHY), 1_000)
    on_action(book, "ack", "anna", book.active[Kind.TACHY], {}, 2_000)
    on_action(book, "pause", "anna", None, {}, 2_000)
    changes = on_discharge(book, "bert", 3_000)
    assert {change.reason for change in changes} == {Reason.DISCHARGED}
    assert {change.alarm.presence for change in changes} == {Presence.OFF}
    assert {(change.alarm.kind, change.alarm.acked_by) for change in changes} == {
        (Kind.VTACH, "bert"),
        (Kind.TACHY, "anna"),
    }
    assert not book.alarms
    assert not book.pause_until_ms
    # The same evidence again is the same identity with a later revision, so that no listener drops it.
    (again,) = on_condition(book, begin(Kind.TACHY), 4_000)
    assert again.alarm.revision > 2
    assert again.alarm.acked_by is None
