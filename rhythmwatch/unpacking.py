"""Zips of images that people give: looked at before anything is written, and only pictures in class folders are."""

from __future__ import annotations

import contextlib
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

LARGEST: Final = 4 << 30
"""Bytes that a zip may unpack to."""

MOST: Final = 500_000
"""Files that a zip may hold."""

LARGEST_FILE: Final = 64 << 20
DENSEST: Final = 100
"""Times that a file over a MiB may grow; pictures are packed already."""

_BROKEN: Final = (zipfile.BadZipFile, EOFError, OSError, ValueError, struct.error, zlib.error, lzma.LZMAError)
"""What the reader raises on a zip that was cut off or altered."""

_NOT_OURS: Final = ("__MACOSX", ".DS_Store", "Thumbs.db")


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a zip of images.

    Parameters
    ----------
    archive : Path
    folder : Path
        Gets the files; nothing is written outside of it, and nothing at all if one file is refused.

    Returns
    -------
    int
        Files written.

    Raises
    ------
    ValueError
        One line: no zip, damaged, too large, a file that would grow beyond reason, or a name that leads elsewhere.
    """
    with _reading(archive):
        opened = zipfile.ZipFile(archive)
    with opened:
        wanted = [(item, path) for item in opened.infolist() if (path := _place(archive, item)) is not None]
        if len(wanted) > MOST:
            raise ValueError(f"{archive.name} holds {len(wanted)} files, {MOST} are the most: part it")
        if sum(item.file_size for item, _ in wanted) > LARGEST:
            raise ValueError(f"{archive.name} unpacks to more than {LARGEST >> 30} GiB: part it")
        for item, path in wanted:
            with _reading(archive):
                # The reader stops at the size that was looked at above, whatever the packed bytes would give.
                data = opened.read(item)
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
    return len(wanted)


@contextlib.contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Say in one line what is wrong with a zip."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"{archive.name} can't be unpacked ({error}): pack it without password, as a plain zip"
        ) from error
    except _BROKEN as error:
        raise ValueError(f"{archive} is neither a folder nor a whole zip: pack it again") from error


def _place(archive: Path, item: zipfile.ZipInfo) -> PurePosixPath | None:
    """Path of an entry in the folder; None for what is no file of ours."""
    name = item.filename
    path = PurePosixPath(name)
    odd = not name or not name.isprintable() or "\\" in name or ":" in name or path.is_absolute() or ".." in path.parts
    if odd or stat.S_ISLNK(item.external_attr >> 16) or any(len(part.encode()) > 255 for part in path.parts):
        raise ValueError(f"{archive.name} holds a file named {name[:80]!r}, which leads elsewhere: pack plain folders")
    if item.is_dir() or any(part in _NOT_OURS or part.startswith("._") for part in path.parts):
        return None
    if item.file_size > LARGEST_FILE:
        raise ValueError(f"{archive.name}: {name} has {item.file_size >> 20} MiB, {LARGEST_FILE >> 20} are the most")
    if item.file_size > max(1 << 20, DENSEST * item.compress_size):
        raise ValueError(f"{archive.name}: {name} would grow {DENSEST} times and more: that is no picture")
    return path
