"""Routes of reports as PDF: of one alarm, and of a day."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import tzinfo
from typing import Annotated, Final

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from alerts.archive import Archive
from alerts.archive_view import trends
from alerts.care import Care
from alerts.day_summary import summarise
from alerts.limits import Limits, limits_from
from alerts.report_day import STRIP_MS, DayReport, Example, day_report, wanted_strips
from alerts.report_event import EventReport, event_report
from alerts.settings import in_force
from alerts.stores import AlarmStores
from alerts.words import kind_words
from bus.clock import now_ms
from web.api_review import DAY_MS, EVENTS, FromMs, Lead, ToMs, archive_of, file_name, stretch, turn_of
from web.auth import Session
from web.parts import part, zone_of
from web.roles import audit, needs

router = APIRouter(tags=["reports"])

Exporter = Annotated[Session, Depends(needs("monitor"))]
STEPS: Final = 288
"""Steps of the trends of a report, about."""


def as_pdf(data: bytes, name: str) -> Response:
    """Answer a PDF that opens in the browser."""
    return Response(
        data, media_type="application/pdf", headers={"Content-Disposition": f'inline; filename="{name}.pdf"'}
    )


@router.get("/api/alarms/{alarm_id:path}/report.pdf")
async def alarm_report(request: Request, alarm_id: str, mine: Exporter) -> Response:
    """Report of an alarm: the strip on ECG paper, spectrogram and map, the rule, who did what, the judgement."""
    stores = part(request, "alarm_stores", AlarmStores)
    made = await asyncio.to_thread(
        _alarm_report, stores, request.app.state.parts.care, zone_of(request), alarm_id, mine.user
    )
    if made is None:
        raise HTTPException(404, "This alarm is not known. Reload the page.")
    data, patient = made
    await audit(request, "alarm.report", alarm_id)
    return as_pdf(data, file_name(patient, "alarm"))


def _alarm_report(
    stores: AlarmStores, care: Care | None, zone: tzinfo | None, ident: str, user: str
) -> tuple[bytes, str] | None:
    alarm = stores.log.alarm(ident)
    if alarm is None:
        return None
    evidence = stores.evidence.load(ident)
    given = {(label.epoch, label.sample): label.code for label in stores.judging.labels(alarm.patient)}
    beats = evidence.beats if evidence else []
    stay = care.stay_at(alarm.patient, alarm.raised_ms) if care else None
    content = EventReport(
        alarm=alarm,
        changes=stores.log.changes(ident),
        evidence=evidence,
        judgements=stores.judging.of_alarm(ident),
        made_ms=now_ms(),
        made_by=user,
        stay=stay,
        person=care.person(stay.person) if care and stay else None,
        labels={beat.ms: given[key] for beat in beats if (key := (beat.epoch, beat.sample)) in given},
    )
    return event_report(content, zone), alarm.patient


@router.get("/api/patients/{patient}/report.pdf")
async def patient_report(
    request: Request, patient: str, mine: Exporter, from_ms: FromMs, to_ms: ToMs, lead: Lead = None
) -> Response:
    """Summary of up to 24 h: rates, fibrillation, ectopic beats, runs and pauses, each with its strip."""
    stretch(from_ms, to_ms, DAY_MS)
    archive = archive_of(request)
    parts = request.app.state.parts
    async with turn_of(request):
        data = await asyncio.to_thread(
            _patient_report,
            archive,
            parts.alarm_stores,
            parts.care,
            zone_of(request),
            patient,
            from_ms,
            to_ms,
            lead,
            mine.user,
        )
    if data is None:
        raise HTTPException(404, "Nothing was recorded in this stretch. Choose another one.")
    await audit(request, "recording.report", patient, {"from_ms": from_ms, "to_ms": to_ms})
    return as_pdf(data, file_name(patient, from_ms))


def _patient_report(
    archive: Archive,
    stores: AlarmStores | None,
    care: Care | None,
    zone: tzinfo | None,
    patient: str,
    from_ms: int,
    to_ms: int,
    lead: str | None,
    user: str,
) -> bytes | None:
    segments = archive.segments(patient, from_ms, to_ms)
    if not segments:
        return None
    lead = lead or segments[-1].leads[0]
    minutes = archive.minutes(patient, from_ms, to_ms)
    beats, rhythms = archive.beats(patient, from_ms, to_ms), archive.rhythms(patient, from_ms, to_ms)
    summary = summarise(from_ms, to_ms, minutes, beats, rhythms, _pause_s(stores, patient, to_ms))
    step = max(1, -(-(to_ms - from_ms) // (STEPS * 60_000))) * 60_000
    found = stores.log.find(patient=patient, since_ms=from_ms, until_ms=to_ms, limit=EVENTS) if stores else []
    stay = care.stay_at(patient, min(to_ms, now_ms()) - 1) if care else None
    content = DayReport(
        patient=patient,
        summary=summary,
        trends=trends(minutes, from_ms, to_ms, step),
        examples=[_example(archive, patient, title, ms, lead) for title, ms in wanted_strips(summary)],
        alarms=Counter(kind_words(item.alarm.kind) for item in found).most_common(),
        lead=lead,
        made_ms=now_ms(),
        made_by=user,
        stay=stay,
        person=care.person(stay.person) if care and stay else None,
    )
    return day_report(content, zone)


def _pause_s(stores: AlarmStores | None, patient: str, at_ms: int) -> float:
    """Limit of a pause that was in force for a patient at a time."""
    if stores is not None:
        with stores.engine.connect() as connection:
            for settings in in_force(connection, patient, at_ms):
                return limits_from(settings.values, settings.off).pause_s
    return Limits().pause_s


def _example(archive: Archive, patient: str, title: str, ms: int, lead: str) -> Example:
    strip = archive.read(patient, ms, ms + STRIP_MS, lead)
    return Example(title, strip, archive.beats(patient, ms, ms + STRIP_MS))
