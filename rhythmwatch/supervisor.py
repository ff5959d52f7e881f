"""One supervisor over the processes of one machine: starts them, restarts what dies or stalls, stops all of them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from rhythmwatch.supervised import Spare, Supervised

log = structlog.get_logger()

FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 10.0
HEALTHY_AFTER_S: Final = 3.0
GRACE_S: Final = 8.0
STALL_S: Final = 15.0
"""Without a heartbeat for this long, after the first one, a process is killed and started again."""
SPARE_S: Final = 60.0
"""Longest that a part waits for a spare that still loads, as a fresh process would; kernels may have to be compiled."""
LATER_S: Final = 20.0
"""Parts that may start later wait no longer than this for those before them."""
POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Part:
    """A process to keep running: ``python -m rhythmwatch`` with these arguments.

    Attributes
    ----------
    name : str
        Shown in logs, unique.
    arguments : tuple of str
        Command and options; secrets go into `environment` instead.
    environment : mapping
        Added to the supervisor's own.
    restart : bool
        Whether it is started again when it ends (a source of a finite recording is not).
    later : bool
        Started only once all parts before it have given a heartbeat and the service is ready (at most `LATER_S` after
        the first), so that what people wait for has the machine to itself.
    spare : str
        Name of the part that stands by and forks this one's process (`rhythmwatch.spare`), in no time and however often
        it ends. While there is none, a fresh process is started. Several parts may share one.
    """

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    restart: bool = True
    later: bool = False
    spare: str = ""


class Supervisor:
    """Keeps parts running until told to stop.

    Parameters
    ----------
    parts : sequence of Part
        Started in this order, stopped in the reverse one.
    stall_s : float
        How long a process may go without a heartbeat.
    """

    def __init__(self, parts: Sequence[Part], *, stall_s: float = STALL_S) -> None:
        self._stall_s = stall_s
        self.parts = tuple(parts)
        self.restarts: dict[str, int] = {part.name: 0 for part in parts}
        self._children: dict[str, Supervised] = {}
        self._standing_by = {part.spare for part in parts if part.spare}
        self._until = 0.0
        self._ready: asyncio.Event | None = None

    def pid(self, name: str) -> int | None:
        """Process id of a part that runs now."""
        child = self._children.get(name)
        return child.pid if child is not None and child.runs else None

    def heard(self, name: str) -> bool:
        """Whether the process of a part has given a heartbeat; of one that stands by, whether it is ready."""
        child = self._children.get(name)
        return child is not None and child.runs and child.heard_at is not None

    async def run(self, stop: asyncio.Event, ready: asyncio.Event | None = None) -> None:
        """Run until `stop` is set or all finite parts have ended; end the rest: SIGTERM, a grace period, SIGKILL.

        Later parts wait for `ready` too, where there is one.
        """
        self._ready = ready
        self._until = asyncio.get_running_loop().time() + LATER_S
        keepers = [asyncio.create_task(self._keep(part, stop), name=f"keep-{part.name}") for part in self.parts]
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            # A keeper only returns early for a finite part or by a fault of its own, which must not pass unseen.
            pending = {*keepers, stopped}
            while not stopped.done() and len(pending) > 1:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stopped}:
                    task.result()
        finally:
            stop.set()
            await self._end()
            await asyncio.gather(*keepers, return_exceptions=True)

    async def _keep(self, part: Part, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        delay = FIRST_DELAY_S
        if part.later:
            while not stop.is_set() and not self._may_start(part):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), POLL_S)
        while not stop.is_set():
            began = loop.time()
            code = await self._run_once(part, stop)
            if stop.is_set() or (not part.restart and code == 0):
                return
            healthy = loop.time() - began > HEALTHY_AFTER_S
            if healthy:
                delay = FIRST_DELAY_S
            self.restarts[part.name] += 1
            log.warning("part ended, starting it again", part=part.name, exit_code=code, delay_s=delay)
            if healthy and self.heard(part.spare):
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), delay)
            delay = min(delay * 2, LONGEST_DELAY_S)

    def _may_start(self, part: Part) -> bool:
        before = (other.name for other in self.parts[: self.parts.index(part)])
        in_turn = all(map(self.heard, before)) and (self._ready is None or self._ready.is_set())
        return in_turn or asyncio.get_running_loop().time() >= self._until

    async def _began(self, part: Part, stop: asyncio.Event) -> Supervised:
        """Process of a part: forked by the one that stands by, else a fresh one."""
        if part.name in self._standing_by:
            return await Spare.start(part.arguments, part.environment)
        spare = await self._spare(part, stop)
        child = await spare.fork(part.arguments, part.environment) if spare is not None else None
        return child or await Supervised.start(part.arguments, part.environment)

    async def _spare(self, part: Part, stop: asyncio.Event) -> Spare | None:
        """Process that forks a part's, once it is ready; None where it ends first, or lets itself be waited for."""
        loop = asyncio.get_running_loop()
        until, ended = loop.time() + SPARE_S, self.restarts.get(part.spare)
        while part.spare and not stop.is_set() and loop.time() < until and self.restarts[part.spare] == ended:
            spare = self._children.get(part.spare)
            if isinstance(spare, Spare) and not spare.runs:
                break
            if isinstance(spare, Spare) and spare.heard_at is not None:
                return spare
            await asyncio.sleep(POLL_S)
        return None

    async def _run_once(self, part: Part, stop: asyncio.Event) -> int | None:
        """Run a part's process until it ends or stalls; returns its exit code where it is known."""
        child = self._children[part.name] = await self._began(part, stop)
        if stop.is_set():
            # It came up while the others were being ended.
            child.send(signal.SIGTERM)
        try:
            return await child.ended(part.name, self._stall_s)
        finally:
            child.close()

    async def _end(self) -> None:
        for part in reversed(self.parts):
            if part.name in self._children:
                self._children[part.name].send(signal.SIGTERM)
        waits = [child.wait() for child in self._children.values() if child.runs]
        if not waits:
            return
        try:
            await asyncio.wait_for(asyncio.gather(*waits), GRACE_S)
        except TimeoutError:
            for name, child in self._children.items():
                if child.runs:
                    log.warning("part did not end in time, killed", part=name)
                    child.send(signal.SIGKILL)
                    await child.wait()
