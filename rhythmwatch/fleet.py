"""The processes of the service over several machines: Ray places them, and starts elsewhere what was on dead nodes.

Nothing here decides who owns a partition: a worker that starts takes it over on the bus, and every former owner is
fenced there (`bus.streams`); historians, notifiers and evidence processes store each thing once whoever does it; a
recorder holds locks in the folder. So it does no harm that Ray may hold a node for dead that is only cut off.

Spares stand in for what is lost until Ray has it running again (`rhythmwatch.fleet_spare`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import ray
from ray.exceptions import RayError

from rhythmwatch.fleet_actor import NAMESPACE, Hosted
from rhythmwatch.fleet_plan import URGENT, Plan, Settings, kind_of, owned, plan_of

ANSWER_S: Final = 5.0
START_S: Final = 120.0
"""Longest without one more that runs."""
POLL_S: Final = 0.2


class FleetError(Exception):
    """The fleet can't do what was asked; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Member:
    """One actor of the fleet.

    Attributes
    ----------
    name : str
        ``worker-0-31``, ``ingest-1``, ``historian-0-63`` or ``spare-1``.
    state : str
        ``starting``, ``running``, ``waiting`` (a recorder: another one has its partitions, or the folder is missing),
        ``ended`` (another one has its partitions) or ``silent`` (no answer: its node may be gone, and Ray is starting
        it elsewhere).
    host : str
        Where it runs.
    pid : int
        Its process there.
    settings : dict
        What it was told; empty of one that is silent. There are passwords in it.
    """

    name: str
    state: str
    host: str = ""
    pid: int = 0
    settings: Settings = field(default_factory=dict, repr=False)


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


def up(plan: Plan) -> None:
    """Bring the fleet to a plan; what runs already and fits stays.

    New processes take their partitions over before the former owners are ended, so nothing waits and nothing is lost.
    Recorders alone begin only once the former ones have ended, and so does what is told something else than before.

    Raises
    ------
    FleetError
        If the plan can't be, or the actors do not come up in time, for instance for want of cores.
    """
    try:
        wanted = plan.parts()
    except ValueError as error:
        raise FleetError(str(error)) from error
    # None may stand in for one that is ended here.
    for member in _spares_first():
        if not _goes_on(member, wanted):
            _end(member.name)
    _settle(wanted)
    for member in members():
        if member.name not in wanted:
            _end(member.name)
    standing_by = [f"spare-{number}" for number in range(1, plan.spares + 1)]
    _settle({name: plan.told("spare") for name in standing_by}, [name for name in wanted if kind_of(name) in URGENT])


def scale(workers: int, *, ingests: int | None = None, readers: int | None = None, spares: int | None = None) -> None:
    """Move the partitions of the fleet that stands to another number of processes.

    Parameters
    ----------
    workers : int
    ingests, readers, spares : int, optional
        As many as there are by default.

    Raises
    ------
    FleetError
        As of `up`; if there is no fleet, or it can't be asked.
    """
    told = {member.name: member.settings for member in members()}
    if not told:
        raise FleetError("no fleet is up; bring one up with: rhythmwatch fleet up")
    try:
        plan = plan_of(told)
    except ValueError as error:
        raise FleetError(f"{error}, or say all anew with: rhythmwatch fleet up") from error
    up(
        replace(
            plan,
            workers=workers,
            ingests=plan.ingests if ingests is None else ingests,
            readers=plan.readers if readers is None else readers,
            spares=plan.spares if spares is None else spares,
        )
    )


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
    for member in _spares_first():
        _end(member.name)


def _spares_first() -> list[Member]:
    """Order the members so that no spare stands in for one that was ended."""
    return sorted(members(), key=lambda member: kind_of(member.name) != "spare")


def _goes_on(member: Member, wanted: Mapping[str, Settings]) -> bool:
    """Whether one goes on at least until others have its partitions."""
    if kind_of(member.name) == "recorder":
        return member.name in wanted and not _differs(member, wanted)
    # One that has no process yet must not take the core of a new one.
    return member.name in wanted or (member.state != "silent" and kind_of(member.name) in map(kind_of, wanted))


def _settle(wanted: Mapping[str, Settings], watched: Sequence[str] = ()) -> None:
    """Start what is missing until all that is wanted runs; ends others once all their partitions are taken."""
    started: set[str] = set()
    left, until = set(wanted), time.monotonic() + START_S
    while left:
        now = {member.name: member for member in members()}
        for number, (name, settings) in enumerate(wanted.items()):
            # One that was fenced holds nothing any more and must begin anew to own its range.
            if name in now and (now[name].state == "ended" or _differs(now[name], wanted)):
                _end(name)
                del now[name]
                started.discard(name)
            if name not in now and name not in started:
                # Of spares, those before it go first.
                _start(name, settings, watched, list(wanted)[:number] if watched else [])
                started.add(name)
        running = {name for name, member in now.items() if name in wanted and member.state == "running"}
        taken = {(kind_of(name), partition) for name in running for partition in owned(name)}
        for name in now.keys() - wanted.keys():
            mine = {(kind_of(name), partition) for partition in owned(name)}
            # Its core may be what a new one waits for.
            if mine and taken >= mine:
                _end(name)
        if len(wanted) - len(running) < len(left):
            until = time.monotonic() + START_S
        left = wanted.keys() - running
        if left and time.monotonic() > until:
            states = [f"{name} ({now[name].state})" if name in now else name for name in sorted(left)]
            raise FleetError(
                f"{', '.join(states)} did not start in {START_S:.0f} s; has the cluster cores to spare, and each node "
                "the folder of the recordings?"
            )
        if left:
            time.sleep(POLL_S)


def _differs(member: Member, wanted: Mapping[str, Settings]) -> bool:
    """Whether one was told something else than is wanted; nobody knows of one that is silent."""
    return bool(member.settings) and member.settings != wanted[member.name]


def _start(name: str, settings: Settings, names: Sequence[str], spares: Sequence[str]) -> None:
    actor: Any = ray.remote(Hosted)
    placed = actor.options(
        name=name, namespace=NAMESPACE, lifetime="detached", max_restarts=-1,
        num_cpus=0.0 if kind_of(name) == "spare" else settings["cpus"], scheduling_strategy="SPREAD",
    )  # fmt: skip
    placed.remote(name, settings, names, spares)


def _end(name: str) -> None:
    # One that is gone or silent is fenced by the bus, or by its locks.
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
