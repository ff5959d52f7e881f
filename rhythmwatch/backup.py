"""A backup of all that a station keeps, made while it runs.

The parts are of moments that fit each other: first the database, then the bus, then the recordings that the database
knows. What came in between is still on the bus (which is held meanwhile), and is stored again, at the same place, by
the recorder and the historian after a restore.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import rhythmwatch
from rhythmwatch.backup_bus import bus_of, hold_entries, release_entries, running_bus, save_bus
from rhythmwatch.backup_database import Known, look, save_database
from rhythmwatch.backup_parts import FORMAT, BackupError, Manifest, Told, Writer

DATABASE: Final = "database"
BUS: Final = "bus"
RECORDINGS: Final = "recordings"
CERTIFICATES: Final = "certificates"
PASSWORD: Final = "password"  # noqa: S105 (the name of a part)
ENDINGS: Final = (".hea", ".dat", ".beats", ".atr")


@dataclass(frozen=True, slots=True)
class Places:
    """Where a station keeps what it keeps.

    Attributes
    ----------
    state : Path
        Of ``run``: the embedded bus and the first password.
    history, bus : str
        Addresses; an empty bus is the embedded one.
    recordings, certificates : Path
        Folders.
    """

    state: Path
    history: str
    bus: str
    recordings: Path
    certificates: Path

    @classmethod
    def of(cls, state: Path, history: str, bus: str, recordings: Path | None, certificates: Path) -> Places:
        """Fill in what a station has in its state."""
        state = state.resolve()
        return cls(
            state, history or f"sqlite:///{state / 'history.db'}", bus, recordings or state / RECORDINGS, certificates
        )


def back_up(places: Places, out: Path, told: Told) -> tuple[Path, Manifest]:
    """Make a backup.

    Parameters
    ----------
    places : Places
    out : Path
        The file, or a folder for it.
    told : callable
        See `rhythmwatch.backup_parts.Told`.

    Returns
    -------
    path : Path
        The file.
    manifest : Manifest

    Raises
    ------
    BackupError
        If something can't be read, or the file is there already; nothing is left of it.
    StoreError
        If the address of the database can't be used.
    OSError
        If the file can't be written.
    """
    began = datetime.now(UTC)
    path = out / f"rhythmwatch-{began:%Y%m%dT%H%M%SZ}.tar" if out.is_dir() else out
    known = look(places.history)
    if not known.schema:
        raise BackupError("the database has no tables of RhythmWatch; name it with --history or --state")
    writer = Writer(path, told)
    try:
        with tempfile.TemporaryDirectory(prefix=".rw-backup-", dir=path.resolve().parent) as folder:
            manifest = _write(places, known, Path(folder), writer, told)
    except BaseException:
        writer.drop()
        raise
    return path, manifest


def _write(places: Places, known: Known, folder: Path, writer: Writer, told: Told) -> Manifest:
    made_ms = int(time.time() * 1000)
    running = asyncio.run(running_bus(places.bus, places.state))
    try:
        if running:
            asyncio.run(hold_entries(running))
        save_database(places.history, known, folder / DATABASE, told)
        (folder / BUS).mkdir()
        partitions = asyncio.run(_save_bus(places, folder / BUS, told))
    finally:
        if running:
            asyncio.run(release_entries(running))
    files = [(DATABASE, folder / DATABASE)]
    files += [(f"{BUS}/{path.name}", path) for path in sorted((folder / BUS).iterdir())]
    files += [
        (f"{RECORDINGS}/{segment}{ending}", places.recordings / f"{segment}{ending}")
        for segment in known.segments
        for ending in ENDINGS
    ]
    files.append((PASSWORD, places.state / PASSWORD))
    if places.certificates.is_dir():
        files += [
            (f"{CERTIFICATES}/{path.name}", path) for path in sorted(places.certificates.iterdir()) if path.is_file()
        ]
    writer.total = sum(path.stat().st_size for _, path in files if path.exists())
    for name, path in files:
        writer.add(name, path)
    manifest = Manifest(
        FORMAT, rhythmwatch.__version__, made_ms, known.kind, known.schema, known.tables, *known.audit, partitions,
        writer.parts,
    )  # fmt: skip
    writer.finish(manifest)
    return manifest


async def _save_bus(places: Places, folder: Path, told: Told) -> int:
    async with bus_of(places.bus, places.state) as url:
        return await save_bus(url, folder, told) if url else 0
