"""The FHIR R4 interface to persons, stays and devices; Patient and Encounter are taken."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, cast

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from alerts import fhir
from alerts.care import new_person
from alerts.care_beds import channel_of
from alerts.care_model import Person, Stay
from alerts.fhir import FhirError, Resource
from bus.clock import now_ms
from web.api_care import care_of, desk_of
from web.auth import Session
from web.fhir_http import PREFIX, Count, Reader, answer, answer_search, base_of, body_of, ident_of, or_404, stay_of
from web.hub import Hub
from web.roles import acts, audit, looked

router = APIRouter(prefix=PREFIX, tags=["fhir"])

Clinician = Annotated[Session, Depends(acts("clinician"))]


@router.get("/metadata")
async def metadata(request: Request) -> Response:
    """Say what this interface can do; needs no log-in, as FHIR asks for."""
    return answer(fhir.capability(now_ms(), base_of(request)))


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

    return answer_search(request, await asyncio.to_thread(load), count)


@router.get("/Patient/{ident}")
async def read_patient(request: Request, ident: str, _: Reader) -> Response:
    """Give a person."""
    care = care_of(request)
    person = cast(Person, or_404(await asyncio.to_thread(care.person, ident), "Patient"))
    stay = await asyncio.to_thread(care.open_stay, person=ident)
    await looked(request, person.person)
    return answer(fhir.patient(person, stay is not None))


@router.post("/Patient", status_code=201)
async def create_patient(request: Request, _: Clinician) -> Response:
    """Take a person; one with a record number that is known already is changed."""
    care = care_of(request)
    try:
        said = fhir.read_patient(await body_of(request))
    except FhirError as error:
        raise HTTPException(422, f"{error}.") from error
    known = await asyncio.to_thread(care.by_mrn, said["mrn"]) if said["mrn"] else None
    if known is None:
        person = new_person(said["name"], now_ms(), mrn=said["mrn"], born=said["born"], sex=said["sex"])
    else:
        person = msgspec.structs.replace(known, **{key: value for key, value in said.items() if value})
    await asyncio.to_thread(care.put_person, person)
    await audit(request, "person.add" if known is None else "person.update", person.person)
    place = f"{base_of(request)}/Patient/{person.person}"
    return answer(fhir.patient(person, False), 201 if known is None else 200, Location=place)


# --- Encounter ---------------------------------------------------------------------------------------------------


@router.get("/Encounter")
async def search_encounters(
    request: Request, _: Reader, patient: str | None = None, status: str | None = None, count: Count = 100
) -> Response:
    """Search stays by person and status."""
    stays = await asyncio.to_thread(care_of(request).stays, ident_of(patient, "Patient"))
    found = [fhir.encounter(stay) for stay in reversed(stays)]
    return answer_search(request, [item for item in found if status is None or item["status"] == status], count)


@router.get("/Encounter/{ident}")
async def read_encounter(request: Request, ident: str, _: Reader) -> Response:
    """Give a stay."""
    stay = await stay_of(care_of(request), ident)
    await looked(request, stay.person)
    return answer(fhir.encounter(stay))


@router.post("/Encounter", status_code=201)
async def create_encounter(request: Request, mine: Clinician) -> Response:
    """Admit (``in-progress``) or discharge (``finished``) the subject."""
    said = _read_encounter(await body_of(request))
    if said["status"] == "finished":
        return answer(fhir.encounter(await _leave(request, said["person"], mine.user)), 201)
    stay = await _come(request, said, mine.user)
    return answer(fhir.encounter(stay), 201, Location=f"{base_of(request)}/Encounter/{stay.id}")


@router.put("/Encounter/{ident}")
async def update_encounter(request: Request, ident: str, mine: Clinician) -> Response:
    """Discharge: a stay that goes on is ``finished``."""
    said = _read_encounter(await body_of(request))
    stay = await stay_of(care_of(request), ident)
    if said["status"] != "finished" or stay.person != said["person"]:
        raise HTTPException(422, "Only the status finished of the same subject can be written; transfers go elsewhere.")
    if stay.to_ms is None:
        stay = await _leave(request, stay.person, mine.user)
    return answer(fhir.encounter(stay))


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
    person = cast(Person, or_404(await asyncio.to_thread(care.person, said["person"]), "Patient"))
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
    person = ident_of(patient, "Patient")
    found = [
        fhir.device(name, stays.get(name))
        for name in names
        if person is None or (name in stays and stays[name].person == person)
    ]
    return answer_search(request, found, count)


@router.get("/Device/{ident}")
async def read_device(request: Request, ident: str, _: Reader) -> Response:
    """Give a device."""
    stays, names = await _devices(request)
    name = or_404(next((name for name in names if fhir.device_id(name) == ident), None), "Device")
    return answer(fhir.device(name, stays.get(name)))


async def _devices(request: Request) -> tuple[dict[str, Stay], list[str]]:
    hub = cast(Hub, request.app.state.hub)
    stays = {stay.patient: stay for stay in await asyncio.to_thread(care_of(request).open_stays)}
    return stays, sorted({*stays, *hub.board.beds})
