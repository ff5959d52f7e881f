"""Alarms over HTTP: what each act puts into the stream, what is refused and why, and what the history answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import msgspec
import pytest
from people_app import Site, running_site
from wall_fakes import alarm

from alerts.deliveries import Delivery, key_of
from alerts.evidence import Evidence, EvidenceBeat
from alerts.limits import ADULT, PROFILES, values_of
from alerts.stores import AlarmStores
from bus.errors import BusUnavailableError
from bus.messages import Action, AlarmEvent, SettingsEvent
from web import wire

BED = "Bed 1"
DEADLINE_S = 60.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path) as site:
        site.ward.raise_alarm(TACHY)
        until(lambda: TACHY.id in site.app.state.hub.board.alarms)
        yield site


TACHY = alarm(BED, "TACHY", 2, value=134.0, limit=120.0)


def until(condition) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def settings(**more: object) -> SettingsEvent:
    """Make settings of the bed."""
    fields: dict[str, object] = {
        "patient": BED, "device": "dev", "ms": int(time.time() * 1000), "reason": "limits", "user": "anna",
        "profile": "adult", "values": values_of(ADULT), "off": (),
    } | more  # fmt: skip
    return SettingsEvent(**fields)  # type: ignore[arg-type]


def tell(site: Site, event: SettingsEvent) -> None:
    """Let the worker tell settings."""
    site.ward.send(event)
    until(lambda: site.app.state.hub.board.bed(event.patient).settings == event)


def written(site: Site, *events: AlarmEvent) -> AlarmStores:
    """Let the historian write alarms; the stores of the site."""
    site.store.write(0, [(f"1-{number}", event) for number, event in enumerate(events)], "1-99")
    return AlarmStores(site.engine)


def trail(site: Site) -> list[tuple[str, str, str]]:
    """User, act and subject of the audit trail, oldest first."""
    return [(row.user, row.act, row.subject) for row in reversed(site.audit.rows())]


def test_acknowledging_is_an_entry_of_the_stream_and_a_row_of_the_trail(site: Site) -> None:
    """One alarm by its id, or all of a patient."""
    headers = site.enter("monitor")
    answer = site.client.post(f"/api/alarms/{TACHY.id}/ack", headers=headers)
    assert (answer.status_code, answer.json()) == (202, {"presence": "on"})
    assert site.client.post(f"/api/patients/{BED}/ack", headers=headers).status_code == 202
    assert site.ward.actions == [
        (BED, Action("ack", "the monitor", TACHY.id)),
        (BED, Action("ack", "the monitor")),
    ]
    assert trail(site) == [
        ("the monitor", "alarm.ack", TACHY.id),
        ("the monitor", "alarm.ack_all", BED),
    ]
    assert site.client.post("/api/alarms/Bed 1/VFIB/1/2/ack", headers=headers).status_code == 404
    assert site.client.post("/api/patients/nobody/ack", headers=headers).status_code == 404


def test_audio_pauses_of_one_and_of_all(site: Site) -> None:
    """The longest is two minutes, which is also what is meant without a number."""
    headers = site.enter("monitor")
    post = site.client.post
    assert post(f"/api/patients/{BED}/pause", headers=headers, json={"seconds": 30}).status_code == 202
    assert post(f"/api/patients/{BED}/pause", headers=headers).status_code == 202
    for seconds in (0, -1, 121, "long"):
        answer = post(f"/api/patients/{BED}/pause", headers=headers, json={"seconds": seconds})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("seconds: ")
    assert post("/api/pause", headers=headers, json={"seconds": 60}).json() == {"patients": 1}
    assert post(f"/api/patients/{BED}/resume", headers=headers).status_code == 202
    assert post("/api/resume", headers=headers).json() == {"patients": 0}
    tell(site, settings(reason="pause", pause_until_ms=2**40, pause_by="anna"))
    assert post("/api/resume", headers=headers).json() == {"patients": 1}
    assert [(action.name, action.values) for _, action in site.ward.actions] == [
        ("pause", {"seconds": 30.0}), ("pause", {"seconds": 120.0}), ("pause", {"seconds": 60.0}),
        ("resume", {}), ("resume", {}),
    ]  # fmt: skip
    assert ("the monitor", "audio.pause", "*") in trail(site)


def test_a_pause_that_was_not_stored_is_never_taken_for_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bus is away: 503, and nothing in the trail."""

    async def fail(patient: str, action: Action) -> None:
        raise BusUnavailableError("gone")

    monkeypatch.setattr(site.ward, "append", fail)
    headers = site.enter("clinician")
    for path in (f"/api/patients/{BED}/pause", "/api/pause", f"/api/patients/{BED}/ack"):
        assert site.client.post(path, headers=headers).status_code == 503
    answer = site.client.put(f"/api/patients/{BED}/limits", headers=headers, json={"values": {"tachy": 130}})
    assert answer.status_code == 503
    assert trail(site) == []


def test_limits_are_shown_with_ranges_defaults_and_kinds(site: Site) -> None:
    """Adult before anybody set something; then what the stream told."""
    headers = site.enter("viewer")
    shown = site.client.get(f"/api/patients/{BED}/limits", headers=headers).json()
    assert (shown["profile"], shown["values"]["tachy"], shown["off"], shown["changed_ms"]) == ("adult", 120, [], None)
    assert shown["ranges"]["tachy"] == [60, 250]
    assert shown["profiles"] == list(PROFILES)
    kinds = {row["kind"]: row for row in shown["kinds"]}
    assert len(kinds) == 23
    assert kinds["VFIB"]["lethal"]
    assert kinds["TACHY"]["limits"][0] == "tachy"
    tell(site, settings(profile="athlete", values=values_of(ADULT) | {"tachy": 131.0}, off=("PAUSE",)))
    shown = site.client.get(f"/api/patients/{BED}/limits", headers=headers).json()
    assert (shown["values"]["tachy"], shown["defaults"]["brady"], shown["off"]) == (131, 40, ["PAUSE"])
    assert not {row["kind"]: row for row in shown["kinds"]}["PAUSE"]["on"]
    assert shown["changed_by"] == "anna"


def test_limits_are_validated_as_a_set_against_those_in_force(site: Site) -> None:
    """What contradicts another limit is refused in words, and nothing goes into the stream."""
    headers = site.enter("clinician")

    def put(**values: object) -> httpx2.Response:
        return site.client.put(f"/api/patients/{BED}/limits", headers=headers, json={"values": values})

    answer = put(tachy=45)
    assert answer.status_code == 422
    assert "brady = 50 must lie below tachy = 45" in answer.json()["detail"]
    assert "There is no limit 'speed'" in put(speed=1).json()["detail"]
    assert put(tachy="fast").status_code == 422
    assert put(TACHY=3).status_code == 422
    assert put(vtach_beats=4.5).status_code == 422
    tell(site, settings(values=values_of(ADULT) | {"brady": 90.0, "extreme_brady": 70.0}))
    assert "Brady = 90 must lie below tachy = 95" in put(tachy=95).json()["detail"]
    assert site.ward.actions == []
    assert put(tachy=130, TACHY=False, afib_with_rate=True, nsvt_beats=4).status_code == 202
    ((patient, action),) = site.ward.actions
    assert (patient, action.name, action.user) == (BED, "limits", "the clinician")
    assert action.values == {"tachy": 130.0, "TACHY": False, "afib_with_rate": True, "nsvt_beats": 4.0}
    row = site.audit.rows()[0]
    assert row.act == "alarm.limits"
    assert row.detail == {
        "tachy": [120.0, 130.0],
        "afib_with_rate": [False, True],
        "nsvt_beats": [3, 4],
        "off": ["TACHY"],
    }


def test_a_profile_is_chosen_by_name(site: Site) -> None:
    """One of those there are, and never together with values."""
    headers = site.enter("clinician")
    path = f"/api/patients/{BED}/limits"
    assert site.client.put(path, headers=headers, json={"profile": "elderly"}).status_code == 202
    assert site.ward.actions == [(BED, Action("profile", "the clinician", values={"profile": "elderly"}))]
    assert (
        "no profile 'surgeon'" in site.client.put(path, headers=headers, json={"profile": "surgeon"}).json()["detail"]
    )
    assert site.client.put(path, headers=headers, json={"profile": "af", "values": {}}).status_code == 422
    assert site.client.put(path, headers=headers, json={}).status_code == 422


def evidence() -> Evidence:
    """Make evidence of a second."""
    beat = EvidenceBeat(1_000, 1, 40, "V", 0.9, "N", 0.1, 800)
    return Evidence(
        0, 1_000, 2.0, "MLII", [0.5, None], "", 16.0, 40, 45.0, [beat], "HR 134 > 120", "model 1", {"V": 0.9}
    )


def test_the_history_lists_and_judges_alarms(site: Site) -> None:
    """Found by patient, kind and time; judged once, they leave the queue; every judgement is kept."""
    other = alarm("Bed 2", "VTACH", 3, presence="off", raised_ms=5_000, onset_ms=1_000)
    stores = written(site, TACHY, other)
    headers = site.enter("monitor")

    def listed(**query: object) -> list[str]:
        return [row["alarm"]["id"] for row in site.client.get("/api/alarms", params=query, headers=headers).json()]

    assert listed() == [TACHY.id, other.id]
    assert listed(patient="Bed 2") == listed(kind="VTACH") == listed(until=6_000) == [other.id]
    assert listed(since=6_000) == [TACHY.id]
    assert listed(limit=1) == [TACHY.id]
    assert site.client.get("/api/judging", headers=headers).json() == []
    stores.evidence.keep(other, evidence(), 7_000)
    stores.evidence.keep(TACHY, None, 7_000)
    (waiting,) = site.client.get("/api/judging", headers=headers).json()
    assert (waiting["alarm"]["id"], waiting["evidence"], waiting["judgement"]) == (other.id, True, None)
    path = f"/api/alarms/{other.id}/judge"
    assert site.client.post(path, headers=headers, json={"verdict": "maybe"}).status_code == 422
    assert site.client.post(path, headers=headers, json={"verdict": "true"}).status_code == 201
    again = {"verdict": "artefact", "comment": "motion"}
    assert site.client.post(path, headers=headers, json=again).status_code == 201
    assert site.client.get("/api/judging", headers=headers).json() == []
    assert listed(judged="yes") == [other.id]
    assert listed(judged="no") == [TACHY.id]
    assert stores.judging.by_kind() == {"VTACH": {"true": 0, "false": 0, "artefact": 1}}
    assert [said.verdict for said in stores.judging.of_alarm(other.id)] == ["true", "artefact"]
    assert ("the monitor", "alarm.judge", other.id) in trail(site)
    assert "motion" not in str(site.audit.rows())


def test_an_alarm_is_shown_with_its_evidence_and_messages(site: Site) -> None:
    """Changes, strip, beats with labels, judgement, deliveries; before the historian wrote it, what the page knows."""
    headers = site.enter("clinician")
    shown = site.client.get(f"/api/alarms/{TACHY.id}", headers=headers).json()
    assert (shown["alarm"]["kind"], shown["changes"], shown["evidence"]) == ("TACHY", [], None)
    stores = written(site, TACHY, msgspec.structs.replace(TACHY, revision=1, presence="ack", acked_by="anna"))
    stores.evidence.keep(TACHY, evidence(), 7_000)
    message = Delivery(key_of(TACHY.id, 1, 0, "raised", "c"), TACHY.id, BED, "c", "Dr. A", "email", 0, 5)
    stores.deliveries.add([message, message], {0: "1-0"})
    label = {"epoch": 1, "sample": 40, "code": "F"}
    assert site.client.post(f"/api/patients/{BED}/beats/label", headers=headers, json=label).status_code == 201
    wrong = {"epoch": 1, "sample": 41, "code": "X"}
    assert site.client.post(f"/api/patients/{BED}/beats/label", headers=headers, json=wrong).status_code == 422
    shown = site.client.get(f"/api/alarms/{TACHY.id}", headers=headers).json()
    assert (shown["alarm"]["presence"], len(shown["changes"])) == ("ack", 2)
    assert shown["evidence"]["samples_mv"] == [0.5, None]
    assert shown["evidence"]["rule"] == "HR 134 > 120"
    assert [(row["sample"], row["code"], row["who"]) for row in shown["labels"]] == [(40, "F", "the clinician")]
    assert [row["label"] for row in shown["deliveries"]] == ["Dr. A"]
    labels = site.client.get(f"/api/patients/{BED}/beats/labels", headers=headers).json()
    assert len(labels) == 1
    assert site.client.get("/api/alarms/Bed 1/VFIB/1/2", headers=headers).status_code == 404


def test_contacts_are_replaced_as_a_whole_and_secrets_are_shown_once(site: Site) -> None:
    """A webhook gets a key at its first time and a new one when its address changes."""
    headers = site.enter("clinician")
    hook = {"label": "Pager", "channel": "webhook", "address": "https://pager.example/x", "level": 1}
    mail = {"label": "Dr. A", "channel": "email", "address": "a@example.org", "ward": "W7"}
    made = site.client.put("/api/contacts", headers=headers, json=[hook, mail]).json()
    assert made[0]["secret"].startswith("whsec_")
    assert made[1]["secret"] == ""
    listed = site.client.get("/api/contacts", headers=headers).json()
    assert {row["label"]: row["secret"] for row in listed} == {"Pager": "", "Dr. A": ""}
    kept = [row for row in listed if row["label"] == "Pager"]
    assert site.client.put("/api/contacts", headers=headers, json=kept).json()[0]["secret"] == ""
    (stored,) = AlarmStores(site.engine).contacts.all()
    assert stored.secret == made[0]["secret"]
    moved = [kept[0] | {"address": "https://other.example/"}]
    assert site.client.put("/api/contacts", headers=headers, json=moved).json()[0]["secret"].startswith("whsec_")
    twice = site.client.put("/api/contacts", headers=headers, json=[*kept, *kept]).json()
    assert len({row["id"] for row in twice}) == 2
    for wrong in (
        hook | {"address": "ftp://x"}, hook | {"address": "https://x:99999/"}, mail | {"address": "a b@c"},
        mail | {"label": " "},
    ):  # fmt: skip
        answer = site.client.put("/api/contacts", headers=headers, json=[wrong])
        assert answer.status_code == 409, answer.text
    assert made[0]["secret"] not in str(site.audit.rows())


def test_the_load_counts_by_kind_hour_and_patient(site: Site) -> None:
    """Noisy patients come with what to look at; retrospective alarms burden nobody."""
    now = int(time.time() * 1000)
    rows = [
        alarm(BED, "TACHY", 2, id=f"{BED}/TACHY/1/{n}", raised_ms=now - n * 60_000, value=122.0 + n, limit=120.0)
        for n in range(5)
    ]
    rows.append(alarm("Bed 2", "LEADS_OFF", 2, raised_ms=now - 1_000))
    rows.append(alarm("Bed 2", "VFIB", 3, raised_ms=now - 1_000, retrospective=True))
    stores = written(site, *rows)
    headers = site.enter("monitor")
    for number, verdict in ((0, "true"), (1, "false"), (2, "artefact")):
        path = f"/api/alarms/{rows[number].id}/judge"
        assert site.client.post(path, headers=headers, json={"verdict": verdict}).status_code == 201
    load = site.client.get("/api/load", params={"days": 1}, headers=headers).json()
    assert (load["count"], load["judged"], load["judged_false_share"]) == (6, 3, 0.6667)
    assert {kind: share["count"] for kind, share in load["by_kind"].items()} == {"TACHY": 5, "LEADS_OFF": 1}
    assert load["by_kind"]["TACHY"]["false"] == 2
    assert sum(load["by_hour"]) == 6
    assert load["patient_days"] > 0
    first = load["noisiest"][0]
    assert (first["patient"], first["count"], first["kind"], first["limit"]) == (BED, 5, "TACHY", "tachy")
    assert "half of them beyond 124 with the limit 120" in first["hint"]
    assert stores.judging.by_kind(now + 1) == {}


def test_deliveries_are_listed(site: Site) -> None:
    """The newest, or those of one alarm; a known message is not added twice."""
    stores = AlarmStores(site.engine)
    first = Delivery("k1", "a1", BED, "c", "Dr. A", "email", 0, 5)
    second = Delivery("k2", "a2", BED, "c", "Dr. A", "email", 0, 6)
    assert stores.deliveries.add([first, second], {0: "1-0"}) == 2
    assert stores.deliveries.add([first], {0: "2-0"}) == 0
    headers = site.enter("viewer")
    assert [row["id"] for row in site.client.get("/api/deliveries", headers=headers).json()] == ["k2", "k1"]
    found = site.client.get("/api/deliveries", params={"alarm": "a1"}, headers=headers).json()
    assert [row["id"] for row in found] == ["k1"]


def test_every_answer_is_described(site: Site) -> None:
    """The description of the interface names the fields of alarms, limits and load."""
    schema = site.app.openapi()["components"]["schemas"]
    assert set(AlarmEvent.__struct_fields__) == set(schema["AlarmEvent"]["properties"])
    assert {"Load", "LimitsShown", "Evidence", "Contact", "Delivery", "Judgement"} <= set(schema)


def test_a_page_that_opens_is_told_what_is_switched_off_and_paused(site: Site) -> None:
    """The wall shows a lethal alarm that is off, and counts a pause down, from its first moment on."""
    tell(site, settings(off=("PAUSE", "VFIB"), lethal_off=("VFIB",), pause_until_ms=2**41, pause_by="anna"))
    hub = site.app.state.hub
    subscription = hub.subscribe("anna")
    told = [row for row in wire.read_frame(wire.frame(subscription.outbox.take())) if isinstance(row, wire.Settings)]
    hub.unsubscribe(subscription)
    assert [(row.patient, row.lethal_off, row.pause_until_ms, row.pause_by) for row in told] == [
        (BED, ("VFIB",), 2**41, "anna")
    ]
