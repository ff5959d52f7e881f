"""What the project is made of: all of it pinned, under licences that fit, and audited in a way that can fail."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bus.child import free_port

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
IMAGE = ROOT / "deploy" / "requirements.lock"
SUPPLY = ROOT / "scripts" / "supply.lock"
RUNTIME = ("postgres", "ble", "fleet", "train")
FITS = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Zlib",
}  # fmt: skip
"""Licences under which a library may be used by, and delivered with, a program under the Apache License 2.0."""
APART = {
    "crc32c": "LGPL-2.1-or-later: imported, not changed, replaceable",
    "psycopg": "LGPL-3.0-only: the extra postgres; imported, not changed, replaceable",
    "psycopg-binary": "LGPL-3.0-only: the extra postgres; imported, not changed, replaceable",
}
"""Libraries that stay under a licence of their own beside ours, and why that is in order."""
OLD_NAMES = {
    "3-Clause BSD License": "BSD-3-Clause", "Apache 2.0": "Apache-2.0", "Apache Software License": "Apache-2.0",
    "BSD License": "BSD", "ISC License (ISCL)": "ISC", "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0", "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}  # fmt: skip


def needed(*extras: str) -> dict[str, metadata.Distribution]:
    """Every installed distribution that the project needs with these extras, by its name; itself left out."""
    seen: dict[tuple[str, frozenset[str]], metadata.Distribution] = {}
    waiting = [("rhythmwatch", frozenset(extras))]
    while waiting:
        name, wanted = waiting.pop()
        if (canonicalize_name(name), wanted) in seen:
            continue
        found = seen[canonicalize_name(name), wanted] = metadata.distribution(name)
        for text in found.requires or []:
            other = Requirement(text)
            if other.marker is None or any(other.marker.evaluate({"extra": extra}) for extra in {"", *wanted}):
                waiting.append((other.name, frozenset(other.extras)))
    return {name: found for (name, _), found in seen.items() if name != "rhythmwatch"}


def pins(path: Path) -> dict[str, str]:
    """Versions in a lock by name; a line that pins nothing fails."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", " ")):
            (pinned,) = Requirement(line.split("\\")[0].split(";")[0].strip()).specifier
            assert pinned.operator == "==", line
            found[canonicalize_name(line.split("==")[0])] = pinned.version
    return found


def test_what_is_installed_is_pinned():
    """Each distribution that the project and its tests need has the version of the lock."""
    locked = pins(LOCK)
    installed = {name: found.version.partition("+")[0] for name, found in needed("train", "dev").items()}
    assert len(installed) > 100
    assert installed.items() <= locked.items(), {k: v for k, v in installed.items() if locked.get(k) != v}


def test_the_image_installs_the_same_versions_by_hash():
    """All that the service needs, with PostgreSQL, is pinned by hash for the image, as the tests ran with it."""
    image, locked = pins(IMAGE), pins(LOCK)
    assert needed("postgres").keys() <= image.keys()
    elsewhere = {"async-timeout", "colorama", "httpx2-jsfetch"}
    assert {name: image[name] for name in image.keys() - elsewhere}.items() <= locked.items()
    for path in (IMAGE, SUPPLY):
        entries = re.split(r"\n(?=\S)", path.read_text(encoding="utf-8"))[1:]
        assert len(entries) == len(pins(path))
        assert all("--hash=sha256:" in entry for entry in entries)
    assert "--require-hashes --requirement deploy/requirements.lock" in (ROOT / "Dockerfile").read_text("utf-8")


def licences(found: metadata.Distribution) -> set[str]:
    """Licences that a distribution names; of several to choose from, those that fit."""
    text = found.metadata.get("License-Expression")
    if text is None:
        named = [
            line.split("::")[-1].strip() for line in found.metadata.get_all("Classifier") or [] if "License ::" in line
        ]
        text = " AND ".join(OLD_NAMES.get(name, name) for name in named)
    if not text:
        first = (found.metadata.get("License") or "unnamed").splitlines()[0]
        text = OLD_NAMES.get(first, first)
    choices = [{part.strip(" ()") for part in choice.split(" AND ")} for choice in text.split(" OR ")]
    return min(choices, key=lambda choice: len(choice - FITS))


def test_licences_fit():
    """Each library that may be delivered is under a licence that fits, or stands apart for a reason."""
    odd = {name: licences(found) - FITS for name, found in needed(*RUNTIME).items() if name not in APART}
    assert {name: names for name, names in odd.items() if names} == {}
    assert APART.keys() <= needed(*RUNTIME).keys()


def audit_script() -> ModuleType:
    """Load scripts/audit.py."""
    spec = importlib.util.spec_from_file_location("audit_script", ROOT / "scripts" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_audit(folder: Path, answer: str, lock: Path = LOCK) -> subprocess.CompletedProcess[str]:
    """Run the script with a pip-audit that does what `answer` says, which stands for the service outside."""
    (folder / "pip_audit.py").write_text(answer, encoding="utf-8")
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "audit.py", lock],
        env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def answering(*packages: dict[str, Any]) -> str:
    """Text of a pip-audit that finds this."""
    return f"import json\nprint(json.dumps({{'dependencies': {list(packages)!r}, 'fixes': []}}))"


FAULT = {"id": "GHSA-a", "aliases": ["CVE-1"], "fix_versions": ["2.1"]}
FAULTY = {"name": "pkg", "version": "2.0", "vulns": [FAULT]}
SOUND = {"name": "other", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "third", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (answering(SOUND), 0, "1 packages, 0 faults"),
        (answering(SOUND, FAULTY), 1, "pkg 2.0: GHSA-a, CVE-1; mended in 2.1"),
        (answering(SOUND, UNKNOWN), 0, "NOT KNOWN of 1 of 2 packages: third"),
        (answering(UNKNOWN, FAULTY), 1, "pkg 2.0"),
        (answering(UNKNOWN), 0, "NOT DONE"),
        ("raise ConnectionError('no route')", 0, "NOT DONE"),
        ("raise KeyError('a fault of the tool')", 2, "pip-audit failed: KeyError"),
    ],
)
def test_an_audit_fails_for_faults_and_says_what_it_does_not_know(tmp_path: Path, answer: str, status: int, said: str):
    """A fault fails; a service that is away is said in one line; a broken tool is neither."""
    done = run_audit(tmp_path, answer)
    assert done.returncode == status, done.stdout + done.stderr
    assert said in done.stdout + done.stderr


def test_what_one_service_found_counts_though_another_knows_more_packages(tmp_path: Path):
    """PyPI knows of a fault and not of all packages, OSV of all packages and no fault: the fault fails."""
    one, other = [UNKNOWN, FAULTY], [SOUND | {"name": "third"}, FAULTY | {"vulns": []}]
    answer = f"import json, sys\nfound = {one} if 'pypi' in sys.argv else {other}\n"
    done = run_audit(tmp_path, f"{answer}print(json.dumps({{'dependencies': found, 'fixes': []}}))")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "pkg 2.0: GHSA-a, CVE-1; mended in 2.1" in done.stdout
    assert "2 packages, 1 faults" in done.stdout


class Advisories(BaseHTTPRequestHandler):
    """A service of advisories that speaks OSV's layout, outside the project; the path says how it is today."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer a query for one package."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
        package = {"name": "click", "ecosystem": "PyPI"}
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}]
        known = {"id": "GHSA-x", "aliases": ["CVE-2"], "affected": [{"package": package, "ranges": ranges}]}
        if self.path == "/withdrawn":
            known["withdrawn"] = "2026-01-01T00:00:00Z"
        told = {"vulns": [known]} if asked == "click" and self.path in ("/faulty", "/withdrawn") else {}
        body = b"<html>log in first</html>" if self.path == "/portal" else json.dumps(told).encode()
        self.send_response(503 if self.path == "/busy" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def advisories() -> Iterator[str]:
    """Address of a service of advisories."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/faulty", 1, "audit: click 8.1.0: CVE-2, GHSA-x; mended in 99.0\naudit: 2 packages, 1 faults, 0 excused\n"),
        ("/sound", 0, "audit: 2 packages, 0 faults, 0 excused\n"),
        ("/withdrawn", 0, "audit: 2 packages, 0 faults, 0 excused\n"),
        ("/busy", 0, "audit: NOT DONE: no service of advisories answers here; nothing is known of any package\n"),
        ("/portal", 2, "audit: pip-audit failed: "),
        ("", 0, "audit: NOT DONE: no service of advisories answers here; nothing is known of any package\n"),
    ],
    ids=["fault", "none", "withdrawn", "busy", "portal", "away"],
)
def test_the_audit_with_the_tool_that_it_runs(tmp_path: Path, advisories: str, path: str, status: int, said: str):
    """With pip-audit itself and a service: exit status and text of each case, an address that nobody answers too."""
    python = Path(sys.prefix) / "supply" / "bin" / "python"
    if not python.exists() and os.environ.get("CI") != "true":
        pytest.skip("no pip-audit: run make audit")
    (tmp_path / "lock").write_text("attrs==23.1.0\nclick==8.1.0\n", encoding="utf-8")
    address = f"{advisories}{path}" if path else f"http://127.0.0.1:{free_port()}/away"
    done = subprocess.run(
        [python, ROOT / "scripts" / "audit.py", tmp_path / "lock", "--osv-url", address],
        env={**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    assert (done.stdout + done.stderr).startswith(said)


def test_exceptions_are_dated_and_reasoned(tmp_path: Path):
    """One that holds excuses by either name; one that ran out, or says no reason, is a problem."""
    script, today = audit_script(), dt.date(2026, 12, 1)
    path = tmp_path / "exceptions.toml"
    path.write_text(
        '[[exception]]\nid = "CVE-1"\nuntil = 2026-12-01\nreason = "not reached"\n'
        '[[exception]]\nid = "CVE-2"\nuntil = 2026-11-30\nreason = "old"\n'
        '[[exception]]\nid = "CVE-3"\nuntil = 2027-01-01\nreason = " "\n'
        '[[exception]]\nid = "CVE-4"\nuntil = "soon"\nreason = "no date"\n',
        encoding="utf-8",
    )
    excused, problems = script.exceptions(path, today)
    assert excused == {"CVE-1": "not reached"}
    assert [problem.split(":")[0] for problem in problems] == [
        "exception CVE-2 ran out on 2026-11-30", "exception CVE-3", "exception CVE-4",
    ]  # fmt: skip
    assert script.judge({"dependencies": [FAULTY]}, excused)[0] == []
    assert len(script.judge({"dependencies": [FAULTY]}, {})[0]) == 1


def test_the_exceptions_of_the_project_can_be_read():
    """Today's file is whole; what has run out shows in the audit, not here."""
    _, problems = audit_script().exceptions(ROOT / "scripts" / "audit-exceptions.toml", dt.date(2000, 1, 1))
    assert problems == []


def test_ci_audits():
    """What CI runs makes the SBOM and the audit, and ends with the first that fails."""
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make sbom audit" in text
    assert "set -euo pipefail" in text
