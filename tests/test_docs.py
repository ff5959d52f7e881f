"""What the documentation names exists, and what exists is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from rhythmwatch.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
ROOMS = ("ingest", "bus", "dsp", "inference", "alerts", "web", "rhythmwatch", "tests", "benchmarks", "docs", "deploy")
PATH = re.compile(rf"`((?:{'|'.join(ROOMS)})/[\w./*-]+)`")


def commands(group: Any, name: str = "") -> dict[str, Any]:
    """Every command below a group, by its full name."""
    if not hasattr(group, "commands"):
        return {name: group}
    found: dict[str, Any] = {}
    for child, command in group.commands.items():
        found |= commands(command, f"{name} {child}".strip())
    return found


COMMANDS = commands(typer.main.get_command(app))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_the_documentation_exist(page: Path):
    """A path named in a page is there."""
    missing = [path for path in PATH.findall(page.read_text("utf-8")) if not list(ROOT.glob(path.rstrip("/")))]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_resolve(page: Path):
    """A relative link leads to a file."""
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_option_is_a_variable_and_is_documented():
    """Each option has its RHYTHMWATCH_ variable, and docs/settings.md has a row for it."""
    text = (ROOT / "docs" / "settings.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(RHYTHMWATCH_\w+)` \| `(--[\w-]+)`", text, re.MULTILINE))
    seen = {}
    for name, command in COMMANDS.items():
        for option in command.params:
            if option.param_type_name == "argument" or option.name == "help":
                continue
            assert isinstance(option.envvar, str), (name, option.name)
            seen[option.envvar] = option.opts[0]
    assert rows == seen


def test_every_command_says_what_it_does():
    """No command without help."""
    assert [name for name, command in COMMANDS.items() if not (command.help or "").strip()] == []
