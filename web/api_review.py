"""Routes of recordings: full disclosure, strips, trends, exports, reports."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, cast

import msgspec
import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from numpy.typing import NDArray

from alerts import export
from alerts.archive import Archive
from alerts.archive_files import MISSING
from alerts.archive_view import outline, trends
from alerts.stores import AlarmStores
from alerts.strip_picture import strip_png
from web.auth import Session
from web.parts import part
from web.roles import audit, needs

router = APIRouter(tags=["review"])

Reader = Annotated[Session, Depends(needs("viewer"))]
Exporter = Annotated[Session, Depends(needs("monitor"))]
FromMs = Annotated[int, Query(alias="from", ge=0, lt=2**53, description="ms since 1970")]
ToMs = Annotated[int, Query(alias="to", ge=0, lt=2**53, description="ms since 1970; left out itself")]
Lead = Annotated[str | None, Query(max_length=16)]

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
STRIP_MS: Final = 10 * 60_000
TREND_MS: Final = 31 * DAY_MS
STEPS: Final = 12_000
EVENTS: Final = 20_000
LONGEST: Final = {"wfdb": DAY_MS, "edf": DAY_MS, "csv": HOUR_MS, "png": 2 * 60_000}
MEDIA: Final = {
    "wfdb": ("zip", "application/zip"),
    "edf": ("edf", "application/octet-stream"),
    "csv": ("csv", "text/csv; charset=utf-8"),
    "png": ("png", "image/png"),
}


def archive_of(request: Request) -> Archive:
    """Give the recordings; 503 where the app has none."""
    return part(request, "archive", Archive)


def stretch(from_ms: int, to_ms: int, longest_ms: int) -> None:
    """Refuse a stretch that is empty or too long."""
    if to_ms <= from_ms:
        raise HTTPException(422, "The stretch ends before it begins.")
    if to_ms - from_ms > longest_ms:
        hours = longest_ms / HOUR_MS
        most = f"{hours:g} h" if hours >= 1 else f"{longest_ms / 60_000:g} min"
        raise HTTPException(422, f"The stretch is too long: {most} are the most. Choose a shorter one.")


def turn_of(request: Request) -> asyncio.Semaphore:
    """Give the turn of exports and reports: each may hold a day of samples in memory, so they go one by one."""
    state = request.app.state
    if not hasattr(state, "export_turn"):
        state.export_turn = asyncio.Semaphore(1)
    return cast(asyncio.Semaphore, state.export_turn)


def file_name(patient: str, more: str | int) -> str:
    """Name a download: letters, digits and signs that every system takes."""
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', patient)}_{more}"


def as_json(value: Any) -> Response:
    """Answer large arrays without a walk through models."""
    return Response(msgspec.json.encode(value), media_type="application/json")


@router.get("/api/patients/{patient}/disclosure")
async def disclosure(
    request: Request,
    patient: str,
    _: Reader,
    from_ms: FromMs,
    to_ms: ToMs,
    width: Annotated[int, Query(ge=50, le=4000)] = 600,
    lead: Lead = None,
) -> Response:
    """Lines of a minute as least and greatest uV of each of `width` points (null: no sample), and what happened."""
    stretch(from_ms, to_ms, DAY_MS)
    archive = archive_of(request)
    stores = request.app.state.parts.alarm_stores
    return as_json(await asyncio.to_thread(_disclosure, archive, stores, patient, from_ms, to_ms, width, lead))


def _disclosure(
    archive: Archive, stores: AlarmStores | None, patient: str, from_ms: int, to_ms: int, width: int, lead: str | None
) -> dict[str, Any]:
    drawn = outline(archive, patient, from_ms, to_ms, width, lead)
    lines = [
        {"ms": ms, "min": low, "max": high}
        for ms, low, high in zip(drawn.ms.tolist(), _nulls(drawn.low), _nulls(drawn.high), strict=True)
    ]
    begin = from_ms - from_ms % 60_000
    beats = archive.beats(patient, begin, to_ms)
    odd = beats[np.isin(beats["code"], (b"V", b"A", b"F", b"E", b"S", b"J", b"a"))]
    events: list[dict[str, Any]] = [
        {"ms": ms, "type": "beat", "code": code.decode()}
        for ms, code in zip(odd["ms"][:EVENTS].tolist(), odd["code"][:EVENTS].tolist(), strict=True)
    ]
    events += [{"ms": ms, "type": "rhythm", "code": code} for ms, code in archive.rhythms(patient, begin, to_ms)]
    events += _alarms(stores, patient, begin, to_ms)
    events.sort(key=lambda event: event["ms"])
    return {
        "lead": drawn.lead,
        "width": width,
        "lines": lines,
        "events": events,
        "left_out": max(0, len(odd) - EVENTS),
    }


def _alarms(stores: AlarmStores | None, patient: str, from_ms: int, to_ms: int) -> list[dict[str, Any]]:
    if stores is None:
        return []
    found = stores.log.find(patient=patient, since_ms=from_ms, until_ms=to_ms, limit=EVENTS)
    return [
        {
            "ms": max(from_ms, item.alarm.onset_ms),
            "type": "alarm",
            "id": item.alarm.id,
            "kind": item.alarm.kind,
            "priority": item.alarm.priority,
            "technical": item.alarm.technical,
            "detail": item.alarm.detail,
            "to_ms": item.alarm.cleared_ms,
        }
        for item in found
    ]


def _nulls(rows: NDArray[np.int32]) -> list[list[int | None]]:
    """Rows as lists with None for a missing sample."""
    holes = (rows == MISSING).any(axis=1)
    lists: list[list[int | None]] = rows.tolist()
    for number in np.flatnonzero(holes).tolist():
        lists[number] = [None if value == MISSING else value for value in lists[number]]
    return lists


@router.get("/api/patients/{patient}/strip")
async def strip(request: Request, patient: str, _: Reader, from_ms: FromMs, to_ms: ToMs, lead: Lead = None) -> Response:
    """Give a short stretch in mV (null: no sample), its beats with their verdicts, gaps, rhythms and alarms."""
    stretch(from_ms, to_ms, STRIP_MS)
    archive = archive_of(request)
    stores = request.app.state.parts.alarm_stores
    return as_json(await asyncio.to_thread(_strip, archive, stores, patient, from_ms, to_ms, lead))


def _strip(
    archive: Archive, stores: AlarmStores | None, patient: str, from_ms: int, to_ms: int, lead: str | None
) -> dict[str, Any]:
    cut = archive.read(patient, from_ms, to_ms, lead)
    mv = np.round(cut.mv.astype(np.float64), 4)
    columns = [
        [None if value != value else value for value in mv[:, column].tolist()] for column in range(len(cut.leads))
    ]
    return {
        "fs": cut.fs,
        "leads": cut.leads,
        "from_ms": from_ms,
        "mv": columns,
        "gaps": cut.gaps,
        "beats": [_beat(beat) for beat in archive.beats(patient, from_ms, to_ms)],
        "rhythms": [{"ms": ms, "code": code} for ms, code in archive.rhythms(patient, from_ms, to_ms)],
        "alarms": _alarms(stores, patient, from_ms, to_ms),
    }


def _beat(beat: Any) -> dict[str, Any]:
    return {
        "ms": int(beat["ms"]),
        "epoch": int(beat["epoch"]),
        "sample": int(beat["sample"]),
        "code": beat["code"].decode(),
        "p": round(float(beat["p"]), 4),
        "second": beat["second"].decode(),
        "second_p": round(float(beat["second_p"]), 4),
        "rr_ms": int(beat["rr_ms"]),
        "map": base64.b64encode(beat["map"].tobytes()).decode() if beat["mapped"] else "",
    }


@router.get("/api/patients/{patient}/trends")
async def trend(
    request: Request,
    patient: str,
    _: Reader,
    from_ms: FromMs,
    to_ms: ToMs,
    step: Annotated[int, Query(ge=60_000, le=DAY_MS, description="ms, whole minutes")] = 60_000,
) -> Response:
    """Rates, ectopic beats, share of fibrillation and of good signal in even steps; null where nothing is known."""
    stretch(from_ms, to_ms, TREND_MS)
    step -= step % 60_000
    if (to_ms - from_ms) / step > STEPS:
        raise HTTPException(422, f"These are more than {STEPS} steps. Choose a longer step.")
    archive = archive_of(request)
    first = from_ms - from_ms % step
    minutes = await asyncio.to_thread(archive.minutes, patient, first, to_ms)
    made = trends(minutes, from_ms, to_ms, step)
    names = ("hr", "hr_min", "hr_max", "pvc", "sveb", "af", "quality")
    columns = {name: [None if x != x else round(x, 4) for x in getattr(made, name).tolist()] for name in names}
    return as_json({"step_ms": step, "ms": made.ms.tolist(), **columns})


@router.get("/api/patients/{patient}/recorded")
async def recorded(request: Request, patient: str, _: Reader) -> dict[str, Any]:
    """From when to when there may be recordings, and of which leads; null where there are none."""
    archive = archive_of(request)
    segments = await asyncio.to_thread(archive.segments, patient)
    leads = list(dict.fromkeys(lead for segment in reversed(segments) for lead in segment.leads))
    return {
        "from_ms": min((segment.from_ms for segment in segments), default=None),
        "to_ms": max((segment.to_ms for segment in segments), default=None),
        "leads": leads,
    }


@router.get("/api/patients/{patient}/export")
async def export_stretch(
    request: Request,
    patient: str,
    _: Exporter,
    from_ms: FromMs,
    to_ms: ToMs,
    format_: Annotated[Literal["wfdb", "edf", "csv", "png"], Query(alias="format")],
    lead: Lead = None,
) -> Response:
    """Download a stretch: a zipped WFDB record, EDF+, CSV, or a picture of the strip on ECG paper."""
    stretch(from_ms, to_ms, LONGEST[format_])
    archive = archive_of(request)
    name = file_name(patient, from_ms)
    try:
        async with turn_of(request):
            data = await asyncio.to_thread(_exported, archive, name, patient, from_ms, to_ms, format_, lead)
    except export.ExportError as error:
        raise HTTPException(404, str(error)) from error
    await audit(request, "recording.export", patient, {"from_ms": from_ms, "to_ms": to_ms, "format": format_})
    ending, media = MEDIA[format_]
    return Response(data, media_type=media, headers={"Content-Disposition": f'attachment; filename="{name}.{ending}"'})


def _exported(
    archive: Archive, name: str, patient: str, from_ms: int, to_ms: int, wanted: str, lead: str | None
) -> bytes:
    cut = export.checked(archive.read(patient, from_ms, to_ms, lead))
    beats, rhythms = archive.beats(patient, from_ms, to_ms), archive.rhythms(patient, from_ms, to_ms)
    made: dict[str, Callable[[], bytes]] = {
        "wfdb": lambda: export.wfdb_zip(name, cut, beats, rhythms),
        "edf": lambda: export.edf(cut, beats, rhythms),
        "csv": lambda: export.csv(cut),
        "png": lambda: strip_png(cut, beats, f"{patient}   {', '.join(cut.leads)}"),
    }
    return made[wanted]()
