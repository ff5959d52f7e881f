"""The web application: what it opens, keeps and closes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.staticfiles import StaticFiles

from alerts.care_desk import Desk
from bus.tasks import end
from web import (
    api_alarms,
    api_care,
    api_devices,
    api_fhir,
    api_fhir_signals,
    api_limits,
    api_people,
    api_reports,
    api_review,
    routes,
)
from web.answers import answer_errors
from web.auth import first_account
from web.gate import Gate
from web.hub import Hub
from web.pages import UI
from web.parts import OpenParts
from web.production import open_parts
from web.security import SecurityHeaders
from web.settings import WebSettings
from web.trail import Trail

ROUTERS: Final[tuple[APIRouter, ...]] = (
    routes.router,
    api_people.router,
    api_devices.router,
    api_care.router,
    api_fhir.router,
    api_fhir_signals.router,
    api_limits.router,
    api_review.router,
    api_reports.router,
    api_alarms.router,  # the last, since ``/api/alarms/{id}`` takes the rest of an address
)
"""Every address that the server answers; each route states its role (`web.roles`)."""


def say(text: str) -> None:
    """Tell the person who started the server."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def create_app(
    settings: WebSettings, *, parts: OpenParts = open_parts, announce: Callable[[str], None] = say
) -> FastAPI:
    """Make the application.

    Parameters
    ----------
    settings : WebSettings
        See there.
    parts : callable
        Opens what the pages need (feed, actions, stores) as an async context manager; the default opens the bus at
        ``settings.redis_url`` and the store at ``settings.database_url``.
    announce : callable
        Gets the line with the generated password at a first start.

    Returns
    -------
    FastAPI
        Ready for uvicorn (see `web.server`).
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with parts(settings) as opened:
            gate = Gate(settings, opened.accounts, opened.sessions, opened.tokens)
            app.state.parts, app.state.trail = opened, Trail(opened.audit)
            made = await asyncio.to_thread(first_account, opened.accounts, gate.passwords)
            if made is not None:
                announce(f"first start: log in as {made[0]} with the password {made[1]} (shown only once)")
            app.state.desk = Desk(opened.care, opened.actions.append) if opened.care is not None else None
            hub = Hub(opened.feed, opened.alarms, settings)
            app.state.gate, app.state.hub, app.state.actions = gate, hub, opened.actions
            app.state.classifier = opened.classifier
            reader = asyncio.create_task(hub.run(), name="hub")
            try:
                yield
            finally:
                await end([reader])
                await app.state.trail.flush()

    app = FastAPI(title="RhythmWatch", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.settings = settings
    app.add_middleware(SecurityHeaders)
    app.mount("/ui", StaticFiles(directory=UI), name="ui")
    answer_errors(app)
    for router in ROUTERS:
        app.include_router(router)
    return app
