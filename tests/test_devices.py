"""Enrolling devices: the registry, the command, the page, certificates and the encrypted door."""

import asyncio
import contextlib
import datetime as dt
import itertools
import json
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiomqtt
import pytest
from people_app import Site, running_site
from typer.testing import CliRunner

from alerts.database import StoreError
from alerts.devices import Devices
from bus.passwords import hash_secret, secret_matches
from bus.tasks import end
from ingest.broker import embedded_broker
from rhythmwatch.addresses import BrokerAddress, host_and_port
from rhythmwatch.certificates import (
    CertificateError,
    broker_certificates,
    client_context,
    make_certificates,
    make_client_certificate,
)
from rhythmwatch.cli import app
from rhythmwatch.devices import guarded_broker, open_registry, qr_lines
from web.parts import Parts

NOW = dt.datetime.now(dt.UTC)
DEADLINE_S = 60.0
REFUSED_S = 3.0
"""The broker leaves whom it does not let in without an answer."""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Devices]:
    """Give a fresh registry."""
    with open_registry(f"sqlite:///{tmp_path / 'history.db'}") as opened:
        yield opened


def test_a_secret_is_kept_as_its_hash_alone(registry: Devices, tmp_path: Path):
    """The secret that is shown matches the hash, and is nowhere in the database."""
    made = registry.add("bed-7", "Bed 7", "ann", 5)
    (hashed,) = registry.accounts().values()
    assert secret_matches(made.secret, hashed)
    assert not secret_matches(made.secret + "x", hashed)
    assert not secret_matches(made.secret, "nonsense")
    assert all(made.secret.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_rotate_and_revoke(registry: Devices):
    """A rotated secret ends the old one; a revoked device may not log in until it is rotated; the list tells."""
    old = registry.add("bed-7", "", "ann", 5)
    new = registry.rotate("bed-7", 6)
    assert secret_matches(new.secret, registry.accounts()["bed-7"])
    assert not secret_matches(old.secret, registry.accounts()["bed-7"])
    registry.revoke("bed-7", 7)
    assert registry.accounts() == {}
    shown = registry.device("bed-7")
    assert shown is not None
    assert (shown.rotated_ms, shown.revoked_ms) == (6, 7)
    registry.rotate("bed-7", 8)
    assert list(registry.accounts()) == ["bed-7"]


@pytest.mark.parametrize(
    "name", ["", "-x", "a/b", "a b", "é", "@service", "rw-ingest", "RW-x", "a" * 65, "a+", "#", "a:b"]
)
def test_ids_that_could_be_mistaken_are_refused(registry: Devices, name: str):
    """No topic wildcard, no account of ours, no client id of ours can be a device."""
    with pytest.raises(StoreError, match="device id"):
        registry.add(name, "", "ann", 1)


def test_faults_of_people_are_one_line(registry: Devices):
    """Twice the same device, and a device that is not there, say what to do."""
    registry.add("bed-7", "", "ann", 1)
    with pytest.raises(StoreError, match="rotate"):
        registry.add("bed-7", "", "ann", 2)
    for act in (registry.rotate, registry.revoke):
        with pytest.raises(StoreError, match="not enrolled"):
            act("bed-8", 1)


def test_the_command_enrols_lists_rotates_and_revokes(tmp_path: Path):
    """What the command prints is what the registry knows, and the QR code is drawn."""
    runner = CliRunner()
    where = ["--state", str(tmp_path)]
    address = ["--devices-address", "mqtts://rhythm.example:8883"]
    added = runner.invoke(app, ["devices", "add", "bed-7", "--label", "Bed 7", *where, *address])
    assert added.exit_code == 0, added.output
    url = next(line for line in added.output.splitlines() if "all in one" in line).split()[-1]
    parsed = BrokerAddress.parse(url)
    assert (parsed.username, parsed.host, parsed.tls) == ("bed-7", "rhythm.example", True)
    assert "▀" in added.output
    rotated = json.loads(runner.invoke(app, ["devices", "rotate", "bed-7", "--json", *where, *address]).output)
    assert rotated["password"] != parsed.password
    assert runner.invoke(app, ["devices", "revoke", "bed-7", *where]).exit_code == 0
    listed = json.loads(runner.invoke(app, ["devices", "list", "--json", *where]).output)
    assert [(one["id"], one["label"], one["revoked_ms"] is None) for one in listed] == [("bed-7", "Bed 7", False)]
    again = runner.invoke(app, ["devices", "add", "bed-7", *where])
    assert again.exit_code == 2


def test_the_code_can_be_read_back():
    """The characters that are drawn hold the modules of the code, two rows a line, with a quiet zone."""
    lines = qr_lines("mqtts://bed-7:secret@rhythm.example:8883").splitlines()
    assert len({len(line) for line in lines}) == 1
    assert set("".join(lines)) <= set("█▀▄ ")
    assert set(lines[0]) == {"█"}


class DeviceSite(Site):
    """The application with a registry of devices."""

    def parts(self) -> Parts:
        """Make the parts of the app."""
        import dataclasses

        return dataclasses.replace(super().parts(), devices=Devices(self.engine))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[DeviceSite]:
    """Run the application."""
    made = DeviceSite(tmp_path, devices_address="mqtts://rhythm.example:8883")
    with made.client:
        yield made
    made.store.close()
    made.engine.dispose()


def test_the_page_enrols_and_shows_the_secret_once(site: DeviceSite):
    """An admin gets secret, address and QR code in one answer; the list never holds the secret; the trail knows."""
    headers = site.enter("admin")
    answer = site.client.post("/api/devices", json={"id": "bed-7", "label": "Bed 7"}, headers=headers)
    assert answer.status_code == 201
    made = answer.json()
    assert urlsplit(made["url"]).password == made["secret"]
    assert made["qr_svg"].startswith("<svg")
    listed = site.client.get("/api/devices", headers=headers)
    assert [one["id"] for one in listed.json()] == ["bed-7"]
    assert made["secret"] not in listed.text
    assert site.client.post("/api/devices", json={"id": "bed-7"}, headers=headers).status_code == 409
    assert site.client.post("/api/devices", json={"id": "a/b"}, headers=headers).status_code == 422
    rotated = site.client.post("/api/devices/bed-7/rotate", headers=headers).json()
    assert rotated["secret"] != made["secret"]
    assert site.client.post("/api/devices/bed-7/revoke", headers=headers).json() == {"status": "revoked"}
    assert site.client.post("/api/devices/bed-8/revoke", headers=headers).status_code == 404
    acts = [row.act for row in site.audit.rows()]
    assert [act for act in acts if act.startswith("device.")] == ["device.revoke", "device.rotate", "device.add"]


@pytest.mark.parametrize("role", ["viewer", "monitor", "clinician"])
def test_only_an_admin_enrols(site: DeviceSite, role: str):
    """Every other role is refused."""
    headers = site.enter(role)
    assert site.client.get("/api/devices", headers=headers).status_code == 403
    for path in ("/api/devices", "/api/devices/x/rotate", "/api/devices/x/revoke"):
        assert site.client.post(path, json={"id": "x"}, headers=headers).status_code == 403


def test_an_app_without_a_registry_says_so(tmp_path: Path):
    """Where no registry is opened, the routes answer 503."""
    with running_site(tmp_path) as plain:
        assert plain.client.get("/api/devices", headers=plain.enter("admin")).status_code == 503


def test_certificates_are_made_and_renewed(tmp_path: Path):
    """The authority stays when certificates are made anew; keys are for us alone; faults say what to do."""
    first = make_certificates(tmp_path, ["rhythm.example", "127.0.0.1"], now=NOW)
    assert {path.name for path in first} >= {"ca.pem", "ca.key", "broker.pem", "web.key"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in first if path.suffix == ".key")
    authority = (tmp_path / "ca.pem").read_bytes()
    again = make_certificates(tmp_path, ["rhythm.example"], now=NOW)
    assert (tmp_path / "ca.pem").read_bytes() == authority
    assert "ca.pem" not in {path.name for path in again}
    with pytest.raises(CertificateError, match="--host-name"):
        make_certificates(tmp_path, [], now=NOW)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(CertificateError, match="restore"):
        make_certificates(tmp_path, ["x"], now=NOW)
    with pytest.raises(CertificateError, match="certs init"):
        make_client_certificate(tmp_path, "bed-7", now=NOW)
    with pytest.raises(CertificateError, match="missing"):
        broker_certificates(tmp_path / "absent")
    with pytest.raises(CertificateError, match="can't be read"):
        client_context(tmp_path / "absent.pem")


def shakes_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bool:
    """Whether a client accepts a server under a name."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            peer, _ = listener.accept()
            try:
                server.wrap_socket(peer, server_side=True).close()
            except (ssl.SSLError, OSError):
                peer.close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            with socket.create_connection(listener.getsockname()) as raw, client.wrap_socket(raw, server_hostname=name):
                return True
        except ssl.SSLError:
            return False
        finally:
            thread.join(10)


def test_a_certificate_holds_for_its_names_alone(tmp_path: Path):
    """A client that trusts our authority takes the server under its names and no others, and no strange authority."""
    make_certificates(tmp_path / "a", ["rhythm.example", "127.0.0.1"], now=NOW)
    make_certificates(tmp_path / "b", ["rhythm.example"], now=NOW)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "a/web.pem", tmp_path / "a/web.key")
    ours, strange = client_context(tmp_path / "a/ca.pem"), client_context(tmp_path / "b/ca.pem")
    assert shakes_hands(server, ours, "rhythm.example")
    assert shakes_hands(server, ours, "127.0.0.1")
    assert not shakes_hands(server, ours, "other.example")
    assert not shakes_hands(server, strange, "rhythm.example")


@pytest.mark.parametrize("engine", [pytest.param("mosquitto", marks=pytest.mark.services), "amqtt"])
async def test_the_door_is_encrypted(tmp_path: Path, engine: str):
    """A device comes in by TLS with its secret; without TLS, or trusting another authority, it does not."""
    make_certificates(tmp_path, ["127.0.0.1"], now=NOW)
    hashes = {"bed-7": hash_secret("secret")}
    async with embedded_broker(
        tmp_path / "broker", engine=engine, devices=hashes, certificates=broker_certificates(tmp_path)
    ) as broker:
        version = aiomqtt.ProtocolVersion.V5 if broker.mqtt5 else aiomqtt.ProtocolVersion.V311

        def device(context: ssl.SSLContext | None, timeout: float = DEADLINE_S) -> aiomqtt.Client:
            return aiomqtt.Client(
                broker.door_host, broker.door_port, username="bed-7", password="secret", identifier="bed-7",
                protocol=version, tls_context=context, timeout=timeout,
            )  # fmt: skip

        assert broker.address == f"mqtts://127.0.0.1:{broker.door_port}"
        async with device(client_context(tmp_path / "ca.pem")) as client:
            await client.publish("rw/v1/bed-7/ecg", b"x", qos=1)
        with pytest.raises(aiomqtt.MqttError):
            async with device(None, REFUSED_S):
                pass
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection(broker.door_host, broker.door_port, ssl=ssl.create_default_context())


@pytest.mark.services
async def test_clients_certificates_can_be_asked_for(tmp_path: Path):
    """Where the broker asks for them, a device without a certificate of our authority stays out."""
    make_certificates(tmp_path, ["127.0.0.1"], now=NOW)
    own, key = make_client_certificate(tmp_path, "bed-7", now=NOW)
    hashes = {"bed-7": hash_secret("secret")}
    async with embedded_broker(
        tmp_path / "broker",
        engine="mosquitto",
        devices=hashes,
        certificates=broker_certificates(tmp_path, clients=True),
    ) as broker:
        contexts = {True: client_context(tmp_path / "ca.pem", own, key), False: client_context(tmp_path / "ca.pem")}
        for good, context in contexts.items():
            came = False
            try:
                async with aiomqtt.Client(
                    broker.door_host, broker.door_port, username="bed-7", password="secret",
                    protocol=aiomqtt.ProtocolVersion.V5, tls_context=context, timeout=DEADLINE_S if good else REFUSED_S,
                ):  # fmt: skip
                    came = True
            except (aiomqtt.MqttError, ssl.SSLError, OSError):
                pass
            assert came is good


def test_places_are_taken_apart():
    """``host:port`` gives both; what is none says so."""
    assert host_and_port("0.0.0.0:8883") == ("0.0.0.0", 8883)  # noqa: S104 - only a text
    assert host_and_port("[::1]:1") == ("::1", 1)
    for bad in ("x", ":1", "x:y", "x:70000"):
        with pytest.raises(ValueError, match="host:port"):
            host_and_port(bad)


@pytest.mark.services
async def test_a_revocation_by_one_process_reaches_all(tmp_path: Path):
    """What one process revokes, another shows; the broker drops the device, and no ingest gets more of it."""
    history = f"sqlite:///{tmp_path / 'history.db'}"
    got: list[bytes] = []

    async def collect(reader: aiomqtt.Client) -> None:
        await reader.subscribe("$share/rw/rw/v1/+/ecg", qos=1)
        async for message in reader.messages:
            got.append(bytes(message.payload))  # noqa: PERF401 - read while it grows

    async def sent(client: aiomqtt.Client, topic: str, mark: bytes) -> None:
        """Send until a message is there: readers may not have subscribed yet."""
        async with asyncio.timeout(DEADLINE_S):
            while mark not in got:
                await client.publish(topic, mark, qos=1)
                await asyncio.sleep(0.1)

    async with contextlib.AsyncExitStack() as stack:
        one, other = (stack.enter_context(open_registry(history)) for _ in range(2))
        secret = one.add("bed-1", "", "admin", 1).secret
        broker = await stack.enter_async_context(
            guarded_broker(tmp_path, history, door=("127.0.0.1", 0), certificates=None)
        )

        async def came(name: str, password: str, *, own: bool) -> aiomqtt.Client:
            host, port = (broker.host, broker.port) if own else (broker.door_host, broker.door_port)
            version = aiomqtt.ProtocolVersion.V5
            identifier = f"{name}-{len(tasks)}" if own else name
            made = aiomqtt.Client(
                host, port, username=name, password=password, identifier=identifier, protocol=version, timeout=10
            )
            return await stack.enter_async_context(made)

        tasks: list[asyncio.Task[None]] = []
        for _ in range(2):
            reader = await came(broker.username, broker.password, own=True)
            tasks.append(asyncio.create_task(collect(reader)))
        stack.push_async_callback(end, tasks)
        fleet = await came(broker.device_username, broker.device_password, own=True)
        stack.enter_context(contextlib.suppress(aiomqtt.MqttError))
        device = await came("bed-1", secret, own=False)
        await sent(device, "rw/v1/bed-1/ecg", b"before")
        other.revoke("bed-1", 2)
        began = asyncio.get_running_loop().time()
        assert [shown.revoked_ms for shown in one.devices()] == [2]
        numbers = itertools.count()
        passes = True
        async with asyncio.timeout(DEADLINE_S):
            while passes:
                mark = b"%d" % next(numbers)
                with contextlib.suppress(aiomqtt.MqttError):
                    await device.publish("rw/v1/bed-1/ecg", mark, qos=1, timeout=0.5)
                await sent(fleet, "rw/v1/bed-9/ecg", b"behind " + mark)
                passes = mark in got
        assert asyncio.get_running_loop().time() - began < DEADLINE_S / 2
        await sent(fleet, "rw/v1/bed-9/ecg", b"last")
        assert mark not in got
