"""Admission to discharge through the routes: stays, notes, consent, what may be kept, retention."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from history_reading import changes_of, recent_alarms
from hypothesis import given
from hypothesis import strategies as st
from people_app import Site, empty, site
from sqlalchemy import insert

from alerts.care import RETENTION, Care, _agreed, new_person
from alerts.care_desk import Desk
from alerts.care_model import Consent
from alerts.care_retention import expire_events
from alerts.care_rows import ELSEWHERE, WITHOUT_TIME, reached
from alerts.database import StoreError, open_engine, upgrade
from alerts.store import Store
from alerts.tables_all import Base
from bus.errors import BusUnavailableError
from bus.messages import Action, StatusEvent

__all__ = ["empty", "site"]

NAME = "Änne Zwölfzeiler"
DEADLINE_S = 60.0
ADMISSION = {"name": NAME, "born": "1941-05-06", "sex": "female", "bed": "7", "ward": "West", "profile": "elderly"}


@pytest.fixture
def care(url: str) -> Iterator[Care]:
    engine = open_engine(url)
    upgrade(engine)
    yield Care(engine)
    engine.dispose()


def beds(site: Site) -> dict[str, dict[str, object]]:
    """Beds by channel, as the page gets them."""
    return {row["patient"]: row for row in site.client.get("/api/beds", headers=site.enter("viewer")).json()}


def test_a_person_comes_moves_and_goes(site: Site) -> None:
    """Each step writes the stay, tells the stream in order, shows on the wall, and is in the trail without a name."""
    acting, client = site.enter("clinician"), site.client
    stay = client.post("/api/patients/dev-1/admit", json=ADMISSION, headers=acting).json()
    assert beds(site)["dev-1"]["name"] == NAME
    assert beds(site)["dev-1"]["profile"] == "elderly"
    assert client.post("/api/patients/dev-1/admit", json=ADMISSION, headers=acting).status_code == 409
    again = {"person": stay["person"], "bed": "9"}
    assert client.post("/api/patients/dev-2/admit", json=again, headers=acting).status_code == 409
    move = {"bed": "8", "ward": "East", "device": "dev-2"}
    moved = client.post("/api/patients/dev-1/transfer", json=move, headers=acting).json()
    assert (moved["patient"], moved["person"], moved["bed"]) == ("dev-2", stay["person"], "8")
    shown = beds(site)
    assert shown["dev-2"]["name"] == NAME
    assert "dev-1" not in shown or shown["dev-1"]["person"] is None
    assert client.post("/api/patients/dev-2/transfer", json={"bed": "1"}, headers=acting).status_code == 200
    assert client.post("/api/patients/dev-2/discharge", headers=acting).status_code == 200
    assert client.post("/api/patients/dev-2/discharge", headers=acting).status_code == 409
    told = [(patient, action.name, action.values["profile"]) for patient, action in site.ward.actions]
    assert told == [
        ("dev-1", "admit", "elderly"),
        ("dev-1", "discharge", "elderly"),
        ("dev-2", "admit", "elderly"),
        ("dev-2", "discharge", "elderly"),
    ]
    stays = site.care.stays(person=stay["person"])
    assert [(item.patient, item.bed) for item in stays] == [("dev-1", "7"), ("dev-2", "8"), ("dev-2", "1")]
    assert all(before.to_ms == after.from_ms for before, after in pairwise(stays))
    trail = str(site.audit.rows())
    assert [row.act for row in reversed(site.audit.rows())].count("patient.transfer") == 2
    assert NAME not in trail
    assert "1941" not in trail


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"bed": "1"}, 422),
        ({"name": "x"}, 422),
        ({"name": "x", "bed": "1", "profile": "giant"}, 409),
        ({"person": "nobody", "bed": "1"}, 404),
        ({"name": "x", "bed": "1", "born": "5.6.41"}, 422),
    ],
)
def test_a_bad_admission_changes_nothing(empty: Site, body: dict[str, str], status: int) -> None:
    """What is missing or wrong is said; no stay and no word to the stream come of it."""
    answer = empty.client.post("/api/patients/dev-1/admit", json=body, headers=empty.enter("clinician"))
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()["detail"], str)
    assert empty.care.open_stays() == []
    assert empty.ward.actions == []


def test_a_device_without_a_patient_shows_as_such(site: Site) -> None:
    """A channel that sends and has no stay is listed with nobody on it."""
    site.ward.send(StatusEvent("Bed 1", "dev", 1, "MLII", ("MLII",), "good"))
    deadline = time.monotonic() + DEADLINE_S
    while "Bed 1" not in beds(site):
        assert time.monotonic() < deadline
    empty = beds(site)["Bed 1"]
    assert (empty["person"], empty["name"], empty["device"]) == (None, None, "dev")
    site.care.admit(new_person(NAME, 1), "Bed 1", "1", "W", "adult", "x", 1)
    assert beds(site)["Bed 1"]["name"] == NAME
    site.care.discharge("Bed 1", "x", 2)
    assert beds(site)["Bed 1"]["person"] is None


def test_notes_and_consents_belong_to_the_person(site: Site) -> None:
    """They go with the person to another device and are not shown for the next on the old one."""
    acting, client = site.enter("clinician"), site.client
    assert client.get("/api/patients/dev-1/notes", headers=acting).status_code == 404
    client.post("/api/patients/dev-1/admit", json=ADMISSION, headers=acting)
    assert client.post("/api/patients/dev-1/notes", json={"text": "sleeps badly"}, headers=acting).status_code == 201
    said = {"purpose": "monitoring", "given": True, "by": "herself"}
    assert client.post("/api/patients/dev-1/consent", json=said, headers=acting).json() == {"consent": ["monitoring"]}
    client.post("/api/patients/dev-1/transfer", json={"bed": "2", "device": "dev-2"}, headers=acting)
    client.post("/api/patients/dev-1/admit", json=ADMISSION | {"name": "Other"}, headers=acting)
    assert client.get("/api/patients/dev-1/notes", headers=acting).json() == []
    (note,) = client.get("/api/patients/dev-2/notes", headers=acting).json()
    assert (note["text"], note["user"]) == ("sleeps badly", "the clinician")
    (consent,) = client.get("/api/patients/dev-2/consent", headers=acting).json()
    assert (consent["purpose"], consent["given"], consent["by"]) == ("monitoring", True, "herself")
    assert beds(site)["dev-2"]["notes_count"] == 1
    assert beds(site)["dev-2"]["consent"] == ["monitoring"]
    assert "sleeps" not in str(site.audit.rows())


def test_logs_name_no_patient(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the routes of care do, right or wrong, no log line holds a name, a birth date or a note."""
    caplog.set_level(logging.DEBUG)
    acting, client = site.enter("clinician"), site.client
    stay = client.post("/api/patients/dev-1/admit", json=ADMISSION, headers=acting).json()
    client.post("/api/patients/dev-1/admit", json=ADMISSION, headers=acting)
    client.post("/api/patients/dev-2/admit", json=ADMISSION | {"born": NAME}, headers=acting)
    client.post("/api/patients/dev-1/notes", json={"text": "sleeps badly"}, headers=acting)
    client.get(f"/api/persons/{stay['person']}/access.zip", headers=acting)
    client.get("/fhir/R4/Patient", params={"name": NAME}, headers=acting)
    client.delete(f"/api/persons/{stay['person']}", headers=site.enter("admin"))
    lines = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    for secret in (NAME, "Zw", "1941", "sleeps"):
        assert secret not in lines


# --- stays on both databases -------------------------------------------------------------------------------------


def test_two_admissions_to_one_device_leave_one(care: Care) -> None:
    """At the same moment, on both databases: one person is admitted, the other is refused."""
    barrier, refused = threading.Barrier(2), []

    def come(name: str) -> None:
        barrier.wait(DEADLINE_S)
        try:
            care.admit(new_person(name, 1), "dev-1", "1", "W", "adult", "x", 10)
        except StoreError as error:
            refused.append(error)

    threads = [threading.Thread(target=come, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(refused) == 1
    assert len(care.open_stays()) == 1
    assert len(care.persons()) == 1


def test_stays_of_a_channel_never_overlap(care: Care) -> None:
    """Even when the clock steps back between discharge and admission."""
    care.admit(new_person("a", 1), "dev-1", "1", "W", "adult", "x", 1000)
    care.discharge("dev-1", "x", 900)
    care.admit(new_person("b", 1), "dev-1", "1", "W", "adult", "x", 800)
    first, second = care.stays(patient="dev-1")
    assert first.from_ms < first.to_ms <= second.from_ms
    assert care.stay_at("dev-1", second.from_ms) == second
    assert care.stay_at("dev-1", first.from_ms) == first
    assert care.stay_at("dev-1", 0) is None


async def test_a_stream_is_told_once_the_bus_is_back(care: Care) -> None:
    """An admission stands while the bus is away, and its stream hears of it afterwards, in order."""
    sent: list[tuple[str, str]] = []
    away = True

    async def send(channel: str, action: Action) -> None:
        if away:
            raise BusUnavailableError("gone")
        sent.append((channel, action.name))

    desk = Desk(care, send)
    await desk.admit(new_person("a", 1), "dev-1", "1", "W", "adult", "x")
    await desk.discharge("dev-1", "x")
    assert sent == []
    away = False
    assert await desk.flush("dev-1")
    assert sent == [("dev-1", "admit"), ("dev-1", "discharge")]
    assert care.turnovers(["dev-1"], 2**62) == []


# --- consent and what may be kept --------------------------------------------------------------------------------


def test_recordings_are_kept_with_consent_within_the_stay_alone(care: Care) -> None:
    """Before the yes, after the no, outside the stay, on another channel: nothing is kept."""
    person = new_person("a", 1)
    care.admit(person, "dev-1", "1", "W", "adult", "x", 1000)
    assert not care.may_keep("dev-1", 1500)
    care.consent(Consent(person.person, "training", True, "a", "x", 1100))
    assert not care.may_keep("dev-1", 1500)
    care.consent(Consent(person.person, "monitoring", True, "a", "x", 2000))
    assert not care.may_keep("dev-1", 1999)
    assert care.may_keep("dev-1", 2000)
    assert not care.may_keep("dev-2", 2000)
    care.discharge("dev-1", "x", 5000)
    fresh = Care(care.engine)
    assert fresh.may_keep("dev-1", 4999)
    assert not fresh.may_keep("dev-1", 5000)
    care.consent(Consent(person.person, "monitoring", False, "a", "x", 6000))
    assert not care.may_keep("dev-1", 3000)


def test_what_may_be_kept_is_looked_up_again(url: str) -> None:
    """A yes that another process wrote down counts within a second."""
    engine = open_engine(url)
    upgrade(engine)
    now = 0.0
    reader, writer = Care(engine, lambda: now), Care(engine)
    person = new_person("a", 1)
    writer.admit(person, "dev-1", "1", "W", "adult", "x", 1000)
    assert not reader.may_keep("dev-1", 3000)
    writer.consent(Consent(person.person, "monitoring", True, "a", "x", 2000))
    now = 1.1
    assert reader.may_keep("dev-1", 3000)
    engine.dispose()


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=8).map(sorted))
def test_agreed_times_end_with_a_no(said: list[tuple[int, bool]]) -> None:
    """A last no takes all; else the times are apart, in order, and begin with a yes."""
    times = _agreed(said)
    if not said or not said[-1][1]:
        assert times == []
        return
    assert times[-1][1] == float("inf")
    assert all(before[1] <= after[0] for before, after in pairwise(times))
    assert all((begin, True) in said for begin, _ in times)


# --- retention ---------------------------------------------------------------------------------------------------


def test_retention_is_set_within_its_range(site: Site) -> None:
    """Defaults, a change, and what is refused."""
    admin, client = site.enter("admin"), site.client
    assert client.get("/api/retention", headers=admin).json() == dict(RETENTION)
    assert client.put("/api/retention", json={"events_days": 7}, headers=admin).json()["events_days"] == 7
    assert client.put("/api/retention", json={"events_days": 0}, headers=admin).status_code == 409
    assert client.get("/api/retention", headers=admin).json()["events_days"] == 7


def test_every_table_with_a_channel_is_reached() -> None:
    """A table with a column ``patient`` that erasure and retention would miss fails here."""
    known = set(reached()) | ELSEWHERE | WITHOUT_TIME
    missed = [table.name for table in Base.metadata.sorted_tables if "patient" in table.c and table.name not in known]
    assert missed == []
    assert {"alarms", "alarm_changes", "rhythms", "statuses", "evidence", "minutes"} <= set(reached())


def test_old_rows_go_by_kind_and_open_alarms_stay(care: Care, url: str) -> None:
    """Events and evidence have their own days; an alarm that is not over and the settings in force stay."""
    from test_store import alarm

    with Store(url) as store:
        store.write(0, [("1-0", alarm(1, presence="off")), ("1-1", alarm(2)), ("1-2", alarm(3, presence="off"))], "1-2")
        tables = reached()
        judgements = tables["judgements"][0]
        with care.engine.begin() as connection:
            connection.execute(
                insert(judgements),
                [
                    {"alarm": "x", "patient": "p", "ms": ms, "who": "u", "verdict": "true", "comment": ""}
                    for ms in (1, 9)
                ],
            )
        person = new_person("a", 1)
        care.admit(person, "p", "1", "W", "adult", "x", 1)
        care.discharge("p", "x", 2)
        care.admit(new_person("b", 1), "p", "1", "W", "adult", "x", 3)
        late = recent_alarms(store)[0].onset_ms + 1
        counts = expire_events(care.engine, {"events": late, "evidence": 5, "stays": 3})
        assert [item.presence for item in recent_alarms(store)] == ["on"]
        assert changes_of(store, alarm(1).id) == []
        assert len(changes_of(store, alarm(2).id)) == 1
        assert counts["evidence"] == 1
        assert counts["stays"] == 1
        assert care.person(person.person) is None
        assert len(care.open_stays()) == 1
