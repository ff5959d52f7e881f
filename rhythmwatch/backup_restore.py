"""Putting a backup back: checked whole before anything is touched, and erasures since then asked for again."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Engine, make_url, select
from sqlalchemy.exc import SQLAlchemyError

from alerts.audit import AUDIT, Audit
from alerts.care import Care
from alerts.care_erasure import Erasures
from alerts.database import StoreError, open_engine, upgrade
from bus.child import hold
from bus.errors import ServerError
from rhythmwatch.backup import BUS, CERTIFICATES, DATABASE, PASSWORD, RECORDINGS, Places
from rhythmwatch.backup_bus import bus_of, is_empty, load_bus
from rhythmwatch.backup_database import knows_schema, load_database, look, sqlite_path
from rhythmwatch.backup_parts import BackupError, Manifest, Told, parts_of, put_file, read_manifest

WHO: Final = "restore"


class Erased(msgspec.Struct, frozen=True):
    """A person who was erased, as ``GET /api/erasures`` lists them."""

    person: str
    asked_ms: int


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back.

    Attributes
    ----------
    erasures : int
        Persons whose erasure was asked for again; the keeper carries them out once the service runs.
    """

    manifest: Manifest
    erasures: int


def restore(path: Path, places: Places, told: Told, *, force: bool, erasures: Path | None) -> Restored:
    """Put a backup back.

    Parameters
    ----------
    path : Path
        Of `rhythmwatch.backup.back_up`.
    places : Places
        Where to; the service must not run there.
    told : callable
        See `rhythmwatch.backup_parts.Told`.
    force : bool
        Replace what is there.
    erasures : Path, optional
        JSON of ``GET /api/erasures``: persons erased since. Those of a database that is replaced are known anyway.

    Raises
    ------
    BackupError
        If the backup is damaged or of a newer version, the target is in use or (without `force`) not empty, or
        something can't be written.
    StoreError
        If the address of the database can't be used.
    OSError
        If a file can't be read or written.
    """
    manifest = read_manifest(path, told)
    kind = make_url(places.history).get_backend_name()
    if manifest.database != kind:
        raise BackupError(f"the backup is of {manifest.database}, the target of {kind}; name another with --history")
    if not knows_schema(manifest.schema):
        raise BackupError(f"the backup was made by version {manifest.version}, which is newer; install that one")
    erased = _listed(erasures) if erasures else []
    with _unused(places):
        there = look(places.history)
        if not force and (full := asyncio.run(_full(places, there.tables))):
            raise BackupError(f"{full} not empty; restore elsewhere, or replace it with --force")
        erased += _erased(places.history, there.tables)
        with tempfile.TemporaryDirectory(prefix=".rw-restore-", dir=_near(places)) as folder:
            if force:
                _clear(places.recordings)
            _put_parts(path, manifest, places, Path(folder), told)
            load_database(places.history, manifest.tables, Path(folder) / DATABASE, told, force=force)
            asyncio.run(_load_bus(places, Path(folder) / BUS, told, make=bool(manifest.bus)))
    return Restored(manifest, _finish(places.history, manifest, erased))


def _listed(path: Path) -> list[Erased]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Erased])
    except msgspec.MsgspecError as error:
        raise BackupError(f"{path} is no list of erasures as GET /api/erasures gives it: {error}") from error


@contextlib.contextmanager
def _unused(places: Places) -> Iterator[None]:
    """Keep a station and a recorder from starting there for the block."""
    try:
        with contextlib.ExitStack() as stack:
            if places.recordings.is_dir():
                for lock in places.recordings.glob("recorder-*.lock"):
                    stack.enter_context(hold(lock))
            if (places.state / "bus" / "bus.lock").exists() and not places.bus:
                # Held by the bus itself while it is read and written.
                with hold(places.state / "bus" / "bus.lock"):
                    pass
            yield
    except ServerError as error:
        raise BackupError(f"stop the service first: {error}") from error


async def _full(places: Places, tables: list[str]) -> str:
    """Say what is not empty."""
    if tables:
        return "the database is"
    if places.recordings.is_dir() and any(path.is_dir() for path in places.recordings.iterdir()):
        return f"{places.recordings} is"
    if (places.state / PASSWORD).exists():
        return f"{places.state} is"
    if places.certificates.is_dir() and any(places.certificates.iterdir()):
        return f"{places.certificates} is"
    async with bus_of(places.bus, places.state) as url:
        return "" if not url or await is_empty(url) else "the bus is"


def _erased(history: str, tables: list[str]) -> list[Erased]:
    """Who was erased in the database that is to be replaced."""
    if "erasures" not in tables:
        return []
    engine = open_engine(history)
    try:
        return [Erased(item.person, item.asked_ms) for item in Erasures(engine).list()]
    except SQLAlchemyError as error:
        raise BackupError(f"the erasures in the database can't be read ({type(error).__name__})") from error
    finally:
        engine.dispose()


def _near(places: Places) -> Path:
    """Folder for what is on its way: beside the database where that is a file."""
    sqlite = make_url(places.history).get_backend_name() == "sqlite"
    folder = sqlite_path(places.history).resolve().parent if sqlite else places.state
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _clear(folder: Path) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path)


def _put_parts(path: Path, manifest: Manifest, places: Places, folder: Path, told: Told) -> None:
    total, done = sum(part.bytes for part in manifest.parts), 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        told("restoring", done, total)

    roots = {RECORDINGS: places.recordings, CERTIFICATES: places.certificates, BUS: folder / BUS}
    (folder / BUS).mkdir()
    for name, _, file in parts_of(path):
        top, _, rest = name.partition("/")
        if name == DATABASE:
            target = folder / DATABASE
        elif name == PASSWORD:
            target = places.state / PASSWORD
        elif rest and top in roots:
            target = roots[top] / rest
        else:
            raise BackupError(f"the backup holds {name!r}, which this version does not know")
        put_file(target, file, count)


async def _load_bus(places: Places, folder: Path, told: Told, *, make: bool) -> None:
    async with bus_of(places.bus, places.state, make=make) as url:
        if url:
            await load_bus(url, folder, told)


def _finish(history: str, manifest: Manifest, erased: Iterable[Erased]) -> int:
    """Bring the schema up to date, check the trail, and ask for erasures again; returns how many."""
    engine = open_engine(history)
    try:
        upgrade(engine)
        audit = Audit(engine)
        broken = audit.verify()
        if broken is not None:
            raise BackupError(f"restored, but row {broken} of the audit trail does not fit: it was changed before")
        if manifest.audit_seq and not _has(engine, manifest.audit_seq, manifest.audit_hash):
            raise BackupError("restored, but the audit trail is not the one that the manifest names")
        count = sum(_erase_again(engine, person) for person in {item.person for item in erased})
        detail = {"made_ms": manifest.made_ms, "version": manifest.version, "erasures": count}
        audit.add(int(time.time() * 1000), WHO, "backup.restored", "database", detail)
    except SQLAlchemyError as error:
        raise BackupError(f"restored, but the database can't be brought up to date ({type(error).__name__})") from error
    finally:
        engine.dispose()
    return count


def _has(engine: Engine, seq: int, hashed: str) -> bool:
    with engine.connect() as connection:
        return connection.scalar(select(AUDIT.c.hash).where(AUDIT.c.seq == seq)) == hashed


def _erase_again(engine: Engine, person: str) -> bool:
    """Ask for the erasure of a person whom the backup still knows; False if it does not."""
    care, now_ms = Care(engine), int(time.time() * 1000)
    stay = care.open_stay(person=person)
    if stay is not None:
        care.discharge(stay.patient, WHO, now_ms)
    try:
        Erasures(engine).ask(person, WHO, now_ms)
    except StoreError:
        return False
    return True
