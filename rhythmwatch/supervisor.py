"""One supervisor over the processes of one machine: starts them, restarts what dies or stalls, stops all of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from rhythmwatch.process import HEARTBEAT_FD

log = structlog.get_logger()

FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 10.0
HEALTHY_AFTER_S: Final = 3.0
GRACE_S: Final = 8.0
STALL_S: Final = 15.0
"""Without a heartbeat for this long, after the first one, a process is killed and started again."""
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
    """

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    restart: bool = True
    later: bool = False


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
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._heard: dict[str, float] = {}
        self._until = 0.0
        self._ready: asyncio.Event | None = None

    def pid(self, name: str) -> int | None:
        """Process id of a part that runs now."""
        process = self._processes.get(name)
        return process.pid if process and process.returncode is None else None

    def heard(self, name: str) -> bool:
        """Whether the process of a part has given a heartbeat."""
        return name in self._heard

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
            before = [other.name for other in self.parts[: self.parts.index(part)]]
            while not stop.is_set() and loop.time() < self._until and not self._may_follow(before):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), POLL_S)
        while not stop.is_set():
            began = loop.time()
            code = await self._run_once(part, stop)
            if stop.is_set() or (not part.restart and code == 0):
                return
            if loop.time() - began > HEALTHY_AFTER_S:
                delay = FIRST_DELAY_S
            self.restarts[part.name] += 1
            log.warning("part ended, starting it again", part=part.name, exit_code=code, delay_s=delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), delay)
            delay = min(delay * 2, LONGEST_DELAY_S)

    def _may_follow(self, before: Sequence[str]) -> bool:
        return all(map(self.heard, before)) and (self._ready is None or self._ready.is_set())

    async def _run_once(self, part: Part, stop: asyncio.Event) -> int:
        """Run a part's process until it ends or stalls; returns its exit code."""
        loop = asyncio.get_running_loop()
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)

        def hear() -> None:
            with contextlib.suppress(BlockingIOError):
                if not os.read(ours, 4096):
                    loop.remove_reader(ours)
            self._heard[part.name] = loop.time()

        try:
            environment = {**os.environ, **part.environment, HEARTBEAT_FD: str(theirs)}
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "rhythmwatch", *part.arguments, env=environment, pass_fds=(theirs,)
            )
        finally:
            os.close(theirs)
        self._processes[part.name] = process
        if stop.is_set():
            # It came up while the others were being ended.
            process.terminate()
        loop.add_reader(ours, hear)
        try:
            waiting = asyncio.ensure_future(process.wait())
            while not (await asyncio.wait({waiting}, timeout=self._stall_s / 4))[0]:
                silent = loop.time() - self._heard.get(part.name, loop.time())
                if silent > self._stall_s:
                    log.warning("part stalled, killed", part=part.name, silent_s=round(silent, 1))
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
            return waiting.result()
        finally:
            loop.remove_reader(ours)
            os.close(ours)
            self._heard.pop(part.name, None)

    async def _end(self) -> None:
        for part in reversed(self.parts):
            process = self._processes.get(part.name)
            if process is None or process.returncode is not None:
                continue
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        waits = [process.wait() for process in self._processes.values() if process.returncode is None]
        if not waits:
            return
        try:
            await asyncio.wait_for(asyncio.gather(*waits), GRACE_S)
        except TimeoutError:
            for name, process in self._processes.items():
                if process.returncode is None:
                    log.warning("part did not end in time, killed", part=name)
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
