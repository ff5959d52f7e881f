"""What many patients need, worked out from what was measured on one machine."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rhythmwatch.capacity import Level
from rhythmwatch.cli import app
from rhythmwatch.planning import Prices, plan

FIGURES = {
    "patients": 1000,
    "cores": {"ingest": 0.2, "worker-1": 0.15, "worker-2": 0.15, "bus": 0.1, "historian-1": 0.05, "keeper": 0.02},
    "worker_kb_a_patient": 25,
    "bus_kb_a_patient": 75,
    "frame_bytes": 580,
    "bus_bytes_a_second": 2_000_000,
}


def test_parts_grow_with_the_patients():
    """Workers count as one part, the planned use is kept free, and the dearest part comes first."""
    found = plan(FIGURES, 1_000_000, Prices(core=10.0, memory_gb=1.0, disk_gb=0.1, use=0.5))
    needs = {need.part: need for need in found.needs}
    assert found.needs[0].part == "worker"
    assert needs["worker"].cores == pytest.approx(600)
    assert needs["worker"].each == 1666
    assert found.cores == pytest.approx(1340)
    assert found.memory_gb == pytest.approx(200)
    assert found.inbound_mbit == pytest.approx(5600)
    assert found.bus_mbit == pytest.approx(16_000)
    assert found.disk_gb_a_day == pytest.approx(50_112)
    assert found.money == pytest.approx({"cores": 13_400, "memory": 200, "disk": 150_336})


def test_what_can_not_be_multiplied_gives_way_first():
    """The process that is one for the whole service; historians share their work as workers do."""
    found = plan(FIGURES, 1_000_000)
    assert [need.part for need in found.needs if need.alone] == ["keeper"]
    assert found.gives_way.part == "keeper"
    lone = {**FIGURES, "cores": {"ingest": 0.2, "worker-1": 0.3}}
    assert plan(lone, 1_000_000).gives_way.part == "worker"


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_a_missing_figure_is_named(name: str):
    """Figures of another command, or of an older one, give an error that says what to run."""
    rest = {key: value for key, value in FIGURES.items() if key != name}
    with pytest.raises(ValueError, match="bench capacity --json"):
        plan(rest, 10)


def test_the_command_prints_a_plan(tmp_path: Path):
    """A table for people; a file that holds none gets one line."""
    file = tmp_path / "capacity.json"
    file.write_text(json.dumps(FIGURES))
    shown = CliRunner().invoke(app, ["plan", str(file), "--patients", "2000000"])
    assert shown.exit_code == 0
    assert "2,000,000 patients" in shown.output
    assert "gives way first: keeper" in shown.output
    file.write_text("[]")
    refused = CliRunner().invoke(app, ["plan", str(file)])
    assert refused.exit_code == 2
    assert "bench capacity --json" in refused.output


def test_the_plan_reads_what_the_bench_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Standard output of the bench is one JSON document; how far it is goes elsewhere. The measurement is left out."""

    def search(*_: object, tell: Callable[[Level], None], **__: object) -> tuple[Level, ...]:
        found = tuple(Level(patients, 100, 50.0, 303.0, 10, {"ingest": 0.2}, {}) for patients in (700, 1000))
        for level in found:
            tell(level)
        return found

    monkeypatch.setattr("rhythmwatch.capacity.search", search)
    monkeypatch.setattr("rhythmwatch.capacity.report", lambda *_: FIGURES)
    printed = CliRunner().invoke(app, ["bench", "capacity", "--json"])
    assert json.loads(printed.stdout) == FIGURES
    assert "700 patients: p99 303 ms" in printed.stderr
    file = tmp_path / "capacity.json"
    file.write_text(printed.stdout)
    assert CliRunner().invoke(app, ["plan", str(file)]).exit_code == 0


def test_a_bench_prints_one_document():
    """Whatever libraries say meanwhile, in a process of its own."""
    command = [sys.executable, "-m", "rhythmwatch", "bench", "stages", "--patients", "1", "--seconds", "5", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    assert all(cost > 0 for cost in json.loads(done.stdout).values())


def test_file_that_is_not_there_is_named_in_words(tmp_path: Path) -> None:
    """No number of an error stands before what to do."""
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "none.json")])
    assert done.exit_code == 2
    assert (
        done.stderr.split("rhythmwatch: ")[1].strip()
        == f"{tmp_path}/none.json: there is no such file or folder; check the name"
    )
