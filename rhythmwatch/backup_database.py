"""The history database in a backup: SQLite by its backup interface, PostgreSQL by its own programs. Calls block."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, make_url, select, text
from sqlalchemy import inspect as inspect_database
from sqlalchemy.exc import SQLAlchemyError

import alerts
from alerts.archive_index import SEGMENTS
from alerts.audit import Audit
from alerts.database import WAIT_S, open_engine
from alerts.tables_all import Base
from rhythmwatch.backup_parts import BackupError, Told

PAGES: Final = 4096
"""Of SQLite, copied at a time."""
SCHEMA_TABLE: Final = "alembic_version"
DEBIAN: Final = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True)
class Known:
    """What a database says of itself.

    Attributes
    ----------
    kind : str
        ``sqlite`` or ``postgresql``.
    schema : str
        Revision; empty where there are no tables.
    tables : list of str
        Those of ours that it has.
    audit : (int, str)
        Newest row of the trail.
    segments : list of str
        Recordings that it knows, as paths below their folder without an ending.
    """

    kind: str
    schema: str
    tables: list[str]
    audit: tuple[int, str]
    segments: list[str]


def look(url: str) -> Known:
    """Ask a database what it holds.

    Raises
    ------
    BackupError
        If it can't be read.
    StoreError
        If the URL names no database that can be used here.
    """
    kind = make_url(url).get_backend_name()
    path = sqlite_path(url) if kind == "sqlite" else None
    if path is not None and not path.is_file():
        return Known(kind, "", [], (0, ""), [])
    engine = open_engine(url)
    try:
        return _look(engine, kind)
    except SQLAlchemyError as error:
        raise BackupError(
            f"the database can't be read: {_first_line(getattr(error, 'orig', None) or error)}"
        ) from error
    finally:
        engine.dispose()


def _look(engine: Engine, kind: str) -> Known:
    ours = {*Base.metadata.tables, SCHEMA_TABLE}
    tables = sorted(ours & set(inspect_database(engine).get_table_names()))
    schema, segments = "", []
    with engine.connect() as connection:
        if SCHEMA_TABLE in tables:
            schema = connection.scalar(text(f"SELECT version_num FROM {SCHEMA_TABLE}")) or ""  # noqa: S608
        if SEGMENTS.name in tables:
            segments = list(connection.scalars(select(SEGMENTS.c.path).order_by(SEGMENTS.c.path)))
    head = Audit(engine).head() if "audit" in tables else (0, "")
    return Known(kind, schema, tables, head, segments)


def knows_schema(revision: str) -> bool:
    """Whether this version can bring a schema of that revision up to date."""
    scripts = ScriptDirectory(str(Path(alerts.__file__).parent / "migrations"))
    try:
        return scripts.get_revision(revision) is not None
    except CommandError:
        return False


def sqlite_path(url: str) -> Path:
    """File of an SQLite database.

    Raises
    ------
    BackupError
        If it is in memory alone.
    """
    name = make_url(url).database
    if not name or name == ":memory:":
        raise BackupError("a database in memory alone can't be backed up or restored")
    return Path(name)


def save_database(url: str, known: Known, out: Path, told: Told) -> None:
    """Copy a database as it is at one moment, while others use it.

    Raises
    ------
    BackupError
        If it can't be read, or PostgreSQL's programs are missing.
    """
    if known.kind == "sqlite":
        _save_sqlite(sqlite_path(url), out, told)
        return
    told("database", 0, 0)
    tables = [f"--table={name}" for name in known.tables]
    _run_postgres(url, "pg_dump", "--format=custom", "--no-owner", "--no-privileges", *tables, f"--file={out}")


def load_database(url: str, manifest_tables: list[str], file: Path, told: Told, *, force: bool) -> None:
    """Put a database back.

    Parameters
    ----------
    url : str
    manifest_tables : list of str
        Of the backup.
    file : Path
        As `save_database` wrote it; of SQLite it is moved.
    force : bool
        What is there is replaced.

    Raises
    ------
    BackupError
        If it can't be written; PostgreSQL is unchanged then.
    """
    if make_url(url).get_backend_name() == "sqlite":
        path = sqlite_path(url)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A log of the former database would be read into this one.
        for ending in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        shutil.move(file, path)
        return
    told("database", 0, 0)
    if force:
        _drop_others(url, manifest_tables)
    clean = ("--clean", "--if-exists") if force else ()
    safe = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
    _run_postgres(url, "pg_restore", *safe, *clean, str(file))


def find_program(name: str) -> str:
    """Path of one of PostgreSQL's programs: on the PATH, else the newest in Debian's place.

    Raises
    ------
    BackupError
        If there is none.
    """
    found = shutil.which(name)
    places = sorted(DEBIAN.glob(f"*/bin/{name}"), key=lambda path: (len(path.parts[4]), path.parts[4]))
    if found or places:
        return found or str(places[-1])
    raise BackupError(f"{name} is not on the PATH; install PostgreSQL's client (Debian: postgresql-client)")


def _save_sqlite(path: Path, out: Path, told: Told) -> None:
    def copied(_status: int, remaining: int, total: int) -> None:
        told("database", total - remaining, total)

    try:
        with (
            closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, timeout=WAIT_S)) as source,
            closing(sqlite3.connect(out)) as target,
        ):
            source.isolation_level = None
            # Read at one moment: without this, the copy would begin again at each write of others.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(target, pages=PAGES, progress=copied)
    except sqlite3.Error as error:
        raise BackupError(f"the database {path} can't be copied: {error}") from error


def _drop_others(url: str, kept: list[str]) -> None:
    """Drop tables of ours that the backup does not have: a newer schema's, which the upgrade makes anew."""
    engine = open_engine(url)
    try:
        others = [name for name in look(url).tables if name not in kept]
        with engine.begin() as connection:
            for name in others:
                connection.execute(text(f'DROP TABLE "{name}" CASCADE'))
    finally:
        engine.dispose()


def _run_postgres(url: str, name: str, *arguments: str) -> None:
    address = make_url(url)
    target = address.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    # A password among the arguments could be read by everybody on the machine.
    secret = {"PGPASSWORD": str(address.password)} if address.password else {}
    command = [find_program(name), f"--dbname={target}", *arguments]
    try:
        done = subprocess.run(command, env={**os.environ, **secret}, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BackupError(f"{name} can't be started: {error.strerror}") from error
    if done.returncode:
        raise BackupError(f"{name} failed: {_first_line(done.stderr.strip() or f'status {done.returncode}')}")


def _first_line(said: object) -> str:
    return str(said).strip().split("\n", 1)[0]
