"""Routes of limits and profiles, of whom alarms are told, and of the alarm load."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Any, Final, Literal, cast

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import BaseModel, Field, model_validator

from alerts.archive import Archive
from alerts.contacts import Contact
from alerts.deliveries import Delivery
from alerts.limits import (
    ADULT,
    KINDS,
    LIMITS_OF,
    PROFILES,
    RANGES,
    Limits,
    LimitsError,
    changed,
    limits_from,
    of_profile,
    values_of,
)
from alerts.load import Load, load_figures
from alerts.model import LETHAL, TECHNICAL
from alerts.preview import count, kinds_of, load
from bus.clock import now_ms
from bus.messages import Action
from web.api_alarms import Clinician, Reader, hub_of, known_patient, store_action, stores_of
from web.auth import Session
from web.models import model_of
from web.parts import part, zone_of
from web.roles import audit, needs

router = APIRouter(tags=["alarms"])

MOST_HOURS: Final = 24.0
PREVIEWS: Final = asyncio.Semaphore(1)
"""One at a time: a slider asks often, and nothing live must wait."""


class KindShown(msgspec.Struct, frozen=True):
    """A kind of alarm in a patient's settings."""

    kind: str
    priority: int
    lethal: bool
    technical: bool
    on: bool
    limits: list[str]
    """Names of the limits that decide about it, the foremost first."""


class LimitsShown(msgspec.Struct, frozen=True):
    """The limits of a patient and what may be set."""

    profile: str
    values: dict[str, float | bool]
    off: list[str]
    defaults: dict[str, float | bool]
    """Of the profile."""
    ranges: dict[str, tuple[float, float]]
    profiles: list[str]
    kinds: list[KindShown]
    changed_by: str
    changed_ms: int | None


class Preview(BaseModel):
    """How often a limit would have sounded."""

    count: int
    now: int
    """With the limit in force."""
    hours: float
    beats: int
    """On which this rests."""


class LimitsWanted(BaseModel):
    """Either limits and kinds by name (a kind is true or false), or a profile."""

    values: dict[str, bool | float] | None = None
    profile: str | None = None

    @model_validator(mode="after")
    def one_of_both(self) -> LimitsWanted:
        """Refuse both and none."""
        if (self.values is None) == (self.profile is None):
            raise ValueError("give values or a profile")
        return self


class ContactWanted(BaseModel):
    """A contact; without `id` it is new."""

    id: Annotated[str, Field(max_length=32)] = ""
    label: Annotated[str, Field(min_length=1, max_length=255)]
    channel: Literal["webhook", "email", "mqtt"]
    address: Annotated[str, Field(max_length=1000)] = ""
    patient: Annotated[str, Field(max_length=255)] = ""
    ward: Annotated[str, Field(max_length=255)] = ""
    level: Annotated[int, Field(ge=0, le=3)] = 0
    priority: Annotated[int, Field(ge=1, le=3)] = 3


def in_force(request: Request, patient: str) -> tuple[Limits, str]:
    """Limits of a patient and the profile they began from, as the stream last told them."""
    settings = hub_of(request).board.bed(patient).settings
    if settings is None:
        return ADULT, "adult"
    return limits_from(settings.values, settings.off), settings.profile


@router.get("/api/patients/{patient}/limits", response_model=model_of(LimitsShown))
async def show_limits(request: Request, patient: str, _: Reader) -> Any:
    """Limits in force, those of the profile, and the ranges."""
    limits, profile = in_force(request, known_patient(request, patient))
    settings = hub_of(request).board.bed(patient).settings
    shown = LimitsShown(
        profile=profile,
        values=values_of(limits),
        off=sorted(limits.off),
        defaults=values_of(PROFILES.get(profile, ADULT)),
        ranges=dict(RANGES),
        profiles=list(PROFILES),
        kinds=[
            KindShown(
                kind, row.priority, kind in LETHAL, kind in TECHNICAL, kind not in limits.off, list(LIMITS_OF[kind])
            )
            for kind, row in KINDS.items()
        ],
        changed_by=settings.user if settings else "",
        changed_ms=settings.ms if settings else None,
    )
    return msgspec.to_builtins(shown)


@router.put("/api/patients/{patient}/limits", status_code=202)
async def set_limits(request: Request, patient: str, wanted: LimitsWanted, mine: Clinician) -> dict[str, str]:
    """Store a change of limits in the patient's stream; the settings that come by the websocket say it is in force."""
    limits, profile = in_force(request, known_patient(request, patient))
    try:
        if wanted.profile is not None:
            of_profile(wanted.profile)
            action = Action("profile", mine.user, values={"profile": wanted.profile})
            detail: dict[str, Any] = {"profile": wanted.profile, "from": profile}
        else:
            values: dict[str, float | str | bool] = dict(wanted.values or {})
            new = changed(limits, values)
            action = Action("limits", mine.user, values=values)
            before, after = values_of(limits), values_of(new)
            detail = {name: [before[name], after[name]] for name in after if after[name] != before[name]}
            detail |= {"off": sorted(new.off)} if new.off != limits.off else {}
    except LimitsError as error:
        text = "; ".join(error.problems)
        raise HTTPException(422, text[:1].upper() + text[1:] + ".") from error
    await store_action(request, patient, action)
    await audit(request, f"alarm.{action.name}", patient, detail)
    return {"status": "stored"}


@router.get("/api/patients/{patient}/limits/preview", response_model=Preview)
async def preview_limit(
    request: Request,
    patient: str,
    _: Reader,
    name: str,
    value: float,
    hours: Annotated[float, Query(gt=0, le=MOST_HOURS)] = MOST_HOURS,
) -> dict[str, float | int]:
    """Run the rules again over the last hours with one limit changed."""
    limits, _profile = in_force(request, known_patient(request, patient))
    kinds = kinds_of(name)
    if not kinds:
        raise HTTPException(422, f"The limit {name!r} can't be tried on the past.")
    given: float | bool = value > 0 if isinstance(values_of(ADULT).get(name), bool) else value
    try:
        new = changed(limits, {name: given})
    except LimitsError as error:
        text = "; ".join(error.problems)
        raise HTTPException(422, text[:1].upper() + text[1:] + ".") from error
    archive, engine = part(request, "archive", Archive), stores_of(request).engine
    until = now_ms()

    def work() -> dict[str, float | int]:
        past = load(archive, engine, patient, until - round(hours * 3_600_000), until)
        # A kind that is switched off would have sounded as it does when it is on.
        on, off = (replace(item, off=item.off - kinds) for item in (new, limits))
        return {"count": count(past, on, kinds), "now": count(past, off, kinds), "hours": hours, "beats": past.beats}

    async with PREVIEWS:
        return await asyncio.to_thread(work)


@router.get("/api/contacts", response_model=list[model_of(Contact)])  # type: ignore[misc]
async def list_contacts(request: Request, _: Annotated[Session, Depends(needs("monitor"))]) -> list[Any]:
    """Whom alarms are told; secrets are not shown."""
    contacts = await asyncio.to_thread(stores_of(request).contacts.all)
    return cast(list[Any], msgspec.to_builtins([msgspec.structs.replace(item, secret="") for item in contacts]))


@router.put("/api/contacts", response_model=list[model_of(Contact)])  # type: ignore[misc]
async def set_contacts(request: Request, wanted: list[ContactWanted], _: Clinician) -> list[Any]:
    """Make these all the contacts there are; the secret of a new webhook is shown this once."""
    contacts = [Contact(**item.model_dump()) for item in wanted]
    kept = await asyncio.to_thread(stores_of(request).contacts.replace, contacts)
    await audit(request, "contacts.set", "*", {"contacts": [[item.id, item.channel, item.level] for item in kept]})
    return cast(list[Any], msgspec.to_builtins(kept))


@router.get("/api/deliveries", response_model=list[model_of(Delivery)])  # type: ignore[misc]
async def list_deliveries(
    request: Request, _: Reader, alarm: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 200
) -> list[Any]:
    """Messages to contacts and how far each got."""
    deliveries = stores_of(request).deliveries
    found = await (
        asyncio.to_thread(deliveries.recent, limit) if alarm is None else asyncio.to_thread(deliveries.of_alarm, alarm)
    )
    return cast(list[Any], msgspec.to_builtins(found))


LOAD_DAYS: Final = 7.0


@router.get("/api/load", response_model=model_of(Load))
async def alarm_load(request: Request, _: Reader, days: Annotated[float, Query(gt=0, le=366)] = LOAD_DAYS) -> Any:
    """Alarms a patient-day by kind, ward and hour, the share judged false, and the noisiest patients."""
    engine, care, zone = stores_of(request).engine, request.app.state.parts.care, zone_of(request)

    def work() -> Load:
        wards = {stay.patient: stay.ward for stay in care.open_stays()} if care is not None else {}
        return load_figures(engine, now_ms(), days, ward_of=lambda patient: wards.get(patient, ""), zone=zone)

    return msgspec.to_builtins(await asyncio.to_thread(work))
