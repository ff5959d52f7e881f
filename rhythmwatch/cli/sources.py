"""Commands that play devices: recordings and simulated patients, published over MQTT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

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


Store: TypeAlias = Annotated[
    Path, typer.Option("--store", envvar="RHYTHMWATCH_STORE", help="Directory that keeps what the broker has not got.")
]

OwnCertificate: TypeAlias = Annotated[
    Path | None,
    typer.Option("--certificate", envvar="RHYTHMWATCH_CERTIFICATE", help="PEM file of the device's own certificate."),
]
OwnKey: TypeAlias = Annotated[
    Path | None, typer.Option("--key", envvar="RHYTHMWATCH_KEY", help="PEM file of the key of that certificate.")
]


def _own(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """Put both files together; `ValueError` if one of them is missing."""
    if (certificate is None) != (key is None):
        raise ValueError("give --certificate and --key together")
    return None if certificate is None or key is None else (certificate, key)


def publish(
    source: Annotated[str, typer.Argument(help="A record, by name or path; - for numbers in uV, one a line.")],
    broker: options.BrokerUrl = BROKER,
    store: Store = Path(".rhythmwatch/device"),
    ca: options.Authority = None,
    certificate: OwnCertificate = None,
    key: OwnKey = None,
    data: options.Data = None,
    lead: Annotated[
        list[str] | None, typer.Option("--lead", envvar="RHYTHMWATCH_LEAD", help="Lead to send; repeat for several.")
    ] = None,
    speed: options.Speed = 1.0,
    loop: Annotated[bool, typer.Option("--loop", envvar="RHYTHMWATCH_LOOP", help="Begin again at the end.")] = False,
    rate: Annotated[
        float, typer.Option("--rate", envvar="RHYTHMWATCH_RATE", min=50, max=2000, help="Of numbers: samples a second.")
    ] = 250.0,
) -> None:
    """Publish as one enrolled device, whose account the broker's address holds; nothing is lost while it is away."""
    from ingest.recordings import RecordingError
    from rhythmwatch.certificates import CertificateError
    from rhythmwatch.publishing import publish_numbers, publish_recording

    with options.one_line_errors(RecordingError, CertificateError, ValueError, OSError):
        own = _own(certificate, key)
        if source == "-":
            run_until_stopped("publish", lambda stop: publish_numbers(broker, store, rate, stop, ca, own))
        else:
            run_until_stopped(
                "publish",
                lambda stop: publish_recording(source, broker, store, data, lead, speed, loop, stop, ca, own),
            )


gateway = typer.Typer(help="Forward devices that speak Bluetooth.", no_args_is_help=True)


@gateway.callback()
def _gateway() -> None:
    """Forward devices that speak Bluetooth."""


@gateway.command()
def polar(
    broker: options.BrokerUrl = BROKER,
    strap: Annotated[
        str,
        typer.Option("--strap", envvar="RHYTHMWATCH_STRAP", help="Name or address of the strap; else the first found."),
    ] = "",
    store: Store = Path(".rhythmwatch/device"),
    ca: options.Authority = None,
    certificate: OwnCertificate = None,
    key: OwnKey = None,
) -> None:
    """Forward a Polar H10 as one enrolled device, whose account the broker's address holds (extra `ble`)."""
    from rhythmwatch.certificates import CertificateError
    from rhythmwatch.publishing import forward_polar

    try:
        from rhythmwatch.gateway_ble import PolarPeer
    except ImportError:
        options.fail("Bluetooth needs the extra: pip install 'rhythmwatch[ble]'")
    with options.one_line_errors(CertificateError, ValueError, OSError):
        own = _own(certificate, key)
        run_until_stopped("gateway", lambda stop: forward_polar(PolarPeer(strap), broker, store, stop, ca, own))
