"""Routes of alarms: acknowledge, audio pause, list, evidence, judgement, labelled beats."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Any, Final, Literal, cast

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import BaseModel, Field

from alerts.alarm_log import Listed
from alerts.deliveries import Delivery
from alerts.evidence import Evidence
from alerts.judging import BeatLabel, Judgement
from alerts.limits import Policy
from alerts.stores import AlarmStores
from bus.clock import now_ms
from bus.errors import BusError
from bus.messages import Action, AlarmEvent
from web.auth import Session
from web.hub import Hub
from web.models import model_of
from web.parts import Actions, part
from web.roles import acts, audit, needs

log = logging.getLogger("web.alarms")
router = APIRouter(tags=["alarms"])

Reader = Annotated[Session, Depends(needs("viewer"))]
Monitor = Annotated[Session, Depends(acts("monitor"))]
Clinician = Annotated[Session, Depends(acts("clinician"))]

LONGEST_PAUSE_S: Final = Policy().pause_ms / 1000


class Pause(BaseModel):
    """An audio pause; it ends by itself."""

    seconds: Annotated[float, Field(gt=0, le=LONGEST_PAUSE_S)] = LONGEST_PAUSE_S


class Stored(BaseModel):
    """The act is in the stream of so many patients; what it did comes by the websocket."""

    patients: int


class Presence(BaseModel):
    """Where the alarm was when the act was stored."""

    presence: str


class Verdict(BaseModel):
    """What a person holds an alarm to be."""

    verdict: Literal["true", "false", "artefact"]
    comment: Annotated[str, Field(max_length=2000)] = ""


class Label(BaseModel):
    """What a person holds a beat to be; ``|`` is an artefact."""

    epoch: Annotated[int, Field(ge=0, lt=2**63)]
    sample: Annotated[int, Field(ge=0, lt=2**63)]
    code: Literal["N", "L", "R", "A", "V", "F", "/", "Q", "|"]


class AlarmDetail(msgspec.Struct, frozen=True):
    """All that is known of an alarm."""

    alarm: AlarmEvent
    changes: list[AlarmEvent]
    evidence: Evidence | None
    judgement: Judgement | None
    judgements: list[Judgement]
    labels: list[BeatLabel]
    deliveries: list[Delivery]


def hub_of(request: Request) -> Hub:
    """Give the hub of the app."""
    return cast(Hub, request.app.state.hub)


def stores_of(request: Request) -> AlarmStores:
    """Give the stores round alarms; 503 where the app has none."""
    return part(request, "alarm_stores", AlarmStores)


def known_patient(request: Request, patient: str) -> str:
    """Give the patient back; 404 where nothing was ever heard of it."""
    if patient not in hub_of(request).board.beds:
        raise HTTPException(404, "This patient is not known. Reload the page.")
    return patient


async def store_action(request: Request, patient: str, action: Action, failed: str = "Not done") -> None:
    """Put a staff action into the patient's stream, or answer 503."""
    try:
        await cast(Actions, request.app.state.actions).append(patient, action)
    except BusError as error:
        log.warning("%s not stored: %s", action.name, error)
        raise HTTPException(503, f"{failed}: the server can't reach the bus. Try again.") from error


@router.post("/api/alarms/{alarm_id:path}/ack", status_code=202, response_model=Presence)
async def acknowledge(request: Request, alarm_id: str, mine: Monitor) -> dict[str, str]:
    """Store an acknowledgement in the patient's stream; the alarm itself tells the pages when it was done."""
    alarm = hub_of(request).board.alarms.get(alarm_id)
    if alarm is None:
        raise HTTPException(404, "This alarm is not known. Reload the page.")
    if alarm.presence in ("on", "latched"):
        await store_action(request, alarm.patient, Action("ack", mine.user, alarm_id), "Not acknowledged")
        await audit(request, "alarm.ack", alarm_id)
    return {"presence": alarm.presence}


@router.post("/api/patients/{patient}/ack", status_code=202, response_model=Stored)
async def acknowledge_all(request: Request, patient: str, mine: Monitor) -> dict[str, int]:
    """Acknowledge all alarms of a patient."""
    await store_action(request, known_patient(request, patient), Action("ack", mine.user))
    await audit(request, "alarm.ack_all", patient)
    return {"patients": 1}


@router.post("/api/patients/{patient}/pause", status_code=202, response_model=Stored)
async def pause(request: Request, patient: str, mine: Monitor, wanted: Pause | None = None) -> dict[str, int]:
    """Pause the sound of a patient's alarms; a new lethal or higher alarm breaks through."""
    seconds = (wanted or Pause()).seconds
    action = Action("pause", mine.user, values={"seconds": seconds})
    await store_action(request, known_patient(request, patient), action)
    await audit(request, "audio.pause", patient, {"seconds": seconds})
    return {"patients": 1}


@router.post("/api/patients/{patient}/resume", status_code=202, response_model=Stored)
async def resume(request: Request, patient: str, mine: Monitor) -> dict[str, int]:
    """End the audio pause of a patient."""
    await store_action(request, known_patient(request, patient), Action("resume", mine.user))
    await audit(request, "audio.resume", patient)
    return {"patients": 1}


@router.post("/api/pause", status_code=202, response_model=Stored)
async def pause_all(request: Request, mine: Monitor, wanted: Pause | None = None) -> dict[str, int]:
    """Pause the sound of all alarms."""
    seconds = (wanted or Pause()).seconds
    return await _all(request, Action("pause", mine.user, values={"seconds": seconds}), {"seconds": seconds})


@router.post("/api/resume", status_code=202, response_model=Stored)
async def resume_all(request: Request, mine: Monitor) -> dict[str, int]:
    """End all audio pauses."""
    return await _all(request, Action("resume", mine.user), {})


async def _all(request: Request, action: Action, detail: dict[str, Any]) -> dict[str, int]:
    beds = hub_of(request).board.beds
    chosen = [name for name, bed in beds.items() if action.name != "resume" or (bed.settings and bed.settings.pause_by)]
    done: list[str] = []
    try:
        for patient in chosen:
            await store_action(request, patient, action)
            done.append(patient)
    finally:
        if done:
            await audit(request, f"audio.{action.name}", "*", {**detail, "patients": len(done), "of": len(chosen)})
    return {"patients": len(done)}


@router.get("/api/alarms", response_model=list[model_of(Listed)])  # type: ignore[misc]
async def list_alarms(
    request: Request,
    _: Reader,
    patient: str | None = None,
    since: int | None = None,
    until: int | None = None,
    kind: str | None = None,
    judged: Literal["yes", "no"] | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[Any]:
    """Alarms of the history, newest first."""
    found = await asyncio.to_thread(
        stores_of(request).log.find,
        patient=patient,
        since_ms=since,
        until_ms=until,
        kind=kind,
        judged=None if judged is None else judged == "yes",
        limit=limit,
    )
    return cast(list[Any], msgspec.to_builtins(found))


@router.get("/api/judging", response_model=list[model_of(Listed)])  # type: ignore[misc]
async def judging_queue(request: Request, _: Reader, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Any]:
    """Alarms with evidence that nobody judged yet, worst first."""
    return cast(list[Any], msgspec.to_builtins(await asyncio.to_thread(stores_of(request).log.queue, limit)))


@router.post("/api/alarms/{alarm_id:path}/judge", status_code=201, response_model=model_of(Judgement))
async def judge(request: Request, alarm_id: str, said: Verdict, mine: Monitor) -> Any:
    """Keep what a person holds an alarm to be; the newest judgement counts, all are kept."""
    stores = stores_of(request)
    alarm = await asyncio.to_thread(stores.log.alarm, alarm_id) or hub_of(request).board.alarms.get(alarm_id)
    if alarm is None:
        raise HTTPException(404, "This alarm is not known. Reload the page.")
    judgement = Judgement(said.verdict, mine.user, now_ms(), said.comment)
    await asyncio.to_thread(stores.judging.judge, alarm.id, alarm.patient, judgement)
    await audit(request, "alarm.judge", alarm.id, {"verdict": said.verdict})
    return msgspec.to_builtins(judgement)


@router.post("/api/patients/{patient}/beats/label", status_code=201, response_model=model_of(BeatLabel))
async def label_beat(request: Request, patient: str, said: Label, mine: Clinician) -> Any:
    """Keep what a person holds a beat to be."""
    label = BeatLabel(known_patient(request, patient), said.epoch, said.sample, said.code, mine.user, now_ms())
    await asyncio.to_thread(stores_of(request).judging.label, label)
    await audit(request, "beat.label", patient, {"epoch": said.epoch, "sample": said.sample, "code": said.code})
    return msgspec.to_builtins(label)


@router.get("/api/patients/{patient}/beats/labels", response_model=list[model_of(BeatLabel)])  # type: ignore[misc]
async def list_labels(request: Request, patient: str, _: Reader, epoch: int | None = None) -> list[Any]:
    """Beats of a patient that people labelled."""
    labels = await asyncio.to_thread(stores_of(request).judging.labels, patient, epoch)
    return cast(list[Any], msgspec.to_builtins(labels))


@router.get("/api/alarms/{alarm_id:path}", response_model=model_of(AlarmDetail))
async def show_alarm(request: Request, alarm_id: str, _: Reader) -> Any:
    """All that is known of an alarm; its evidence is there about 12 s after it was raised."""
    stores = stores_of(request)
    known = hub_of(request).board.alarms.get(alarm_id)
    detail = await asyncio.to_thread(_detail, stores, alarm_id, known)
    if detail is None:
        raise HTTPException(404, "This alarm is not known. Reload the page.")
    return msgspec.to_builtins(detail)


def _detail(stores: AlarmStores, ident: str, known: AlarmEvent | None) -> AlarmDetail | None:
    kept = stores.log.alarm(ident)
    # The pages hear of an alarm before the historian has written it.
    alarm = max((item for item in (kept, known) if item), key=lambda item: item.revision, default=None)
    if alarm is None:
        return None
    evidence, judgements = stores.evidence.load(ident), stores.judging.of_alarm(ident)
    labels: list[BeatLabel] = []
    if evidence is not None:
        shown = {(beat.epoch, beat.sample) for beat in evidence.beats}
        labels = [label for label in stores.judging.labels(alarm.patient) if (label.epoch, label.sample) in shown]
    return AlarmDetail(
        alarm,
        stores.log.changes(ident),
        evidence,
        judgements[-1] if judgements else None,
        judgements,
        labels,
        stores.deliveries.of_alarm(ident),
    )
