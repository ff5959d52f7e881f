"""Commands that play devices: recordings and simulated patients, published over MQTT."""

from __future__ import annotations

from typing import Annotated

import typer

from rhythmwatch.cli import options
from rhythmwatch.cli.serve import BROKER, _child
from rhythmwatch.process import run_until_stopped


def replay(
    records: Annotated[list[str], typer.Argument(help="Records, by name in the data folder or by path.")],
    broker: options.BrokerUrl = BROKER,
    data: options.Data = None,
    lead: Annotated[
        list[str] | None, typer.Option("--lead", envvar="RHYTHMWATCH_LEAD", help="Lead to send; repeat for several.")
    ] = None,
    speed: options.Speed = 1.0,
    loop: Annotated[bool, typer.Option("--loop", envvar="RHYTHMWATCH_LOOP", help="Begin again at the end.")] = False,
    start: Annotated[
        float, typer.Option("--start", envvar="RHYTHMWATCH_START", min=0.0, help="Offset into the record, s.")
    ] = 0.0,
    ca: options.Authority = None,
) -> None:
    """Replay WFDB records as devices."""
    from ingest.recordings import RecordingError
    from rhythmwatch.playing import replay_records

    _child()
    with options.one_line_errors(RecordingError, OSError):
        run_until_stopped(
            "replay", lambda stop: replay_records(records, broker, data, lead, speed, loop, start, stop, ca)
        )


def simulate(
    broker: options.BrokerUrl = BROKER,
    script: Annotated[
        str,
        typer.Option(
            "--script", envvar="RHYTHMWATCH_SCRIPT", help="Rhythms, as in 'sinus:30,hr=70; vt:12'; else the demo cast."
        ),
    ] = "",
    patients: Annotated[
        int, typer.Option("--patients", envvar="RHYTHMWATCH_PATIENTS", min=1, max=500, help="Number of patients.")
    ] = 8,
    speed: options.Speed = 1.0,
    seed: Annotated[int, typer.Option("--seed", envvar="RHYTHMWATCH_SEED", help="Seed of the simulator.")] = 1,
    ca: options.Authority = None,
) -> None:
    """Simulate patients as devices."""
    from rhythmwatch.playing import simulate_patients

    _child()
    with options.one_line_errors(ValueError, OSError):
        run_until_stopped("simulate", lambda stop: simulate_patients(script, patients, broker, speed, seed, stop, ca))
