"""What the FHIR interface reads from a request and answers with."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Final, cast

from fastapi import Depends, HTTPException, Query, Request, Response

from alerts import fhir
from alerts.care import Care
from alerts.care_model import Stay
from alerts.fhir import FhirError, Resource
from web.auth import Session
from web.roles import needs

PREFIX: Final = "/fhir/R4"
MEDIA: Final = "application/fhir+json"
DAY_MS: Final = 86_400_000

Reader = Annotated[Session, Depends(needs("viewer"))]
Count = Annotated[int, Query(alias="_count", ge=1, le=1000)]


def answer(resource: Resource, status: int = 200, **headers: str) -> Response:
    """Answer with a resource."""
    return Response(json.dumps(resource, ensure_ascii=False), status, headers, MEDIA)


def base_of(request: Request) -> str:
    """Address of the interface as the client wrote it."""
    return f"{request.url.scheme}://{request.headers.get('host', 'localhost')}{PREFIX}"


def answer_search(request: Request, resources: list[Resource], count: int) -> Response:
    """Answer a search with the first `count` resources."""
    query = f"?{request.url.query}" if request.url.query else ""
    link = f"{base_of(request)}/{request.url.path.rpartition('/')[2]}{query}"
    return answer(fhir.bundle(resources[:count], base_of(request), link))


def or_404(value: Any, kind: str) -> Any:
    """Give what is there; 404 where it is None."""
    if value is None:
        raise HTTPException(404, f"There is no such {kind}.")
    return value


def ident_of(reference: str | None, kind: str) -> str | None:
    """Id that a reference to a resource of a kind ends with."""
    return reference.rpartition(f"{kind}/")[2] if reference is not None else None


def span_of(dates: list[str] | None) -> tuple[int, int]:
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


async def body_of(request: Request) -> dict[str, Any]:
    """Read the resource that a client sent."""
    try:
        value = json.loads(await request.body())
    except ValueError as error:
        raise HTTPException(400, "The body is no JSON.") from error
    if not isinstance(value, dict):
        raise HTTPException(400, "The body is no FHIR resource.")
    return value


async def stay_of(care: Care, ident: str) -> Stay:
    """Find a stay by the id of its Encounter."""
    number = int(ident) if ident.isdecimal() and len(ident) < 19 else -1
    return cast(Stay, or_404(await asyncio.to_thread(care.stay, number), "Encounter"))
