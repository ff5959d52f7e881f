"""The table that all storms of a run are printed in; test modules name it in ``pytest_plugins``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def table() -> Iterator[list[str]]:
    """Give the lines of the table that is printed at the end."""
    lines: list[str] = []
    yield lines
    head = "| fault | times | alarms lost / doubled | beats lost / doubled | strange | recovery p99, s |"
    sys.stdout.write("\n".join(["", head, "|---|---|---|---|---|---|", *lines, ""]))
