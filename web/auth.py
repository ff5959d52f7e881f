"""Who may see the wall: accounts, sessions, log-in attempts. Cores without I/O; the stores behind are protocols."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from alerts.people import Account, Token
from bus.clock import LOST_MS
from bus.connect import Client

FIRST_USER: Final = "station"
COOKIE: Final = "rw_session"
_TOKEN_BYTES: Final = 32


class Accounts(Protocol):
    """Where accounts live (the alarm store's SQL); calls block and run in a thread."""

    def password_hash(self, name: str) -> str | None:
        """Argon2 hash of an account, None when there is none of that name."""
        ...

    def add_user(self, name: str, password_hash: str) -> object:
        """Make an account."""
        ...

    def count_users(self) -> int:
        """How many accounts there are."""
        ...

    def account(self, name: str) -> Account | None:
        """Look an account up as it is now, None when there is none of that name."""
        ...


class Tokens(Protocol):
    """Where access tokens live; calls block."""

    def token(self, secret: str) -> Token | None:
        """Look a token up by its secret."""
        ...


class Session(msgspec.Struct, frozen=True):
    """A logged-in page, or one call of a program."""

    user: str
    csrf: str
    until_ms: int
    role: str = "viewer"
    """As it is at this call; not kept with the session."""
    since_ms: int = 0
    bearer: bool = False
    """Made for one call by an access token, which no foreign page can send."""


class Sessions(Protocol):
    """Where sessions live; keys are hashes of the cookie, so that the store can't be used to log in."""

    async def put(self, key: str, session: Session, seconds: float) -> None:
        """Keep a session for `seconds`."""
        ...

    async def get(self, key: str) -> Session | None:
        """Look a session up."""
        ...

    async def drop(self, key: str) -> None:
        """End a session."""
        ...


def session_key(cookie: str) -> str:
    """Name under which a cookie's session is stored: SHA-256 of it, hex."""
    return hashlib.sha256(cookie.encode()).hexdigest()


class RedisSessions:
    """Sessions on the bus's server: they outlive a web process and are shared by all of them."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis

    async def put(self, key: str, session: Session, seconds: float) -> None:
        """Keep a session for `seconds`."""
        # Longer, as its own end is looked at: the server counts by a clock that may be set ahead by hours.
        kept_ms = max(1, int(seconds * 1000)) + LOST_MS
        await self._redis.set(f"rw:session:{key}", msgspec.msgpack.encode(session), px=kept_ms)

    async def get(self, key: str) -> Session | None:
        """Look a session up."""
        data = await self._redis.get(f"rw:session:{key}")
        if not isinstance(data, bytes):
            return None
        return msgspec.msgpack.decode(data, type=Session)

    async def drop(self, key: str) -> None:
        """End a session."""
        await self._redis.delete(f"rw:session:{key}")


@dataclass(frozen=True, slots=True)
class LogIn:
    """A new session: the cookie to hand out, and what is stored."""

    cookie: str
    session: Session


def new_session(user: str, now_s: float, hours: float) -> LogIn:
    """Make a session with fresh secrets."""
    until_ms = int((now_s + hours * 3600) * 1000)
    session = Session(user, secrets.token_urlsafe(_TOKEN_BYTES), until_ms, since_ms=int(now_s * 1000))
    return LogIn(secrets.token_urlsafe(_TOKEN_BYTES), session)


def same_secret(given: str | None, wanted: str) -> bool:
    """Compare in constant time."""
    return given is not None and hmac.compare_digest(given.encode(), wanted.encode())


class Throttle:
    """Limit of failed log-ins per key (an address, an account): a sliding window with its clock passed in.

    Parameters
    ----------
    limit : int
        Failures within the window after which the key has to wait.
    window_s : float
        Length of the window, seconds.
    clock : callable
        Monotonic seconds.
    """

    _KEYS: Final = 10_000

    def __init__(self, limit: int, window_s: float, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._window_s = window_s
        self._clock = clock
        self._failures: dict[str, list[float]] = {}

    def wait_s(self, *keys: str) -> float:
        """Seconds until the next try is allowed for all keys; 0 when it is now."""
        now = self._clock()
        waits = [0.0]
        for key in keys:
            recent = [at for at in self._failures.get(key, ()) if now - at < self._window_s]
            if recent:
                self._failures[key] = recent
            else:
                self._failures.pop(key, None)
            if len(recent) >= self._limit:
                waits.append(recent[-self._limit] + self._window_s - now)
        return max(waits)

    def failed(self, *keys: str) -> None:
        """Note a failed try."""
        now = self._clock()
        for key in keys:
            self._failures.setdefault(key, []).append(now)
            del self._failures[key][: -self._limit]
        while len(self._failures) > self._KEYS:
            self._failures.pop(next(iter(self._failures)))

    def succeeded(self, key: str) -> None:
        """Forget the failures of a key."""
        self._failures.pop(key, None)


class Passwords:
    """Check passwords in about the same time whether the account exists or not."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._nobody = self._hasher.hash(secrets.token_urlsafe(16))

    def hash(self, password: str) -> str:
        """Argon2id hash of a password."""
        return self._hasher.hash(password)

    def matches(self, password_hash: str | None, password: str) -> bool:
        """Whether `password` is that of the account with `password_hash` (None: no such account)."""
        try:
            good = self._hasher.verify(password_hash or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False
        return good and password_hash is not None


def first_account(accounts: Accounts, passwords: Passwords) -> tuple[str, str] | None:
    """Make the one account of a first start.

    Returns
    -------
    tuple of str or None
        Name and generated password, to be shown once; None when there are accounts already.
    """
    if accounts.count_users():
        return None
    password = "-".join(secrets.token_hex(2) for _ in range(4))
    accounts.add_user(FIRST_USER, passwords.hash(password))
    return FIRST_USER, password
