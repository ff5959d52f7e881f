"""What is deployed fits what is built: manifests against the API schema, dashboards against the figures given."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from alerts.history import Counters as HistoryCounters
from bus.pressure import Pressure
from ingest.accounts import SERVICE, dynamic_security
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.cli import app
from rhythmwatch.ingesting import figures as ingest_figures
from rhythmwatch.keeping import figures as historian_figures
from rhythmwatch.metrics import Figure
from rhythmwatch.pages import figures as page_figures
from rhythmwatch.ranges import READERS, equal_ranges
from rhythmwatch.station import Station, _parts
from rhythmwatch.worker import figures as worker_figures
from web.hub import Counters as HubCounters

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
MANIFESTS = [
    item for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")) for item in yaml.safe_load_all(path.read_text())
]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda item: f"{item['kind']}-{item['metadata']['name']}")
@pytest.mark.parametrize("version", ["1.30", "1.33"])
def test_manifests_are_valid(manifest: dict, version: str):
    """Each one holds against the API schema, strictly: an unknown field fails."""
    kubernetes_validate.validate(manifest, version, strict=True)


def containers() -> list[dict]:
    """Containers of everything that runs."""
    return [
        container
        for item in MANIFESTS
        if item["kind"] in ("Deployment", "StatefulSet")
        for container in item["spec"]["template"]["spec"]["containers"]
    ]


def test_containers_run_commands_that_exist():
    """Every container's arguments are a command of ours with options of that command, and its settings exist."""
    commands = get_command(app).commands
    settings = (ROOT / "docs" / "settings.md").read_text()
    for container in containers():
        command = commands[container["args"][0]]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {argument for argument in container["args"] if argument.startswith("--")} <= known
        assert all(entry["name"] in settings for entry in container["env"])


PROCESSES = {"web", "ingest", "worker", "historian", "notifier", "recorder", "evidence", "keeper"}


def test_every_process_of_the_service_runs_and_gives_figures():
    """What `run` starts is in the manifest, the composition and the scrape configuration, each with its figures."""
    station = Station(Path("state"), "127.0.0.1", 8800)
    parts = _parts(station, "bus", "broker", "broker", "", "history", 8800, "password")
    # The spare is for one machine; containers are started again by their engine.
    assert {part.arguments[0] for part in parts} == PROCESSES | {"spare"}
    assert {container["args"][0] for container in containers()} == PROCESSES
    assert all({"name": "RHYTHMWATCH_METRICS", "value": "0.0.0.0:9464"} in item["env"] for item in containers())
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert all(services[name]["environment"]["RHYTHMWATCH_METRICS"] == "0.0.0.0:9464" for name in PROCESSES)
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert set(scraped[0]["static_configs"][0]["targets"]) == {f"{name}:9464" for name in PROCESSES}


def test_an_ingest_that_is_replaced_keeps_its_name():
    """The broker keeps the session of an ingest by its name: it is that of a pod of a stateful set."""
    (ingest,) = [item for item in MANIFESTS if item["kind"] == "StatefulSet"]
    (container,) = ingest["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["ingest", "--share"]
    named = {"name": "RHYTHMWATCH_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    assert named in container["env"]


def test_the_secret_names_the_account_that_may_read_by_shares():
    """Of the accounts that the registry's keeper writes, the one of our own processes."""
    (secret,) = [item for item in MANIFESTS if item["kind"] == "Secret"]
    address = BrokerAddress.parse(secret["stringData"]["RHYTHMWATCH_BROKER"])
    assert (address.username, address.tls) == (SERVICE, True)
    roles = {role["rolename"]: role["acls"] for role in json.loads(dynamic_security([]))["roles"]}
    shares = [rule["topic"] for rule in roles[SERVICE] if rule["acltype"].startswith("subscribe")]
    assert "$share/+/rw/v1/#" in shares
    asked = {entry["valueFrom"]["secretKeyRef"]["key"] for item in containers() for entry in item["env"]
             if "secretKeyRef" in entry.get("valueFrom", {})}  # fmt: skip
    assert asked <= secret["stringData"].keys()


def ranges_of(command: str, calls: list[tuple[str, ...]]) -> list[int]:
    """Partitions that the processes of a command work on, those of each after the other."""
    spans = [call[call.index("--partitions") + 1].split("-") for call in calls if call[0] == command]
    return [partition for first, last in spans for partition in range(int(first), int(last) + 1)]


@pytest.mark.parametrize("command", ["worker", *READERS])
def test_each_partition_is_covered_once(command: str):
    """The ranges of the deployments of a command are all 64 partitions, none twice."""
    assert sorted(ranges_of(command, [tuple(item["args"]) for item in containers()])) == list(range(64))


def test_more_processes_than_partitions_are_refused():
    """Each needs one of its own."""
    for count in (0, 65):
        with pytest.raises(ValueError, match="1 to 64"):
            equal_ranges(count)


@pytest.mark.parametrize("count", [1, 3, 50, 64])
def test_one_machine_gives_each_process_a_range(count: int):
    """So many workers and readers as are asked for, numbered, and every partition with each of them once."""
    station = Station(Path("state"), "127.0.0.1", 8800, workers=count, readers=count)
    parts = _parts(station, "bus", "broker", "broker", "", "history", 8800, "password")
    for command in ("worker", *READERS):
        mine = [part for part in parts if part.arguments[0] == command]
        assert [part.name for part in mine] == [f"{command}-{number + 1}" for number in range(count)]
        assert ranges_of(command, [part.arguments for part in mine]) == list(range(64))
    assert [part.name for part in parts if part.arguments[0] == "keeper"] == ["keeper"]


def given(process: str, figures: list[Figure]) -> set[str]:
    """Names under which Prometheus finds figures."""
    return {f"rhythmwatch_{process}_{figure.name}{'_total' if figure.counts else ''}" for figure in figures}


def test_dashboard_and_alert_rules_ask_for_figures_that_exist():
    """Every name of ours in them is given by a process."""
    counters = SimpleNamespace(entries=1, events=1, late=1, refused={"entry": 1})
    worker = SimpleNamespace(
        counters=counters, pipeline=SimpleNamespace(patients={}), owned=1, lag_s=0.0, pressure=Pressure()
    )
    names_of_health = ("feed_age_s", "bus_lag_ms", "clients", "beds", "open_alarms", *HubCounters.__dataclass_fields__)
    hub = SimpleNamespace(health=lambda: dict.fromkeys(names_of_health, 1.0))
    pages = SimpleNamespace(state=SimpleNamespace(hub=hub))
    known = (
        given("worker", list(worker_figures(worker)))
        | given("historian", list(historian_figures(HistoryCounters())))
        | given("web", list(page_figures(pages)))
        | given("ingest", list(ingest_figures({"stored": 1}, Pressure())))
    )
    asked = (DEPLOY / "prometheus" / "alerts.yml").read_text() + (DEPLOY / "grafana" / "rhythmwatch.json").read_text()
    names = set(re.findall(r"rhythmwatch_[a-z]+_\w+", asked))
    assert len(names) > 8
    assert names <= known, names - known
    assert len(json.loads((DEPLOY / "grafana" / "rhythmwatch.json").read_text())["panels"]) == 10
