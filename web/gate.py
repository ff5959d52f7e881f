"""Who gets in: accounts, sessions, limits of tries and the origin check, as the few questions that routes ask."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from bus.clock import now_ms
from web.auth import (
    COOKIE,
    Accounts,
    LogIn,
    Passwords,
    Session,
    Sessions,
    Throttle,
    Tokens,
    new_session,
    same_secret,
    session_key,
)
from web.security import own_origin
from web.settings import WebSettings

LOGIN_LIMIT: Final = 5
LOGIN_WINDOW_S: Final = 60.0
PASSWORD_CHECKS: Final = 2
"""Argon2 runs at a time: each takes 64 MiB and a good part of a core."""


class TooManyTriesError(Exception):
    """Log-in has to wait.

    Attributes
    ----------
    wait_s : float
        So long.
    """

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many tries, wait {wait_s:.0f} s")
        self.wait_s = wait_s


class Gate:
    """The door of the pages.

    Parameters
    ----------
    settings : WebSettings
        Origins and length of a session.
    accounts, sessions, tokens
        Where they live.
    """

    def __init__(
        self, settings: WebSettings, accounts: Accounts, sessions: Sessions, tokens: Tokens | None = None
    ) -> None:
        self._tokens = tokens
        self._settings = settings
        self._accounts = accounts
        self._sessions = sessions
        self._throttle = Throttle(LOGIN_LIMIT, LOGIN_WINDOW_S, time.monotonic)
        self._checks = asyncio.Semaphore(PASSWORD_CHECKS)
        self.passwords = Passwords()

    def own_page(self, headers: Headers) -> bool:
        """Whether a request comes from our own page."""
        return own_origin(headers, self._settings.origins)

    async def reach_accounts(self) -> None:
        """Ask the database for something small; its errors are passed on."""
        await asyncio.to_thread(self._accounts.count_users)

    async def session(self, connection: HTTPConnection) -> Session | None:
        """Session of a request or websocket that has not ended, with the role that its user has now."""
        scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._bearer(secret.strip())
        cookie = connection.cookies.get(COOKIE)
        if not cookie:
            return None
        session = await self._sessions.get(session_key(cookie))
        if session is None or session.until_ms <= now_ms():
            return None
        account = await asyncio.to_thread(self._accounts.account, session.user)
        if account is None or account.disabled or session.since_ms < account.since_ms:
            return None
        return msgspec.structs.replace(session, role=account.role)

    async def _bearer(self, secret: str) -> Session | None:
        if self._tokens is None:
            return None
        token = await asyncio.to_thread(self._tokens.token, secret)
        if token is None or token.until_ms <= now_ms():
            return None
        return Session(f"{token.label} (token)", "", token.until_ms, token.role, token.made_ms, bearer=True)

    def may_act(self, connection: HTTPConnection, session: Session) -> bool:
        """Whether a request that changes something was made by our own page for this session, or by a program."""
        if session.bearer:
            return True
        return self.own_page(connection.headers) and same_secret(connection.headers.get("x-csrf-token"), session.csrf)

    async def log_in(self, address: str, user: str, password: str) -> LogIn | None:
        """Open a session; None when name or password is wrong.

        Raises
        ------
        TooManyTriesError
            If this address or this account failed too often lately.
        """
        if not await self.check(address, user, password):
            return None
        return await self.open(user)

    async def open(self, user: str) -> LogIn:
        """Open a session for a user who was checked."""
        fresh = new_session(user, now_ms() / 1000, self._settings.session_hours)
        await self._sessions.put(session_key(fresh.cookie), fresh.session, self._settings.session_hours * 3600)
        return fresh

    async def hash(self, password: str) -> str:
        """Argon2 hash of a new password."""
        async with self._checks:
            return await asyncio.to_thread(self.passwords.hash, password)

    async def check(self, address: str, user: str, password: str) -> bool:
        """Whether a password is that of an account that may log in.

        Raises
        ------
        TooManyTriesError
            If this address or this account failed too often lately.
        """
        keys = (f"address {address}", f"account {user}")
        wait = self._throttle.wait_s(*keys)
        if wait > 0:
            raise TooManyTriesError(wait)
        # Counted before the slow check, so that tries side by side can't slip past the limit.
        self._throttle.failed(*keys)
        async with self._checks:
            kept = await asyncio.to_thread(self._accounts.password_hash, user)
            good = await asyncio.to_thread(self.passwords.matches, kept, password)
        account = await asyncio.to_thread(self._accounts.account, user)
        if not good or account is None or account.disabled:
            return False
        for key in keys:
            self._throttle.succeeded(key)
        return True

    async def known(self, user: str) -> bool:
        """Whether there is an account of that name."""
        return await asyncio.to_thread(self._accounts.account, user) is not None

    async def log_out(self, connection: HTTPConnection) -> None:
        """End the session of a request."""
        await self._sessions.drop(session_key(connection.cookies.get(COOKIE, "")))
