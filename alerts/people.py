"""Accounts and access tokens in SQL: who may do what, as it is now. Calls block."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from alerts.database import Rows, StoreError
from alerts.tables import UserRow, columns_of, table_of
from alerts.tables_people import TokenRow

ROLES: Final = ("viewer", "monitor", "clinician", "admin")
"""Each may do what those before it may."""
_LOCK: Final = 0x52574133
"""Number of PostgreSQL's advisory lock round a change of accounts."""

USERS: Final = table_of(UserRow)
TOKENS: Final = table_of(TokenRow)


class Account(msgspec.Struct, frozen=True):
    """A person who may log in."""

    name: str
    role: str
    disabled: bool = False
    made_ms: int = 0
    since_ms: int = 0
    """Sessions begun before are over."""


class Token(msgspec.Struct, frozen=True):
    """An access token of a program, without its secret."""

    id: str
    label: str
    role: str
    made_by: str
    made_ms: int
    until_ms: int


def covers(role: str, wanted: str) -> bool:
    """Whether `role` may do what needs `wanted`; an unknown role may nothing."""
    return role in ROLES and ROLES.index(role) >= ROLES.index(wanted)


class People(Rows):
    """Accounts and tokens."""

    def account(self, name: str) -> Account | None:
        """Look an account up."""
        with self._engine.connect() as connection:
            row = connection.execute(_ACCOUNTS.where(USERS.c.name == name)).mappings().first()
        return Account(**row) if row is not None else None

    def accounts(self) -> list[Account]:
        """List the accounts by name."""
        with self._engine.connect() as connection:
            return [Account(**row) for row in connection.execute(_ACCOUNTS.order_by(USERS.c.name)).mappings()]

    def password_hash(self, name: str) -> str | None:
        """Argon2 hash of a user's password, None if there is no such user."""
        with self._engine.connect() as connection:
            return connection.scalar(select(USERS.c.password_hash).where(USERS.c.name == name))

    def count_users(self) -> int:
        """Count the accounts."""
        with self._engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(USERS)) or 0

    def add_user(self, name: str, password_hash: str, role: str = "admin", now_ms: int = 0) -> Account:
        """Make an account.

        Raises
        ------
        StoreError
            If the name is taken or the role unknown.
        """
        _check(role)
        account = Account(name, role, made_ms=now_ms)
        try:
            with self._writer.begin() as connection:
                connection.execute(insert(USERS), {**msgspec.structs.asdict(account), "password_hash": password_hash})
        except IntegrityError as error:
            raise StoreError(f"user {name!r} exists already; choose another name") from error
        return account

    def change(
        self,
        name: str,
        now_ms: int,
        *,
        role: str | None = None,
        disabled: bool | None = None,
        password_hash: str | None = None,
    ) -> Account:
        """Change an account; what is None stays. A new password ends its sessions.

        Raises
        ------
        StoreError
            If there is no such account, the role is unknown, or no admin who can log in would be left.
        """
        if role is not None:
            _check(role)
        values: dict[str, Any] = {"role": role, "disabled": disabled, "password_hash": password_hash}
        values = {key: value for key, value in values.items() if value is not None}
        if password_hash is not None or disabled:
            values["since_ms"] = now_ms
        with self._writer.begin() as connection:
            _lock(connection)
            if values and not connection.execute(update(USERS).where(USERS.c.name == name).values(values)).rowcount:
                raise StoreError(f"there is no user {name!r}")
            _keep_an_admin(connection)
            row = connection.execute(_ACCOUNTS.where(USERS.c.name == name)).mappings().first()
        if row is None:
            raise StoreError(f"there is no user {name!r}")
        return Account(**row)

    def remove(self, name: str) -> None:
        """Take an account away.

        Raises
        ------
        StoreError
            If there is no such account, or it is that of the last admin.
        """
        with self._writer.begin() as connection:
            _lock(connection)
            if not connection.execute(delete(USERS).where(USERS.c.name == name)).rowcount:
                raise StoreError(f"there is no user {name!r}")
            _keep_an_admin(connection)

    def make_token(self, label: str, role: str, made_by: str, now_ms: int, until_ms: int) -> tuple[Token, str]:
        """Make a token.

        Returns
        -------
        Token, str
            What is kept, and the secret, which is shown once.
        """
        _check(role)
        secret = "rw_" + secrets.token_urlsafe(32)
        token = Token(secrets.token_hex(8), label, role, made_by, now_ms, until_ms)
        with self._writer.begin() as connection:
            connection.execute(insert(TOKENS), {**msgspec.structs.asdict(token), "secret_hash": hashed(secret)})
        return token, secret

    def token(self, secret: str) -> Token | None:
        """Look a token up by its secret, whether it has run out or not."""
        with self._engine.connect() as connection:
            row = connection.execute(_TOKENS.where(TOKENS.c.secret_hash == hashed(secret))).mappings().first()
        return Token(**row) if row is not None else None

    def tokens(self) -> list[Token]:
        """List the tokens, newest first."""
        with self._engine.connect() as connection:
            chosen = _TOKENS.order_by(TOKENS.c.made_ms.desc(), TOKENS.c.id)
            return [Token(**row) for row in connection.execute(chosen).mappings()]

    def drop_token(self, ident: str) -> bool:
        """Take a token away; False if there was none."""
        with self._writer.begin() as connection:
            return bool(connection.execute(delete(TOKENS).where(TOKENS.c.id == ident)).rowcount)


def hashed(secret: str) -> str:
    """SHA-256 of a token's secret, hex: 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


_ACCOUNTS: Final = select(*columns_of(USERS, Account))
_TOKENS: Final = select(*columns_of(TOKENS, Token))


def _check(role: str) -> None:
    if role not in ROLES:
        raise StoreError(f"role {role!r} is none of {', '.join(ROLES)}")


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def _keep_an_admin(connection: Connection) -> None:
    left = connection.scalar(
        select(func.count()).select_from(USERS).where(USERS.c.role == "admin", USERS.c.disabled.is_(False))
    )
    if not left:
        raise StoreError("this is the last admin; make another one first")
