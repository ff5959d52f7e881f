"""Command that plans beyond one machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rhythmwatch.cli import options


def plan(
    figures: Annotated[Path, typer.Argument(help="What `bench capacity --json` printed.")],
    patients: Annotated[
        int, typer.Option("--patients", envvar="RHYTHMWATCH_PATIENTS", min=1, help="Patients to plan for.")
    ] = 1_000_000,
    core: Annotated[float, typer.Option("--core", envvar="RHYTHMWATCH_CORE", min=0, help="Price of a core.")] = 25.0,
    memory: Annotated[
        float, typer.Option("--memory", envvar="RHYTHMWATCH_MEMORY", min=0, help="Price of a GB of memory.")
    ] = 3.0,
    disk: Annotated[
        float, typer.Option("--disk", envvar="RHYTHMWATCH_DISK", min=0, help="Price of a GB of disk.")
    ] = 0.05,
    use: Annotated[
        float, typer.Option("--use", envvar="RHYTHMWATCH_USE", min=0.05, max=1, help="Share of a core to plan with.")
    ] = 0.6,
) -> None:
    """Say what many patients need in cores, memory, network and money, from measured figures."""
    from rhythmwatch.planning import Prices
    from rhythmwatch.planning import plan as work_out

    with options.one_line_errors(OSError, ValueError):
        measured = json.loads(figures.read_text(encoding="utf-8"))
        if not isinstance(measured, dict):
            raise ValueError(f"{figures} holds no figures; make them with: rhythmwatch bench capacity --json")
        found = work_out(measured, patients, Prices(core, memory, disk, use))
    parts = Table("part", "patients a core", "cores", "")
    for need in found.needs:
        parts.add_row(need.part, f"{need.each:,}", f"{need.cores:,.0f}", "one process only" if need.alone else "")
    options.console.print(parts)
    sums = Table("in all", f"{patients:,} patients")
    sums.add_row("cores", f"{found.cores:,.0f}")
    sums.add_row("memory of workers and bus, GB", f"{found.memory_gb:,.0f}")
    sums.add_row("from devices, Mbit/s", f"{found.inbound_mbit:,.0f}")
    sums.add_row("through the bus, Mbit/s", f"{found.bus_mbit:,.0f}")
    sums.add_row("recordings, GB a day", f"{found.disk_gb_a_day:,.0f}")
    for kind, amount in found.money.items():
        sums.add_row(f"{kind}, money a month", f"{amount:,.0f}")
    sums.add_row("money a patient and month", f"{sum(found.money.values()) / patients:.3f}")
    options.console.print(sums)
    first = found.gives_way
    options.console.print(f"gives way first: {first.part}, at {first.each:,} patients a process", highlight=False)
