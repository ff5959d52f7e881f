"""The few lines of HTML that the server writes itself; everything else is in ``web/ui``."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

UI: Final = Path(__file__).with_name("ui")
_MESSAGE: Final = "<!-- message -->"
_WARD: Final = "<!-- ward -->"


def login_page(ward: str, message: str = "") -> str:
    """Log-in form, with what went wrong above it."""
    html = (UI / "login.html").read_text(encoding="utf-8").replace(_WARD, escape(ward))
    if message:
        html = html.replace(_MESSAGE, f'<p class="login-error" role="alert">{escape(message)}</p>')
    return html


def wall_page() -> str:
    """Show the one page; its address decides what it shows."""
    return (UI / "index.html").read_text(encoding="utf-8")
