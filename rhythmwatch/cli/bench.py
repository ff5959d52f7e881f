"""Commands that measure this machine."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import typer
from rich.table import Table

from rhythmwatch.cli import options

bench = typer.Typer(help="Measurements on this machine.", no_args_is_help=True)


def _least(name: str, least: float, what: str, most: float | None = None) -> Any:
    """Make an option with a number of at least `least`, also an environment variable as all options are."""
    return typer.Option(f"--{name}", envvar=f"RHYTHMWATCH_{name.upper()}", min=least, max=most, help=what)


InBatch: TypeAlias = Annotated[int, _least("patients", 1, "Patients in a batch.")]
SignalSeconds: TypeAlias = Annotated[float, _least("seconds", 5.0, "Signal seconds a patient.")]


@bench.command("latency")
def bench_latency(
    data: options.Data = None,
    patients: Annotated[int, _least("patients", 1, "Patients at speed 1.")] = 50,
    seconds: Annotated[float, _least("seconds", 10.0, "Length of the measurement.")] = 60.0,
    as_json: options.AsJson = False,
) -> None:
    """Time from the publish of the frame that completes the evidence to the alarm on a websocket."""
    from rhythmwatch.latency import measure

    _show(measure(data, patients, seconds), "figure", "value", as_json=as_json)


@bench.command("stages")
def bench_stages(
    data: options.Data = None,
    patients: InBatch = 200,
    seconds: SignalSeconds = 30.0,
    as_json: options.AsJson = False,
) -> None:
    """Cost of each stage, microseconds of one core a patient-second."""
    from rhythmwatch.costs import measure_stages

    _show(measure_stages(data, patients, seconds), "stage", "us a patient-second", as_json=as_json)


@bench.command("peers")
def bench_peers(
    data: options.Data = None,
    patients: InBatch = 200,
    seconds: SignalSeconds = 10.0,
    as_json: options.AsJson = False,
) -> None:
    """Our signal work beside what people compose today, microseconds of one core a patient-second."""
    from rhythmwatch.peers import measure_peers

    _show(measure_peers(data, patients, round(seconds)), "chain", "us a patient-second", as_json=as_json)


@bench.command("capacity")
def bench_capacity(
    data: options.Data = None,
    first: Annotated[int, _least("first", 1, "Patients to begin with.")] = 400,
    step: Annotated[int, _least("step", 1, "Patients added at a time.")] = 200,
    most: Annotated[int, _least("most", 1, "Patients at most.")] = 4000,
    seconds: Annotated[float, _least("seconds", 5.0, "Length of each measurement.")] = 20.0,
    workers: Annotated[int, _least("workers", 1, "Worker processes.", 64)] = 1,
    leads: Annotated[int, _least("leads", 1, "Leads that each device sends.", 2)] = 1,
    as_json: options.AsJson = False,
) -> None:
    """Find how many patients one core carries in real time, from the broker to a websocket, and what peers carry."""
    from rhythmwatch.capacity import Level, report, search

    def tell(level: Level) -> None:
        # Not a figure: what is printed may be read by a machine.
        options.errors.print(
            f"{level.patients} patients: p99 {level.p99_ms:.0f} ms of {level.alarms} alarms, lag {level.lag_ms} ms, "
            f"{level.cores_used:.2f} cores",
            highlight=False,
        )

    levels = search(data, start=first, step=step, most=most, seconds=seconds, workers=workers, leads=leads, tell=tell)
    with options.one_line_errors(ValueError):
        figures = report(levels, data)
    if as_json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    for name, value in figures.items():
        if isinstance(value, Mapping):
            _show(value, name, "value", as_json=False)
    _show(
        {name: value for name, value in figures.items() if isinstance(value, int | float)},
        "figure",
        "value",
        as_json=False,
    )


@bench.command("scaling")
def bench_scaling(
    data: options.Data = None,
    patients: Annotated[int, _least("patients", 1, "Patients whose backlog is worked off.")] = 400,
    seconds: SignalSeconds = 60.0,
    as_json: options.AsJson = False,
) -> None:
    """Time that one worker and two take for the same backlog on the bus."""
    from rhythmwatch.scaling import measure_scaling

    _show(measure_scaling(data, patients, round(seconds)), "figure", "value", as_json=as_json)


def _show(figures: Mapping[str, float], *columns: str, as_json: bool) -> None:
    """Print figures for a machine or for a person."""
    if as_json:
        sys.stdout.write(json.dumps({k: None if math.isnan(v) else v for k, v in figures.items()}) + "\n")
        return
    table = Table(*columns)
    for name, value in figures.items():
        table.add_row(name, f"{value:g}")
    options.console.print(table)
