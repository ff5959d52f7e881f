"""A small station that is backed up, and its places."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from alerts.archive_index import SEGMENTS
from alerts.audit import Audit
from alerts.care import Care, new_person
from alerts.database import open_engine, upgrade
from rhythmwatch.backup import Places, back_up
from rhythmwatch.backup_parts import put_file
from rhythmwatch.backup_restore import Restored, restore

DEADLINE_S = 120.0
PASSWORD = "a long enough password"


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RHYTHMWATCH_")}
    return subprocess.run(
        [sys.executable, "-m", "rhythmwatch", *map(str, arguments)],
        env={**environment, "COLUMNS": "300"}, capture_output=True, text=True, check=False, timeout=DEADLINE_S,
    )  # fmt: skip


class Copied:
    """A backup of a small station without a bus: one admitted person and a recording of a few bytes.

    Parameters
    ----------
    folder : Path
    urls : (str, str)
        Addresses of the database and of the one to restore to; empty for SQLite.
    """

    def __init__(self, folder: Path, urls: tuple[str, str] = ("", "")) -> None:
        self.folder, self.state = folder, folder / "state"
        self.url = urls[0] or f"sqlite:///{self.state / 'history.db'}"
        self.engine = open_engine(self.url)
        upgrade(self.engine)
        self.care = Care(self.engine)
        self.person = new_person("Änne", 1)
        self.care.admit(self.person, "dev-1", "1", "A", "adult", "her", 1_000)
        Audit(self.engine).add(1_000, "her", "person.admit", self.person.person)
        with self.engine.begin() as connection:
            row = dict.fromkeys(SEGMENTS.c.keys(), 1) | {
                "path": "dev-1/1/000000",
                "patient": "dev-1",
                "device": "dev-1",
            }
            connection.execute(insert(SEGMENTS), row | {"leads": "[]", "anchors": "[[0, 0]]"})
        put_file(self.state / "recordings" / "dev-1" / "1" / "000000.dat", io.BytesIO(b"samples"))
        put_file(self.state / "recordings" / "dev-1" / "1" / "000001.dat", io.BytesIO(b"not in the index"))
        put_file(self.state / "password", io.BytesIO(b"a long enough password"))
        put_file(folder / "certs" / "ca.key", io.BytesIO(b"a key"))
        self.places = self.at(self.state, folder / "certs", urls[0])
        self.file, self.manifest = back_up(self.places, folder / "copy.tar", quiet)
        self.new = self.at(folder / "new", folder / "new-certs", urls[1])

    def at(self, state: Path, certificates: Path, history: str = "") -> Places:
        """Places of a station whose state lies there."""
        return Places.of(state, history, "", None, certificates)

    def restore(self, *, force: bool = False, erasures: Path | None = None) -> Restored:
        """Restore to the new place."""
        return restore(self.file, self.new, quiet, force=force, erasures=erasures)

    def persons(self) -> list[str]:
        """Persons in the database of the new place."""
        engine = open_engine(self.new.history)
        try:
            return [found.person for found in Care(engine).persons()]
        finally:
            engine.dispose()


def quiet(what: str, done: int, total: int) -> None:
    """Tell nobody."""


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Copied]:
    """Back a small station up."""
    made = Copied(tmp_path)
    yield made
    made.engine.dispose()
