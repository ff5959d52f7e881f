"""The report of a simulated day: who grew is named, also of a run that was cut short."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from benchmark_scripts import script
from rich.console import Console

report = script("day_report")


def course(hours: float, **rss: tuple[int, float]) -> object:
    """Make a look; a process is its id and its memory."""
    found = {name: report.Memory(pid, size, size, size, size / 2) for name, (pid, size) in rss.items()}
    return report.Look(hours, 100 * hours, found)


LOOKS = [
    course(0.5, bus=(1, 10.0), web=(2, 100.0), worker=(3, 200.0)),
    course(1.0, bus=(1, 20.0), web=(2, 110.0), worker=(3, 200.0)),
    course(1.5, bus=(1, 30.0), web=(2, 114.0), worker=(3, 200.0)),
    course(2.2, bus=(1, 26.2), web=(2, 118.0), worker=(3, 200.0)),
    course(2.8, bus=(1, 26.4), web=(2, 115.0), worker=(4, 200.0)),
]


def test_growth_counts_from_the_hour_after_the_first() -> None:
    """By the means of two hours: what grew beyond the limit and what was started again is no good; a peak is told."""
    base, found = report.judge(LOOKS, 0.0)
    assert base is LOOKS[1]
    assert {name: one.good for name, one in found.items()} == {"bus": False, "web": True, "worker": False}
    assert (found["bus"].mean_rss, found["bus"].mean_growth) == ((25.0, pytest.approx(26.3)), 5.2)
    assert (found["web"].mean_rss, found["web"].mean_growth) == ((112.0, 116.5), 4.0)
    assert [found[name].growth for name in ("bus", "web", "worker")] == [32.0, 4.5, 0.0]
    assert (found["bus"].most_rss, found["bus"].data, found["bus"].data_growth) == (30.0, (10.0, 13.2), 32.0)
    assert report.judge(LOOKS, 101.0)[0] is LOOKS[2]
    with pytest.raises(ValueError, match="too short"):
        report.judge(LOOKS[:2], 0.0)


def test_a_saw_tooth_that_ends_at_its_top_has_not_grown() -> None:
    """Nor is one that ends at its foot good for that."""
    for last, growth in (("high", 20.0), ("low", -16.7)):
        teeth = [100.0, 110.0, 120.0] if last == "high" else [120.0, 110.0, 100.0]
        looks = [course(1 + n / 3, bus=(1, size)) for n, size in enumerate(2 * teeth)]
        bus = report.judge(looks, 0.0)[1]["bus"]
        assert (bus.growth, bus.mean_growth, bus.good) == (growth, 0.0, True)
    grown = [course(1 + n / 3, bus=(1, size)) for n, size in enumerate([120.0, 110.0, 100.0, 130.0, 125.0, 120.0])]
    bus = report.judge(grown, 0.0)[1]["bus"]
    assert (bus.growth, bus.mean_growth, bus.good) == (0.0, 13.6, False)


def test_the_means_of_a_short_run_share_no_look() -> None:
    """Of one that grows all the time each half has its own looks, so that it can't pass by being short."""
    grows = [course(1 + n / 10, bus=(1, 100.0 + 2 * n)) for n in range(11)]
    bus = report.judge(grows, 0.0)[1]["bus"]
    assert (bus.mean_rss, bus.mean_growth, bus.good) == ((104.0, 116.0), 11.5, False)


def test_a_process_that_ended_is_no_good() -> None:
    """It has a size at the base alone, or at the end alone."""
    ended = [*LOOKS[:4], course(3.0, bus=(1, 20.0), late=(5, 7.0))]
    _, found = report.judge(ended, 0.0)
    assert (found["web"].rss, found["web"].growth, found["web"].good) == ((110.0, None), None, False)
    assert (found["late"].rss, found["late"].good) == ((None, 7.0), False)
    assert found["bus"].good


def test_looks_outlive_the_run(tmp_path: Path) -> None:
    """What was written whole is read back, whatever came of the last line."""
    looks = report.Looks(tmp_path / "day.jsonl")
    for one in LOOKS:
        looks.add(one)
    with (tmp_path / "day.jsonl").open("ab") as file:
        file.write(b'{"hours": 3')
    assert report.read_looks(tmp_path / "day.jsonl") == LOOKS == looks.all


def test_the_hours_are_shown(tmp_path: Path) -> None:
    """A row an hour and the last look, with the data of the bus beside its memory; the same as a picture."""
    assert report.hourly(LOOKS) == [LOOKS[0], LOOKS[1], LOOKS[3], LOOKS[4]]
    console = Console(width=160, record=True, file=StringIO())
    console.print(report.course_table(LOOKS), report.verdict_table(report.judge(LOOKS, 0.0)[1]))
    text = console.export_text()
    assert "bus data" in text
    assert text.count("grew or was started again") == 2
    pytest.importorskip("matplotlib")
    report.plot(LOOKS, tmp_path / "day.png")
    assert (tmp_path / "day.png").read_bytes().startswith(b"\x89PNG")
