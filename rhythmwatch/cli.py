"""The command line."""

from __future__ import annotations

import typer

app = typer.Typer(help="Real-time streaming ECG monitoring. Not a medical device.", no_args_is_help=True)
