"""What a fleet consists of: its processes by their names, and what each of them is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from rhythmwatch.ranges import READERS, equal_ranges, span

Settings: TypeAlias = dict[str, Any]
"""Attributes of a `Plan` by name: those that one process needs."""

URGENT: Final = ("worker", "ingest", "notifier")
"""Kinds that an alarm waits for. The others catch up once they run again, so that no spare is busy with them."""

_NEEDS: Final[Mapping[str, Sequence[str]]] = {
    "worker": ("bus", "cpus"),
    "ingest": ("bus", "cpus", "broker", "authority", "replicas"),
    "historian": ("bus", "cpus", "history"),
    "notifier": ("bus", "cpus", "history", "broker", "authority", "mail", "mail_from"),
    "recorder": ("bus", "cpus", "history", "recordings", "consented"),
    "evidence": ("bus", "cpus", "history", "recordings"),
}
NEEDS: Final[Mapping[str, Sequence[str]]] = {
    **_NEEDS,
    "spare": tuple(dict.fromkeys(name for kind in URGENT for name in _NEEDS[kind])),
}
"""Attributes of a `Plan` that each kind is told."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How many processes of each kind, and all that they must know.

    Attributes
    ----------
    bus, broker : str
        Addresses that every node can reach.
    workers, ingests : int
        How many.
    spares : int
        That stand by, on nodes of their own where there are so many; they reserve no core.
    cpus : float
        Cores that Ray reserves for each of the others.
    replicas : int
        As of `rhythmwatch.ingesting.receive`.
    authority : str
        File on every node: the authority behind the broker's certificate; empty for that of the system.
    history : str
        Database that every node can reach; empty for a fleet without readers.
    readers : int
        Historians, and as many of each of the others in `rhythmwatch.ranges.READERS`.
    recordings : str
        Folder that all nodes share; empty for a fleet without recorders and evidence processes.
    consented : bool
        As of `rhythmwatch.recorder.record`.
    mail, mail_from : str
        As of `rhythmwatch.notifying.notify`.
    """

    bus: str
    broker: str = ""
    workers: int = 1
    ingests: int = 0
    spares: int = 1
    cpus: float = 1.0
    replicas: int = 0
    authority: str = ""
    history: str = ""
    readers: int = 1
    recordings: str = ""
    consented: bool = True
    mail: str = ""
    mail_from: str = ""

    def parts(self) -> dict[str, Settings]:
        """Give all processes but the spares.

        Returns
        -------
        dict of str to dict
            What each is told, by its name: ``worker-0-31``, ``ingest-1``, ``historian-0-63``.

        Raises
        ------
        ValueError
            If there are more of a kind than partitions, or an address is missing.
        """
        if self.ingests and not self.broker:
            raise ValueError("ingests need a broker")
        if self.recordings and not self.history:
            raise ValueError("recordings need a history database, which says what lies where")
        placed = [kind for kind in READERS if self.history and (self.recordings or "recordings" not in NEEDS[kind])]
        ranges = {"worker": equal_ranges(self.workers)} | {kind: equal_ranges(self.readers) for kind in placed}
        return {
            **{f"{kind}-{span(mine)}": self.told(kind) for kind, shares in ranges.items() for mine in shares},
            **{f"ingest-{number}": self.told("ingest") for number in range(1, self.ingests + 1)},
        }

    def told(self, kind: str) -> Settings:
        """Give what a process of a kind must know."""
        return {name: getattr(self, name) for name in NEEDS[kind]}


def plan_of(told: Mapping[str, Settings]) -> Plan:
    """Find the plan of a fleet that stands.

    Parameters
    ----------
    told : mapping of str to dict
        What each process was told, by its name; empty of one that did not answer.

    Raises
    ------
    ValueError
        If nobody answered who knows what is needed.
    """
    known: Settings = {}
    for settings in told.values():
        known |= settings
    silent = [name for name, settings in told.items() if not settings and not known.keys() >= set(NEEDS[kind_of(name)])]
    if silent:
        raise ValueError(f"no answer from {', '.join(sorted(silent))}: wait until they run")
    count = Counter(map(kind_of, told))
    return Plan(
        **known,
        workers=count["worker"],
        ingests=count["ingest"],
        spares=count["spare"],
        readers=max(1, count["historian"]),
    )


def kind_of(name: str) -> str:
    """Kind of a process by its name."""
    return name.partition("-")[0]


def owned(name: str) -> range:
    """Give the partitions of a process by its name; none of an ingest or a spare."""
    _, *bounds = name.split("-")
    return range(int(bounds[0]), int(bounds[1]) + 1) if len(bounds) > 1 else range(0)
