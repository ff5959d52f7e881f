"""What `day.py` saw of each process's memory: kept line by line, judged, shown as a table by the hour and a plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.table import Table

ALLOWED: Final = 5.0
"""Percent."""
MEAN_H: Final = 1.0
"""Of what moves up and down, two single looks say little. So the means of an hour are compared; of a run too short for
two of them those of its halves, as looks that are in both means would hide what grew."""
COLOURS: Final = 10
"""Before they begin anew."""
DATA: Final = "bus"
"""The process of whose memory it is known how much is data."""


class Memory(msgspec.Struct, frozen=True):
    """Memory of one process at one look, MB.

    Attributes
    ----------
    data : float
        Of the bus: what it has allocated (``used_memory``); resident are also its program and what its allocator holds
        free. 0 for others.
    """

    pid: int
    rss: float
    pss: float
    uss: float
    data: float = 0.0


class Look(msgspec.Struct, frozen=True):
    """All processes at one time."""

    hours: float
    wall_s: float
    processes: dict[str, Memory]


class Process(msgspec.Struct, frozen=True):
    """How a process fared, MB.

    Attributes
    ----------
    rss, data : tuple of float or None
        At the base and at the end; None where it was not there.
    growth, data_growth : float or None
        Percent since the base.
    mean_rss : tuple of float or None
        Mean of the looks in the hour from the base on, and in the last hour; see `MEAN_H`.
    mean_growth : float or None
        Percent between the two.
    good : bool
        The same process, there at the base and at the end, and its mean grown by no more than `ALLOWED`.
    """

    rss: tuple[float | None, float | None]
    most_rss: float
    growth: float | None
    mean_rss: tuple[float | None, float | None]
    mean_growth: float | None
    data: tuple[float | None, float | None]
    data_growth: float | None
    pss: float | None
    uss: float | None
    good: bool


class Looks:
    """Looks as they are taken, kept in a file so that a run that is cut short can be reported all the same.

    Parameters
    ----------
    path : Path, optional
        Written anew; None keeps them in memory alone.
    """

    def __init__(self, path: Path | None) -> None:
        self.all: list[Look] = []
        self._path = path
        if path is not None:
            path.write_bytes(b"")

    def add(self, look: Look) -> None:
        """Keep a look."""
        self.all.append(look)
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(look) + b"\n")


def read_looks(path: Path) -> list[Look]:
    """Read what `Looks` kept, without a last line that was not written whole."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [msgspec.json.decode(line, type=Look) for line in lines]


def judge(looks: Sequence[Look], settle_s: float) -> tuple[Look, dict[str, Process]]:
    """Give the look that counts as the base, and how each process fared.

    Parameters
    ----------
    looks : sequence of Look
    settle_s : float
        The base is taken no sooner than this, in seconds of wall time.

    Raises
    ------
    ValueError
        If the run ended before there was a base.
    """
    later = [one for one in looks[:-1] if one.hours >= 1 and one.wall_s >= settle_s]
    if not later:
        raise ValueError(f"too short: no look after an hour and {settle_s:.0f} s of wall time but the last")
    base, last = later[0], looks[-1]
    names = sorted(base.processes.keys() | last.processes.keys())
    return base, {name: _judged(looks, base, last, name) for name in names}


def _judged(looks: Sequence[Look], base: Look, last: Look, name: str) -> Process:
    before, after = base.processes.get(name), last.processes.get(name)
    same = before is not None and after is not None and before.pid == after.pid
    rss, data = ((_size(before, what), _size(after, what)) for what in ("rss", "data"))
    span = min(MEAN_H, (last.hours - base.hours) / 2)
    mean_rss = (
        _mean_rss((one for one in looks if base.hours <= one.hours < base.hours + span), name),
        _mean_rss((one for one in looks if one.hours > last.hours - span), name),
    )
    mean_growth = _growth(*mean_rss)
    return Process(
        rss=rss,
        most_rss=max(one.processes[name].rss for one in looks if name in one.processes),
        growth=_growth(*rss),
        mean_rss=mean_rss,
        mean_growth=mean_growth,
        data=data,
        data_growth=_growth(*data),
        pss=_size(after, "pss"),
        uss=_size(after, "uss"),
        good=same and mean_growth is not None and mean_growth <= ALLOWED,
    )


def _size(memory: Memory | None, what: str) -> float | None:
    return None if memory is None else float(getattr(memory, what))


def _mean_rss(looks: Iterable[Look], name: str) -> float | None:
    found = [one.processes[name].rss for one in looks if name in one.processes]
    return sum(found) / len(found) if found else None


def _growth(before: float | None, after: float | None) -> float | None:
    return round(100 * (after / before - 1), 1) if before and after is not None else None


def hourly(looks: Sequence[Look]) -> list[Look]:
    """Give the first look of each hour, and the last of all."""
    found: dict[int, Look] = {}
    for one in looks:
        found.setdefault(int(one.hours), one)
    chosen = list(found.values())
    return chosen if not looks or chosen[-1] is looks[-1] else [*chosen, looks[-1]]


def columns(look: Look) -> dict[str, float]:
    """Resident memory by process, and the data of the bus behind it, MB."""
    found: dict[str, float] = {}
    for name, memory in sorted(look.processes.items()):
        found[name] = memory.rss
        if name == DATA:
            found[f"{name} data"] = memory.data
    return found


def course_table(looks: Sequence[Look]) -> Table:
    """Make the table of resident memory by the hour, MB."""
    chosen = hourly(looks)
    names = list(dict.fromkeys(name for one in chosen for name in columns(one)))
    table = Table("hour", *names, title="RSS, MB")
    for one in chosen:
        values = columns(one)
        table.add_row(f"{one.hours:.1f}", *(f"{values[name]:.1f}" if name in values else "" for name in names))
    return table


def verdict_table(processes: dict[str, Process]) -> Table:
    """Make the table of who grew."""
    table = Table(
        "process", "first hour", "last hour", "growth, %", "base", "end", "growth, %", "most", "USS", "",
        title="Means of RSS in the hour from the base on and in the last, and single looks, MB",
    )  # fmt: skip
    for name, one in processes.items():
        row = (*one.mean_rss, one.mean_growth, *one.rss, one.growth, one.most_rss, one.uss)
        table.add_row(name, *map(_shown, row), "" if one.good else "grew or was started again")
        if one.data_growth is not None:
            table.add_row(f"{name} data", "", "", "", *map(_shown, (*one.data, one.data_growth)), "", "", "")
    return table


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def plot(looks: Sequence[Look], path: Path) -> None:
    """Draw growth since the first look after an hour, a line a process; `ImportError` without matplotlib."""
    from matplotlib.figure import Figure

    later = [one for one in looks if one.hours >= 1] or list(looks)
    base = columns(later[0])
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, before) in enumerate(base.items()):
        points = [(one.hours, 100 * (columns(one)[name] / before - 1)) for one in later if name in columns(one)]
        style = "-" if number < COLOURS else "--"
        axes.plot(*zip(*points, strict=True), style, label=f"{name}, {before:.0f} MB", linewidth=1)
    axes.axhline(ALLOWED, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel("simulated hours")
    axes.set_ylabel("growth of RSS, %")
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(path, dpi=120)


def as_json(looks: Sequence[Look], processes: dict[str, Process]) -> dict[str, Any]:
    """Give the verdict and the course as plain values."""
    return {
        "processes": msgspec.to_builtins(processes),
        "rss_mb_at_h": [[round(one.hours, 2), columns(one)] for one in looks],
    }
