"""Command of a process that stands by; the supervisor starts it, people do not."""

from __future__ import annotations

import os

from rhythmwatch.cli import options
from rhythmwatch.process import die_with_parent


def spare() -> None:
    """Stand by for the supervisor to take the place of a worker that dies."""
    from rhythmwatch.cli.tree import app
    from rhythmwatch.models import ModelError
    from rhythmwatch.spare import stand_by

    die_with_parent()
    with options.one_line_errors(ModelError, OSError):
        orders = stand_by()
    if orders is not None:
        os.environ.update(orders.environment)
        app(list(orders.arguments))
