"""The stores round alarms on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import msgspec
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, select, text
from wall_fakes import alarm

from alerts.alarm_log import AlarmLog
from alerts.contacts import Contact, Contacts
from alerts.database import MIGRATIONS, StoreError, open_engine, upgrade
from alerts.deliveries import DELIVERIES, Deliveries, Delivery
from alerts.evidence import Evidence, EvidenceStore
from alerts.judging import BeatLabel, Judgement, Judging
from alerts.limits import ADULT, limits_from, values_of
from alerts.load import load_figures
from alerts.store import Store
from bus.messages import AlarmEvent, SettingsEvent, partition_of

NOW = 1_760_000_000_000
DAY = 86_400_000


def raised(number: int, patient: str = "p", kind: str = "TACHY", **more: object) -> AlarmEvent:
    """Make an alarm that is over, `number` minutes before now."""
    made = alarm(patient, kind, 2, presence="off", value=130.0 + number, limit=120.0)
    at = NOW - number * 60_000
    values = {"id": f"{patient}/{kind}/1/{number}", "raised_ms": at, "onset_ms": at - 4_000} | more
    return msgspec.structs.replace(made, **values)


def write(url: str, *events: AlarmEvent | SettingsEvent) -> None:
    """Let the historian write events."""
    with Store(url) as store:
        store.write(0, [(f"5-{number}", event) for number, event in enumerate(events)], f"5-{len(events)}")


def test_settings_in_force_are_the_newest_of_each_patient(url: str, engine: Engine):
    """Two in one millisecond: that with the later place; every field comes back, and limits from it."""
    assert engine.dialect.name in url
    first = SettingsEvent("p", "d", NOW, "limits", "anna", "adult", values_of(ADULT) | {"tachy": 130.0}, ("PAUSE",))
    second = msgspec.structs.replace(
        first,
        off=("VFIB", "PAUSE"),
        lethal_off=("VFIB",),
        pause_until_ms=NOW + 5,
        pause_by="bert",
        vacant=True,
        note="x",
    )
    other = msgspec.structs.replace(first, patient="q", ms=NOW - 5)
    write(url, other, first, second)
    with Store(url) as store:
        assert {event.patient: event for event in store.settings_in_force()} == {"p": second, "q": other}
    limits = limits_from(second.values | {"of_a_later_version": 1.0}, (*second.off, "NEW_KIND"))
    assert (limits.tachy, sorted(limits.off)) == (130.0, ["PAUSE", "VFIB"])


def test_alarms_are_found_and_queued(url: str, engine: Engine):
    """By patient, time, kind and judgement; the queue holds what has evidence, worst first, until it is judged."""
    worse = raised(5, kind="VTACH", priority=3)
    write(url, raised(1), raised(2), worse, raised(3, "q"), raised(4, kind="LEADS_OFF", technical=True))
    log, judging, evidence = AlarmLog(engine), Judging(engine), EvidenceStore(engine)
    assert [item.alarm.id for item in log.find(patient="p", kind="TACHY")] == [raised(1).id, raised(2).id]
    assert len(log.find(since_ms=NOW - 180_000, until_ms=NOW - 60_000)) == 2
    assert {item.id for item in evidence.wanted(0, NOW + 1)} == {
        raised(1).id,
        raised(2).id,
        worse.id,
        raised(3, "q").id,
    }
    strip = Evidence(0, 1, 250.0, "II", [0.1, None], "", 32.0, 40, 50.0, [], "rule", "v1", {})
    for item in (raised(1), worse):
        evidence.keep(item, strip, NOW)
        evidence.keep(item, None, NOW + 1)
    evidence.keep(raised(2), None, NOW)
    assert evidence.load(worse.id) == strip
    assert [item.alarm.id for item in log.queue()] == [worse.id, raised(1).id]
    judging.judge(worse.id, "p", Judgement("true", "anna", NOW))
    judging.judge(worse.id, "p", Judgement("false", "bert", NOW + 1, "artefact of the pump"))
    assert [item.alarm.id for item in log.queue()] == [raised(1).id]
    (found,) = log.find(judged=True)
    assert found.judgement == Judgement("false", "bert", NOW + 1, "artefact of the pump")
    assert found.evidence
    assert judging.by_kind() == {"VTACH": {"true": 0, "false": 1, "artefact": 0}}
    assert evidence.expire(NOW + 1) == 3


def test_the_newest_label_of_a_beat_counts(engine: Engine):
    """All are kept; epochs and samples of 63 bits too."""
    judging = Judging(engine)
    for code, who in (("V", "anna"), ("A", "bert")):
        judging.label(BeatLabel("p", 2**63 - 1, 2**40, code, who, NOW))
    judging.label(BeatLabel("p", 1, 7, "N", "anna", NOW))
    assert [(item.sample, item.code) for item in judging.labels("p")] == [(7, "N"), (2**40, "A")]
    assert judging.labels("p", 3) == judging.labels("q") == []


def test_contacts_and_the_outbox(engine: Engine):
    """Contacts are replaced as a whole or not at all; a message is there once, and settled only while it waits."""
    contacts, outbox = Contacts(engine), Deliveries(engine)
    (made,) = contacts.replace([Contact("pager", "webhook", "https://x.example/")])
    with pytest.raises(StoreError, match="no e-mail address"):
        contacts.replace([Contact("mail", "email", "nobody")])
    assert [item.id for item in contacts.all()] == [made.id]
    rows = [Delivery(f"k{n}", "a", "p", made.id, "pager", "webhook", 0, NOW + n, due_ms=NOW - n) for n in range(3)]
    assert outbox.add(rows, {4: "5-1"}) == 3
    assert outbox.add(rows, {4: "5-2"}) == 0
    assert outbox.cursors() == {4: "5-2"}
    assert outbox.waiting_contacts() == [made.id]
    assert [item.id for item in outbox.waiting(made.id, 2)] == ["k2", "k1"]
    outbox.note(msgspec.structs.replace(rows[0], state="sent", tries=1, done_ms=NOW))
    assert outbox.settle("a", NOW, "acknowledged") == 2
    outbox.note(msgspec.structs.replace(rows[1], state="sent"))
    assert {item.id: item.state for item in outbox.recent()} == {"k0": "sent", "k1": "settled", "k2": "settled"}
    assert outbox.waiting_contacts() == []
    assert outbox.expire(NOW + 2) == 2


def test_the_load_by_ward_and_hour(url: str, engine: Engine):
    """Patient-days from each patient's first alarm where nothing is recorded; wards as they are now."""
    write(url, *(raised(n) for n in range(1, 5)), raised(720, "q"), raised(3, "q", "VFIB", retrospective=True))
    load = load_figures(engine, NOW, 1.0, ward_of=lambda patient: "7" if patient == "p" else "")
    assert (load.count, load.judged, load.judged_false_share) == (5, 0, None)
    assert {ward: share.count for ward, share in load.by_ward.items()} == {"7": 4, "": 1}
    assert load.by_ward[""].per_patient_day == 2.0
    assert sum(load.by_hour) == 5
    assert [(item.patient, item.count) for item in load.noisiest] == [("p", 4), ("q", 1)]
    assert load_figures(engine, NOW - 2 * DAY, 1.0).count == 0


def test_the_first_minutes_give_no_rate(url: str, engine: Engine):
    """Below 6 h of patients a rate a patient-day is not given, of the whole, a kind, or a ward."""
    write(url, raised(1), raised(2), raised(720, "q"))
    early = load_figures(engine, NOW, 0.2)
    assert (early.count, early.per_patient_day) == (2, None)
    assert {share.per_patient_day for share in (*early.by_kind.values(), *early.by_ward.values())} == {None}
    wards = load_figures(engine, NOW, 1.0, ward_of=lambda patient: patient)
    assert wards.per_patient_day is not None
    assert (wards.by_ward["p"].per_patient_day, wards.by_ward["q"].per_patient_day) == (None, 2.0)


def test_one_notifier_claims_a_message(engine: Engine):
    """Of two that list it at once one may send it; it is due for others when the claim has run out or is given back."""
    outbox = Deliveries(engine)
    outbox.add([Delivery("k", "a", "p", "c", "pager", "webhook", 0, NOW, due_ms=NOW)], {})
    one, other = outbox.waiting("c"), outbox.waiting("c")
    (claimed,) = outbox.claim(one, NOW + 9)
    assert outbox.claim(other, NOW + 9) == []
    assert [item.due_ms for item in outbox.waiting("c")] == [NOW + 9]
    outbox.release([claimed], NOW + 1)
    (again,) = outbox.claim(outbox.waiting("c"), NOW + 20)
    outbox.note(msgspec.structs.replace(again, state="sent", done_ms=NOW + 2))
    outbox.release([again], NOW + 3)
    assert (outbox.claim([again], NOW + 30), outbox.recent()[0].state) == ([], "sent")


def test_messages_wait_for_the_notifier_of_their_partition(engine: Engine):
    """Each lists those about its own patients, however many others wait; a position never goes back."""
    outbox = Deliveries(engine)
    patients = [f"bed-{number}" for number in range(40)]
    outbox.add(
        [Delivery(name, "a", name, "c", "pager", "webhook", 0, NOW, due_ms=NOW) for name in patients],
        {3: "10-9", 4: "5-0"},
    )
    outbox.add([], {3: "9-10", 4: "5-1", 5: "1-0"})
    assert outbox.cursors() == {3: "10-9", 4: "5-1", 5: "1-0"}
    halves = (range(32), range(32, 64))
    for half in halves:
        listed = [item.id for item in outbox.waiting("c", 100, half)]
        assert sorted(listed) == sorted(name for name in patients if partition_of(name) in half)
        assert outbox.waiting_contacts(half) == ["c"]
    assert outbox.waiting_contacts(range(0)) == []


def test_messages_of_before_there_were_ranges_get_their_partition(url: str):
    """What waits when the schema is brought up to date is sent by the notifier of its patient."""
    engine = open_engine(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")
        connection.execute(
            text(
                "INSERT INTO deliveries (id, alarm, patient, contact, label, channel, level, made_ms, state, tries,"
                " due_ms, error, message) VALUES ('k', 'a', 'bed-1', 'c', '', 'webhook', 0, 1, 'waiting', 0, 1, '', '')"
            )
        )
    upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalars(select(DELIVERIES.c.partition)).all() == [partition_of("bed-1")] != [0]
    assert [item.id for item in Deliveries(engine).waiting("c", 5, [partition_of("bed-1")])] == ["k"]
    engine.dispose()
