"""Commands that keep a copy of everything, and put it back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeAlias

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from rhythmwatch.cli import options
from rhythmwatch.cli.serve import RUN_STATE

if TYPE_CHECKING:
    from rhythmwatch.backup_parts import Told

History: TypeAlias = Annotated[
    str, typer.Option("--history", envvar="RHYTHMWATCH_HISTORY", help="History database; else SQLite in the state.")
]
Bus: TypeAlias = Annotated[
    str, typer.Option("--bus", envvar="RHYTHMWATCH_BUS", help="Address of the bus; else the embedded one of the state.")
]
Recordings: TypeAlias = Annotated[
    Path | None,
    typer.Option("--recordings", envvar="RHYTHMWATCH_RECORDINGS", help="Folder of the recordings; else in the state."),
]
Certificates: TypeAlias = Annotated[
    Path,
    typer.Option("--certificates", envvar="RHYTHMWATCH_CERTIFICATES", help="Folder of `certs init`, where there is."),
]
CERTIFICATES = Path(".rhythmwatch/certs")


def backup(
    out: Annotated[Path, typer.Argument(help="File of the backup, or a folder for it.")],
    state: options.State = RUN_STATE,
    history: History = "",
    bus: Bus = "",
    recordings: Recordings = None,
    certificates: Certificates = CERTIFICATES,
) -> None:
    """Copy everything that is kept into one file, while the service runs."""
    from alerts.database import StoreError
    from rhythmwatch.backup import Places, back_up
    from rhythmwatch.backup_parts import BackupError

    places = Places.of(state, history, bus, recordings, certificates)
    with options.one_line_errors(BackupError, StoreError, OSError), _telling() as told:
        path, manifest = back_up(places, out, told)
    options.console.print(
        f"{path}: {len(manifest.parts)} parts, {path.stat().st_size / 1e6:.1f} MB", highlight=False, soft_wrap=True
    )
    if not manifest.bus:
        options.errors.print("rhythmwatch: no bus was found, so limits and standing alarms are not in it; see --bus",
                             style="yellow", highlight=False, soft_wrap=True)  # fmt: skip
    options.console.print(
        "It holds patients' data and keys, not encrypted: keep it where nobody else can read it.", soft_wrap=True
    )


def restore(
    file: Annotated[Path, typer.Argument(help="File that `backup` made.")],
    state: options.State = RUN_STATE,
    history: History = "",
    bus: Bus = "",
    recordings: Recordings = None,
    certificates: Certificates = CERTIFICATES,
    force: Annotated[
        bool, typer.Option("--force", envvar="RHYTHMWATCH_FORCE", help="Replace what is there; it is lost.")
    ] = False,
    erasures: Annotated[
        Path | None,
        typer.Option(
            "--erasures", envvar="RHYTHMWATCH_ERASURES", help="JSON of GET /api/erasures: erase these persons again."
        ),
    ] = None,
) -> None:
    """Put a backup back, checked whole before; the service must not run."""
    from alerts.database import StoreError
    from rhythmwatch.backup import Places
    from rhythmwatch.backup_parts import BackupError
    from rhythmwatch.backup_restore import restore as put_back

    places = Places.of(state, history, bus, recordings, certificates)
    with options.one_line_errors(BackupError, StoreError, OSError), _telling() as told:
        done = put_back(file, places, told, force=force, erasures=erasures)
    made = datetime.fromtimestamp(done.manifest.made_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    options.console.print(
        f"restored {len(done.manifest.parts)} parts of {made}; all hashes and the audit trail fit",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if done.erasures:
        options.console.print(f"{done.erasures} persons are erased again once the service runs", highlight=False)


@contextmanager
def _telling() -> Iterator[Told]:
    """Bars on standard error, one a step; a command that is asked to end clears up first."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    former = signal.signal(signal.SIGTERM, _end)
    try:
        with Progress(*columns, console=options.errors) as bars:
            steps = {}

            def told(what: str, done: int, total: int) -> None:
                if what not in steps:
                    steps[what] = bars.add_task(what)
                bars.update(steps[what], completed=done, total=total or None)

            yield told
    finally:
        signal.signal(signal.SIGTERM, former)


def _end(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit(143)
