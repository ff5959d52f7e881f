"""Commands of a fleet of several machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from rhythmwatch.cli import options

if TYPE_CHECKING:
    from rhythmwatch.fleet import Member

fleet = typer.Typer(help="Workers and ingests over several machines, placed by Ray.", no_args_is_help=True)

Address = Annotated[
    str, typer.Option("--address", envvar="RHYTHMWATCH_ADDRESS", help="ray://host:10001, host:6379 or auto.")
]
FleetBus = Annotated[str, typer.Option("--bus", envvar="RHYTHMWATCH_BUS", help="Address that every node reaches.")]
FleetBroker = Annotated[
    str, typer.Option("--broker", envvar="RHYTHMWATCH_BROKER", help="Address that every node reaches.")
]
Ingests = Annotated[int, typer.Option("--ingests", envvar="RHYTHMWATCH_INGESTS", min=0, help="Ingest processes.")]
Cpus = Annotated[
    float, typer.Option("--cpus", envvar="RHYTHMWATCH_CPUS", min=0.0, help="Cores that Ray reserves for each.")
]
Spares = Annotated[
    int, typer.Option("--spares", envvar="RHYTHMWATCH_SPARES", min=0, help="Processes that stand in for lost ones.")
]


@fleet.command("up")
def fleet_up(
    bus: FleetBus,
    broker: FleetBroker,
    address: Address = "auto",
    workers: Annotated[
        int, typer.Option("--workers", envvar="RHYTHMWATCH_WORKERS", min=1, max=64, help="Worker processes.")
    ] = 2,
    ingests: Ingests = 1,
    cpus: Cpus = 1.0,
    replicas: options.Replicas = 0,
    spares: Spares = 1,
) -> None:
    """Place workers, a range of partitions each, and ingests; they are started elsewhere when a node dies."""
    from rhythmwatch import fleet as engine

    with options.one_line_errors(engine.FleetError), options.console.status("starting, or moving ranges"):
        engine.connect(address)
        engine.up(bus, broker, workers=workers, ingests=ingests, cpus=cpus, replicas=replicas, spares=spares)
    _show(engine.members())


@fleet.command("scale")
def fleet_scale(
    workers: Annotated[int, typer.Argument(min=1, max=64, help="Worker processes.")],
    bus: FleetBus,
    broker: FleetBroker,
    address: Address = "auto",
    ingests: Ingests = 1,
    cpus: Cpus = 1.0,
    replicas: options.Replicas = 0,
    spares: Spares = 1,
) -> None:
    """Move the partitions to another number of workers; nothing is lost and nothing doubled."""
    fleet_up(bus, broker, address, workers, ingests, cpus, replicas, spares)


@fleet.command("status")
def fleet_status(address: Address = "auto") -> None:
    """Show every actor, its state and where it runs."""
    from rhythmwatch import fleet as engine

    with options.one_line_errors(engine.FleetError):
        engine.connect(address)
    _show(engine.members())


@fleet.command("down")
def fleet_down(address: Address = "auto") -> None:
    """End all actors in good order."""
    from rhythmwatch import fleet as engine

    with options.one_line_errors(engine.FleetError), options.console.status("ending"):
        engine.connect(address)
        engine.down()


def _show(members: list[Member]) -> None:
    table = Table("name", "state", "host", "process")
    for member in members:
        table.add_row(member.name, member.state, member.host, str(member.pid or ""))
    options.console.print(table)
