"""The few lines of HTML that the server writes itself; everything else is in ``web/ui``."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from string import Template
from typing import Final
from urllib.parse import quote

UI: Final = Path(__file__).with_name("ui")
_PAGES: Final = re.compile(r"/(patient/|review/|(alarms|files|review|load|admit|admin|help)(?![\w/]))[^\\\x00-\x20]*")


def own_target(target: str) -> str:
    """Give the page to go to after the log-in: `target` where it is one of ours, else the wall."""
    return target if _PAGES.fullmatch(target) else "/"


def login_address(target: str) -> str:
    """Give the address of a log-in that leads on to `target` (an address of ours, encoded)."""
    known = own_target(target)
    return "/login" if known == "/" else f"/login?target={quote(known, safe='')}"


def login_page(ward: str, message: str = "", *, user: str = "", target: str = "/") -> str:
    """Log-in form, with what went wrong above it; a name that was typed is kept."""
    focus = ("", "autofocus") if user else ("autofocus", "")
    return Template((UI / "login.html").read_text(encoding="utf-8")).substitute(
        ward=escape(ward),
        message=f'<p class="login-error" role="alert">{escape(message)}</p>' if message else "",
        user=escape(user),
        target=escape(own_target(target)),
        first=focus[0],
        second=focus[1],
    )


def wall_page() -> str:
    """Show the one page; its address decides what it shows."""
    return (UI / "index.html").read_text(encoding="utf-8")


def missing_page() -> str:
    """Say that there is no such page, and lead on."""
    return (UI / "missing.html").read_text(encoding="utf-8")
