"""Routes of the people who work here: session, accounts, passwords, tokens, audit trail."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from web.auth import Session
from web.roles import needs

router = APIRouter(tags=["people"])


@router.get("/api/session")
async def show_session(request: Request, mine: Annotated[Session, Depends(needs("viewer"))]) -> dict[str, str | int]:
    """Who is logged in, what the role is, and the token that acts need."""
    return {
        "user": mine.user,
        "role": mine.role,
        "csrf": mine.csrf,
        "until_ms": mine.until_ms,
        "ward": request.app.state.settings.ward,
    }
