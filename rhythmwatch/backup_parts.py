"""What a backup is: a tar of parts, the last of which says what the others are and what each one's hash is.

A file that was cut short has no manifest, so it is refused; a part that was changed has another hash. Nothing is
encrypted here and nothing is signed: whoever can write the file can write its hashes.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final, Protocol, TypeAlias

import msgspec

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
_PIECE: Final = 1 << 20
_MANIFEST_MOST: Final = 256 << 20

Told: TypeAlias = Callable[[str, int, int], None]
"""Told what is being done, how far it is, and how far it goes (0: not known)."""


class BackupError(Exception):
    """A backup can't be made or restored; the text says why and what to do."""


class Part(msgspec.Struct, frozen=True):
    """A file of a backup.

    Attributes
    ----------
    bytes : int
        Its length.
    sha256 : str
        Hex.
    """

    name: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds.

    Attributes
    ----------
    version : str
        Of RhythmWatch that made it.
    made_ms : int
        When it began; ms since the Unix epoch.
    database : str
        ``sqlite`` or ``postgresql``.
    schema : str
        Revision of the database's schema.
    tables : list of str
        Of the database.
    audit_seq, audit_hash
        Newest row of the audit trail when it began.
    bus : int
        Partitions of the bus; 0 where it holds none.
    """

    format: int
    version: str
    made_ms: int
    database: str
    schema: str
    tables: list[str]
    audit_seq: int
    audit_hash: str
    bus: int
    parts: list[Part]


class _Reader(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Hashed:
    """A file that is hashed and counted while it is read."""

    def __init__(self, file: _Reader, read: Callable[[int], None]) -> None:
        self.sha256 = hashlib.sha256()
        self._file, self._read = file, read

    def read(self, size: int = -1, /) -> bytes:
        """Read on."""
        data = self._file.read(size)
        self.sha256.update(data)
        self._read(len(data))
        return data


class Writer:
    """Writes a backup beside its place and puts it there whole, readable for its owner alone.

    Parameters
    ----------
    path : Path
        Where it is to be; nothing may be there.
    told : callable
        See `Told`.

    Raises
    ------
    BackupError
        If there is something.
    """

    def __init__(self, path: Path, told: Told) -> None:
        if path.exists():
            raise BackupError(f"{path} exists; choose another name")
        self.parts: list[Part] = []
        self.total = 0
        self._done = 0
        self._told = told
        self._path, self._new = path, path.with_name(path.name + ".partial")
        self._file = os.fdopen(os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, name: str, path: Path) -> bool:
        """Add a file as it is now; False if it is not there.

        Raises
        ------
        BackupError
            If it became shorter while it was read.
        """
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return False
        with file:
            self._put(name, file, os.fstat(file.fileno()).st_size)
        return True

    def _put(self, name: str, file: _Reader, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, int(time.time())
        hashed = _Hashed(file, self._count)
        try:
            self._tar.addfile(info, hashed)
        except OSError as error:
            if error.errno is None:
                raise BackupError(f"{name} became shorter while it was read; try again") from error
            raise
        self.parts.append(Part(name, size, hashed.sha256.hexdigest()))

    def _count(self, size: int) -> None:
        self._done += size
        self._told("writing", self._done, max(self.total, self._done))

    def finish(self, manifest: Manifest) -> None:
        """Add the manifest and put the file in its place; returns once the machine may lose power."""
        data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        info = tarfile.TarInfo(MANIFEST)
        info.size, info.mode, info.mtime = len(data), 0o600, int(time.time())
        self._tar.addfile(info, io.BytesIO(data))
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._new.replace(self._path)

    def drop(self) -> None:
        """Take away what was not finished."""
        self._file.close()
        self._new.unlink(missing_ok=True)


def read_manifest(path: Path, told: Told) -> Manifest:
    """Read a backup whole and check every hash.

    Raises
    ------
    BackupError
        If it is no backup, cut short, changed, or of a format that is not known here.
    """
    found: list[Part] = []
    manifest: Manifest | None = None
    size, done = path.stat().st_size, 0

    def count(read: int) -> None:
        nonlocal done
        done += read
        told("checking", done, size)

    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isfile() else None
                if file is None or not _is_safe(member.name):
                    raise BackupError(f"{path} is no backup of RhythmWatch: it holds {member.name!r}")
                if member.name == MANIFEST:
                    if member.size > _MANIFEST_MOST:
                        raise BackupError(f"{path} is no backup of RhythmWatch: its manifest is too long")
                    manifest = msgspec.json.decode(file.read(), type=Manifest)
                    continue
                hashed = _Hashed(file, count)
                while hashed.read(_PIECE):
                    pass
                found.append(Part(member.name, member.size, hashed.sha256.hexdigest()))
    except (tarfile.TarError, msgspec.MsgspecError, EOFError) as error:
        raise BackupError(f"{path} is no backup of RhythmWatch, or damaged: {error}") from error
    if manifest is None:
        raise BackupError(f"{path} is no backup of RhythmWatch, or cut short: it has no manifest")
    if manifest.format != FORMAT:
        raise BackupError(f"{path} has format {manifest.format}, this version knows {FORMAT}")
    if found != manifest.parts:
        listed = {part.name: part for part in manifest.parts}
        odd = [part.name for part in found if listed.get(part.name) != part]
        odd += sorted(listed.keys() - {part.name for part in found})
        raise BackupError(f"{path} is damaged: {', '.join(odd[:3]) or 'its order'} is not as its manifest says")
    return manifest


def parts_of(path: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Give name, length and content of each part of a backup that was checked."""
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            file = tar.extractfile(member)
            if member.name != MANIFEST and file is not None:
                yield member.name, member.size, file


def put_file(path: Path, file: _Reader, counted: Callable[[int], None] = lambda size: None) -> None:
    """Write a file that its owner alone can read, in folders that its owner alone can enter."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        os.fchmod(out.fileno(), 0o600)
        while data := file.read(_PIECE):
            out.write(data)
            counted(len(data))
        out.flush()
        os.fsync(out.fileno())


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and bool(path.parts)
