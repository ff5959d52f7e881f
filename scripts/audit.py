#!/usr/bin/env python3
"""Look for known faults of what is locked; runs with the Python that has pip-audit (see the Makefile).

A fault without an exception that is dated and says why fails, and so does an exception that has run out. Where the
service of advisories can't be reached nothing was found out: that is said in one line and does not fail.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

EXCEPTIONS: Final = Path(__file__).with_name("audit-exceptions.toml")
SERVICES: Final = ("pypi", "osv")
AWAY: Final = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "Max retries exceeded", "ServiceError", "HTTPError")
"""What pip-audit says where the service does not answer."""


class AuditError(Exception):
    """The audit can't be done for a reason of our own; the text says which."""


def exceptions(path: Path, today: dt.date) -> tuple[dict[str, str], list[str]]:
    """Read the exceptions.

    Parameters
    ----------
    path : Path
        TOML: ``[[exception]]`` with ``id``, ``until`` (a date) and ``reason``.
    today : date

    Returns
    -------
    excused : dict of str to str
        Id to reason, of those that hold today.
    problems : list of str
        What is wrong with the others.
    """
    excused: dict[str, str] = {}
    problems: list[str] = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("exception", []):
        ident, until, reason = entry.get("id"), entry.get("until"), str(entry.get("reason", "")).strip()
        if not ident or type(until) is not dt.date or not reason:
            problems.append(f"exception {ident or '?'}: needs id, until (a date) and reason")
        elif until < today:
            problems.append(f"exception {ident} ran out on {until}: {reason}")
        else:
            excused[ident] = reason
    return excused, problems


def judge(found: Mapping[str, Any], excused: Mapping[str, str]) -> tuple[list[str], list[str], list[str]]:
    """Part what pip-audit found.

    Parameters
    ----------
    found : mapping
        Its JSON.
    excused : mapping of str to str
        Id to reason.

    Returns
    -------
    faults, accepted, unknown : lists of str
        Lines on faults that fail, on those that are excused, and packages that the service does not know.
    """
    faults: list[str] = []
    accepted: list[str] = []
    unknown: list[str] = []
    for package in found["dependencies"]:
        if "skip_reason" in package:
            unknown.append(package["name"])
            continue
        for fault in package["vulns"]:
            names = [fault["id"], *fault.get("aliases", [])]
            reason = next((excused[name] for name in names if name in excused), None)
            line = f"{package['name']} {package['version']}: {', '.join(names)}"
            if reason is None:
                faults.append(f"{line}; mended in {', '.join(fault['fix_versions']) or 'no version yet'}")
            else:
                accepted.append(f"{line}; excused: {reason}")
    return faults, accepted, unknown


def ask(lock: Path, service: str, arguments: Sequence[str]) -> dict[str, Any] | None:
    """Run pip-audit; None where its service does not answer.

    Raises
    ------
    AuditError
        If it fails otherwise.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--no-deps", "--disable-pip"]
    command += ["--progress-spinner", "off", "--format", "json", "--aliases", "on", "--vulnerability-service", service]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        if any(word in done.stderr for word in AWAY):
            return None
        said = done.stderr.strip().splitlines()
        raise AuditError(f"pip-audit failed: {said[-1] if said else f'status {done.returncode}'}") from None
    return found


def audit(lock: Path, services: Sequence[str], arguments: Sequence[str]) -> int:
    """Audit a lock; returns the exit status.

    Each service is asked until one knows every package; what any of them found counts.
    """
    excused, problems = exceptions(EXCEPTIONS, dt.datetime.now(dt.UTC).date())
    faults: list[str] = []
    accepted: list[str] = []
    unknown: list[str] | None = None
    count = 0
    for service in services:
        found = ask(lock, service, arguments)
        if found is None:
            continue
        count = len(found["dependencies"])
        more, excusable, silent = judge(found, excused)
        faults += [line for line in more if line not in faults]
        accepted += [line for line in excusable if line not in accepted]
        unknown = silent if unknown is None else [name for name in unknown if name in silent]
        if not silent:
            break
    for line in (*problems, *faults, *accepted):
        sys.stdout.write(f"audit: {line}\n")
    if unknown is None or len(unknown) == count:
        sys.stdout.write("audit: NOT DONE: no service of advisories answers here; nothing is known of any package\n")
    elif unknown:
        sys.stdout.write(f"audit: NOT KNOWN of {len(unknown)} of {count} packages: {', '.join(unknown)}\n")
    else:
        sys.stdout.write(f"audit: {count} packages, {len(faults)} faults, {len(accepted)} excused\n")
    return 1 if faults or problems else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Look for known faults of locked packages.")
    parser.add_argument("lock", type=Path)
    parser.add_argument("--osv-url", help="query address of an OSV service of your own")
    given = parser.parse_args()
    try:
        if given.osv_url:
            return audit(given.lock, ("osv",), ("--osv-url", given.osv_url))
        return audit(given.lock, SERVICES, ())
    except AuditError as error:
        sys.stderr.write(f"audit: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
