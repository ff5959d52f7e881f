"""Commands for whoever admits devices: the registry, and the certificates of a site."""

from __future__ import annotations

import datetime as dt
import getpass
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from rhythmwatch.cli import options
from rhythmwatch.cli.serve import BROKER, RUN_STATE
from rhythmwatch.process import run_until_stopped

if TYPE_CHECKING:
    from alerts.devices import Credentials, Devices

devices = typer.Typer(help="Enrol devices: who may publish.", no_args_is_help=True)
certs = typer.Typer(help="Certificates of this site, for TLS.", no_args_is_help=True)

Device: TypeAlias = Annotated[str, typer.Argument(help="Id of the device, as in its topics.")]
History: TypeAlias = Annotated[
    str, typer.Option("--history", envvar="RHYTHMWATCH_HISTORY", help="History database; else SQLite in the state.")
]
Address: TypeAlias = Annotated[
    str,
    typer.Option(
        "--devices-address",
        envvar="RHYTHMWATCH_DEVICES_ADDRESS",
        help="mqtt:// or mqtts:// address at which devices reach the broker; else as the station in the state says.",
    ),
]
Certs: TypeAlias = Annotated[Path, typer.Option("--out", envvar="RHYTHMWATCH_OUT", help="Folder of the certificates.")]
Days: TypeAlias = Annotated[
    int, typer.Option("--days", envvar="RHYTHMWATCH_DAYS", min=1, max=3650, help="How long a certificate holds.")
]


@devices.command()
def add(
    device: Device,
    label: Annotated[str, typer.Option("--label", envvar="RHYTHMWATCH_LABEL", help="For people.")] = "",
    history: History = "",
    state: options.State = RUN_STATE,
    address: Address = "",
    as_json: options.AsJson = False,
) -> None:
    """Enrol a device; its password is shown once."""
    with _registry(history, state) as registry:
        made = registry.add(device, label, getpass.getuser(), _now())
    _show(made, address, state, as_json)


@devices.command()
def rotate(
    device: Device,
    history: History = "",
    state: options.State = RUN_STATE,
    address: Address = "",
    as_json: options.AsJson = False,
) -> None:
    """Give a device a new password, shown once; the old one ends, and a revoked device comes back."""
    with _registry(history, state) as registry:
        made = registry.rotate(device, _now())
    _show(made, address, state, as_json)


@devices.command()
def revoke(device: Device, history: History = "", state: options.State = RUN_STATE) -> None:
    """Lock a device out; a running station cuts it off within a second or two."""
    with _registry(history, state) as registry:
        registry.revoke(device, _now())
    options.console.print(f"{device} is locked out", highlight=False)


@devices.command("list")
def show(history: History = "", state: options.State = RUN_STATE, as_json: options.AsJson = False) -> None:
    """List who may publish, and who may not any more."""
    import msgspec

    with _registry(history, state) as registry:
        known = registry.devices()
    if as_json:
        sys.stdout.write(json.dumps([msgspec.to_builtins(one) for one in known], indent=2) + "\n")
        return
    if not known:
        options.console.print("no device is enrolled; to enrol one: rhythmwatch devices add NAME", highlight=False)
    for one in known:
        since = dt.datetime.fromtimestamp(one.rotated_ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
        fate = "revoked" if one.revoked_ms is not None else f"since {since}"
        options.console.print(f"{one.id:<24} {fate:<28} {one.label}", highlight=False, markup=False)


@devices.command()
def keep(
    broker: options.BrokerUrl = BROKER,
    folder: Annotated[
        Path, typer.Option("--folder", envvar="RHYTHMWATCH_FOLDER", help="Where mosquitto finds accounts and rules.")
    ] = Path(".rhythmwatch/broker"),
    history: History = "",
    state: options.State = RUN_STATE,
) -> None:
    """Keep accounts and rules of a mosquitto that others run as the registry says (`run` does so for its own)."""
    from sqlalchemy.exc import SQLAlchemyError

    from alerts.database import StoreError
    from rhythmwatch.devices import keep_gate

    where = history or f"sqlite:///{state.resolve() / 'history.db'}"
    password = os.environ.get("RHYTHMWATCH_MQTT_PASSWORD", "")
    with options.one_line_errors(StoreError, SQLAlchemyError, ValueError, OSError):
        run_until_stopped("gate", lambda stop: keep_gate(broker, folder, where, password, stop))


@certs.command()
def init(
    name: Annotated[
        list[str],
        typer.Option(
            "--host-name",
            envvar="RHYTHMWATCH_HOST_NAME",
            help="Name or address of this machine, as others see it; repeatable.",
        ),
    ],
    out: Certs = Path(".rhythmwatch/certs"),
    days: Days = 397,
) -> None:
    """Make a private authority, once, and with it certificates of the broker and the pages."""
    from rhythmwatch.certificates import CertificateError, make_certificates

    with options.one_line_errors(CertificateError, OSError):
        for path in make_certificates(out, name, days=days, now=dt.datetime.now(dt.UTC)):
            options.console.print(f"{path}", highlight=False, soft_wrap=True)
    options.console.print(f"give devices and browsers {out / 'ca.pem'}, and nobody {out / 'ca.key'}", soft_wrap=True)


@certs.command()
def client(device: Device, out: Certs = Path(".rhythmwatch/certs"), days: Days = 397) -> None:
    """Make the certificate of one device, for a broker that asks for them."""
    from alerts.devices import DEVICE_ID
    from rhythmwatch.certificates import CertificateError, make_client_certificate

    with options.one_line_errors(CertificateError, OSError, ValueError):
        if DEVICE_ID.fullmatch(device) is None:
            raise ValueError(f"device id {device!r} must match {DEVICE_ID.pattern}")
        for path in make_client_certificate(out, device, days=days, now=dt.datetime.now(dt.UTC)):
            options.console.print(f"{path}", highlight=False, soft_wrap=True)


@contextmanager
def _registry(history: str, state: Path) -> Iterator[Devices]:
    from sqlalchemy.exc import SQLAlchemyError

    from alerts.database import StoreError
    from rhythmwatch.devices import open_registry

    with (
        options.one_line_errors(StoreError, SQLAlchemyError, OSError),
        open_registry(history or f"sqlite:///{state.resolve() / 'history.db'}") as registry,
    ):
        yield registry


def _show(made: Credentials, address: str, state: Path, as_json: bool) -> None:
    from rhythmwatch.devices import address_of, card, qr_lines

    text, lines = card(made, address or address_of(state))
    if as_json:
        sys.stdout.write(json.dumps({"device": made.device, "password": made.secret, "url": text}) + "\n")
        return
    sys.stdout.write("\n".join([*lines, "", qr_lines(text), "", "Shown once; nobody can show it again."]) + "\n")


def _now() -> int:
    return time.time_ns() // 1_000_000
