"""Command of a process that stands by; the supervisor starts it, people do not."""

from __future__ import annotations

import os
import signal

from rhythmwatch.cli import options
from rhythmwatch.process import die_with_parent


def spare() -> None:
    """Stand by for the supervisor to fork workers."""
    # Ctrl-C reaches all processes of a terminal, this one perhaps as it loads; it ends when its supervisor says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from rhythmwatch.cli.tree import app
    from rhythmwatch.models import ModelError
    from rhythmwatch.spare import stand_by

    die_with_parent()
    with options.one_line_errors(ModelError, OSError):
        orders = stand_by()
    if orders is not None:
        os.environ.update(orders.environment)
        # Its parent is the process that stood by, whose end is none of its own.
        os.environ.pop("RHYTHMWATCH_SUPERVISED", None)
        app(list(orders.arguments))
