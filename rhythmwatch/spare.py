"""A process that stands by: all that a worker needs is loaded and has run once, and a pipe says whose place it takes.

A worker that is started anew imports and loads for seconds; one that stood by begins at once. It knows no bus before it
is told, so it owns nothing and needs no fencing. It ends with its supervisor, whose end of the pipe closes then.
"""

from __future__ import annotations

import contextlib
import gc
import os
from typing import Final

import msgspec

from rhythmwatch.process import HEARTBEAT_FD

ORDERS_FD: Final = "RHYTHMWATCH_ORDERS_FD"
"""Set by the supervisor for a process that stands by: a pipe that says whose place it takes."""


class Orders(msgspec.Struct, frozen=True):
    """Whose place to take.

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


def pack(orders: Orders) -> bytes:
    """Orders as the line that goes through the pipe."""
    return msgspec.json.encode(orders) + b"\n"


def stand_by() -> Orders | None:
    """Load and run once what a worker needs, say so, and wait to be told.

    Returns
    -------
    Orders or None
        None where there is no supervisor, or it has ended.

    Raises
    ------
    ModelError
        If the shipped models can't be used.
    """
    told = int(os.environ.pop(ORDERS_FD, "-1"))
    if told < 0:
        return None
    import rhythmwatch.worker  # noqa: F401 (loaded ahead)
    from rhythmwatch.warm import compile_kernels

    compile_kernels()
    gc.collect()
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: F401
    with contextlib.suppress(OSError, KeyError):
        os.write(int(os.environ[HEARTBEAT_FD]), b".")
    with os.fdopen(told, "rb") as pipe:
        line = pipe.readline()
    return _decoder.decode(line) if line.endswith(b"\n") else None
