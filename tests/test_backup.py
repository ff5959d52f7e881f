"""Backups: all comes back for its owner alone; what is damaged, of another kind or in the way is refused."""

from __future__ import annotations

import io
import json
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from backup_places import DEADLINE_S, Copied, command, copied, quiet
from sqlalchemy import create_engine, make_url, text

from alerts.audit import Audit
from alerts.care import Care, new_person
from alerts.care_erasure import Erasures
from alerts.database import open_engine
from rhythmwatch.backup import back_up
from rhythmwatch.backup_database import find_program
from rhythmwatch.backup_parts import MANIFEST, BackupError, Writer, put_file

__all__ = ["copied"]


@pytest.fixture
def two_databases(postgres: str) -> Iterator[tuple[str, str]]:
    """Make two empty databases of PostgreSQL; gives their addresses."""
    address = make_url(postgres)
    engine = create_engine(address.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    names = ("first", "second")
    with engine.connect() as connection:
        for name in names:
            connection.execute(text(f"CREATE DATABASE {name}"))
    first, second = (address.set(database=name).render_as_string(hide_password=False) for name in names)
    yield first, second
    with engine.connect() as connection:
        for name in names:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


def test_all_comes_back_for_its_owner_alone(copied: Copied) -> None:
    """Password, keys and recordings that the index knows, each readable for its owner alone."""
    done = copied.restore()
    assert done.erasures == 0
    state = copied.new.state
    assert (state / "password").read_bytes() == b"a long enough password"
    assert (copied.new.certificates / "ca.key").read_bytes() == b"a key"
    assert (state / "recordings" / "dev-1" / "1" / "000000.dat").read_bytes() == b"samples"
    assert not (state / "recordings" / "dev-1" / "1" / "000001.dat").exists()
    assert copied.persons() == [copied.person.person]
    files = [path for path in (state, copied.new.certificates) for path in path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert sorted(path.name for path in state.iterdir()) == ["history.db", "password", "recordings"]


@pytest.mark.parametrize("part", ["database", "recordings/dev-1/1/000000.dat", "certificates/ca.key", MANIFEST])
def test_a_part_that_was_changed_is_refused(copied: Copied, part: str) -> None:
    """One changed byte of any part is found before anything is written."""
    with tarfile.open(copied.file) as tar:
        at = tar.getmember(part).offset_data
    data = bytearray(copied.file.read_bytes())
    data[at] ^= 1
    copied.file.write_bytes(data)
    with pytest.raises(BackupError, match="damaged"):
        copied.restore()
    assert not copied.new.state.exists()


def test_a_part_that_was_added_is_refused(copied: Copied) -> None:
    """A part that the manifest does not name, and a name that leads out of the folder."""
    for name, why in (("recordings/more.dat", "not as its manifest says"), ("../out", "no backup")):
        changed = copied.file.read_bytes()
        with tarfile.open(copied.file, "a") as tar:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
        with pytest.raises(BackupError, match=why):
            copied.restore()
        copied.file.write_bytes(changed)
    assert not copied.new.state.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_that_was_cut_short_is_refused(copied: Copied, share: float) -> None:
    """Whatever is missing at the end, nothing is restored of it."""
    data = copied.file.read_bytes()
    copied.file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BackupError, match="no backup"):
        copied.restore()
    assert not copied.new.state.exists()


@pytest.mark.parametrize("change", [{"format": 99}, {"schema": "9999"}, {"database": "postgresql"}])
def test_another_format_schema_or_database_is_refused(copied: Copied, change: dict[str, object]) -> None:
    """Each is named in one line."""
    with tarfile.open(copied.file) as tar:
        manifest = tar.getmember(MANIFEST)
        content = json.loads(tar.extractfile(manifest).read())
    data = json.dumps(content | change).encode()
    with copied.file.open("r+b") as file:
        file.truncate(manifest.offset)
        file.seek(0, io.SEEK_END)
        file.write(bytes(2 * tarfile.BLOCKSIZE))
    with tarfile.open(copied.file, "a") as tar:
        info = tarfile.TarInfo(MANIFEST)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    with pytest.raises(BackupError, match=r"format 99|version 0|of postgresql") as error:
        copied.restore()
    assert "\n" not in str(error.value)
    assert not copied.new.state.exists()


def test_what_is_there_is_kept_unless_forced(copied: Copied) -> None:
    """A place in use is refused, and with force holds only what the backup holds."""
    copied.restore()
    stray = copied.new.recordings / "dev-2" / "1" / "000000.dat"
    put_file(stray, io.BytesIO(b"of another"))
    with pytest.raises(BackupError, match="not empty"):
        copied.restore()
    assert stray.exists()
    copied.restore(force=True)
    assert not stray.exists()
    assert copied.persons() == [copied.person.person]


def test_persons_erased_since_are_erased_again(copied: Copied) -> None:
    """By the database that is replaced, and by a list; the keeper finds the erasure to do."""
    copied.restore()
    engine = open_engine(copied.new.history)
    Care(engine).discharge("dev-1", "her", 2_000)
    Erasures(engine).ask(copied.person.person, "her", 3_000)
    asked = [{"person": item.person, "asked_ms": item.asked_ms, "left": ""} for item in Erasures(engine).list()]
    engine.dispose()
    assert copied.restore(force=True).erasures == 1
    assert copied.persons() == []
    listed = copied.folder / "erasures.json"
    listed.write_text(json.dumps(asked), encoding="utf-8")
    copied.new = copied.at(copied.folder / "third", copied.folder / "third-certs")
    assert copied.restore(erasures=listed).erasures == 1
    assert copied.persons() == []
    engine = open_engine(copied.new.history)
    (pending,) = Erasures(engine).list(pending=True)
    engine.dispose()
    assert [span.patient for span in pending.spans] == ["dev-1"]
    assert pending.spans[0].from_ms == 1_000


@pytest.mark.postgres
def test_postgres_comes_back(two_databases: tuple[str, str], tmp_path: Path) -> None:
    """By its own programs, to another database: persons, trail and the numbers that come next; not onto another."""
    copied = Copied(tmp_path, two_databases)
    assert copied.manifest.database == "postgresql"
    copied.restore()
    assert copied.persons() == [copied.person.person]
    with pytest.raises(BackupError, match="the database is not empty"):
        copied.restore()
    engine = open_engine(two_databases[1])
    assert Audit(engine).verify() is None
    assert [row.act for row in Audit(engine).rows()] == ["backup.restored", "person.admit"]
    # Rows get new numbers, not those that were given.
    Care(engine).discharge("dev-1", "her", 2_000)
    assert Care(engine).admit(new_person("Bo", 2), "dev-1", "1", "A", "adult", "her", 3_000).patient == "dev-1"
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM audit"))
    engine.dispose()
    copied.restore(force=True)
    assert copied.persons() == [copied.person.person]
    copied.engine.dispose()


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    """A backup with a hole is not made."""
    writer = Writer(tmp_path / "copy.tar", quiet)
    with pytest.raises(BackupError, match="short became shorter"):
        writer._put("short", io.BytesIO(b"ab"), 3)
    writer.drop()
    assert list(tmp_path.iterdir()) == []


def test_errors_are_one_line(copied: Copied) -> None:
    """A file in the way, a folder that is none, a database that is none."""
    place = ("--state", copied.state, "--certificates", copied.folder / "certs")
    for arguments, why in (
        (("backup", copied.file, *place), "exists"),
        (("backup", copied.folder / "no" / "copy.tar", *place), "no such file"),
        (("backup", copied.folder / "b.tar", "--state", copied.folder / "none"), "no tables"),
        (("restore", copied.folder / "none.tar", *place), "no such file"),
        (("restore", copied.state / "history.db", *place), "no backup"),
    ):
        done = command(*arguments)
        assert done.returncode == 2
        assert why in done.stderr
        assert "Traceback" not in done.stderr
    assert not list(copied.folder.glob("*.partial"))
    assert not list(copied.folder.glob(".rw-*"))


def test_postgres_needs_its_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where they are missing, the message says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("rhythmwatch.backup_database.DEBIAN", tmp_path)
    with pytest.raises(BackupError, match="install PostgreSQL's client"):
        find_program("pg_dump")


def test_a_database_is_copied_at_one_moment_while_it_is_written(copied: Copied) -> None:
    """Rows go in all the while; the copy's trail is whole and ends behind the row that the manifest names."""
    stop, written = threading.Event(), threading.Event()
    audit = Audit(copied.engine)

    def write() -> None:
        while not stop.is_set():
            audit.add(1, "her", "page.open", "x" * 500)
            written.set()

    for _ in range(300):
        audit.add(1, "her", "page.open", "y" * 500)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert written.wait(DEADLINE_S)
        seen: list[int] = []
        copied.file, manifest = back_up(
            copied.places, copied.folder / "second.tar", lambda what, done, total: seen.append(done)
        )
    finally:
        stop.set()
        writer.join()
    assert seen
    copied.restore()
    engine = open_engine(copied.new.history)
    assert Audit(engine).verify() is None
    assert Audit(engine).head()[0] > manifest.audit_seq
    engine.dispose()
