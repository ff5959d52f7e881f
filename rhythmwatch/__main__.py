"""``python -m rhythmwatch``: the command line."""

from rhythmwatch.cli import app

app()
