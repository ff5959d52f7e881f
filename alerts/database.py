"""Opening the history database: SQLite or PostgreSQL by URL, and bringing its schema up to date."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError

MIGRATIONS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x52574831
"""Number of PostgreSQL's advisory lock round a migration."""
WAIT_S: Final = 10
RETRY_S: Final = 0.01


class StoreError(Exception):
    """The history database can't be used as it was asked for; the text says what to do."""


def open_engine(url: str) -> Engine:
    """Connect lazily.

    Parameters
    ----------
    url : str
        ``sqlite:///path`` or ``postgresql://user:password@host/name``.

    Raises
    ------
    StoreError
        If the URL names no database that can be used here.
    """
    try:
        address = make_url(url)
    except ArgumentError as error:
        raise StoreError(f"history {url!r} is no database URL; write sqlite:///path or postgresql://...") from error
    backend = address.get_backend_name()
    if backend == "sqlite":
        if address.database and address.database != ":memory:":
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(address, connect_args={"timeout": WAIT_S})
        event.listen(engine, "connect", _open_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if backend == "postgresql":
        try:
            return create_engine(
                address.set(drivername="postgresql+psycopg"),
                connect_args={"connect_timeout": WAIT_S},
                pool_pre_ping=True,
            )
        except ImportError as error:
            raise StoreError("history in PostgreSQL needs the extra: pip install 'rhythmwatch[postgres]'") from error
    raise StoreError(f"history in {backend!r} is not supported; use sqlite:///path or postgresql://...")


def writing(engine: Engine) -> Engine:
    """Give the same engine with transactions that take the write lock at their start."""
    return engine.execution_options(writes=True)


class Rows:
    """What some tables of the history hold; calls block.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of `open_engine`, its schema up to date.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writing(engine)


def upgrade(engine: Engine) -> None:
    """Bring the schema up to date; several processes may do it at once."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with writing(engine).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def insert_into(connection: Connection, table: Table) -> Any:
    """Insert of the connection's own dialect, which knows conflicts."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _open_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transactions begin too late for a lock and not at all for DDL, so ours are explicit.
    connection.isolation_level = None
    cursor = connection.cursor()
    _keep_a_log(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    # What is deleted for a person must not stand in free pages.
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.close()


def _keep_a_log(cursor: Any) -> None:
    # A change of journal needs the file to itself and, unlike all else, does not wait for it by the driver's timeout.
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
