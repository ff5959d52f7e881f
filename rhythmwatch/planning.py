"""What more patients than one machine carries would need, worked out from figures that were measured on one.

Everything is taken to grow in proportion to the patients, which holds for the work of one process and is an assumption
for a fleet: no figure here was measured on more than one machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

FRAMES_A_DAY: Final = 86_400
"""One frame a second."""
DAYS_A_MONTH: Final = 30
OVERHEAD_BYTES: Final = 120
"""TCP, IP, TLS and MQTT around a frame on its way to the broker."""
ALONE: Final = ("keeper",)
"""Processes of which one works for the whole service, so that one core bounds them; the others take a range each."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What a month costs, in one currency; list prices of large providers differ by a factor of about two.

    Attributes
    ----------
    core, memory_gb, disk_gb : float
        A core, a GB of memory and a GB of disk for a month.
    use : float
        Share of a core that is planned with; the rest is for peaks and for the load of a machine that died.
    """

    core: float = 25.0
    memory_gb: float = 3.0
    disk_gb: float = 0.05
    use: float = 0.6


@dataclass(frozen=True, slots=True)
class Need:
    """What one part needs.

    Attributes
    ----------
    part : str
        Process.
    each : int
        Patients that one core of it carries at the planned use.
    cores : float
        Needed in all.
    alone : bool
        Whether only one process of it may work today.
    """

    part: str
    each: int
    cores: float
    alone: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a number of patients needs.

    Attributes
    ----------
    patients : int
        Planned for.
    needs : tuple of Need
        By part, the part that one core carries the fewest patients of first.
    memory_gb : float
        Of workers and bus.
    inbound_mbit, bus_mbit : float
        From devices to the broker; through the bus servers, in and out.
    disk_gb_a_day : float
        What the recorder keeps; a frame's size is taken for its second (samples of 16 bits, and beats in place of
        the frame's own head).
    money : dict of str to float
        A month, by kind; disk for 30 days of recordings.
    """

    patients: int
    needs: tuple[Need, ...]
    memory_gb: float
    inbound_mbit: float
    bus_mbit: float
    disk_gb_a_day: float
    money: dict[str, float]

    @property
    def cores(self) -> float:
        """Cores in all."""
        return sum(need.cores for need in self.needs)

    @property
    def gives_way(self) -> Need:
        """Part that the first additional patients would overload: of those that can't be multiplied, the dearest."""
        return min((need for need in self.needs if need.alone), key=lambda need: need.each, default=self.needs[0])


def plan(figures: Mapping[str, object], patients: int, prices: Prices | None = None) -> Plan:
    """Scale what `rhythmwatch bench capacity --json` measured.

    Parameters
    ----------
    figures : mapping
        ``patients``, ``cores`` (share of a core by process), ``worker_kb_a_patient``, ``bus_kb_a_patient``,
        ``frame_bytes`` and ``bus_bytes_a_second`` (through the bus server, all patients).
    patients : int
        To plan for.
    prices : Prices, optional
        Of a month.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If a figure is missing or no number.
    """
    price = prices or Prices()
    measured = _number(figures, "patients")
    cores = figures.get("cores")
    if not isinstance(cores, Mapping) or not cores or measured <= 0:
        raise ValueError("the figures hold no cores by process; make them with: rhythmwatch bench capacity --json")
    shares: dict[str, float] = {}
    for name, share in cores.items():
        part = str(name).rstrip("0123456789").rstrip("-")
        shares[part] = shares.get(part, 0.0) + float(share)
    needs = [
        Need(part, math.floor(price.use * measured / share), patients * share / measured / price.use, part in ALONE)
        for part, share in shares.items()
        if share > 0
    ]
    kilobytes = _number(figures, "worker_kb_a_patient") + _number(figures, "bus_kb_a_patient")
    memory = patients * kilobytes / 1e6 / price.use
    frame = _number(figures, "frame_bytes")
    disk = patients * frame * FRAMES_A_DAY / 1e9
    total = sum(need.cores for need in needs)
    money = {
        "cores": total * price.core,
        "memory": memory * price.memory_gb,
        "disk": disk * DAYS_A_MONTH * price.disk_gb,
    }
    return Plan(
        patients, tuple(sorted(needs, key=lambda need: need.each)), memory,
        patients * (frame + OVERHEAD_BYTES) * 8 / 1e6,
        patients * _number(figures, "bus_bytes_a_second") / measured * 8 / 1e6,
        disk, money,
    )  # fmt: skip


def _number(figures: Mapping[str, object], name: str) -> float:
    value = figures.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"the figures hold no {name}; make them with: rhythmwatch bench capacity --json")
    return float(value)
