"""A process under the supervisor: its heartbeat is heard, and one that stands by can be given a part."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Self

import structlog

from rhythmwatch.process import HEARTBEAT_FD
from rhythmwatch.spare import ORDERS_FD, Orders, pack

log = structlog.get_logger()


class Supervised:
    """A process of ours; `start` makes one.

    Attributes
    ----------
    process : asyncio.subprocess.Process
        What runs.
    heard_at : float or None
        Loop time of its last heartbeat. One that stands by gives a single one, when it is ready.
    """

    def __init__(self, process: asyncio.subprocess.Process, heartbeat: int, orders: int | None) -> None:
        self.process = process
        self.heard_at: float | None = None
        self._heartbeat = heartbeat
        self._orders = orders
        self._given = asyncio.Event()
        asyncio.get_running_loop().add_reader(heartbeat, self._hear)

    @classmethod
    async def start(cls, arguments: tuple[str, ...], environment: Mapping[str, str], *, standby: bool = False) -> Self:
        """Start ``python -m rhythmwatch`` with these arguments.

        Parameters
        ----------
        arguments : tuple of str
            Command and options.
        environment : mapping
            Added to our own.
        standby : bool
            Whether it waits for a part on a pipe (`give`).
        """
        ours, beat = os.pipe()
        os.set_blocking(ours, False)
        told, orders = os.pipe() if standby else (None, None)
        theirs = [end for end in (beat, told) if end is not None]
        whole = {**os.environ, **environment, HEARTBEAT_FD: str(beat)}
        if told is not None:
            whole[ORDERS_FD] = str(told)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "rhythmwatch", *arguments, env=whole, pass_fds=theirs
            )
        except BaseException:
            for end in (ours, orders):
                if end is not None:
                    os.close(end)
            raise
        finally:
            for end in theirs:
                os.close(end)
        return cls(process, ours, orders)

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.returncode is None

    def send(self, signum: int) -> None:
        """Send a signal; one that has ended gets none."""
        if self.runs:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signum)

    def give(self, arguments: tuple[str, ...], environment: Mapping[str, str]) -> bool:
        """Tell a process that stands by whose place it takes; False where it has ended."""
        if self._orders is None or not self.runs:
            return False
        try:
            os.write(self._orders, pack(Orders(arguments, dict(environment))))
        except BrokenPipeError:
            return False
        finally:
            os.close(self._orders)
            self._orders = None
        if self.heard_at is not None:
            # One that was ready owes a heartbeat from now on; one that still starts may take its time.
            self.heard_at = asyncio.get_running_loop().time()
        self._given.set()
        return True

    async def given(self) -> bool:
        """Wait until it has been given a part, or has ended: False."""
        ended, given = asyncio.ensure_future(self.process.wait()), asyncio.ensure_future(self._given.wait())
        try:
            await asyncio.wait({ended, given}, return_when=asyncio.FIRST_COMPLETED)
            return self._given.is_set()
        finally:
            ended.cancel()
            given.cancel()

    async def ended(self, name: str, stall_s: float) -> int:
        """Wait until it has ended, and kill it where its heartbeat stops for `stall_s`; returns its exit code."""
        loop = asyncio.get_running_loop()
        waiting = asyncio.ensure_future(self.process.wait())
        while not (await asyncio.wait({waiting}, timeout=stall_s / 4))[0]:
            silent = 0.0 if self.heard_at is None else loop.time() - self.heard_at
            if silent > stall_s:
                log.warning("part stalled, killed", part=name, silent_s=round(silent, 1))
                with contextlib.suppress(ProcessLookupError):
                    self.process.kill()
        return waiting.result()

    def close(self) -> None:
        """Close our ends of the pipes of a process that has ended."""
        asyncio.get_running_loop().remove_reader(self._heartbeat)
        os.close(self._heartbeat)
        if self._orders is not None:
            os.close(self._orders)
            self._orders = None

    def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(BlockingIOError):
            if os.read(self._heartbeat, 4096):
                self.heard_at = loop.time()
            else:
                loop.remove_reader(self._heartbeat)
