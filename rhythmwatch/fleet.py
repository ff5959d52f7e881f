"""Workers and ingests over several machines: Ray places them, sees dead nodes and starts what was on them elsewhere.

Nothing here decides who owns a partition: a worker that starts takes it over on the bus, and every former owner is
fenced there (`bus.streams`). So it does no harm that Ray may hold a node for dead that is only cut off.

Spares stand in for what is lost until Ray has it running again (`rhythmwatch.fleet_spare`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray.exceptions import RayError

from rhythmwatch.ranges import equal_ranges, span

NAMESPACE: Final = "rhythmwatch"
ANSWER_S: Final = 5.0
START_S: Final = 120.0
POLL_S: Final = 0.2


class FleetError(Exception):
    """The fleet can't do what was asked; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Member:
    """One actor of the fleet.

    Attributes
    ----------
    name : str
        ``worker-0-31``, ``ingest-1`` or ``spare-1``.
    state : str
        ``starting``, ``running``, ``ended`` (another one has its partitions) or ``silent`` (no answer: its node may be
        gone, and Ray is starting it elsewhere).
    host : str
        Where it runs.
    pid : int
        Its process there.
    """

    name: str
    state: str
    host: str = ""
    pid: int = 0


class _Hosted:
    """A process of ours inside an actor: it begins with the actor, also when Ray starts that again elsewhere."""

    def __init__(self, kind: str, name: str, options: dict[str, Any]) -> None:
        self._state = "starting"
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        mains: dict[str, Callable[..., Coroutine[Any, Any, None]]]
        mains = {"worker": self._worker, "ingest": self._ingest, "spare": self._spare}
        self._thread = threading.Thread(target=self._run, args=(mains[kind](name, **options),), name=name)
        self._thread.start()

    def _run(self, main: Coroutine[Any, Any, None]) -> None:
        try:
            self._loop.run_until_complete(main)
            self._state = "ended"
        except BaseException:
            # An actor whose work failed is of no use; one whose process is gone is started again.
            os._exit(1)

    async def _worker(self, name: str, bus: str, first: int, last: int) -> None:
        from rhythmwatch.models import load_models
        from rhythmwatch.process import configure_logs
        from rhythmwatch.warm import ensure_kernels
        from rhythmwatch.worker import work

        configure_logs(name)
        ensure_kernels()
        models = load_models()
        self._state = "running"
        await work(bus, range(first, last + 1), models, self._stop)

    async def _ingest(self, name: str, bus: str, broker: str, replicas: int) -> None:
        from rhythmwatch.ingesting import receive
        from rhythmwatch.process import configure_logs

        configure_logs(name)
        self._state = "running"
        await receive(broker, bus, share=True, stop=self._stop, name=name, replicas=replicas)

    async def _spare(
        self, name: str, bus: str, broker: str, replicas: int, names: Sequence[str], spares: Sequence[str]
    ) -> None:
        from rhythmwatch.fleet_spare import stand_by
        from rhythmwatch.ingesting import receive
        from rhythmwatch.models import load_models
        from rhythmwatch.process import configure_logs
        from rhythmwatch.warm import compile_kernels
        from rhythmwatch.worker import work

        configure_logs(name)
        await asyncio.to_thread(compile_kernels)
        models = load_models()

        async def stand_in(lost: str, stop: asyncio.Event) -> None:
            if partitions := _owned(lost):
                await work(bus, partitions, models, stop)
            else:
                await receive(broker, bus, share=True, stop=stop, name=lost, replicas=replicas)

        self._state = "running"
        await stand_by(NAMESPACE, names, spares, stand_in, self._stop)

    async def about(self) -> tuple[str, str, int]:
        """State, host and process id."""
        return self._state, socket.gethostname(), os.getpid()

    async def over(self) -> None:
        """Last as long as the process: who calls it learns at once that it is lost."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """End in good order."""
        self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join)


def connect(address: str) -> None:
    """Join a Ray cluster as a driver.

    Parameters
    ----------
    address : str
        ``ray://host:10001``, ``host:6379``, or ``auto`` for the cluster of this machine.

    Raises
    ------
    FleetError
        If there is none.
    """
    try:
        ray.init(
            address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False
        )
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FleetError(f"no Ray cluster at {address}: {reason}; start one with: ray start --head") from error


def up(
    bus: str, broker: str, *, workers: int, ingests: int, cpus: float = 1.0, replicas: int = 0, spares: int = 1
) -> None:
    """Bring the fleet to so many workers and ingests; what runs already and fits stays.

    New workers take their partitions over before the former owners are ended, so nothing waits and nothing is lost.

    Parameters
    ----------
    bus, broker : str
        Addresses that every node can reach.
    workers, ingests : int
        How many.
    cpus : float
        Cores that Ray reserves for each.
    replicas : int
        As of `rhythmwatch.ingesting.receive`.
    spares : int
        That stand by, on nodes of their own where there are so many; they reserve no core.

    Raises
    ------
    FleetError
        If there are more workers than partitions, or the actors do not come up in time, for instance for want of cores.
    """
    try:
        shares = equal_ranges(workers)
    except ValueError as error:
        raise FleetError(str(error)) from error
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        f"worker-{span(mine)}": ("worker", {"bus": bus, "first": mine[0], "last": mine[-1]}) for mine in shares
    }
    for number in range(1, ingests + 1):
        wanted[f"ingest-{number}"] = ("ingest", {"bus": bus, "broker": broker, "replicas": replicas})
    standing = {member.name: member for member in members()}
    # None may stand in for one that is ended here.
    for name in [name for name in standing if _is_spare(name)]:
        _end(name)
        del standing[name]
    # One that was fenced holds nothing any more and must begin anew to own its range.
    for name, member in standing.items():
        if name in wanted and member.state == "ended":
            _kill(name)
    for name, (kind, options) in wanted.items():
        if name not in standing or standing[name].state == "ended":
            _start(name, kind, options, cpus)
    _until_running(set(wanted), standing.keys() - wanted.keys())
    for name in standing.keys() - wanted.keys():
        _end(name)
    standing_by = [f"spare-{number}" for number in range(1, spares + 1)]
    for number, name in enumerate(standing_by):
        watched = {"names": sorted(wanted), "spares": standing_by[:number]}
        _start(name, "spare", {"bus": bus, "broker": broker, "replicas": replicas, **watched}, 0.0)
    _until_running(set(standing_by), set())


def members() -> list[Member]:
    """All actors of the fleet, by name; blocks for a moment for those that do not answer."""
    names = sorted(
        item["name"] for item in ray.util.list_named_actors(all_namespaces=True) if item["namespace"] == NAMESPACE
    )
    handles: dict[str, Any] = {}
    for name in names:
        try:
            handles[name] = ray.get_actor(name, NAMESPACE).about.remote()
        except ValueError:
            continue  # ended since it was listed
    ready, _ = (
        ray.wait(list(handles.values()), num_returns=max(1, len(handles)), timeout=ANSWER_S) if handles else ([], [])
    )
    found = []
    for name, answer in handles.items():
        if answer not in ready:
            found.append(Member(name, "silent"))
            continue
        try:
            found.append(Member(name, *ray.get(answer)))
        except RayError:
            found.append(Member(name, "silent"))
    return found


def down() -> None:
    """End every actor of the fleet in good order."""
    # Spares first: they would stand in for the others.
    for member in sorted(members(), key=lambda member: not _is_spare(member.name)):
        _end(member.name)


def _start(name: str, kind: str, options: dict[str, Any], cpus: float) -> None:
    actor: Any = ray.remote(_Hosted)
    placed = actor.options(
        name=name, namespace=NAMESPACE, lifetime="detached", max_restarts=-1, num_cpus=cpus,
        scheduling_strategy="SPREAD",
    )  # fmt: skip
    placed.remote(kind, name, options)


def _until_running(names: set[str], former: Set[str]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        now = members()
        taken = {n for member in now if member.name in names and member.state == "running" for n in _owned(member.name)}
        for member in now:
            # Its partitions are all taken: its core may be what a new one waits for.
            if member.name in former and _owned(member.name) and taken.issuperset(_owned(member.name)):
                _end(member.name)
        missing = names - {member.name for member in now if member.state in ("running", "ended")}
        if not missing:
            return
        time.sleep(POLL_S)
    raise FleetError(f"{', '.join(sorted(missing))} did not start in {START_S:.0f} s; has the cluster cores to spare?")


def _owned(name: str) -> range:
    """Give the partitions of a worker by its name; none for others."""
    kind, *bounds = name.split("-")
    return range(int(bounds[0]), int(bounds[1]) + 1) if kind == "worker" else range(0)


def _is_spare(name: str) -> bool:
    return name.startswith("spare-")


def _end(name: str) -> None:
    # One that is gone or silent is fenced by the bus.
    with contextlib.suppress(RayError, ValueError):
        ray.get(ray.get_actor(name, NAMESPACE).stop.remote(), timeout=ANSWER_S)
    _kill(name)


def _kill(name: str) -> None:
    try:
        ray.kill(ray.get_actor(name, NAMESPACE))
    except ValueError:
        return
    until = time.monotonic() + ANSWER_S
    while time.monotonic() < until:
        try:
            ray.get_actor(name, NAMESPACE)
        except ValueError:
            return
        time.sleep(POLL_S)
