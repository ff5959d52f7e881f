"""The tables that all faults of a run are printed in; test modules name this one in ``pytest_plugins``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


def _printed(head: str) -> Iterator[list[str]]:
    """Give the lines of a table that is printed at the end."""
    lines: list[str] = []
    yield lines
    columns = "|---" * (head.count("|") - 1) + "|"
    sys.stdout.write("\n".join(["", head, columns, *lines, ""]))


@pytest.fixture(scope="session")
def table() -> Iterator[list[str]]:
    """Give the table of storms: processes and hosts."""
    yield from _printed("| fault | times | alarms lost / doubled | beats lost / doubled | strange | recovery p99, s |")


@pytest.fixture(scope="session")
def rows() -> Iterator[list[str]]:
    """Give the table of troubles: clocks, devices, the database and contacts."""
    yield from _printed(
        "| trouble | alarms lost / doubled | beats lost / doubled | strange | alarm p99 before / during, s | beside |"
    )
