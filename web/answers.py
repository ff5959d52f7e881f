"""What answers have in common: the session cookie, and errors as one line for people."""

from __future__ import annotations

import logging
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from alerts.database import StoreError
from alerts.fhir import outcome
from web.auth import COOKIE, LogIn
from web.pages import missing_page
from web.settings import WebSettings

log = logging.getLogger("web")


def set_session_cookie(answer: Response, fresh: LogIn, settings: WebSettings) -> None:
    """Hand the cookie of a new session out: for this site alone, unreadable to scripts."""
    answer.set_cookie(
        COOKIE,
        fresh.cookie,
        max_age=int(settings.session_hours * 3600),
        httponly=True,
        samesite="strict",
        secure=settings.secure_cookie,
    )


def answer_errors(app: FastAPI) -> None:
    """Let an app answer what went wrong as ``{"detail": "one line"}``; no value of a request is repeated or logged."""

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return _told(request, "; ".join(_sentence(item) for item in error.errors()), 422)

    async def refused(request: Request, error: Exception) -> JSONResponse:
        text = str(error)
        return _told(request, text[:1].upper() + text[1:] + ".", 409)

    async def raised(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        if error.status_code == 404 and request.scope.get("route") is None and _by_person(request):
            return HTMLResponse(missing_page(), 404)
        answer = _told(request, str(error.detail), error.status_code)
        answer.headers.update(error.headers or {})
        return answer

    async def away(request: Request, error: Exception) -> JSONResponse:
        # The message of the database may hold values of the statement.
        log.error("database failed at %s: %s", _place(request), type(error).__name__)
        return _told(request, "The database does not answer as it should. Try again; tell an admin.", 503)

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, raised)
    app.add_exception_handler(StoreError, refused)
    app.add_exception_handler(SQLAlchemyError, away)


def _told(request: Request, text: str, status: int) -> JSONResponse:
    """Say it in one line; to programs that speak FHIR in their own form."""
    if request.url.path.startswith("/fhir/"):
        return JSONResponse(outcome(text), status, media_type="application/fhir+json")
    return JSONResponse({"detail": text}, status)


def _by_person(request: Request) -> bool:
    """Whether a browser asks for a page, not a program or a script for an answer."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")


_LIMITS: Final = {
    "string_too_short": "{min_length} characters or more",
    "string_too_long": "{max_length} characters at most",
    "missing": "is missing",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
}
"""What pydantic says in the words of programs, for people."""


def _sentence(item: dict[str, Any]) -> str:
    place = ".".join(str(step) for step in item["loc"] if step not in ("body", "query", "path"))
    said = _LIMITS.get(item["type"])
    return f"{place or 'request'}: {said.format(**item.get('ctx', {})) if said else item['msg']}"


def _place(request: Request) -> str:
    route = request.scope.get("route")
    return str(getattr(route, "path", "a route"))
