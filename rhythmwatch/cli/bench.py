"""Commands that measure this machine."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.table import Table

from rhythmwatch.cli import options

bench = typer.Typer(help="Measurements on this machine.", no_args_is_help=True)


@bench.command("latency")
def bench_latency(
    data: options.Data = None,
    patients: Annotated[
        int, typer.Option("--patients", envvar="RHYTHMWATCH_PATIENTS", min=1, help="Patients at speed 1.")
    ] = 50,
    seconds: Annotated[
        float, typer.Option("--seconds", envvar="RHYTHMWATCH_SECONDS", min=10.0, help="Length of the measurement.")
    ] = 60.0,
    as_json: options.AsJson = False,
) -> None:
    """Time from the publish of the frame that completes the evidence to the alarm on a websocket."""
    from rhythmwatch.latency import measure

    _show(measure(data, patients, seconds), "figure", "value", as_json=as_json)


@bench.command("stages")
def bench_stages(
    data: options.Data = None,
    patients: Annotated[
        int, typer.Option("--patients", envvar="RHYTHMWATCH_PATIENTS", min=1, help="Patients in a batch.")
    ] = 200,
    seconds: Annotated[
        float, typer.Option("--seconds", envvar="RHYTHMWATCH_SECONDS", min=5.0, help="Signal seconds a patient.")
    ] = 30.0,
    as_json: options.AsJson = False,
) -> None:
    """Cost of each stage, microseconds of one core a patient-second."""
    from rhythmwatch.costs import measure_stages

    _show(measure_stages(data, patients, seconds), "stage", "us a patient-second", as_json=as_json)


@bench.command("peers")
def bench_peers(
    data: options.Data = None,
    patients: Annotated[
        int, typer.Option("--patients", envvar="RHYTHMWATCH_PATIENTS", min=1, help="Patients in a batch.")
    ] = 200,
    seconds: Annotated[
        float, typer.Option("--seconds", envvar="RHYTHMWATCH_SECONDS", min=5.0, help="Signal seconds a patient.")
    ] = 10.0,
    as_json: options.AsJson = False,
) -> None:
    """Our signal work beside what people compose today, microseconds of one core a patient-second."""
    from rhythmwatch.peers import measure_peers

    _show(measure_peers(data, patients, round(seconds)), "chain", "us a patient-second", as_json=as_json)


@bench.command("capacity")
def bench_capacity(
    data: options.Data = None,
    first: Annotated[
        int, typer.Option("--first", envvar="RHYTHMWATCH_FIRST", min=1, help="Patients to begin with.")
    ] = 400,
    step: Annotated[
        int, typer.Option("--step", envvar="RHYTHMWATCH_STEP", min=1, help="Patients added at a time.")
    ] = 200,
    most: Annotated[int, typer.Option("--most", envvar="RHYTHMWATCH_MOST", min=1, help="Patients at most.")] = 4000,
    seconds: Annotated[
        float, typer.Option("--seconds", envvar="RHYTHMWATCH_SECONDS", min=5.0, help="Length of each measurement.")
    ] = 20.0,
    workers: Annotated[
        int, typer.Option("--workers", envvar="RHYTHMWATCH_WORKERS", min=1, max=64, help="Worker processes.")
    ] = 1,
    leads: Annotated[
        int, typer.Option("--leads", envvar="RHYTHMWATCH_LEADS", min=1, max=2, help="Leads that each device sends.")
    ] = 1,
    as_json: options.AsJson = False,
) -> None:
    """Find how many patients one core carries in real time, from the broker to a websocket, and what peers carry."""
    from rhythmwatch.capacity import Level, report, search

    def tell(level: Level) -> None:
        options.console.print(
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
    patients: Annotated[
        int,
        typer.Option("--patients", envvar="RHYTHMWATCH_PATIENTS", min=1, help="Patients whose backlog is worked off."),
    ] = 400,
    seconds: Annotated[
        float, typer.Option("--seconds", envvar="RHYTHMWATCH_SECONDS", min=5.0, help="Signal seconds a patient.")
    ] = 60.0,
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
