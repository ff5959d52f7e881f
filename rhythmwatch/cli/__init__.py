"""The command line: ``rhythmwatch COMMAND``.

Commands import what they run only when they run, so that ``--help`` and the small processes start fast.
"""

from rhythmwatch.cli.tree import app

__all__ = ["app"]
