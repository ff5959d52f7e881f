"""Who may call a route, and the note in the audit trail that an act leaves.

Every route states its role: ``Annotated[Session, Depends(needs("viewer"))]`` for reading,
``Annotated[Session, Depends(acts("monitor"))]`` for what changes something. Both let in a logged-in page (session
cookie; for acts with the CSRF token and our own origin as well) or a program (``Authorization: Bearer <token>``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, TypeAlias, cast

from fastapi import HTTPException, Request

from alerts.people import covers
from web.auth import Session
from web.gate import Gate
from web.trail import Trail

Role: TypeAlias = Literal["viewer", "monitor", "clinician", "admin"]


class Guard:
    """Dependency of a route: gives the `Session`, or answers 401 or 403.

    Attributes
    ----------
    role : str
        Least role that passes.
    acting : bool
        Whether the route changes something. A reading route with ``patient`` or ``person`` in its address or its query
        is noted in the trail as a look at that patient.
    """

    def __init__(self, role: Role, acting: bool) -> None:
        self.role = role
        self.acting = acting

    async def __call__(self, request: Request) -> Session:
        """Let pass or refuse."""
        gate = cast(Gate, request.app.state.gate)
        session = await gate.session(request)
        if session is None:
            raise HTTPException(401, "You are logged out. Log in again.", {"WWW-Authenticate": "Bearer"})
        if self.acting and not gate.may_act(request, session):
            raise HTTPException(403, "This did not come from our page. Reload it and try again.")
        if not covers(session.role, self.role):
            raise HTTPException(403, f"Your role is {session.role}; this needs {self.role}. Ask an admin.")
        request.state.session = session
        subject = request.path_params.get("patient") or request.path_params.get("person")
        subject = subject or request.query_params.get("patient")
        if subject and not self.acting:
            await cast(Trail, request.app.state.trail).seen(session.user, subject[:255])
        return session


@lru_cache
def needs(role: Role) -> Guard:
    """Guard of a route that reads."""
    return Guard(role, acting=False)


@lru_cache
def acts(role: Role) -> Guard:
    """Guard of a route that changes something."""
    return Guard(role, acting=True)


async def looked(request: Request, subject: str) -> None:
    """Note that the caller of a guarded route looked at a patient whom its address does not name as such."""
    await cast(Trail, request.app.state.trail).seen(cast(Session, request.state.session).user, subject)


async def audit(
    request: Request, act: str, subject: str, detail: Mapping[str, Any] | None = None, *, user: str | None = None
) -> None:
    """Note an act in the audit trail, once it has been done.

    Parameters
    ----------
    request : Request
        Of a guarded route.
    act : str
        What was done, as ``thing.verb`` (``alarm.ack``).
    subject : str
        To what: channel, alarm id, account name, person id.
    detail : mapping, optional
        Values that JSON can hold. No names, notes or other data of a patient: the trail outlives an erasure.
    user : str, optional
        Where no guard ran (log-in).
    """
    who = user if user is not None else cast(Session, request.state.session).user
    await cast(Trail, request.app.state.trail).add(who, act, subject, detail)
