"""Options that several commands share; each is also an environment variable ``RHYTHMWATCH_*``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn, TypeAlias

import typer
from rich.console import Console

console = Console()
errors = Console(stderr=True)

Data: TypeAlias = Annotated[
    Path | None,
    typer.Option("--data", envvar="RHYTHMWATCH_DATA", help="Folder of WFDB recordings (else data/ if it exists)."),
]
State: TypeAlias = Annotated[
    Path,
    typer.Option("--state", envvar="RHYTHMWATCH_STATE", help="Directory for the state of the service."),
]
Host: TypeAlias = Annotated[
    str, typer.Option("--host", envvar="RHYTHMWATCH_HOST", help="Address that the page listens on.")
]
Port: TypeAlias = Annotated[
    int, typer.Option("--port", envvar="RHYTHMWATCH_PORT", min=0, max=65535, help="Port of the page; 0 picks one.")
]
BusUrl: TypeAlias = Annotated[
    str, typer.Option("--bus", envvar="RHYTHMWATCH_BUS", help="redis://, rediss:// or unix:// address of the bus.")
]
BrokerUrl: TypeAlias = Annotated[
    str,
    typer.Option("--broker", envvar="RHYTHMWATCH_BROKER", help="mqtt://user:password@host:port of the broker."),
]
Authority: TypeAlias = Annotated[
    Path | None,
    typer.Option("--ca", envvar="RHYTHMWATCH_CA", help="PEM file of the authority behind the broker's certificate."),
]
HistoryUrl: TypeAlias = Annotated[
    str,
    typer.Option("--history", envvar="RHYTHMWATCH_HISTORY", help="SQLAlchemy address of the history database."),
]
Partitions: TypeAlias = Annotated[
    str,
    typer.Option("--partitions", envvar="RHYTHMWATCH_PARTITIONS", help="Partitions to work on, first-last."),
]
Readers: TypeAlias = Annotated[
    int,
    typer.Option(
        "--readers",
        envvar="RHYTHMWATCH_READERS",
        min=1,
        max=64,
        help="Historians, and as many notifiers, recorders and evidence processes.",
    ),
]
MailUrl: TypeAlias = Annotated[
    str,
    typer.Option(
        "--mail",
        envvar="RHYTHMWATCH_MAIL",
        help="Mail server: smtps://user:password@host, smtp://... (STARTTLS) or smtp+plain://host:25.",
    ),
]
MailFrom: TypeAlias = Annotated[
    str, typer.Option("--mail-from", envvar="RHYTHMWATCH_MAIL_FROM", help="From whom mail of alarms comes.")
]
Replicas: TypeAlias = Annotated[
    int,
    typer.Option(
        "--replicas",
        envvar="RHYTHMWATCH_REPLICAS",
        min=0,
        help="Acknowledge what a device sent once so many replicas of the bus server have it.",
    ),
]
ModelsFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option("--models", envvar="RHYTHMWATCH_MODELS", help="Folder of ONNX models (else the shipped ones)."),
]
Recordings: TypeAlias = Annotated[
    Path,
    typer.Option("--recordings", envvar="RHYTHMWATCH_RECORDINGS", help="Folder that the ECG is recorded in."),
]
Consented: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--consented/--everything",
        envvar="RHYTHMWATCH_CONSENTED",
        help="Keep only what is of admitted people who agreed to monitoring.",
    ),
]
Speed: TypeAlias = Annotated[
    float,
    typer.Option("--speed", envvar="RHYTHMWATCH_SPEED", min=0.0, help="Times real time; 0 is as fast as it goes."),
]
Metrics: TypeAlias = Annotated[
    str,
    typer.Option("--metrics", envvar="RHYTHMWATCH_METRICS", help="host:port where Prometheus finds figures."),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", envvar="RHYTHMWATCH_JSON", help="Figures as JSON.")]


def fail(message: str, code: int = 2) -> NoReturn:
    """End the command with one line on standard error."""
    errors.print(f"rhythmwatch: {message}", style="red", highlight=False, soft_wrap=True)
    sys.exit(code)


@contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn the expected errors of a command into one line and exit status 2; others keep their traceback."""
    try:
        yield
    except kinds as error:
        fail(_sentence(error))


def _sentence(error: Exception) -> str:
    """Say an error in words; one of the system names its file first."""
    if not isinstance(error, OSError) or error.filename is None or error.strerror is None:
        return str(error)
    missing = "there is no such file or folder; check the name"
    return f"{error.filename}: {missing if isinstance(error, FileNotFoundError) else error.strerror}"


def partition_range(text: str) -> range:
    """Read ``first-last`` or a single number.

    Raises
    ------
    ValueError
        If it is neither, or empty.
    """
    first, _, last = text.partition("-")
    try:
        chosen = range(int(first), int(last or first) + 1)
    except ValueError as error:
        raise ValueError(f"partitions {text!r} are no range: write for instance 0-63") from error
    if not chosen or chosen.start < 0:
        raise ValueError(f"partitions {text!r} are an empty range: write for instance 0-63")
    return chosen
