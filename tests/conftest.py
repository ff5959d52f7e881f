"""Fixtures that every test may use: where recordings are, and tests left out by name when a part is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CI = os.environ.get("CI") == "true"


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what can't run here, by name; with ``CI=true`` nothing is left out."""
    for item in items:
        for marker in ("data", "browser", "services", "postgres"):
            if item.get_closest_marker(marker) is None:
                continue
            reason = missing_part(marker)
            if reason and not CI:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of recordings."""
    folder = recordings()
    if folder is None:
        pytest.fail("no recordings: set RHYTHMWATCH_DATA or run `rhythmwatch data fetch mitdb`")
    return folder
