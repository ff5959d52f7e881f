"""The FHIR R4 interface: every resource fits another library's models; Patient and Encounter act."""

from __future__ import annotations

import time

import numpy as np
import pytest
from fhir.resources.R4B import get_fhir_model_class
from hypothesis import given
from hypothesis import strategies as st
from people_app import Site, empty, site
from sqlalchemy import insert
from test_store import alarm

from alerts import fhir
from alerts.archive_index import Index
from alerts.care import new_person
from alerts.care_model import Person, Stay
from alerts.devices import DEVICES
from alerts.fhir import FhirError
from bus.messages import AlarmEvent, BeatEvent, Entry, Inbound, StatusEvent, pack, pack_inbound, partition_of
from bus.streams import Record
from ingest.codecs import encode_frame
from ingest.frame import Frame
from rhythmwatch.record import Recording

__all__ = ["empty", "site"]

DEVICE = "dev-1"
NAME = "Eva Müller"
SECONDS = 70
DEADLINE_S = 60.0


def valid(resource: dict[str, object]) -> dict[str, object]:
    """Check a resource, and all in a Bundle, against the library's models."""
    get_fhir_model_class(str(resource["resourceType"])).model_validate(resource)
    return resource


def ask(site: Site, path: str, role: str = "viewer", expected: int = 200, **params: object) -> dict[str, object]:
    """Read from the interface."""
    answer = site.client.get(f"/fhir/R4/{path}", headers=site.enter(role), params=params or None)
    assert answer.status_code == expected, answer.text
    assert answer.headers["content-type"].startswith("application/fhir+json")
    return valid(answer.json())


def found(site: Site, path: str, **params: object) -> list[dict[str, object]]:
    """Resources of a search."""
    answer = ask(site, path, **params)
    assert answer["total"] == len(answer.get("entry", []))
    return [entry["resource"] for entry in answer.get("entry", [])]


def monitored(site: Site) -> tuple[Person, Stay, np.ndarray]:
    """Admit a person whose device has sent for a while, with one alarm over and one open."""
    start = (int(time.time() * 1000) // 60_000 - 3) * 60_000
    person = new_person(NAME, start, mrn="123", born="1941-05-06", sex="female")
    stay = site.care.admit(person, DEVICE, "7", "West", "adult", "x", start)
    units = np.random.default_rng(1).integers(-3000, 3000, (250 * SECONDS, 2)).astype(np.int16)
    partition = partition_of(DEVICE, 64)
    with Index(site.url) as index:
        recording = Recording(site.archive.folder, index, [partition])
        for second in range(SECONDS):
            at = start + 1000 * second
            part = units[250 * second : 250 * (second + 1)]
            frame = Frame(DEVICE, 5, second, 250 * second, at, 250.0, ("MLII", "V1"), 200.0, part)
            entry = pack_inbound(Inbound(Entry.FRAME, at + 1000, DEVICE, encode_frame(frame)))
            recording.take_entries(partition, [Record(f"{at}-0", entry)])
            beat = BeatEvent(DEVICE, DEVICE, 5, 250 * second + 100, at + 400, "N", 0.9, "V", 0.05, 1000)
            recording.take_events(partition, [Record(f"{at}-0", pack(beat))])
        # A beat of the second minute after lets the first minutes settle.
        late = start + 1000 * (SECONDS + 200)
        beat = BeatEvent(DEVICE, DEVICE, 5, 250 * (SECONDS + 200), late, "N", 0.9, "V", 0.05, 0)
        recording.take_events(partition, [Record(f"{late}-0", pack(beat))])
        recording.flush()
        recording.close()
    for number, presence in ((1, "off"), (2, "on")):
        base = alarm(number, presence=presence, patient=DEVICE)
        fields = {name: getattr(base, name) for name in base.__struct_fields__}
        ident = f"{DEVICE}/PVC_PAIR/5/{number}"
        changes = {"id": ident, "epoch": 5, "onset_sample": number, "kind": "PVC_PAIR", "onset_ms": start + number}
        site.store.write(0, [(f"{number}-0", AlarmEvent(**fields | changes))], f"{number}-0")
    return person, stay, units


def test_conformance_is_open_and_valid(empty: Site) -> None:
    """The CapabilityStatement needs no log-in and names what there is; everything else needs one."""
    answer = empty.client.get("/fhir/R4/metadata")
    valid(answer.json())
    kinds = {item["type"] for item in answer.json()["rest"][0]["resource"]}
    assert kinds == {"Patient", "Device", "Encounter", "Observation", "Flag"}
    for kind in kinds:
        refused = empty.client.get(f"/fhir/R4/{kind}", params={"patient": "x"})
        assert refused.status_code == 401
        assert valid(refused.json())["resourceType"] == "OperationOutcome"


def test_what_is_known_of_a_person_is_found(site: Site) -> None:
    """Patient, Encounter, Device, Observation and Flag: found by the patient, read by id, all valid."""
    person, stay, units = monitored(site)
    for params in ({"identifier": "123"}, {"name": "müll"}, {"_id": person.person}):
        (patient,) = found(site, "Patient", **params)
        assert (patient["name"][0]["text"], patient["birthDate"], patient["gender"]) == (NAME, "1941-05-06", "female")
    assert found(site, "Patient", name="nobody") == []
    assert ask(site, f"Patient/{person.person}")["active"]
    reference = f"Patient/{person.person}"
    (encounter,) = found(site, "Encounter", patient=reference, status="in-progress")
    assert ask(site, f"Encounter/{encounter['id']}") == encounter
    (device,) = found(site, "Device", patient=reference)
    assert ask(site, f"Device/{device['id']}")["patient"]["reference"] == reference
    rates = found(site, "Observation", patient=reference, code="http://loinc.org|8867-4")
    assert [round(rate["valueQuantity"]["value"]) for rate in rates][-1] == 60
    assert ask(site, f"Observation/{rates[-1]['id']}") == rates[-1]
    flags = found(site, "Flag", patient=reference)
    assert [flag["status"] for flag in flags] == ["active", "inactive"]
    assert [flag["status"] for flag in found(site, "Flag", patient=reference, status="active")] == ["active"]
    assert ask(site, f"Flag/{flags[0]['id']}") == flags[0]
    assert found(site, "Flag", patient=reference, date=f"lt{fhir.instant(stay.from_ms)}") == []
    assert found(site, "Flag", patient="Patient/other") == []
    assert len(units)


def test_the_waveform_is_that_of_the_device(site: Site) -> None:
    """SampledData gives back the samples and their times; a search may bound it; too long is cut to a minute."""
    person, stay, units = monitored(site)
    low, high = stay.from_ms + 2000, stay.from_ms + 7000
    dates = [f"ge{fhir.instant(low)}", f"lt{fhir.instant(high)}"]
    (wave,) = found(site, "Observation", patient=person.person, code="131328", date=dates)
    assert wave["effectivePeriod"] == {"start": fhir.instant(low), "end": fhir.instant(high)}
    for column, (name, code) in enumerate((("MLII", None), ("V1", "131331"))):
        component = wave["component"][column]
        assert component["code"]["text"] == name
        assert component["code"].get("coding", [{}])[0].get("code") == code
        data = component["valueSampledData"]
        assert (data["period"], data["factor"]) == (4.0, 1 / 200)
        assert np.array_equal(np.array(data["data"].split(), int), units[500:1750, column])
    assert ask(site, f"Observation/{wave['id']}") == wave
    whole = found(site, "Observation", patient=person.person, code="131328", date=[f"ge{fhir.instant(stay.from_ms)}"])
    assert len(whole[0]["component"][0]["valueSampledData"]["data"].split()) == 250 * 60
    (newest,) = found(site, "Observation", patient=person.person, code="131328")
    words = newest["component"][1]["valueSampledData"]["data"].split()
    assert np.array_equal(np.array(words, int), units[-2500:, 1])


def test_missing_samples_are_marked(site: Site) -> None:
    """Where the device sent nothing, the data say E."""
    person, stay, _ = monitored(site)
    end = stay.from_ms + 1000 * SECONDS
    dates = [f"ge{fhir.instant(end - 1000)}", f"lt{fhir.instant(end + 1000)}"]
    (wave,) = found(site, "Observation", patient=person.person, code="131328", date=dates)
    words = wave["component"][0]["valueSampledData"]["data"].split()
    assert words[249] != "E"
    assert set(words[250:]) <= {"E"}


def test_a_patient_and_an_encounter_admit_and_discharge(site: Site) -> None:
    """Posted by a program with a token: the stream is told, the trail knows, a repeated Patient is updated."""
    now = int(time.time() * 1000)
    _, secret = site.people.make_token("ehr", "clinician", "x", now, now + 60_000)
    client, bearer = site.client, {"authorization": f"Bearer {secret}"}
    body = {
        "resourceType": "Patient",
        "identifier": [{"value": "123"}],
        "name": [{"family": "Müller", "given": ["Eva"]}],
        "birthDate": "1941-05-06",
        "gender": "female",
    }
    made = client.post("/fhir/R4/Patient", json=valid(body), headers=bearer)
    assert made.status_code == 201
    ident = valid(made.json())["id"]
    assert made.headers["location"].endswith(f"/fhir/R4/Patient/{ident}")
    assert client.post("/fhir/R4/Patient", json=body | {"gender": "other"}, headers=bearer).status_code == 200
    assert site.care.person(ident).sex == "other"
    stay = {
        "resourceType": "Encounter",
        "status": "in-progress",
        "class": {"code": "IMP"},
        "subject": {"reference": f"Patient/{ident}"},
        "location": [{"location": {"display": "7"}}],
        "serviceProvider": {"display": "West"},
    }
    assert client.post("/fhir/R4/Encounter", json=valid(stay), headers=bearer).status_code == 422
    with site.engine.begin() as connection:
        row = {"id": DEVICE, "label": "West 7", "secret_hash": "x", "made_by": "x", "made_ms": 1, "rotated_ms": 1}
        connection.execute(insert(DEVICES), row)
    admitted = client.post("/fhir/R4/Encounter", json=stay, headers=bearer)
    assert admitted.status_code == 201, admitted.text
    assert site.care.open_stay(patient=DEVICE).person == ident
    taken = client.post("/fhir/R4/Encounter", json=stay, headers=bearer)
    assert taken.status_code == 409
    assert valid(taken.json())["issue"][0]["severity"] == "error"
    finished = valid(admitted.json()) | {"status": "finished"}
    done = client.put(f"/fhir/R4/Encounter/{finished['id']}", json=finished, headers=bearer)
    assert valid(done.json())["period"]["end"]
    assert site.care.open_stays() == []
    other = stay | {"extension": [{"url": fhir.DEVICE_EXTENSION, "valueReference": {"reference": "Device/dev-2"}}]}
    assert client.post("/fhir/R4/Encounter", json=valid(other), headers=bearer).status_code == 201
    assert client.post("/fhir/R4/Encounter", json=other | {"status": "finished"}, headers=bearer).status_code == 201
    told = [(channel, action.name) for channel, action in site.ward.actions]
    assert told == [(DEVICE, "admit"), (DEVICE, "discharge"), ("dev-2", "admit"), ("dev-2", "discharge")]
    trail = site.audit.rows()
    assert {row.user for row in trail} == {"ehr (token)"}
    assert "Müller" not in str(trail)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("Patient", {"resourceType": "Patient"}, 422),
        ("Patient", {"resourceType": "Patient", "name": "Eva"}, 422),
        ("Patient", {"resourceType": "Patient", "name": [{"text": "x"}], "birthDate": "1941"}, 422),
        ("Patient", {"resourceType": "Device"}, 422),
        ("Patient", [], 400),
        ("Encounter", {"resourceType": "Encounter", "status": "in-progress"}, 422),
        ("Encounter", {"resourceType": "Encounter", "status": "planned", "subject": {"reference": "Patient/x"}}, 422),
        ("Encounter", {"resourceType": "Encounter", "status": "arrived", "subject": {"reference": "Patient/x"}}, 404),
        ("Encounter", {"resourceType": "Encounter", "status": "finished", "subject": {"reference": "Patient/x"}}, 409),
    ],
)
def test_a_bad_resource_is_refused_as_an_outcome(empty: Site, kind: str, body: object, status: int) -> None:
    """What can't be used is answered by an OperationOutcome, and nothing is stored."""
    answer = empty.client.post(f"/fhir/R4/{kind}", json=body, headers=empty.enter("clinician"))
    assert answer.status_code == status, answer.text
    assert valid(answer.json())["resourceType"] == "OperationOutcome"
    assert empty.care.persons() == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("Patient/nobody", 404),
        ("Encounter/77", 404),
        ("Encounter/x", 404),
        ("Device/none", 404),
        ("Flag/none", 404),
        ("Flag/1.VTACH.5.1", 404),
        ("Observation/hr.1.5", 404),
        ("Observation/ecg.1.5.10", 404),
        ("Observation/ecg", 404),
        ("Observation", 422),
        ("Observation?patient=x&date=yesterday", 400),
        ("Flag?patient=x&date=zz2025", 400),
        ("Patient?_count=0", 422),
    ],
)
def test_what_is_not_there_is_said_as_an_outcome(empty: Site, path: str, status: int) -> None:
    """Unknown ids and bad parameters."""
    assert ask(empty, path, expected=status)["resourceType"] == "OperationOutcome"


def test_a_device_without_a_patient_is_a_device(site: Site) -> None:
    """It is found, and names no patient."""
    site.ward.send(StatusEvent("Bed 1", "dev", 1, "MLII", ("MLII",), "good"))
    deadline = time.monotonic() + DEADLINE_S
    while not (devices := found(site, "Device")):
        assert time.monotonic() < deadline
    assert "patient" not in devices[0]
    assert devices[0]["identifier"][0]["value"] == "Bed 1"
    assert ask(site, f"Device/{devices[0]['id']}") == devices[0]


@given(st.integers(0, 4_000_000_000_000))
def test_times_read_back(ms: int) -> None:
    """An instant that was written is read as the same millisecond."""
    assert fhir.milliseconds_of(fhir.instant(ms)) == ms


@pytest.mark.parametrize("text", ["", "2025-13", "2025-1-1", "tomorrow", "2025-11-25T10", "0000"])
def test_what_is_no_date_is_refused(text: str) -> None:
    """Dates that FHIR does not allow."""
    with pytest.raises(FhirError):
        fhir.milliseconds_of(text)


def test_partial_dates_are_their_begin() -> None:
    """A year is its first moment, a month too, UTC where no zone is named."""
    assert fhir.instant(fhir.milliseconds_of("2025")) == "2025-01-01T00:00:00.000Z"
    assert fhir.instant(fhir.milliseconds_of("2025-03")) == "2025-03-01T00:00:00.000Z"
    assert fhir.instant(fhir.milliseconds_of("2025-03-04T05:06:07+02:00")) == "2025-03-04T03:06:07.000Z"
