"""What the station knows as FHIR R4 resources: plain dicts from our own words, and back. No input or output.

References
----------
HL7 FHIR Release 4 (https://hl7.org/fhir/R4). Codes of leads: ISO/IEEE 11073-10101, as in the specification's example
of an ECG; heart rate: LOINC; rhythms: SNOMED CT.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

import numpy as np

from alerts.archive import Strip
from alerts.archive_files import MISSING
from alerts.care_model import Person, Stay
from bus.messages import AlarmEvent

Resource: TypeAlias = dict[str, Any]

OURS: Final = "urn:rhythmwatch"
"""Namespace of our own codes and identifiers."""
DEVICE_EXTENSION: Final = "urn:rhythmwatch:monitoring-device"
MDC: Final = "urn:oid:2.16.840.1.113883.6.24"
LOINC: Final = "http://loinc.org"
SNOMED: Final = "http://snomed.info/sct"
UCUM: Final = "http://unitsofmeasure.org"
_OBSERVATION: Final = "http://terminology.hl7.org/CodeSystem/observation-category"
_ECG: Final = 131328
"""MDC_ECG_ELEC_POTL; a lead's code is added to it."""
_LEADS: Final = {
    **{"I": 1, "II": 2, "V1": 3, "V2": 4, "V3": 5, "V4": 6, "V5": 7, "V6": 8},
    **{"III": 61, "AVR": 62, "AVL": 63, "AVF": 64},
}
_SNOMED: Final = {
    "VFIB": "71908006",
    "VTACH": "25569003",
    "ASYSTOLE": "397829000",
    "AFIB": "49436004",
    "BRADY": "48867003",
    "EXTREME_BRADY": "48867003",
    "TACHY": "3424008",
    "EXTREME_TACHY": "3424008",
    "SVT": "6456007",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DATE: Final = re.compile(r"\d{4}(-\d{2}(-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?)?)?")


class FhirError(ValueError):
    """A resource or a parameter that can't be used; the text names no patient."""


def instant(ms: int) -> str:
    """Write a wall time as FHIR does, in UTC."""
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds_of(text: str) -> int:
    """Read a FHIR date or dateTime (UTC where it names no zone); `FhirError` if it is none."""
    if not _DATE.fullmatch(text):
        raise FhirError(f"{text!r} is no FHIR date")
    padded = text + "-01-01"[len(text) - 4 :] if len(text) in (4, 7) else text
    try:
        when = datetime.fromisoformat(padded)
    except ValueError as error:
        raise FhirError(f"{text!r} is no FHIR date") from error
    return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)


def device_id(name: str) -> str:
    """Give the id of a channel's Device: its name, or where FHIR forbids a letter of it, a name made from it."""
    clean = re.sub(r"[^A-Za-z0-9.-]", "-", name)
    return name if clean == name and len(name) <= 64 else f"{clean[:55]}-{zlib.crc32(name.encode()):08x}"


def patient(person: Person, active: bool) -> Resource:
    """Give a person as Patient."""
    words = person.name.split()
    out: Resource = {
        "resourceType": "Patient",
        "id": person.person,
        "active": active,
        "name": [{"text": person.name, "family": words[-1] if words else person.name, "given": words[:-1]}],
        "identifier": [{"use": "usual", "system": f"{OURS}:mrn", "value": person.mrn}] if person.mrn else [],
        "gender": person.sex,
        "birthDate": person.born,
    }
    return _clean(out)


def read_patient(resource: Mapping[str, Any]) -> dict[str, str]:
    """Read name, mrn, born and sex out of a Patient; `FhirError` if it has no name."""
    _expect(resource, "Patient")
    names = _items(resource, "name")
    if not names:
        raise FhirError("Patient.name is missing")
    parts = names[0].get("given") or []
    if not isinstance(parts, list):
        raise FhirError("Patient.name.given must be a list")
    given = " ".join(str(part) for part in parts)
    name = str(names[0].get("text") or f"{given} {names[0].get('family', '')}".strip())
    identifiers = _items(resource, "identifier")
    mrn = str(identifiers[0].get("value", "")) if identifiers else ""
    born, sex = str(resource.get("birthDate", "")), str(resource.get("gender", ""))
    if not name or len(name) > 255 or len(mrn) > 128:
        raise FhirError("Patient.name or its identifier is missing or too long")
    if born and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", born):
        raise FhirError("Patient.birthDate must be a whole date")
    if sex not in ("", "male", "female", "other", "unknown"):
        raise FhirError("Patient.gender is none of male, female, other, unknown")
    return {"name": name, "mrn": mrn, "born": born, "sex": sex}


def encounter(stay: Stay) -> Resource:
    """Give a stay as Encounter."""
    period = {"start": instant(stay.from_ms)} | ({"end": instant(stay.to_ms)} if stay.to_ms is not None else {})
    out: Resource = {
        "resourceType": "Encounter",
        "id": str(stay.id),
        "extension": [{"url": DEVICE_EXTENSION, "valueReference": {"reference": f"Device/{device_id(stay.patient)}"}}],
        "identifier": [{"system": f"{OURS}:visit", "value": stay.visit}] if stay.visit else [],
        "status": "in-progress" if stay.to_ms is None else "finished",
        "class": {
            "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
            "code": "IMP",
            "display": "inpatient encounter",
        },
        "subject": {"reference": f"Patient/{stay.person}"},
        "period": period,
        "location": [{"location": {"display": stay.bed}, "period": period}],
        "serviceProvider": {"display": stay.ward} if stay.ward else {},
    }
    return _clean(out)


def read_encounter(resource: Mapping[str, Any]) -> dict[str, str]:
    """Read status, person, device, bed, ward and visit out of an Encounter; `FhirError` without a subject."""
    _expect(resource, "Encounter")
    device = ""
    for extension in _items(resource, "extension"):
        if extension.get("url") == DEVICE_EXTENSION:
            device = _reference(extension.get("valueReference"), "Device")
    places = _items(resource, "location")
    bed = _display(places[-1].get("location")) if places else ""
    identifiers = _items(resource, "identifier")
    found = {
        "status": str(resource.get("status", "")),
        "person": _reference(resource.get("subject"), "Patient"),
        "device": device,
        "bed": bed,
        "ward": _display(resource.get("serviceProvider")),
        "visit": str(identifiers[0].get("value", "")) if identifiers else "",
    }
    if not found["person"]:
        raise FhirError("Encounter.subject must be a reference Patient/id")
    if any(len(found[name]) > 64 for name in ("device", "bed", "ward")) or len(found["visit"]) > 128:
        raise FhirError("a name in the Encounter is too long")
    return found


def device(name: str, stay: Stay | None) -> Resource:
    """Give a channel as Device."""
    return _clean(
        {
            "resourceType": "Device",
            "id": device_id(name),
            "identifier": [{"system": f"{OURS}:device", "value": name}],
            "status": "active",
            "type": {"text": "ECG monitor"},
            "patient": {"reference": f"Patient/{stay.person}"} if stay is not None else {},
        }
    )


def heart_rate(stay: Stay, ms: int, rate: float) -> Resource:
    """Give the mean heart rate of a minute as Observation (vital signs profile)."""
    return {
        "resourceType": "Observation",
        "id": f"hr.{stay.id}.{ms}",
        "meta": {"profile": ["http://hl7.org/fhir/StructureDefinition/heartrate"]},
        "status": "final",
        "category": [{"coding": [{"system": _OBSERVATION, "code": "vital-signs"}]}],
        "code": {"coding": [{"system": LOINC, "code": "8867-4", "display": "Heart rate"}], "text": "Heart rate"},
        **_about(stay),
        "effectivePeriod": {"start": instant(ms), "end": instant(ms + 60_000)},
        "valueQuantity": {"value": round(rate, 1), "unit": "beats/minute", "system": UCUM, "code": "/min"},
    }


def waveform(stay: Stay, strip: Strip) -> Resource:
    """Give a strip as Observation with a SampledData component a lead; ``E`` stands for no valid sample."""
    end = strip.ms(len(strip.units))
    return {
        "resourceType": "Observation",
        "id": f"ecg.{stay.id}.{strip.from_ms}.{end - strip.from_ms}",
        "status": "final",
        "category": [{"coding": [{"system": _OBSERVATION, "code": "procedure"}]}],
        "code": {"coding": [{"system": MDC, "code": str(_ECG), "display": "MDC_ECG_ELEC_POTL"}], "text": "ECG"},
        **_about(stay),
        "effectivePeriod": {"start": instant(strip.from_ms), "end": instant(end)},
        "component": [_component(strip, column) for column in range(len(strip.leads))],
    }


def _component(strip: Strip, column: int) -> Resource:
    lead = strip.leads[column]
    code: Resource = {"text": lead}
    number = _LEADS.get(lead.upper())
    if number is not None:
        code["coding"] = [{"system": MDC, "code": str(_ECG + number), "display": f"MDC_ECG_ELEC_POTL_{lead.upper()}"}]
    units = strip.units[:, column]
    words = np.where(units == MISSING, "E", units.astype(str))
    return {
        "code": code,
        "valueSampledData": {
            "origin": {"value": 0, "unit": "mV", "system": UCUM, "code": "mV"},
            "period": 1000 / strip.fs,
            "factor": 1 / strip.gain,
            "dimensions": 1,
            "data": " ".join(words.tolist()),
        },
    }


def flag(stay: Stay, alarm: AlarmEvent) -> Resource:
    """Give an alarm as Flag: active as long as it is not off."""
    coding = [{"system": f"{OURS}:alarm", "code": alarm.kind}]
    if alarm.kind in _SNOMED:
        coding.append({"system": SNOMED, "code": _SNOMED[alarm.kind]})
    over = alarm.presence == "off"
    return {
        "resourceType": "Flag",
        "id": f"{stay.id}.{alarm.kind.replace('_', '-')}.{alarm.epoch}.{alarm.onset_sample}",
        "status": "inactive" if over else "active",
        "category": [{"text": "technical alarm" if alarm.technical else "alarm"}],
        "code": {"coding": coding, "text": alarm.detail or alarm.kind},
        "subject": {"reference": f"Patient/{stay.person}"},
        "encounter": {"reference": f"Encounter/{stay.id}"},
        "author": {"reference": f"Device/{device_id(stay.patient)}"},
        "period": {"start": instant(alarm.onset_ms)} | ({"end": instant(alarm.changed_ms)} if over else {}),
    }


def alarm_of_flag(ident: str) -> tuple[int, str, int, int]:
    """Stay, kind, epoch and onset out of the id of a Flag; `FhirError` if it is none of ours."""
    parts = ident.split(".")
    try:
        stay, kind, epoch, onset = parts
        return int(stay), kind.replace("-", "_"), int(epoch), int(onset)
    except ValueError as error:
        raise FhirError("there is no such Flag") from error


def bundle(resources: Iterable[Resource], base: str, link: str) -> Resource:
    """Put search results together."""
    entries = [
        {
            "fullUrl": f"{base}/{resource['resourceType']}/{resource['id']}",
            "resource": resource,
            "search": {"mode": "match"},
        }
        for resource in resources
    ]
    out: Resource = {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": len(entries),
        "link": [{"relation": "self", "url": link}],
    }
    return out | ({"entry": entries} if entries else {})


def outcome(text: str, code: str = "processing") -> Resource:
    """Say what went wrong, as OperationOutcome."""
    return {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": code, "details": {"text": text}}],
    }


def capability(now_ms: int, base: str) -> Resource:
    """Say what the interface can do, as CapabilityStatement."""
    searches: Mapping[str, Sequence[tuple[str, str]]] = {
        "Patient": (("_id", "token"), ("identifier", "token"), ("name", "string")),
        "Device": (("patient", "reference"),),
        "Encounter": (("patient", "reference"), ("status", "token")),
        "Observation": (("patient", "reference"), ("code", "token"), ("date", "date")),
        "Flag": (("patient", "reference"), ("status", "token"), ("date", "date")),
    }
    writes = {"Patient": ("create",), "Encounter": ("create", "update")}
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": instant(now_ms),
        "kind": "instance",
        "software": {"name": "RhythmWatch"},
        "implementation": {"description": "ECG monitoring station; not a medical device", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json"],
        "rest": [
            {
                "mode": "server",
                "security": {"description": "Authorization: Bearer with an access token of this server"},
                "resource": [
                    {
                        "type": kind,
                        "interaction": [{"code": code} for code in ("read", "search-type", *writes.get(kind, ()))],
                        "searchParam": [{"name": name, "type": form} for name, form in parameters],
                    }
                    for kind, parameters in searches.items()
                ],
            }
        ],
    }


def _about(stay: Stay) -> Resource:
    return {
        "subject": {"reference": f"Patient/{stay.person}"},
        "encounter": {"reference": f"Encounter/{stay.id}"},
        "device": {"reference": f"Device/{device_id(stay.patient)}"},
    }


def _clean(resource: Resource) -> Resource:
    """Leave out what is empty, which FHIR forbids."""
    for name in resource.get("name", []):
        if isinstance(name, dict) and not name.get("given"):
            name.pop("given", None)
    return {key: value for key, value in resource.items() if value not in ("", [], {}, None)}


def _expect(resource: Mapping[str, Any], kind: str) -> None:
    if resource.get("resourceType") != kind:
        raise FhirError(f"a {kind} is expected")


def _items(resource: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = resource.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise FhirError(f"{resource.get('resourceType')}.{name} must be a list of objects")
    return value


def _display(value: Any) -> str:
    if value and not isinstance(value, dict):
        raise FhirError("a reference must be an object")
    return str((value or {}).get("display", ""))


def _reference(value: Any, kind: str) -> str:
    text = value.get("reference", "") if isinstance(value, dict) else ""
    before, _, ident = str(text).rpartition(f"{kind}/")
    return ident if str(text) and (before == "" or before.endswith("/")) else ""
