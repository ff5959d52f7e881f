"""A server as a child process that never outlives us."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bus.errors import ServerError
from bus.tasks import end

log = logging.getLogger("bus")

_PR_SET_PDEATHSIG: Final = 1
STOP_S: Final = 5.0
FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 5.0
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Between fork and exec: ask the kernel to end this process when its parent ends, however that happens."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def spawn(
    command: Sequence[str], *, folder: Path, output: Path, environment: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    """Start a server in a session of its own (Ctrl-C reaches us alone) that dies with us.

    Parameters
    ----------
    command : sequence of str
        Program and arguments.
    folder : Path
        Its working directory.
    output : Path
        File that what it prints is appended to.
    environment : mapping of str to str, optional
        Variables that it gets beside our own.

    Raises
    ------
    ServerError
        If it can't be started.
    """
    try:
        with output.open("ab") as sink:
            return await asyncio.create_subprocess_exec(
                *command,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
    except OSError as error:
        raise ServerError(f"can't start {command[0]}: {error.strerror}") from error


class Child:
    """A server that is started again when it dies.

    Attributes
    ----------
    restarts : int
        How often it was.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.restarts = 0
        self._process = process

    @property
    def pid(self) -> int:
        """Process id of the server that runs now, or ran last."""
        return self._process.pid

    async def _watch(self, start: Callable[[], Awaitable[asyncio.subprocess.Process]]) -> None:
        while True:
            code = await self._process.wait()
            log.warning("a server ended with status %d, starting it again", code)
            delay = FIRST_DELAY_S
            while True:
                try:
                    self._process = await start()
                    break
                except ServerError as error:
                    log.error("a server can't be started again, trying on: %s", error)
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, LONGEST_DELAY_S)
            self.restarts += 1


@contextlib.asynccontextmanager
async def kept(start: Callable[[], Awaitable[asyncio.subprocess.Process]]) -> AsyncIterator[Child]:
    """Keep a server running for as long as the block lasts.

    Parameters
    ----------
    start : callable
        Starts it and returns once it answers; `ServerError` of the first start is passed on, of later ones logged.

    Yields
    ------
    Child
        The server.
    """
    child = Child(await start())
    watcher = asyncio.create_task(child._watch(start), name="server")
    try:
        yield child
    finally:
        await end([watcher])
        await stop(child._process)


async def stop(process: asyncio.subprocess.Process) -> None:
    """End a child: asked first, killed after `STOP_S`; returns when it is gone."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def tail(path: Path, lines: int = 5) -> str:
    """Last lines of what a child printed, for the error message."""
    with contextlib.suppress(OSError):
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    return ""


def make_folder(path: Path) -> Path:
    """Make a directory that only we can enter, if it is absent; returns its absolute path."""
    path = path.resolve()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ServerError(f"can't make the data directory {path}: {error.strerror}") from error
    return path


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the directory of a lock file for the block; the lock falls with the process."""
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ServerError(
                f"the data directory {path.parent} is in use by another process; stop it or choose another directory"
            ) from None
        yield


def free_port(host: str = "127.0.0.1") -> int:
    """Find a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
