"""Fetch recordings from their publisher: resumable, and checked against the publisher's own checksums.

The databases are PhysioNet's, under the Open Data Commons Attribution License; NOTICE names their authors.
"""

from __future__ import annotations

import shutil
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PUBLISHER: Final = "https://physionet.org/files"
CHECKSUMS: Final = "SHA256SUMS.txt"
_TIMEOUT_S: Final = (10.0, 60.0)
_CHUNK: Final = 1 << 14
"""Bytes; less than this is lost of what had come when a connection breaks."""
_ATTEMPTS: Final = 3
_SIGNALS: Final = ("*.hea", "*.dat", "*.atr", "RECORDS")


class DataError(Exception):
    """A database that could not be fetched; the message is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Database:
    """One database at its publisher.

    Attributes
    ----------
    path : str
        Below the publisher's address, with the version.
    files : tuple of str
        Patterns of the file names that are wanted; only files at the top of the database count.
    """

    path: str
    files: tuple[str, ...] = _SIGNALS


DATABASES: Final[dict[str, Database]] = {
    "mitdb": Database("mitdb/1.0.0"),
    "svdb": Database("svdb/1.0.0"),
    "vfdb": Database("vfdb/1.0.0"),
    "nstdb": Database("nstdb/1.0.0"),
    "cinc2017": Database("challenge-2017/1.0.0", ("training2017.zip", "REFERENCE-v3.csv")),
}
"""By the name of their folder; ``challenge-2017`` is another name of ``cinc2017``."""
_ALIASES: Final = {"challenge-2017": "cinc2017"}


def fetch(
    database: str,
    dest: Path,
    *,
    url: str = PUBLISHER,
    workers: int = 4,
    console: Console | None = None,
) -> Path:
    """Fetch a database into a folder of its name below `dest`.

    What is there and agrees with its checksum is left alone; a file that broke off goes on where it stopped.

    Parameters
    ----------
    database : str
        A name of `DATABASES`.
    dest : Path
        Folder of recordings.
    url : str
        Address of the publisher, or of a mirror with the same layout.
    workers : int
        Files at a time.
    console : rich.console.Console, optional
        Where progress is shown; stderr by default.

    Returns
    -------
    Path
        The folder of the database.

    Raises
    ------
    DataError
        Unknown database, no network, the publisher refuses, a checksum that differs.
    OSError
        If the disk can't take it.
    """
    name = _ALIASES.get(database, database)
    if name not in DATABASES:
        raise DataError(f"unknown database {database!r}: there are {', '.join(DATABASES)}")
    base = f"{url.rstrip('/')}/{DATABASES[name].path}/"
    folder = dest / name
    folder.mkdir(parents=True, exist_ok=True)
    text = _get_text(base + CHECKSUMS, name)
    registry = wanted(parse_checksums(text), DATABASES[name])
    if not registry:
        raise DataError(f"{base}{CHECKSUMS} lists none of the files of {name}: is this the publisher's address?")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files, {task.fields[megabytes]:.1f} MB"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console or Console(stderr=True)) as progress:
        task = progress.add_task(f"fetch {name}", total=len(registry), megabytes=0.0)
        _Puller(name, folder, base, registry).pull_all(
            workers, lambda size: progress.update(task, megabytes=size / 1e6), lambda: progress.advance(task)
        )
    if name == "cinc2017":
        _unpack(folder)
    return folder


def parse_checksums(text: str) -> dict[str, str]:
    """Read the lines of ``SHA256SUMS.txt``: path to hexadecimal SHA-256; lines that are none are left out."""
    sums = {}
    for line in text.splitlines():
        digest, _, path = line.strip().partition(" ")
        path = path.strip().removeprefix("*")
        if len(digest) == 64 and path and all(c in "0123456789abcdef" for c in digest.lower()):
            sums[path] = digest.lower()
    return sums


def wanted(sums: dict[str, str], database: Database) -> dict[str, str]:
    """Choose the files of a database: at its top, and of a wanted pattern."""
    return {
        path: digest
        for path, digest in sorted(sums.items())
        if "/" not in path and "\\" not in path and any(fnmatchcase(path, pattern) for pattern in database.files)
    }


class _Puller:
    """Downloads the files of one database through `pooch`, each resumed from its ``.part`` file."""

    def __init__(self, name: str, folder: Path, base: str, registry: dict[str, str]) -> None:
        self.name, self.folder, self.registry = name, folder, registry
        self.received, self.lock = 0, threading.Lock()
        self.on_bytes: Callable[[int], None] = lambda _: None
        self.stop = threading.Event()
        pooch.get_logger().setLevel("ERROR")
        known = {path: f"sha256:{digest}" for path, digest in registry.items()}
        self.store: Any = pooch.create(path=folder, base_url=base, registry=known, retry_if_failed=0)

    def pull_all(self, workers: int, on_bytes: Callable[[int], None], done: Callable[[], None]) -> None:
        """Fetch every file, telling bytes so far and files; the first failure stops the others and is raised."""
        self.on_bytes = on_bytes
        with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
            jobs = [pool.submit(self._pull, path, done) for path in self.registry]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _pull(self, path: str, done: Callable[[], None]) -> None:
        if self.stop.is_set():
            return
        try:
            self.store.fetch(path, downloader=self._download)
        except ValueError as error:
            raise DataError(
                f"{self.name}/{path} differs from the publisher's checksum and was thrown away: run the command again;"
                " if it stays so, the copy at the publisher is damaged"
            ) from error
        done()

    def _download(self, url: str, output_file: str, _: Any, check_only: bool = False) -> None:
        """Download one file, going on from its ``.part`` file (the signature is that of `pooch`'s downloaders)."""
        part = self.folder / f".{Path(url).name}.part"
        for attempt in range(_ATTEMPTS):
            try:
                self._continue(url, part)
                break
            except requests.HTTPError as error:
                raise _refused(url, error) from error
            except requests.RequestException as error:
                if attempt == _ATTEMPTS - 1:
                    raise _unreachable(url, self.name, error) from error
        shutil.move(part, output_file)

    def _continue(self, url: str, part: Path) -> None:
        have = part.stat().st_size if part.exists() else 0
        headers = (
            {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {"Accept-Encoding": "identity"}
        )
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            if response.status_code == 416:  # nothing lies behind what we have: it is whole, and its checksum decides
                return
            response.raise_for_status()
            length = int(response.headers.get("Content-Length", -1))
            got = 0
            with part.open("ab" if response.status_code == 206 else "wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    if self.stop.is_set():
                        raise DataError(f"fetching {self.name} was stopped")
                    file.write(chunk)
                    got += len(chunk)
                    with self.lock:
                        self.received += len(chunk)
                        self.on_bytes(self.received)
            if 0 <= got < length:
                raise requests.ConnectionError(f"{got} of {length} bytes came")


def _get_text(url: str, name: str) -> str:
    try:
        response = requests.get(url, timeout=_TIMEOUT_S)
        response.raise_for_status()
    except requests.HTTPError as error:
        raise _refused(url, error) from error
    except requests.RequestException as error:
        raise _unreachable(url, name, error) from error
    return str(response.text)


def _refused(url: str, error: Any) -> DataError:
    return DataError(
        f"the publisher answers {error.response.status_code} to {url}: try again later or check the address"
    )


def _unreachable(url: str, name: str, error: Exception) -> DataError:
    host = url.split("/")[2]
    cause = "it did not answer in time" if isinstance(error, requests.Timeout) else "no connection"
    if "bytes came" in str(error) or "Connection broken" in str(error):
        cause = "the connection broke off"
    return DataError(
        f"can't fetch {name} from {host} ({cause}): check the network or the proxy and run the command again,"
        " it goes on where it stopped"
    )


def _unpack(folder: Path) -> None:
    """Lay the challenge's training records out flat, with the labels of version 3 as ``REFERENCE.csv``."""
    archive = folder / "training2017.zip"
    try:
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                name = Path(entry.filename).name
                if entry.is_dir() or not name.endswith((".hea", ".mat")):
                    continue
                target = folder / name
                if not target.exists() or target.stat().st_size != entry.file_size:
                    target.write_bytes(packed.read(entry))
    except zipfile.BadZipFile as error:
        raise DataError(f"{archive} is no archive: delete it and run the command again") from error
    if (folder / "REFERENCE-v3.csv").exists():
        shutil.copyfile(folder / "REFERENCE-v3.csv", folder / "REFERENCE.csv")
