"""Commands that serve: the demo, the whole service, and each of its processes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from rhythmwatch.cli import options
from rhythmwatch.process import die_with_parent, run_until_stopped

DEMO_STATE = Path(".rhythmwatch/demo")
SIMULATED_STATE = Path(".rhythmwatch/demo-simulated")
"""Simulated patients would else stand beside the silent beds of recordings that were played before."""
RUN_STATE = Path(".rhythmwatch/run")
BROKER = "mqtt://localhost:1883"
BUS = "redis://localhost:6379/0"
HISTORY = "sqlite:///.rhythmwatch/history.db"
RECORDINGS = Path(".rhythmwatch/recordings")


def demo(
    data: options.Data = None,
    patients: Annotated[
        int, typer.Option("--patients", envvar="RHYTHMWATCH_PATIENTS", min=1, max=500, help="Number of patients.")
    ] = 8,
    speed: options.Speed = 1.0,
    host: options.Host = "127.0.0.1",
    port: options.Port = 8800,
    state: options.State = DEMO_STATE,
) -> None:
    """Run the whole chain on this machine with replayed recordings (or simulated patients) and a page to look at."""
    from ingest.recordings import RecordingError
    from rhythmwatch.station import Station, choose_source, serve_station

    with options.one_line_errors(RecordingError, OSError):
        source = choose_source(data, patients, speed)
        if source[0] == "simulate" and state == DEMO_STATE:
            state = SIMULATED_STATE
        station = Station(state=state, host=host, port=port, source=source)
        run_until_stopped("demo", lambda stop: serve_station(station, stop))


def run(
    host: options.Host = "127.0.0.1",
    port: options.Port = 8800,
    state: options.State = RUN_STATE,
    bus: Annotated[
        str, typer.Option("--bus", envvar="RHYTHMWATCH_BUS", help="Address of the bus; without it one is embedded.")
    ] = "",
    broker: Annotated[
        str,
        typer.Option("--broker", envvar="RHYTHMWATCH_BROKER", help="Address of the broker; else one is embedded."),
    ] = "",
    history: Annotated[
        str,
        typer.Option("--history", envvar="RHYTHMWATCH_HISTORY", help="History database; else SQLite in the state."),
    ] = "",
    workers: Annotated[
        int, typer.Option("--workers", envvar="RHYTHMWATCH_WORKERS", min=1, max=64, help="Worker processes.")
    ] = 1,
    readers: options.Readers = 1,
    metrics: options.Metrics = "",
    door: Annotated[
        str,
        typer.Option(
            "--door",
            envvar="RHYTHMWATCH_DOOR",
            help="host:port where devices reach the embedded broker; 0 picks one.",
        ),
    ] = "127.0.0.1:0",
    certificates: Annotated[
        Path | None,
        typer.Option(
            "--certificates",
            envvar="RHYTHMWATCH_CERTIFICATES",
            help="Folder of `certs init`: devices and pages are encrypted with it.",
        ),
    ] = None,
    client_certificates: Annotated[
        bool,
        typer.Option(
            "--client-certificates",
            envvar="RHYTHMWATCH_CLIENT_CERTIFICATES",
            help="Devices must show a certificate of our authority beside their password.",
        ),
    ] = False,
) -> None:
    """Run every process of the service on this machine under one supervisor."""
    from bus.errors import ServerError
    from rhythmwatch.addresses import host_and_port
    from rhythmwatch.certificates import CertificateError
    from rhythmwatch.station import Station, serve_station

    with options.one_line_errors(OSError, ValueError, CertificateError, ServerError):
        station = Station(
            state=state,
            host=host,
            port=port,
            bus=bus,
            broker=broker,
            history=history,
            workers=workers,
            readers=readers,
            metrics=metrics,
            door=host_and_port(door),
            certificates=certificates,
            client_certificates=client_certificates,
        )
        run_until_stopped("run", lambda stop: serve_station(station, stop))


def ingest(
    broker: options.BrokerUrl = BROKER,
    bus: options.BusUrl = BUS,
    share: Annotated[
        bool,
        typer.Option("--share/--alone", envvar="RHYTHMWATCH_SHARE", help="Share the load with other ingest processes."),
    ] = False,
    metrics: options.Metrics = "",
    ca: options.Authority = None,
    name: Annotated[
        str, typer.Option("--name", envvar="RHYTHMWATCH_NAME", help="Among those that share the load; else the host's.")
    ] = "",
    limit: Annotated[
        float,
        typer.Option(
            "--limit", envvar="RHYTHMWATCH_LIMIT", min=0.0, help="Messages a second one device may send; 0: no limit."
        ),
    ] = 200.0,
    replicas: options.Replicas = 0,
) -> None:
    """Receive frames from the broker and put them on the bus."""
    from rhythmwatch.ingesting import receive

    _child()
    with options.one_line_errors(ValueError, OSError):
        run_until_stopped(
            "ingest",
            lambda stop: receive(
                broker,
                bus,
                share=share,
                stop=stop,
                metrics=metrics,
                authority=ca,
                name=name,
                limit=limit,
                replicas=replicas,
            ),
        )


def worker(
    bus: options.BusUrl = BUS,
    partitions: options.Partitions = "0-63",
    models: options.ModelsFolder = None,
    metrics: options.Metrics = "",
) -> None:
    """Turn the frames of a range of partitions into beats, rhythms and alarms."""
    from rhythmwatch.models import ModelError, load_models
    from rhythmwatch.warm import ensure_kernels
    from rhythmwatch.worker import work

    _child()
    ensure_kernels()
    with options.one_line_errors(ModelError, ValueError, OSError):
        chosen, loaded = options.partition_range(partitions), load_models(models)
        run_until_stopped("worker", lambda stop: work(bus, chosen, loaded, stop, metrics=metrics))


def historian(
    bus: options.BusUrl = BUS,
    history: options.HistoryUrl = HISTORY,
    partitions: options.Partitions = "0-63",
    metrics: options.Metrics = "",
) -> None:
    """Write alarms and events of a range of partitions from the bus into the history database."""
    from rhythmwatch.keeping import keep

    _child()
    with options.one_line_errors(ValueError, OSError):
        chosen = options.partition_range(partitions)
        run_until_stopped("historian", lambda stop: keep(bus, history, chosen, stop, metrics=metrics), behind=True)


def recorder(
    bus: options.BusUrl = BUS,
    history: options.HistoryUrl = HISTORY,
    recordings: options.Recordings = RECORDINGS,
    partitions: options.Partitions = "0-63",
    consented: options.Consented = True,
    metrics: options.Metrics = "",
) -> None:
    """Write the ECG, its beats and trends from the bus onto disk."""
    from alerts.database import StoreError
    from bus.errors import ServerError
    from rhythmwatch.recorder import record

    _child()
    with options.one_line_errors(ValueError, OSError, ServerError, StoreError):
        chosen = options.partition_range(partitions)
        run_until_stopped(
            "recorder",
            lambda stop: record(bus, history, recordings, chosen, stop, consented=consented, metrics=metrics),
            behind=True,
        )


def notifier(
    bus: options.BusUrl = BUS,
    history: options.HistoryUrl = HISTORY,
    broker: Annotated[
        str,
        typer.Option("--broker", envvar="RHYTHMWATCH_BROKER", help="Broker for the topics of devices; empty for none."),
    ] = "",
    ca: options.Authority = None,
    mail: options.MailUrl = "",
    mail_from: options.MailFrom = "",
    partitions: options.Partitions = "0-63",
    metrics: options.Metrics = "",
) -> None:
    """Tell contacts of alarms of a range of partitions: by webhook, mail, and on the topic of the device."""
    from alerts.database import StoreError
    from rhythmwatch.notifying import notify

    _child()
    with options.one_line_errors(ValueError, StoreError, OSError):
        chosen = options.partition_range(partitions)
        run_until_stopped(
            "notifier",
            lambda stop: notify(
                bus, history, chosen, stop, broker=broker, authority=ca, mail=mail, sender=mail_from, metrics=metrics
            ),
        )


def evidence(
    bus: options.BusUrl = BUS,
    history: options.HistoryUrl = HISTORY,
    recordings: options.Recordings = RECORDINGS,
    models: options.ModelsFolder = None,
    partitions: options.Partitions = "0-63",
    metrics: options.Metrics = "",
) -> None:
    """Keep of each alarm of a range of partitions what was seen round it, cut out of the recordings."""
    from alerts.database import StoreError
    from rhythmwatch.evidencing import examine
    from rhythmwatch.models import ModelError, load_models
    from rhythmwatch.warm import ensure_kernels

    _child()
    ensure_kernels()
    with options.one_line_errors(ModelError, ValueError, StoreError, OSError):
        chosen, loaded = options.partition_range(partitions), load_models(models)

        async def until(stop: asyncio.Event) -> None:
            if not await examine(bus, history, recordings, chosen, loaded, stop, metrics=metrics):
                # Python, and the libraries that the thread is in, can't be ended in order while it runs.
                os._exit(0)

        run_until_stopped("evidence", until)


def web(
    bus: options.BusUrl = BUS,
    history: options.HistoryUrl = HISTORY,
    host: options.Host = "127.0.0.1",
    port: options.Port = 8800,
    recordings: options.Recordings = RECORDINGS,
    metrics: options.Metrics = "",
    certificate: Annotated[
        str, typer.Option("--certificate", envvar="RHYTHMWATCH_CERTIFICATE", help="PEM file: serve HTTPS alone.")
    ] = "",
    key: Annotated[str, typer.Option("--key", envvar="RHYTHMWATCH_KEY", help="PEM file of its key.")] = "",
    devices_address: Annotated[
        str,
        typer.Option(
            "--devices-address",
            envvar="RHYTHMWATCH_DEVICES_ADDRESS",
            help="mqtt:// or mqtts:// address that devices are told when they are enrolled.",
        ),
    ] = "",
    zone: Annotated[
        str,
        typer.Option("--zone", envvar="RHYTHMWATCH_ZONE", help="Time zone of the ward (Europe/Berlin); else ours."),
    ] = "",
) -> None:
    """Serve the pages."""
    from rhythmwatch.pages import serve_pages

    _child()
    password = os.environ.get("RHYTHMWATCH_ADMIN_PASSWORD")
    with options.one_line_errors(ValueError, OSError):
        run_until_stopped(
            "web",
            lambda stop: serve_pages(
                bus,
                history,
                host,
                port,
                password,
                stop,
                recordings=recordings,
                metrics=metrics,
                certificate=certificate,
                key=key,
                devices_address=devices_address,
                zone=zone,
            ),
        )


def _child() -> None:
    if os.environ.get("RHYTHMWATCH_SUPERVISED"):
        die_with_parent()
