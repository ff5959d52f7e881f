"""Commands round the rights of patients and the hospital's own feed of admissions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from rhythmwatch.cli import options
from rhythmwatch.cli.serve import BUS, HISTORY, RECORDINGS, _child
from rhythmwatch.process import run_until_stopped


def keeper(
    bus: options.BusUrl = BUS,
    history: options.HistoryUrl = HISTORY,
    recordings: options.Recordings = RECORDINGS,
    metrics: options.Metrics = "",
) -> None:
    """Delete what is older than it is kept, and carry erasures through."""
    from alerts.database import StoreError
    from bus.errors import BusError
    from rhythmwatch.rights import keep_rights

    _child()
    with options.one_line_errors(StoreError, BusError, OSError, ValueError):
        run_until_stopped("keeper", lambda stop: keep_rights(bus, history, recordings, stop, metrics=metrics))


def export_training(
    out: Annotated[Path, typer.Option("--out", envvar="RHYTHMWATCH_OUT", help="Folder for results.")],
    history: options.HistoryUrl = HISTORY,
    recordings: options.Recordings = RECORDINGS,
) -> None:
    """Write recordings for training: pseudonymised, and only of persons who agreed to it."""
    from alerts.archive import Archive
    from alerts.care import Care
    from alerts.database import StoreError, open_engine, upgrade
    from rhythmwatch.training_export import export_training as write

    with options.one_line_errors(StoreError, OSError):
        engine = open_engine(history)
        upgrade(engine)
        with Archive(history, recordings) as archive:
            done = write(Care(engine), archive, out, int(time.time() * 1000))
        engine.dispose()
    options.console.print(
        f"{done.subjects} subjects, {done.records} records in {out}; "
        f"{done.without_consent} persons left out for want of consent"
    )


def adt(
    listen: Annotated[
        str, typer.Option("--listen", envvar="RHYTHMWATCH_LISTEN", help="host:port for HL7 v2 over MLLP.")
    ] = "127.0.0.1:2575",
    bus: options.BusUrl = BUS,
    history: options.HistoryUrl = HISTORY,
) -> None:
    """Take admissions, transfers and discharges from the hospital's HL7 v2 feed."""
    from alerts.database import StoreError
    from bus.errors import BusError
    from rhythmwatch.adt import listen_adt
    from rhythmwatch.metrics import parse_address

    _child()
    with options.one_line_errors(StoreError, BusError, OSError, ValueError):
        host, port = parse_address(listen)
        run_until_stopped("adt", lambda stop: listen_adt(host, port, bus, history, stop))
