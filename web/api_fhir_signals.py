"""Observation and Flag of the FHIR R4 interface: heart rates, waveforms and alarms of a stay."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, cast

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request, Response
from sqlalchemy import select

from alerts import fhir
from alerts.archive import Archive
from alerts.archive_files import MISSING
from alerts.care import Care
from alerts.care_model import Stay
from alerts.fhir import FhirError, Resource
from alerts.store import ALARMS
from alerts.tables import columns_of
from bus.clock import now_ms
from bus.messages import AlarmEvent
from web.api_care import care_of
from web.fhir_http import PREFIX, Count, Reader, answer, answer_search, ident_of, or_404, span_of, stay_of
from web.roles import looked

router = APIRouter(prefix=PREFIX, tags=["fhir"])

Dates = Annotated[list[str] | None, Query(max_length=4)]

LONGEST_MS: Final = 60_000
"""Of one waveform."""
STRIP_MS: Final = 10_000
BACK_MS: Final = 600_000
"""The newest waveform is looked for in so much time."""


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
    begin, end = span_of(date)
    wanted = code.rpartition("|")[2] if code is not None else None

    def load() -> list[Resource]:
        out: list[Resource] = []
        for stay in reversed(care.stays(ident_of(patient, "Patient"))):
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

    return answer_search(request, await asyncio.to_thread(load), count)


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
        stay = await stay_of(care_of(request), numbers[0])
        minutes = await asyncio.to_thread(archive.minutes, stay.patient, values[1], values[1] + 1)
        if len(minutes.ms) and minutes.hr[0] == minutes.hr[0]:
            return answer(fhir.heart_rate(stay, values[1], float(minutes.hr[0])))
    elif kind == "ecg" and len(values) == 3 and 0 < values[2] <= LONGEST_MS:
        stay = await stay_of(care_of(request), numbers[0])
        low, high = max(values[1], stay.from_ms), min(values[1] + values[2], stay.to_ms or 2**62)
        found = await asyncio.to_thread(_waveform, archive, stay, low, high, True) if low < high else []
        if found:
            return answer(found[0])
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
    begin, end = span_of(date)

    def load() -> list[Resource]:
        out: list[Resource] = []
        for stay in reversed(care.stays(ident_of(patient, "Patient"))):
            low, high = max(begin, stay.from_ms), min(end, stay.to_ms or 2**62)
            out += [fhir.flag(stay, alarm) for alarm in _alarms(care, stay, low, high)]
        return [item for item in out if status is None or item["status"] == status]

    return answer_search(request, await asyncio.to_thread(load), count)


@router.get("/Flag/{ident}")
async def read_flag(request: Request, ident: str, _: Reader) -> Response:
    """Give an alarm."""
    await looked(request, ident)
    care = care_of(request)
    try:
        number, kind, epoch, onset = fhir.alarm_of_flag(ident)
    except FhirError as error:
        raise HTTPException(404, f"{error}.") from error
    stay = await stay_of(care, str(number))
    alarms = await asyncio.to_thread(_alarms, care, stay, stay.from_ms, stay.to_ms or 2**62)
    same = [item for item in alarms if (item.kind, item.epoch, item.onset_sample) == (kind, epoch, onset)]
    return answer(fhir.flag(stay, or_404(same[0] if same else None, "Flag")))


def _alarms(care: Care, stay: Stay, begin: int, end: int) -> list[AlarmEvent]:
    mine = (ALARMS.c.patient == stay.patient, ALARMS.c.onset_ms >= begin, ALARMS.c.onset_ms < end)
    with care.engine.connect() as connection:
        rows = connection.execute(
            select(*columns_of(ALARMS, AlarmEvent)).where(*mine).order_by(ALARMS.c.onset_ms.desc())
        )
        return [AlarmEvent(**row) for row in rows.mappings()]
