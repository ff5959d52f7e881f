"""A spare of the fleet: an actor that has loaded all and stands in for one that is lost, until Ray has it back.

What Ray starts elsewhere imports and loads for seconds; a spare begins at once. It owns nothing for good: a worker that
comes back takes its partitions over from the spare as from any former owner, and the spare lets go of an ingest or a
notifier.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeAlias

import ray
from ray.exceptions import RayActorError

from bus.tasks import end, run_all
from rhythmwatch.fleet_plan import kind_of

DOUBT_S: Final = 0.3
"""One that answers within this time of a broken connection is not lost."""
POLL_S: Final = 0.2

StandIn: TypeAlias = Callable[[str, asyncio.Event], Coroutine[Any, Any, None]]
"""Does the work of one by its name, until the event is set or it is fenced."""


async def stand_by(
    namespace: str, names: Sequence[str], spares: Sequence[str], stand_in: StandIn, stop: asyncio.Event
) -> None:
    """Stand in for the lost until `stop` is set.

    Parameters
    ----------
    namespace : str
        Of the actors, which have ``over`` (a call that lasts as long as they do) and ``about``.
    names : sequence of str
        Whom to stand in for.
    spares : sequence of str
        Who goes first, as long as one of them is there.
    stand_in : callable
    stop : asyncio.Event
    """
    watch = _Watch(namespace, spares, stand_in)
    tasks = [asyncio.create_task(watch.over(name), name=name) for name in (*names, *spares)]
    await run_all([*tasks, asyncio.create_task(stop.wait(), name="stop")])


class _Watch:
    """What a spare knows of the others."""

    def __init__(self, namespace: str, spares: Sequence[str], stand_in: StandIn) -> None:
        self._namespace = namespace
        self._spares = spares
        self._stand_in = stand_in
        self._lost: set[str] = set()

    async def over(self, name: str) -> None:
        """Watch over one for ever."""
        actor = await asyncio.to_thread(ray.get_actor, name, self._namespace)
        while True:
            # Ray breaks this call off as soon as it knows that the process or its node is gone.
            with contextlib.suppress(RayActorError):
                await actor.over.remote()
            self._lost.add(name)
            back = asyncio.create_task(_back(actor))
            try:
                await asyncio.wait({back}, timeout=DOUBT_S)
                if not back.done() and name not in self._spares and self._lost.issuperset(self._spares):
                    await self._hold_place(name, actor, back)
                await back
            finally:
                await end([back])
            self._lost.discard(name)

    async def _hold_place(self, name: str, actor: Any, back: asyncio.Task[str]) -> None:
        stop = asyncio.Event()
        place = asyncio.create_task(self._stand_in(name, stop), name=f"place of {name}")
        try:
            await asyncio.wait({place, back}, return_when=asyncio.FIRST_COMPLETED)
            # The broker gives a session to whoever came last, and nothing fences a notifier: both must be let go of.
            if kind_of(name) != "worker":
                stop.set()
            while not place.done():
                await asyncio.wait({place}, timeout=POLL_S)
                if not place.done() and await _back(actor) == "ended":
                    # It took its place just before we did, and must have it back.
                    await asyncio.to_thread(ray.kill, actor, no_restart=False)
            place.result()
        finally:
            await end([place])


async def _back(actor: Any) -> str:
    """State of an actor once it is more than starting."""
    while True:
        with contextlib.suppress(RayActorError):
            state: str = (await actor.about.remote())[0]
            if state != "starting":
                return state
        await asyncio.sleep(POLL_S)
