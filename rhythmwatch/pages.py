"""The web process: the pages' application under uvicorn, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

from fastapi import FastAPI
from uvicorn import Server

from alerts.database import open_engine, upgrade
from alerts.people import People
from bus.clock import now_ms
from rhythmwatch.classifying import open_all_parts
from rhythmwatch.metrics import Figure, exposing
from web.app import create_app
from web.auth import FIRST_USER, Passwords
from web.hub import Counters, Hub
from web.server import make_server
from web.settings import WebSettings
from web.trail import Trail


class _Guest(Server):
    """uvicorn inside a process whose signals are handled already."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the process."""
        yield


def first_account(history: str, password: str) -> None:
    """Make the first account with a password that was chosen outside, unless there is an account already."""
    engine = open_engine(history)
    try:
        upgrade(engine)
        people = People(engine)
        if people.count_users() == 0:
            people.add_user(FIRST_USER, Passwords().hash(password), now_ms=now_ms())
    finally:
        engine.dispose()


def figures(app: FastAPI) -> Iterator[Figure]:
    """Figures of the pages for Prometheus."""
    hub: Hub | None = getattr(app.state, "hub", None)
    for name, value in (hub.health() if hub else {}).items():
        if isinstance(value, int | float):
            yield Figure(
                name, value, f"{name.replace('_', ' ')} of the pages.", counts=name in Counters.__dataclass_fields__
            )
    trail: Trail | None = getattr(app.state, "trail", None)
    if trail is not None:
        yield Figure("audit_waiting", trail.waiting, "Rows of the audit trail that wait for the database.", False)
        yield Figure("audit_lost", trail.lost, "Rows of the audit trail that were lost.")


async def serve_pages(
    bus: str,
    history: str,
    host: str,
    port: int,
    password: str | None,
    stop: asyncio.Event,
    *,
    recordings: Path | None = None,
    metrics: str = "",
    certificate: str = "",
    key: str = "",
    devices_address: str = "",
    zone: str = "",
) -> None:
    """Serve the pages until `stop` is set.

    Parameters
    ----------
    bus, history : str
        Addresses of the bus and the history database.
    host, port
        Where to listen.
    password : str, optional
        Of the first account; without it one is made and printed.
    stop : asyncio.Event
        Set to end it.
    recordings : Path, optional
        Folder of the recordings; None where none are kept.
    metrics : str
        ``host:port`` for Prometheus; empty for none.
    certificate, key : str
        PEM files; with them the pages are served over HTTPS alone, and the session cookie with it.
    devices_address : str
        What devices are told when they are enrolled.
    zone : str
        IANA name of the ward's time zone; empty for the server's.

    Raises
    ------
    ValueError
        If the zone is not known.
    """
    if password:
        await asyncio.to_thread(first_account, history, password)
    settings = WebSettings(
        redis_url=bus,
        database_url=history,
        recordings=recordings,
        devices_address=devices_address,
        zone=zone,
        secure_cookie=bool(certificate),
    )
    app = create_app(settings, parts=open_all_parts)
    server = _Guest(make_server(app, host, port, certificate=certificate, key=key).config)
    serving = asyncio.create_task(server.serve(), name="uvicorn")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    with exposing(metrics, "web", lambda: figures(app)):
        await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    stopped.cancel()
    await serving
