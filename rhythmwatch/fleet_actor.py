"""A process of ours inside an actor of Ray."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import structlog

from bus.errors import ServerError
from rhythmwatch.fleet_plan import Plan, Settings, kind_of, owned

if TYPE_CHECKING:
    from rhythmwatch.models import Models

log = structlog.get_logger()

NAMESPACE: Final = "rhythmwatch"
TRY_S: Final = 1.0
"""A recorder looks this often whether the former one of its range has ended."""

Report: TypeAlias = Callable[[str], None]
"""Takes the state of a process: ``running``, or ``waiting``."""
Main: TypeAlias = Callable[[str, Plan, asyncio.Event, Report], Coroutine[Any, Any, None]]
"""Does the work of a process by its name until the event is set, or another one has taken its partitions."""


class Hosted:
    """A process of ours: it begins with its actor, also when Ray starts that again elsewhere.

    Parameters
    ----------
    name : str
        See `Plan.parts`.
    settings : dict
        What it is told.
    names, spares : sequence of str
        Of a spare: whom to stand in for, and who goes first.
    """

    def __init__(self, name: str, settings: Settings, names: Sequence[str] = (), spares: Sequence[str] = ()) -> None:
        self._name, self._settings, self._names, self._spares = name, settings, names, spares
        self._state = "starting"
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
            self._state = "ended"
        except BaseException:
            # An actor whose work failed is of no use; one whose process is gone is started again.
            traceback.print_exc()
            os._exit(1)

    async def _main(self) -> None:
        from rhythmwatch.process import configure_logs

        configure_logs(self._name)
        plan = Plan(**self._settings)
        if kind_of(self._name) == "spare":
            await self._stand_by(plan)
        else:
            await _MAINS[kind_of(self._name)](self._name, plan, self._stop, self._report)

    async def _stand_by(self, plan: Plan) -> None:
        import rhythmwatch.ingesting
        import rhythmwatch.notifying
        import rhythmwatch.worker  # noqa: F401 (all three loaded ahead)
        from rhythmwatch.fleet_spare import stand_by
        from rhythmwatch.warm import compile_kernels

        await asyncio.to_thread(compile_kernels)
        _models()

        async def stand_in(lost: str, stop: asyncio.Event) -> None:
            await _MAINS[kind_of(lost)](lost, plan, stop, lambda state: None)

        self._report("running")
        await stand_by(NAMESPACE, self._names, self._spares, stand_in, self._stop)

    def _report(self, state: str) -> None:
        self._state = state

    async def about(self) -> tuple[str, str, int, Settings]:
        """State, host, process id, and what it was told."""
        return self._state, socket.gethostname(), os.getpid(), self._settings

    async def over(self) -> None:
        """Last as long as the process: who calls it learns at once that it is lost."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """End in good order."""
        self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join)


async def _work(name: str, plan: Plan, stop: asyncio.Event, report: Report) -> None:
    from rhythmwatch.worker import work

    models = _models()
    report("running")
    await work(plan.bus, owned(name), models, stop)


async def _receive(name: str, plan: Plan, stop: asyncio.Event, report: Report) -> None:
    from rhythmwatch.ingesting import receive

    report("running")
    await receive(
        plan.broker,
        plan.bus,
        share=True,
        stop=stop,
        authority=_path(plan.authority),
        name=name,
        replicas=plan.replicas,
    )


async def _keep(name: str, plan: Plan, stop: asyncio.Event, report: Report) -> None:
    from rhythmwatch.keeping import keep

    _stay_behind()
    report("running")
    await keep(plan.bus, plan.history, owned(name), stop)


async def _notify(name: str, plan: Plan, stop: asyncio.Event, report: Report) -> None:
    from rhythmwatch.notifying import notify

    report("running")
    await notify(
        plan.bus,
        plan.history,
        owned(name),
        stop,
        broker=plan.broker,
        authority=_path(plan.authority),
        mail=plan.mail,
        sender=plan.mail_from,
    )


async def _record(name: str, plan: Plan, stop: asyncio.Event, report: Report) -> None:
    from rhythmwatch.recorder import record

    _stay_behind()
    folder = Path(plan.recordings)
    report("waiting")
    if await until_free(folder, owned(name), stop):
        report("running")
        await record(plan.bus, plan.history, folder, owned(name), stop, consented=plan.consented)


async def until_free(folder: Path, partitions: Sequence[int], stop: asyncio.Event) -> bool:
    """Wait until no recorder has any of the partitions; one that is cut off from Ray may go on for long.

    Parameters
    ----------
    folder : Path
        Of the recordings. It is not made here: where it is missing, what all nodes share is not mounted.
    partitions : sequence of int
    stop : asyncio.Event

    Returns
    -------
    bool
        False if told to stop before.
    """
    from rhythmwatch.recorder import hold_partitions

    said = ""
    while not stop.is_set():
        try:
            with hold_partitions(folder, partitions):
                return True
        except (ServerError, OSError) as error:
            if said != (said := str(error)):
                log.warning("recorder waits", why=said)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), TRY_S)
    return False


async def _examine(name: str, plan: Plan, stop: asyncio.Event, report: Report) -> None:
    from rhythmwatch.evidencing import examine

    models = _models()
    report("running")
    await examine(plan.bus, plan.history, Path(plan.recordings), owned(name), models, stop)


_MAINS: Final[Mapping[str, Main]] = {
    "worker": _work,
    "ingest": _receive,
    "historian": _keep,
    "notifier": _notify,
    "recorder": _record,
    "evidence": _examine,
}


@cache
def _models() -> Models:
    from rhythmwatch.models import load_models
    from rhythmwatch.warm import ensure_kernels

    ensure_kernels()
    return load_models()


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _stay_behind() -> None:
    from rhythmwatch.process import NICE_BEHIND

    with contextlib.suppress(OSError):
        os.nice(NICE_BEHIND)
