"""A process that stands by: all that a worker needs is loaded and has run once, and each order forks a worker off it.

A worker that is started anew imports and loads for seconds; one that is forked begins at once, however often one dies,
and shares the memory of what was loaded. What stands by knows no bus, so it owns nothing and needs no fencing. It has
one thread, so that a fork finds no lock held. It ends with its supervisor, whose end of the socket closes then.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from rhythmwatch.process import HEARTBEAT_FD

ORDERS_FD: Final = "RHYTHMWATCH_ORDERS_FD"
"""Set by the supervisor for a process that stands by: a socket that orders come through, and process ids go back."""
ALONE: Final = {"OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
"""What keeps libraries from starting threads as they are loaded."""
NONE: Final = 0
"""Process id that is answered where no process could be forked."""
_LONGEST: Final = 1 << 17


class Orders(msgspec.Struct, frozen=True):
    """What to fork.

    Attributes
    ----------
    arguments : tuple of str
        Command and options.
    environment : dict of str to str
        Added to the process's own.
    """

    arguments: tuple[str, ...]
    environment: dict[str, str]


_decoder = msgspec.json.Decoder(Orders)


def order(channel: socket.socket, arguments: tuple[str, ...], environment: Mapping[str, str], heartbeat: int) -> None:
    """Ask for a process that beats into the pipe `heartbeat`; its id, or `NONE`, is the next message on the socket.

    Raises
    ------
    OSError
        If nobody stands by at the other end.
    """
    socket.send_fds(channel, [msgspec.json.encode(Orders(arguments, dict(environment)))], [heartbeat])


def stand_by() -> Orders | None:
    """Load and run once what a worker needs, say so, and fork a process for each order.

    Returns
    -------
    Orders or None
        In a process that was forked, what it is to do; in the one that stands by None, once its supervisor has ended.

    Raises
    ------
    ModelError
        If the shipped models can't be used.
    """
    told = int(os.environ.pop(ORDERS_FD, "-1"))
    if told < 0:
        return None
    # What is loaded stays: to look through it again and again costs a tenth of the time.
    gc.disable()
    import rhythmwatch.worker  # noqa: F401 (loaded ahead)
    from rhythmwatch.warm import compile_kernels

    compile_kernels()
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: F401
    gc.collect()
    # A collection in a child would write to every page that it shares.
    gc.freeze()
    gc.enable()
    # Children that have ended leave nothing behind; the supervisor sees their pipes close.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    beat = int(os.environ.pop(HEARTBEAT_FD, "-1"))
    with contextlib.suppress(OSError):
        os.write(beat, b".")
    with socket.socket(fileno=told) as channel:
        while True:
            message, pipes, _, _ = socket.recv_fds(channel, _LONGEST, 1)
            if not message:
                return None
            orders = _decoder.decode(message)
            try:
                child = os.fork()
            except OSError:
                child = NONE
            else:
                if not child:
                    break
            os.close(pipes[0])
            with contextlib.suppress(OSError):
                channel.send(str(child).encode())
    _become(pipes[0], orders.arguments[0])
    return orders


def _become(beat: int, name: str) -> None:
    """Be a process of its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ[HEARTBEAT_FD] = str(beat)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")
    try:
        os.write(beat, b".")
    except BrokenPipeError:
        # Whoever asked for us has not waited.
        raise SystemExit(1) from None
