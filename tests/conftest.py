"""Fixtures that every test may use: where recordings are, and tests left out by name when a part is missing."""

from __future__ import annotations

import os
import pwd
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine, text

import bus.clock
from alerts.database import open_engine, upgrade
from bus.clock import SteadyClock

ROOT = Path(__file__).resolve().parent.parent
CI = os.environ.get("CI") == "true"

if not CI:
    # As the library does in CI: an example that waits for a core is no fault.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")


def recordings() -> Path | None:
    """Folder of recordings: ``RHYTHMWATCH_DATA``, then ``data/``; None where there is none."""
    for folder in (os.environ.get("RHYTHMWATCH_DATA"), str(ROOT / "data")):
        if folder and (Path(folder) / "mitdb" / "100.hea").exists():
            return Path(folder)
    return None


def postgres_programs() -> Path | None:
    """Folder of PostgreSQL's programs: where the PATH has them, else Debian's place; None where there is none."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return places[-1].parent if places else None


def missing_part(marker: str) -> str | None:
    """Say why tests with `marker` can't run here, or None when they can."""
    if marker == "data" and recordings() is None:
        return "no recordings: set RHYTHMWATCH_DATA or run `rhythmwatch data fetch mitdb`"
    if marker == "browser" and not (shutil.which("chromium") or shutil.which("google-chrome")):
        return "no chromium on the PATH"
    if marker == "services":
        absent = [name for name in ("mosquitto", "redis-server") if shutil.which(name) is None]
        return f"not on the PATH: {', '.join(absent)}" if absent else None
    if marker == "postgres" and postgres_programs() is None:
        return "no PostgreSQL: neither initdb on the PATH nor /usr/lib/postgresql/*/bin/initdb"
    return None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the storms of ``make chaos`` to those who ask for them by name."""
    asked = any("chaos" in argument for argument in config.invocation_params.args)
    return True if collection_path.name == "chaos" and not asked else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what can't run here, by name; with ``CI=true`` nothing is left out."""
    for item in items:
        for marker in ("data", "browser", "services", "postgres"):
            if item.get_closest_marker(marker) is None:
                continue
            reason = missing_part(marker)
            if reason and not CI:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def own_clock() -> None:
    """Begin each test with a clock of its own: the last one may have followed a server whose clock was set."""
    bus.clock._CLOCK = SteadyClock(time.time_ns, bus.clock._passing)  # type: ignore[misc]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of recordings."""
    folder = recordings()
    if folder is None:
        pytest.fail("no recordings: set RHYTHMWATCH_DATA or run `rhythmwatch data fetch mitdb`")
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Run a PostgreSQL of our own on a unix socket in a temporary folder; gives its URL."""
    programs = postgres_programs()
    if programs is None:
        pytest.fail("no PostgreSQL: install Debian's postgresql or run scripts/services")
    folder = Path(tempfile.mkdtemp(prefix="rw-pg-"))
    user: dict[str, object] = {}
    if os.getuid() == 0:
        # The server refuses to run as root.
        account = pwd.getpwnam("postgres" if _exists("postgres") else "nobody")
        os.chown(folder, account.pw_uid, account.pw_gid)
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    data, env = folder / "data", {**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(folder)}

    def call(program: str, *arguments: str) -> None:
        command = [str(programs / program), *arguments]
        done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=60, **user)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr

    call("initdb", "-D", str(data), "-U", "rw", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
    call("pg_ctl", "-D", str(data), "-w", "-t", "30", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://rw@/postgres?host={folder}"
    finally:
        call("pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _exists(name: str) -> bool:
    return any(entry.pw_name == name for entry in pwd.getpwall())


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of an empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/below/history.db"
        return
    address = request.getfixturevalue("postgres")
    yield address
    engine = open_engine(address)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """Open a database of each kind with its tables."""
    engine = open_engine(url)
    upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def set_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the system's clock of the processes that the test starts: by how many hours it is ahead of the true time."""
    compiler, library, file = shutil.which("cc"), tmp_path / "clock.so", tmp_path / "clock"
    if compiler is None:
        if CI:
            pytest.fail("no C compiler, which the clock of this test needs")
        pytest.skip("no C compiler, which the clock of this test needs")
    source = Path(__file__).parent / "chaos" / "clock.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    file.write_bytes(bytes(8))
    monkeypatch.setenv("RHYTHMWATCH_CLOCK", str(file))
    monkeypatch.setenv("LD_PRELOAD", str(library))

    def step(hours: float) -> None:
        # In place, since those who look have the file mapped.
        with file.open("r+b") as opened:
            opened.write(struct.pack("=q", round(hours * 3600)))

    return step
