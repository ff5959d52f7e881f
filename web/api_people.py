"""Routes of the people who work here: session, accounts, passwords, tokens, audit trail."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from alerts.audit import Audit
from alerts.people import People
from bus.clock import now_ms
from web.answers import set_session_cookie
from web.auth import Session
from web.gate import Gate, TooManyTriesError
from web.parts import part
from web.roles import Role, acts, audit, needs

router = APIRouter(tags=["people"])

Reader = Annotated[Session, Depends(needs("viewer"))]
Admin = Annotated[Session, Depends(needs("admin"))]
ActingAdmin = Annotated[Session, Depends(acts("admin"))]

SHORTEST: Final = 10
"""Characters of a password."""
DAY_MS: Final = 86_400_000

Password = Annotated[str, Field(min_length=SHORTEST, max_length=256)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]


class NewUser(BaseModel):
    """An account to make."""

    name: Name
    role: Role
    password: Password


class UserChange(BaseModel):
    """What is to change; what is absent stays."""

    role: Role | None = None
    disabled: bool | None = None
    password: Password | None = None


class PasswordChange(BaseModel):
    """The own password."""

    old: Annotated[str, Field(max_length=256)]
    new: Password


class NewToken(BaseModel):
    """A token to make."""

    label: Name
    role: Role
    days: Annotated[int, Field(ge=1, le=366)] = 90


def _people(request: Request) -> People:
    return part(request, "people", People)


def _gate(request: Request) -> Gate:
    gate = request.app.state.gate
    assert isinstance(gate, Gate)  # noqa: S101
    return gate


@router.get("/api/session")
async def show_session(request: Request, mine: Reader) -> dict[str, str | int]:
    """Who is logged in, what the role is, the token that acts need, and how the ward's clock is set."""
    here = datetime.now(UTC).astimezone(request.app.state.settings.time_zone())
    return {
        "user": mine.user,
        "role": mine.role,
        "csrf": mine.csrf,
        "until_ms": mine.until_ms,
        "ward": request.app.state.settings.ward,
        "zone": here.tzname() or "",
        "zone_minutes": int((here.utcoffset() or timedelta()) / timedelta(minutes=1)),
    }


@router.get("/api/users")
async def list_users(request: Request, _: Admin) -> list[dict[str, Any]]:
    """Every account by name."""
    return [msgspec.to_builtins(account) for account in await asyncio.to_thread(_people(request).accounts)]


@router.post("/api/users", status_code=201)
async def add_user(request: Request, new: NewUser, _: ActingAdmin) -> dict[str, Any]:
    """Make an account."""
    people = _people(request)
    hashed = await _gate(request).hash(new.password)
    account = await asyncio.to_thread(people.add_user, new.name, hashed, new.role, now_ms())
    await audit(request, "user.add", new.name, {"role": new.role})
    return dict(msgspec.to_builtins(account))


@router.patch("/api/users/{name}")
async def change_user(request: Request, name: str, change: UserChange, _: ActingAdmin) -> dict[str, Any]:
    """Give an account another role, switch it off or on, set its password; open pages feel it at once."""
    people = _people(request)
    hashed = await _gate(request).hash(change.password) if change.password is not None else None
    account = await asyncio.to_thread(
        people.change, name, now_ms(), role=change.role, disabled=change.disabled, password_hash=hashed
    )
    what = {key: value for key, value in (("role", change.role), ("disabled", change.disabled)) if value is not None}
    await audit(request, "user.change", name, {**what, "password": hashed is not None})
    return dict(msgspec.to_builtins(account))


@router.delete("/api/users/{name}")
async def remove_user(request: Request, name: str, _: ActingAdmin) -> dict[str, str]:
    """Take an account away; what it did stays in the trail."""
    await asyncio.to_thread(_people(request).remove, name)
    await audit(request, "user.remove", name)
    return {"status": "removed"}


@router.post("/api/password")
async def change_password(
    request: Request, change: PasswordChange, mine: Annotated[Session, Depends(acts("viewer"))]
) -> Response:
    """Change the own password; all other sessions of the account end, this one goes on with a new cookie."""
    gate, people = _gate(request), _people(request)
    if mine.bearer:
        raise HTTPException(403, "A token has no password. Log in to change yours.")
    try:
        good = await gate.check(request.client.host if request.client else "", mine.user, change.old)
    except TooManyTriesError as error:
        raise HTTPException(429, f"Too many tries. Wait {error.wait_s:.0f} s, then try again.") from error
    if not good:
        raise HTTPException(403, "The old password is wrong.")
    if change.new == change.old:
        raise HTTPException(422, "The new password is the old one. Choose another.")
    hashed = await gate.hash(change.new)
    await asyncio.to_thread(people.change, mine.user, now_ms(), password_hash=hashed)
    await audit(request, "user.password", mine.user)
    fresh = await gate.open(mine.user)
    answer = JSONResponse({"status": "changed", "csrf": fresh.session.csrf})
    set_session_cookie(answer, fresh, request.app.state.settings)
    return answer


@router.get("/api/tokens")
async def list_tokens(request: Request, _: Admin) -> list[dict[str, Any]]:
    """Access tokens of programs, without their secrets."""
    return [msgspec.to_builtins(token) for token in await asyncio.to_thread(_people(request).tokens)]


@router.post("/api/tokens", status_code=201)
async def add_token(request: Request, new: NewToken, mine: ActingAdmin) -> dict[str, Any]:
    """Make an access token; its secret is in this answer and nowhere else."""
    now = now_ms()
    token, secret = await asyncio.to_thread(
        _people(request).make_token, new.label, new.role, mine.user, now, now + new.days * DAY_MS
    )
    await audit(request, "token.add", token.id, {"role": new.role, "label": new.label, "days": new.days})
    return {**msgspec.to_builtins(token), "secret": secret}


@router.delete("/api/tokens/{ident}")
async def drop_token(request: Request, ident: str, _: ActingAdmin) -> dict[str, str]:
    """Take a token away; calls with it are refused from now on."""
    if not await asyncio.to_thread(_people(request).drop_token, ident):
        raise HTTPException(404, "There is no such token. Reload the page.")
    await audit(request, "token.remove", ident)
    return {"status": "removed"}


@router.get("/api/audit")
async def show_audit(
    request: Request,
    _: Admin,
    before: Annotated[int | None, Query(ge=1)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    subject: Annotated[str | None, Query(max_length=512)] = None,
    whole: bool = False,
) -> dict[str, Any]:
    """Newest rows of the audit trail, and the number of the first row that was tampered with (`broken`, else null).

    Rows are checked once, when they are new to this server; with `whole` all of them again.
    """
    trail = part(request, "audit", Audit)
    rows = await asyncio.to_thread(trail.rows, before, limit, subject)
    broken = await asyncio.to_thread(partial(trail.verify, whole=whole))
    return {"rows": [msgspec.to_builtins(row) for row in rows], "intact": broken is None, "broken": broken}


@router.get("/api/openapi.json")
async def describe(request: Request, _: Reader) -> dict[str, Any]:
    """Give this interface as OpenAPI."""
    schema: dict[str, Any] = request.app.openapi()
    return schema
