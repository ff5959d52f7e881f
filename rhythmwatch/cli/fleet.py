"""Commands of a fleet of several machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from rhythmwatch.cli import options

if TYPE_CHECKING:
    from rhythmwatch.fleet import Member

fleet = typer.Typer(help="The processes of the service over several machines, placed by Ray.", no_args_is_help=True)

Address = Annotated[
    str, typer.Option("--address", envvar="RHYTHMWATCH_ADDRESS", help="ray://host:10001, host:6379 or auto.")
]


@fleet.command("up")
def fleet_up(
    bus: Annotated[str, typer.Option("--bus", envvar="RHYTHMWATCH_BUS", help="Address that every node reaches.")],
    broker: Annotated[
        str, typer.Option("--broker", envvar="RHYTHMWATCH_BROKER", help="Address that every node reaches.")
    ],
    history: Annotated[
        str,
        typer.Option(
            "--history", envvar="RHYTHMWATCH_HISTORY", help="Database that every node reaches; without it no readers."
        ),
    ] = "",
    recordings: Annotated[
        Path | None,
        typer.Option(
            "--recordings",
            envvar="RHYTHMWATCH_RECORDINGS",
            help="Folder that all nodes share; without it no recorders and evidence processes.",
        ),
    ] = None,
    address: Address = "auto",
    workers: Annotated[
        int, typer.Option("--workers", envvar="RHYTHMWATCH_WORKERS", min=1, max=64, help="Worker processes.")
    ] = 2,
    ingests: Annotated[
        int, typer.Option("--ingests", envvar="RHYTHMWATCH_INGESTS", min=0, help="Ingest processes.")
    ] = 1,
    readers: options.Readers = 1,
    spares: Annotated[
        int, typer.Option("--spares", envvar="RHYTHMWATCH_SPARES", min=0, help="Processes that stand in for lost ones.")
    ] = 1,
    cpus: Annotated[
        float, typer.Option("--cpus", envvar="RHYTHMWATCH_CPUS", min=0.0, help="Cores that Ray reserves for each.")
    ] = 1.0,
    replicas: options.Replicas = 0,
    ca: options.Authority = None,
    mail: options.MailUrl = "",
    mail_from: options.MailFrom = "",
    consented: options.Consented = True,
) -> None:
    """Place workers, ingests and readers; they are started elsewhere when a node dies."""
    from rhythmwatch import fleet as engine
    from rhythmwatch.fleet_plan import Plan

    plan = Plan(
        bus=bus,
        broker=broker,
        workers=workers,
        ingests=ingests,
        spares=spares,
        cpus=cpus,
        replicas=replicas,
        authority=_everywhere(ca),
        history=history,
        readers=readers,
        recordings=_everywhere(recordings),
        consented=consented,
        mail=mail,
        mail_from=mail_from,
    )
    with options.one_line_errors(engine.FleetError), options.console.status("starting, or moving ranges"):
        engine.connect(address)
        engine.up(plan)
    _show(engine.members())


@fleet.command("scale")
def fleet_scale(
    workers: Annotated[int, typer.Argument(min=1, max=64, help="Worker processes.")],
    address: Address = "auto",
    ingests: Annotated[
        int | None, typer.Option("--ingests", envvar="RHYTHMWATCH_INGESTS", min=0, help="Else as many as there are.")
    ] = None,
    readers: Annotated[
        int | None,
        typer.Option("--readers", envvar="RHYTHMWATCH_READERS", min=1, max=64, help="Else as many as there are."),
    ] = None,
    spares: Annotated[
        int | None, typer.Option("--spares", envvar="RHYTHMWATCH_SPARES", min=0, help="Else as many as there are.")
    ] = None,
) -> None:
    """Move the partitions to another number of workers; nothing is lost and nothing doubled."""
    from rhythmwatch import fleet as engine

    with options.one_line_errors(engine.FleetError), options.console.status("moving ranges"):
        engine.connect(address)
        engine.scale(workers, ingests=ingests, readers=readers, spares=spares)
    _show(engine.members())


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


def _everywhere(path: Path | None) -> str:
    """Write a path so that it is the same wherever a process starts; empty for none."""
    return str(path.absolute()) if path is not None else ""


def _show(members: list[Member]) -> None:
    table = Table("name", "state", "host", "process")
    for member in members:
        table.add_row(member.name, member.state, member.host, str(member.pid or ""))
    options.console.print(table)
