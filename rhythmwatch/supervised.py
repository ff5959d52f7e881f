"""A process under the supervisor: its heartbeat is heard; one that stands by forks others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Final, Self

import structlog

from rhythmwatch.process import HEARTBEAT_FD
from rhythmwatch.spare import ALONE, NONE, ORDERS_FD, order

log = structlog.get_logger()

FORK_S: Final = 8.0
"""Longest that a process which stands by may take to fork another; on a full machine a fresh one takes longer."""


class Supervised:
    """A process of ours; `start` makes one, and a `Spare` forks one.

    Attributes
    ----------
    pid : int
        Its id.
    heard_at : float or None
        Loop time of its last heartbeat.
    """

    def __init__(self, pid: int, heartbeat: int, process: asyncio.subprocess.Process | None = None) -> None:
        self.pid = pid
        self.heard_at: float | None = None
        self._process = process
        self._heartbeat = heartbeat
        self._silent = asyncio.Event()
        asyncio.get_running_loop().add_reader(heartbeat, self._hear)

    @classmethod
    async def start(cls, arguments: tuple[str, ...], environment: Mapping[str, str]) -> Self:
        """Start ``python -m rhythmwatch`` with these arguments.

        Parameters
        ----------
        arguments : tuple of str
            Command and options.
        environment : mapping
            Added to our own.
        """
        ours, beat = _pipe()
        try:
            process = await _spawn(arguments, environment, {HEARTBEAT_FD: beat})
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(beat)
        return cls(process.pid, ours, process)

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return not self._silent.is_set() if self._process is None else self._process.returncode is None

    def send(self, signum: int) -> None:
        """Send a signal; one that has ended gets none."""
        if self.runs:
            with contextlib.suppress(ProcessLookupError):
                if self._process is not None:
                    self._process.send_signal(signum)
                else:
                    os.kill(self.pid, signum)

    async def wait(self) -> int | None:
        """Wait until it has ended; returns its exit code, None where it is not known."""
        if self._process is not None:
            return await self._process.wait()
        # No child of ours: its end of the pipe closes with it.
        await self._silent.wait()
        return None

    async def ended(self, name: str, stall_s: float) -> int | None:
        """As `wait`, and kill it where its heartbeat stops for `stall_s`."""
        loop = asyncio.get_running_loop()
        waiting = asyncio.ensure_future(self.wait())
        try:
            while not (await asyncio.wait({waiting}, timeout=stall_s / 4))[0]:
                silent = 0.0 if self.heard_at is None else loop.time() - self.heard_at
                if silent > stall_s:
                    log.warning("part stalled, killed", part=name, silent_s=round(silent, 1))
                    self.send(signal.SIGKILL)
            return waiting.result()
        finally:
            waiting.cancel()

    def close(self) -> None:
        """Close our ends of the pipes of a process that has ended."""
        asyncio.get_running_loop().remove_reader(self._heartbeat)
        os.close(self._heartbeat)

    def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(BlockingIOError):
            if os.read(self._heartbeat, 4096):
                self.heard_at = loop.time()
            else:
                loop.remove_reader(self._heartbeat)
                self._silent.set()


class Spare(Supervised):
    """A process that stands by (`rhythmwatch.spare`): it gives one heartbeat, when it is ready."""

    _channel: socket.socket
    _turn: asyncio.Lock

    @classmethod
    async def start(cls, arguments: tuple[str, ...], environment: Mapping[str, str]) -> Self:
        """Start it; as of any process."""
        ours, beat = _pipe()
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.setblocking(False)
        try:
            process = await _spawn(
                arguments, {**environment, **ALONE}, {HEARTBEAT_FD: beat, ORDERS_FD: theirs.fileno()}
            )
        except BaseException:
            os.close(ours)
            channel.close()
            raise
        finally:
            os.close(beat)
            theirs.close()
        spare = cls(process.pid, ours, process)
        spare._channel, spare._turn = channel, asyncio.Lock()
        return spare

    async def ended(self, name: str, stall_s: float) -> int | None:
        """Wait until it has ended; it owes no heartbeat."""
        return await self.wait()

    async def fork(self, arguments: tuple[str, ...], environment: Mapping[str, str]) -> Supervised | None:
        """Have it fork a process.

        Returns
        -------
        Supervised or None
            None where it has ended, or did not answer in `FORK_S` and was killed.
        """
        loop = asyncio.get_running_loop()
        ours, beat = _pipe()
        pid = NONE
        try:
            async with self._turn:
                order(self._channel, arguments, environment, beat)
                answer = asyncio.ensure_future(loop.sock_recv(self._channel, 32))
                if not (await asyncio.wait({answer}, timeout=FORK_S))[0]:
                    self.send(signal.SIGKILL)
                # One that was killed may have answered yet; else its end of the socket closes.
                pid = int(await answer or NONE)
        except OSError as error:
            log.warning("no process could be forked", why=str(error))
        finally:
            os.close(beat)
            if pid == NONE:
                os.close(ours)
        return Supervised(pid, ours) if pid != NONE else None

    def close(self) -> None:
        """Close our ends of what it was reached by."""
        super().close()
        self._channel.close()


def _pipe() -> tuple[int, int]:
    """Pipe of heartbeats: our end, which does not block, and the process's."""
    ours, beat = os.pipe()
    os.set_blocking(ours, False)
    return ours, beat


async def _spawn(
    arguments: tuple[str, ...], environment: Mapping[str, str], ends: Mapping[str, int]
) -> asyncio.subprocess.Process:
    """Start a process that is told by its environment which files of ours it inherits."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rhythmwatch", *arguments),
        env={**os.environ, **environment, **{name: str(end) for name, end in ends.items()}},
        pass_fds=tuple(ends.values()),
    )
