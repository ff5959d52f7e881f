"""Routes of care: beds, admission, discharge, transfer, notes, consent, retention, access and erasure."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from alerts.access import Access
from alerts.care import Care, new_person
from alerts.care_desk import Desk
from alerts.care_erasure import Erasures
from alerts.care_model import Consent, Person, StaffNote, Stay
from bus.clock import now_ms
from web.auth import Session
from web.hub import Hub
from web.parts import part
from web.roles import acts, audit, needs

router = APIRouter(tags=["care"])

Reader = Annotated[Session, Depends(needs("viewer"))]
Clinician = Annotated[Session, Depends(acts("clinician"))]
Admin = Annotated[Session, Depends(acts("admin"))]

Short = Annotated[str, Field(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]
Channel = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Admission(BaseModel):
    """Who comes, and where to."""

    person: Annotated[str, Field(max_length=32)] = ""
    name: Annotated[str, Field(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    mrn: Annotated[str, Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    born: Annotated[str, Field(pattern=r"^(\d{4}-\d{2}-\d{2})?$")] = ""
    sex: Literal["", "male", "female", "other", "unknown"] = ""
    bed: Annotated[Short, Field(min_length=1)]
    ward: Short = ""
    profile: Short = "adult"


class Move(BaseModel):
    """Where to."""

    bed: Annotated[Short, Field(min_length=1)]
    ward: Short = ""
    device: Channel | None = None


class NewNote(BaseModel):
    """A note."""

    text: Annotated[str, Field(min_length=1, max_length=4000)]


class NewConsent(BaseModel):
    """What a person says to a purpose."""

    purpose: Literal["monitoring", "training", "research"]
    given: bool
    by: Annotated[str, Field(min_length=1, max_length=255)]


class Retention(BaseModel):
    """Days that kinds of data are kept; what is absent stays."""

    recordings_days: int | None = None
    events_days: int | None = None
    evidence_days: int | None = None
    audit_days: int | None = None
    stays_days: int | None = None


def care_of(request: Request) -> Care:
    """Give the care store of the app."""
    return part(request, "care", Care)


def desk_of(request: Request) -> Desk:
    """Give the desk of the app."""
    care_of(request)
    return cast(Desk, request.app.state.desk)


async def stay_of(request: Request, patient: str) -> Stay:
    """Give the stay on a channel that goes on; 404 where nobody is."""
    stay = await asyncio.to_thread(care_of(request).open_stay, patient=patient)
    if stay is None:
        raise HTTPException(404, "No patient is admitted to this device. Admit one first.")
    return stay


@router.get("/api/beds")
async def list_beds(request: Request, _: Reader) -> list[dict[str, Any]]:
    """Every channel that is known, with who is on it; `person` is null where nobody is."""
    care = care_of(request)
    hub = cast(Hub, request.app.state.hub)
    # Here and not in the thread: the hub may learn of a bed at any time.
    devices = {name: name if bed.status is None else bed.status.device for name, bed in hub.board.beds.items()}

    def load() -> list[dict[str, Any]]:
        stays = {stay.patient: stay for stay in care.open_stays()}
        notes = care.count_notes()
        out = []
        for patient in sorted({*stays, *devices}):
            stay = stays.get(patient)
            person = care.person(stay.person) if stay is not None else None
            row: dict[str, Any] = {"patient": patient, "device": devices.get(patient, patient)}
            if stay is None or person is None:
                empty = dict.fromkeys(("person", "name", "since_ms"))
                out.append({**row, "bed": "", "ward": "", "profile": "", "consent": [], "notes_count": 0, **empty})
                continue
            out.append(
                {
                    **row,
                    "bed": stay.bed,
                    "ward": stay.ward,
                    "person": stay.person,
                    "name": person.name,
                    "profile": stay.profile,
                    "since_ms": stay.from_ms,
                    "consent": list(care.purposes(stay.person)),
                    "notes_count": notes.get(stay.person, 0),
                }
            )
        return out

    return await asyncio.to_thread(load)


@router.post("/api/patients/{patient}/admit", status_code=201)
async def admit(request: Request, patient: str, new: Admission, mine: Clinician) -> dict[str, Any]:
    """Put a person on a device: limits, alarms and what was learnt begin anew."""
    care, desk = care_of(request), desk_of(request)
    known = await asyncio.to_thread(_find, care, new)
    if known is None and not new.name:
        raise HTTPException(422, "name: a person who is not known yet needs a name.")
    person = _person(known, new)
    stay = await desk.admit(person, patient, new.bed, new.ward, new.profile, mine.user)
    await audit(request, "patient.admit", patient, {"person": person.person, "profile": new.profile})
    return dict(msgspec.to_builtins(stay))


def _find(care: Care, new: Admission) -> Person | None:
    if new.person:
        found = care.person(new.person)
        if found is None:
            raise HTTPException(404, "There is no such person. Admit by name instead.")
        return found
    return care.by_mrn(new.mrn) if new.mrn else None


def _person(known: Person | None, new: Admission) -> Person:
    if known is None:
        return new_person(new.name, now_ms(), mrn=new.mrn, born=new.born, sex=new.sex)
    said = {name: getattr(new, name) for name in ("name", "mrn", "born", "sex") if getattr(new, name)}
    return msgspec.structs.replace(known, **said)


@router.post("/api/patients/{patient}/discharge")
async def discharge(request: Request, patient: str, mine: Clinician) -> dict[str, Any]:
    """End the stay: alarms end, limits go back to the profile, the device shows as without a patient."""
    stay = await desk_of(request).discharge(patient, mine.user)
    await audit(request, "patient.discharge", patient, {"person": stay.person})
    return dict(msgspec.to_builtins(stay))


@router.post("/api/patients/{patient}/transfer")
async def transfer(request: Request, patient: str, move: Move, mine: Clinician) -> dict[str, Any]:
    """Move a person to another bed or device; what was recorded so far stays with the person."""
    stay = await desk_of(request).transfer(patient, move.bed, move.ward, move.device, mine.user)
    await audit(request, "patient.transfer", patient, {"person": stay.person, "to": stay.patient})
    return dict(msgspec.to_builtins(stay))


@router.get("/api/patients/{patient}/notes")
async def list_notes(request: Request, patient: str, _: Reader) -> list[dict[str, Any]]:
    """List notes on the person on a device, newest first."""
    stay = await stay_of(request, patient)
    notes = await asyncio.to_thread(care_of(request).notes, stay.person)
    return [{"ms": note.ms, "user": note.who, "text": note.text} for note in notes]


@router.post("/api/patients/{patient}/notes", status_code=201)
async def add_note(
    request: Request, patient: str, note: NewNote, mine: Annotated[Session, Depends(acts("monitor"))]
) -> dict[str, str]:
    """Write a note on the person on a device."""
    stay = await stay_of(request, patient)
    await asyncio.to_thread(care_of(request).add_note, StaffNote(stay.person, now_ms(), mine.user, note.text))
    await audit(request, "note.add", patient, {"person": stay.person})
    return {"status": "noted"}


@router.get("/api/patients/{patient}/consent")
async def list_consents(request: Request, patient: str, _: Reader) -> list[dict[str, Any]]:
    """List what the person on a device agreed to and refused, oldest first."""
    stay = await stay_of(request, patient)
    return [msgspec.to_builtins(said) for said in await asyncio.to_thread(care_of(request).consents, stay.person)]


@router.post("/api/patients/{patient}/consent", status_code=201)
async def add_consent(request: Request, patient: str, new: NewConsent, mine: Clinician) -> dict[str, Any]:
    """Write down what the person on a device says to a purpose; recordings are kept from then on, or no more."""
    stay = await stay_of(request, patient)
    care = care_of(request)
    said = Consent(stay.person, new.purpose, new.given, new.by, mine.user, now_ms())
    await asyncio.to_thread(care.consent, said)
    await audit(request, "consent", patient, {"person": stay.person, "purpose": new.purpose, "given": new.given})
    return {"consent": list(await asyncio.to_thread(care.purposes, stay.person))}


@router.get("/api/persons")
async def list_persons(request: Request, _: Annotated[Session, Depends(needs("clinician"))]) -> list[dict[str, Any]]:
    """Persons who are known, newest first."""
    return [msgspec.to_builtins(person) for person in await asyncio.to_thread(care_of(request).persons)]


@router.get("/api/persons/{person}/access.zip")
async def give_access(request: Request, person: str, mine: Annotated[Session, Depends(needs("clinician"))]) -> Response:
    """All that is kept of a person: JSON, and the recordings as WFDB."""
    access = part(request, "access", Access)
    handle, name = tempfile.mkstemp(prefix="rw-access-", suffix=".zip")
    os.close(handle)
    path = Path(name)
    try:
        await asyncio.to_thread(access.pack, person, now_ms(), path)
    except BaseException:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        raise
    await audit(request, "person.access", person)
    gone = BackgroundTask(path.unlink, missing_ok=True)
    return FileResponse(path, media_type="application/zip", filename=f"{person}.zip", background=gone)


@router.delete("/api/persons/{person}", status_code=202)
async def erase(request: Request, person: str, mine: Admin) -> dict[str, Any]:
    """Erase a person: name, notes and consents at once, recordings, events and streams within seconds."""
    care = care_of(request)
    stay = await asyncio.to_thread(care.open_stay, person=person)
    if stay is not None:
        await desk_of(request).discharge(stay.patient, mine.user)
    erasure = await asyncio.to_thread(Erasures(care.engine).ask, person, mine.user, now_ms())
    await audit(request, "person.erase", person)
    return {"id": erasure.id, "status": "erasing"}


@router.get("/api/erasures")
async def list_erasures(
    request: Request, _: Annotated[Session, Depends(needs("admin"))]
) -> list[dict[str, str | int | None]]:
    """Erasures and how far they got, newest first."""
    found = await asyncio.to_thread(Erasures(care_of(request).engine).list)
    return [
        {"id": item.id, "person": item.person, "asked_ms": item.asked_ms, "done_ms": item.done_ms, "left": item.left}
        for item in found
    ]


@router.get("/api/retention")
async def show_retention(request: Request, _: Annotated[Session, Depends(needs("admin"))]) -> dict[str, int]:
    """Days that each kind of data is kept."""
    return await asyncio.to_thread(care_of(request).retention)


@router.put("/api/retention")
async def change_retention(request: Request, new: Retention, _: Admin) -> dict[str, int]:
    """Change how long kinds of data are kept; what is older goes within the hour."""
    days = {name: value for name, value in new.model_dump().items() if value is not None}
    await asyncio.to_thread(care_of(request).set_retention, days)
    await audit(request, "retention", "retention", days)
    return await asyncio.to_thread(care_of(request).retention)
