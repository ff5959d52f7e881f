"""Addresses of the pages, the staff's actions, the websocket and the health answer."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Annotated, Final, cast
from urllib.parse import quote, unquote

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response, WebSocket
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import HTTPConnection

from web.answers import set_session_cookie
from web.auth import COOKIE, Session
from web.client import CLOSE_FOREIGN, CLOSE_LOGGED_OUT, Client
from web.gate import Gate, TooManyTriesError
from web.hub import Hub
from web.pages import login_address, login_page, own_target, wall_page
from web.parts import Classifier, FileRefusedError
from web.roles import acts, audit
from web.settings import WebSettings
from web.trail import Trail

log = logging.getLogger("web")
router = APIRouter()

READY_TIMEOUT_S: Final = 3.0
LARGEST_FILE: Final = 32 * 1024 * 1024
"""Bytes of a file that is classified."""


def settings_of(connection: HTTPConnection) -> WebSettings:
    """Give the settings of the app."""
    return cast(WebSettings, connection.app.state.settings)


def gate_of(connection: HTTPConnection) -> Gate:
    """Give the door of the app."""
    return cast(Gate, connection.app.state.gate)


def hub_of(connection: HTTPConnection) -> Hub:
    """Give the hub of the app."""
    return cast(Hub, connection.app.state.hub)


@router.get("/", response_class=HTMLResponse)
@router.get("/patient/{patient:path}", response_class=HTMLResponse)
@router.get("/alarms", response_class=HTMLResponse)
@router.get("/files", response_class=HTMLResponse)
@router.get("/review", response_class=HTMLResponse)
@router.get("/review/{patient:path}", response_class=HTMLResponse)
@router.get("/load", response_class=HTMLResponse)
@router.get("/admit", response_class=HTMLResponse)
@router.get("/admin", response_class=HTMLResponse)
@router.get("/help", response_class=HTMLResponse)
async def page(request: Request) -> Response:
    """Show the one page; its address decides what it shows."""
    if await gate_of(request).session(request) is None:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(login_address(quote(request.url.path) + query), 303)
    return HTMLResponse(wall_page())


@router.get("/login", response_class=HTMLResponse)
async def show_login(request: Request, target: Annotated[str, Query(max_length=1000)] = "/") -> Response:
    """Show the log-in form, which leads on to `target`."""
    if await gate_of(request).session(request) is not None:
        return RedirectResponse(own_target(target), 303)
    return HTMLResponse(login_page(settings_of(request).ward, target=target))


@router.post("/login")
async def log_in(
    request: Request,
    user: Annotated[str, Form(max_length=64)] = "",
    password: Annotated[str, Form(max_length=256)] = "",
    target: Annotated[str, Form(max_length=1000)] = "/",
) -> Response:
    """Open a session and go to `target`, or say what is wrong."""
    settings, gate = settings_of(request), gate_of(request)
    again = partial(login_page, settings.ward, user=user, target=target)
    if not gate.own_page(request.headers):
        return HTMLResponse(again("This did not come from our page. Try again here."), 403)
    try:
        fresh = await gate.log_in(request.client.host if request.client else "", user, password)
    except TooManyTriesError as error:
        text = f"Too many tries. Wait {error.wait_s:.0f} s, then try again."
        return HTMLResponse(again(text), 429, {"Retry-After": f"{error.wait_s:.0f}"})
    if fresh is None:
        log.warning("log-in refused")
        # A name that is none may be a password in the wrong field.
        await audit(request, "session.refused", user if await gate.known(user) else "", user="")
        return HTMLResponse(again("Name or password is wrong."), 403)
    await audit(request, "session.begin", user, user=user)
    answer = RedirectResponse(own_target(target), 303)
    set_session_cookie(answer, fresh, settings)
    return answer


@router.post("/api/logout")
async def log_out(request: Request, mine: Annotated[Session, Depends(acts("viewer"))]) -> Response:
    """End the session; its open pages go back to the log-in."""
    await gate_of(request).log_out(request)
    await audit(request, "session.end", mine.user)
    answer = JSONResponse({"status": "logged out"})
    answer.delete_cookie(COOKIE)
    return answer


@router.post("/api/classify")
async def classify(request: Request, _: Annotated[Session, Depends(acts("viewer"))]) -> Response:
    """Classify the file that is the body; its name is in ``X-File-Name``, percent-encoded."""
    classifier = cast("Classifier | None", request.app.state.classifier)
    if classifier is None:
        raise HTTPException(503, "This server classifies no files.")
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > LARGEST_FILE:
            raise HTTPException(
                413, f"The file is too large: {LARGEST_FILE >> 20} MiB are the most. Cut it into parts."
            )
    if not data:
        raise HTTPException(422, "The file is empty. Give the whole file.")
    try:
        result = await classifier.classify(unquote(request.headers.get("x-file-name", ""))[:255], bytes(data))
    except FileRefusedError as error:
        raise HTTPException(422, str(error)) from error
    return Response(result, media_type="application/json")


@router.get("/healthz")
async def healthz(request: Request) -> JSONResponse:
    """Figures of this process; 503 when its feed is dead."""
    health = hub_of(request).health()
    return JSONResponse(health, 200 if health["status"] == "ok" else 503)


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """Whether staff can be sent here: the feed lives and the accounts can be read; 503 with what does not."""
    why = [] if hub_of(request).health()["status"] == "ok" else ["the bus gives nothing"]
    try:
        await asyncio.wait_for(gate_of(request).reach_accounts(), READY_TIMEOUT_S)
    except (SQLAlchemyError, TimeoutError):
        why.append("the database does not answer")
    return JSONResponse({"ready": not why, "why": why}, 503 if why else 200)


@router.websocket("/ws")
async def websocket(socket: WebSocket) -> None:
    """Live states and waveform for a page."""
    gate = gate_of(socket)
    session = await gate.session(socket)
    if session is None:
        await socket.close(CLOSE_LOGGED_OUT)
    elif not gate.own_page(socket.headers):
        await socket.close(CLOSE_FOREIGN)
    else:

        async def alive() -> bool:
            now = await gate.session(socket)
            # A page shows what its role may do, so it starts again when that changes.
            return now is not None and now.role == session.role

        async def seen(patient: str) -> None:
            await cast(Trail, socket.app.state.trail).seen(session.user, patient[:255])

        await Client(socket, hub_of(socket), settings_of(socket), alive, seen).run(session.user)
