"""The FHIR R4 interface: persons, devices, stays, waveform, heart rate and alarms; Patient and Encounter are taken."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Final, cast

import msgspec
import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from sqlalchemy import select

from alerts import fhir
from alerts.archive import Archive
from alerts.archive_files import MISSING
from alerts.care import Care, new_person
from alerts.care_beds import channel_of
from alerts.care_model import Person, Stay
from alerts.fhir import FhirError, Resource
from alerts.store import ALARMS
from bus.clock import now_ms
from bus.messages import AlarmEvent
from web.api_care import care_of, desk_of
from web.auth import Session
from web.hub import Hub
from web.roles import acts, audit, looked, needs

router = APIRouter(prefix="/fhir/R4", tags=["fhir"])

Reader = Annotated[Session, Depends(needs("viewer"))]
Clinician = Annotated[Session, Depends(acts("clinician"))]
Count = Annotated[int, Query(alias="_count", ge=1, le=1000)]
Dates = Annotated[list[str] | None, Query(max_length=4)]

MEDIA: Final = "application/fhir+json"
LONGEST_MS: Final = 60_000
"""Of one waveform."""
STRIP_MS: Final = 10_000
BACK_MS: Final = 600_000
"""The newest waveform is looked for in so much time."""
DAY_MS: Final = 86_400_000


def _answer(resource: Resource, status: int = 200, **headers: str) -> Response:
    return Response(json.dumps(resource, ensure_ascii=False), status, headers, MEDIA)


def _base(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers.get('host', 'localhost')}/fhir/R4"


def _found(request: Request, resources: list[Resource], count: int) -> Response:
    query = f"?{request.url.query}" if request.url.query else ""
    link = f"{_base(request)}/{request.url.path.rpartition('/')[2]}{query}"
    return _answer(fhir.bundle(resources[:count], _base(request), link))


def _known(value: Any, kind: str) -> Any:
    if value is None:
        raise HTTPException(404, f"There is no such {kind}.")
    return value


def _ident(reference: str | None, kind: str) -> str | None:
    return reference.rpartition(f"{kind}/")[2] if reference is not None else None


def _span(dates: list[str] | None) -> tuple[int, int]:
    """Begin and end (left out) of what ``date`` parameters ask for."""
    begin, end = 0, 2**62
    for text in dates or []:
        prefix, rest = (text[:2], text[2:]) if text[:2].isalpha() else ("eq", text)
        try:
            ms = fhir.milliseconds_of(rest)
        except FhirError as error:
            raise HTTPException(400, f"{error}.") from error
        if prefix in ("ge", "gt", "sa", "eq"):
            begin = max(begin, ms + (prefix != "ge" and prefix != "eq"))
        if prefix in ("le", "lt", "eb", "eq"):
            whole = DAY_MS if prefix == "eq" and len(rest) == 10 else 1
            end = min(end, ms + (whole if prefix in ("le", "eq") else 0))
        if prefix not in ("ge", "gt", "sa", "eq", "le", "lt", "eb"):
            raise HTTPException(400, f"date: prefix {prefix} is not known; write ge, gt, le, lt or eq.")
    return begin, end


async def _body(request: Request) -> dict[str, Any]:
    try:
        value = json.loads(await request.body())
    except ValueError as error:
        raise HTTPException(400, "The body is no JSON.") from error
    if not isinstance(value, dict):
        raise HTTPException(400, "The body is no FHIR resource.")
    return value


@router.get("/metadata")
async def metadata(request: Request) -> Response:
    """Say what this interface can do; needs no log-in, as FHIR asks for."""
    return _answer(fhir.capability(now_ms(), _base(request)))


# --- Patient -----------------------------------------------------------------------------------------------------


@router.get("/Patient")
async def search_patients(
    request: Request,
    _: Reader,
    ident: Annotated[str | None, Query(alias="_id")] = None,
    identifier: str | None = None,
    name: str | None = None,
    count: Count = 100,
) -> Response:
    """Search persons by id, record number or part of the name."""
    care = care_of(request)

    def load() -> list[Resource]:
        here = {stay.person for stay in care.open_stays()}
        mrn = identifier.rpartition("|")[2] if identifier is not None else None
        known: list[Person | None]
        if ident is not None:
            known = [care.person(ident)]
        elif mrn is not None:
            known = [care.by_mrn(mrn)]
        else:
            known = [*care.persons()]
        return [
            fhir.patient(person, person.person in here)
            for person in known
            if person is not None
            and (ident is None or person.person == ident)
            and (mrn is None or (person.mrn == mrn and mrn))
            and (name is None or name.casefold() in person.name.casefold())
        ]

    return _found(request, await asyncio.to_thread(load), count)


@router.get("/Patient/{ident}")
async def read_patient(request: Request, ident: str, _: Reader) -> Response:
    """Give a person."""
    care = care_of(request)
    person = cast(Person, _known(await asyncio.to_thread(care.person, ident), "Patient"))
    stay = await asyncio.to_thread(care.open_stay, person=ident)
    await looked(request, person.person)
    return _answer(fhir.patient(person, stay is not None))


@router.post("/Patient", status_code=201)
async def create_patient(request: Request, _: Clinician) -> Response:
    """Take a person; one with a record number that is known already is changed."""
    care = care_of(request)
    try:
        said = fhir.read_patient(await _body(request))
    except FhirError as error:
        raise HTTPException(422, f"{error}.") from error
    known = await asyncio.to_thread(care.by_mrn, said["mrn"]) if said["mrn"] else None
    if known is None:
        person = new_person(said["name"], now_ms(), mrn=said["mrn"], born=said["born"], sex=said["sex"])
    else:
        person = msgspec.structs.replace(known, **{key: value for key, value in said.items() if value})
    await asyncio.to_thread(care.put_person, person)
    await audit(request, "person.add" if known is None else "person.update", person.person)
    place = f"{_base(request)}/Patient/{person.person}"
    return _answer(fhir.patient(person, False), 201 if known is None else 200, Location=place)


# --- Encounter ---------------------------------------------------------------------------------------------------


@router.get("/Encounter")
async def search_encounters(
    request: Request, _: Reader, patient: str | None = None, status: str | None = None, count: Count = 100
) -> Response:
    """Search stays by person and status."""
    stays = await asyncio.to_thread(care_of(request).stays, _ident(patient, "Patient"))
    found = [fhir.encounter(stay) for stay in reversed(stays)]
    return _found(request, [item for item in found if status is None or item["status"] == status], count)


@router.get("/Encounter/{ident}")
async def read_encounter(request: Request, ident: str, _: Reader) -> Response:
    """Give a stay."""
    stay = await _stay(care_of(request), ident)
    await looked(request, stay.person)
    return _answer(fhir.encounter(stay))


async def _stay(care: Care, ident: str) -> Stay:
    number = int(ident) if ident.isdecimal() and len(ident) < 19 else -1
    return cast(Stay, _known(await asyncio.to_thread(care.stay, number), "Encounter"))


@router.post("/Encounter", status_code=201)
async def create_encounter(request: Request, mine: Clinician) -> Response:
    """Admit (``in-progress``) or discharge (``finished``) the subject."""
    said = _read_encounter(await _body(request))
    if said["status"] == "finished":
        return _answer(fhir.encounter(await _leave(request, said["person"], mine.user)), 201)
    stay = await _come(request, said, mine.user)
    return _answer(fhir.encounter(stay), 201, Location=f"{_base(request)}/Encounter/{stay.id}")


@router.put("/Encounter/{ident}")
async def update_encounter(request: Request, ident: str, mine: Clinician) -> Response:
    """Discharge: a stay that goes on is ``finished``."""
    said = _read_encounter(await _body(request))
    stay = await _stay(care_of(request), ident)
    if said["status"] != "finished" or stay.person != said["person"]:
        raise HTTPException(422, "Only the status finished of the same subject can be written; transfers go elsewhere.")
    if stay.to_ms is None:
        stay = await _leave(request, stay.person, mine.user)
    return _answer(fhir.encounter(stay))


def _read_encounter(body: dict[str, Any]) -> dict[str, str]:
    try:
        said = fhir.read_encounter(body)
    except FhirError as error:
        raise HTTPException(422, f"{error}.") from error
    if said["status"] not in ("in-progress", "arrived", "finished"):
        raise HTTPException(422, "Encounter.status must be in-progress or finished.")
    return said


async def _come(request: Request, said: dict[str, str], user: str) -> Stay:
    care = care_of(request)
    person = cast(Person, _known(await asyncio.to_thread(care.person, said["person"]), "Patient"))
    if not said["bed"]:
        raise HTTPException(422, "Encounter.location must name a bed in location.display.")
    _, names = await _devices(request)
    channel: str | None = next((name for name in names if fhir.device_id(name) == said["device"]), said["device"])
    if not channel:
        channel = await asyncio.to_thread(channel_of, care.engine, said["ward"], said["bed"])
    if channel is None:
        raise HTTPException(422, f"No device is known for this bed; name one by the extension {fhir.DEVICE_EXTENSION}.")
    stay = await desk_of(request).admit(person, channel, said["bed"], said["ward"], "adult", user, said["visit"])
    await audit(request, "patient.admit", channel, {"person": person.person})
    return stay


async def _leave(request: Request, person: str, user: str) -> Stay:
    stay = await asyncio.to_thread(care_of(request).open_stay, person=person)
    if stay is None:
        raise HTTPException(409, "This patient is not admitted.")
    ended = await desk_of(request).discharge(stay.patient, user)
    await audit(request, "patient.discharge", stay.patient, {"person": person})
    return ended


# --- Device ------------------------------------------------------------------------------------------------------


@router.get("/Device")
async def search_devices(request: Request, _: Reader, patient: str | None = None, count: Count = 100) -> Response:
    """Search devices, by whom they are on where asked."""
    stays, names = await _devices(request)
    person = _ident(patient, "Patient")
    found = [
        fhir.device(name, stays.get(name))
        for name in names
        if person is None or (name in stays and stays[name].person == person)
    ]
    return _found(request, found, count)


@router.get("/Device/{ident}")
async def read_device(request: Request, ident: str, _: Reader) -> Response:
    """Give a device."""
    stays, names = await _devices(request)
    name = _known(next((name for name in names if fhir.device_id(name) == ident), None), "Device")
    return _answer(fhir.device(name, stays.get(name)))


async def _devices(request: Request) -> tuple[dict[str, Stay], list[str]]:
    hub = cast(Hub, request.app.state.hub)
    stays = {stay.patient: stay for stay in await asyncio.to_thread(care_of(request).open_stays)}
    return stays, sorted({*stays, *hub.board.beds})


# --- Observation and Flag ----------------------------------------------------------------------------------------


@router.get("/Observation")
async def search_observations(
    request: Request,
    _: Reader,
    patient: str,
    code: str | None = None,
    date: Dates = None,
    count: Count = 100,
) -> Response:
    """Search heart rates by the minute and a waveform (10 s, or what ``date`` bounds up to a minute), newest first."""
    care, archive = care_of(request), cast("Archive | None", request.app.state.parts.archive)
    begin, end = _span(date)
    wanted = code.rpartition("|")[2] if code is not None else None

    def load() -> list[Resource]:
        out: list[Resource] = []
        for stay in reversed(care.stays(_ident(patient, "Patient"))):
            low, high = max(begin, stay.from_ms), min(end, stay.to_ms or 2**62)
            if archive is None or low >= high:
                continue
            if wanted in (None, "131328") and not any(item["id"].startswith("ecg") for item in out):
                out += _waveform(archive, stay, low, high, begin > 0)
            if wanted in (None, "8867-4"):
                minutes = archive.minutes(stay.patient, low, high)
                rates = zip(minutes.ms.tolist(), minutes.hr.tolist(), strict=True)
                out += [fhir.heart_rate(stay, ms, rate) for ms, rate in reversed(list(rates)) if rate == rate]
        return out

    return _found(request, await asyncio.to_thread(load), count)


def _waveform(archive: Archive, stay: Stay, begin: int, end: int, bounded: bool) -> list[Resource]:
    span = archive.span(stay.patient)
    if span is None:
        return []
    end = min(end, span[1], now_ms())
    if not bounded:
        end = _last_sample(archive, stay.patient, max(begin, end - BACK_MS), end)
    begin = max(begin, end - (LONGEST_MS if bounded else STRIP_MS))
    strip = archive.read(stay.patient, begin, end) if begin < end else None
    return [fhir.waveform(stay, strip)] if strip is not None and strip.fs and len(strip.units) else []


def _last_sample(archive: Archive, patient: str, begin: int, end: int) -> int:
    """End of the last sample in a stretch; the recorder writes some seconds behind."""
    strip = archive.read(patient, begin, end)
    there = np.flatnonzero((strip.units != MISSING).any(axis=1))
    return strip.ms(int(there[-1]) + 1) if there.size else begin


@router.get("/Observation/{ident}")
async def read_observation(request: Request, ident: str, _: Reader) -> Response:
    """Give one heart rate or waveform again."""
    await looked(request, ident)
    kind, *numbers = ident.split(".")
    archive = cast("Archive | None", request.app.state.parts.archive)
    if archive is None or not all(number.isdecimal() and len(number) < 19 for number in numbers):
        raise HTTPException(404, "There is no such Observation.")
    values = [int(number) for number in numbers]
    if kind == "hr" and len(values) == 2:
        stay = await _stay(care_of(request), numbers[0])
        minutes = await asyncio.to_thread(archive.minutes, stay.patient, values[1], values[1] + 1)
        if len(minutes.ms) and minutes.hr[0] == minutes.hr[0]:
            return _answer(fhir.heart_rate(stay, values[1], float(minutes.hr[0])))
    elif kind == "ecg" and len(values) == 3 and 0 < values[2] <= LONGEST_MS:
        stay = await _stay(care_of(request), numbers[0])
        low, high = max(values[1], stay.from_ms), min(values[1] + values[2], stay.to_ms or 2**62)
        found = await asyncio.to_thread(_waveform, archive, stay, low, high, True) if low < high else []
        if found:
            return _answer(found[0])
    raise HTTPException(404, "There is no such Observation.")


@router.get("/Flag")
async def search_flags(
    request: Request,
    _: Reader,
    patient: str,
    status: str | None = None,
    date: Dates = None,
    count: Count = 100,
) -> Response:
    """Search alarms of a person by status and time of onset, newest first."""
    care = care_of(request)
    begin, end = _span(date)

    def load() -> list[Resource]:
        out: list[Resource] = []
        for stay in reversed(care.stays(_ident(patient, "Patient"))):
            low, high = max(begin, stay.from_ms), min(end, stay.to_ms or 2**62)
            out += [fhir.flag(stay, alarm) for alarm in _alarms(care, stay, low, high)]
        return [item for item in out if status is None or item["status"] == status]

    return _found(request, await asyncio.to_thread(load), count)


@router.get("/Flag/{ident}")
async def read_flag(request: Request, ident: str, _: Reader) -> Response:
    """Give an alarm."""
    await looked(request, ident)
    care = care_of(request)
    try:
        number, kind, epoch, onset = fhir.alarm_of_flag(ident)
    except FhirError as error:
        raise HTTPException(404, f"{error}.") from error
    stay = await _stay(care, str(number))
    alarms = await asyncio.to_thread(_alarms, care, stay, stay.from_ms, stay.to_ms or 2**62)
    same = [item for item in alarms if (item.kind, item.epoch, item.onset_sample) == (kind, epoch, onset)]
    return _answer(fhir.flag(stay, _known(same[0] if same else None, "Flag")))


def _alarms(care: Care, stay: Stay, begin: int, end: int) -> list[AlarmEvent]:
    columns = [ALARMS.c[name] for name in AlarmEvent.__struct_fields__]
    mine = (ALARMS.c.patient == stay.patient, ALARMS.c.onset_ms >= begin, ALARMS.c.onset_ms < end)
    with care.engine.connect() as connection:
        rows = connection.execute(select(*columns).where(*mine).order_by(ALARMS.c.onset_ms.desc()))
        return [AlarmEvent(**row) for row in rows.mappings()]
