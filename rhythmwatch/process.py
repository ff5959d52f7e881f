"""What every process of ours does first: logs, signals, an event loop, and an end with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

_PR_SET_PDEATHSIG: Final = 1
HEARTBEAT_FD: Final = "RHYTHMWATCH_HEARTBEAT_FD"
"""Set by the supervisor for its children: a pipe that a process writes to as long as its loop turns."""
HEARTBEAT_S: Final = 1.0
NICE_BEHIND: Final = 5
GARBAGE: Final = 25_000
"""Containers made and not freed after which the collector looks for cycles."""
TIDY_S: Final = 60.0
"""Longest that young cycles wait: a process with little to do would gather them for hours. And longest that memory is
kept which a moment with much to do took: the allocator holds what is free between blocks in use, unless it is asked."""
TIDY_BEHIND_S: Final = 10.0
"""The same where nobody waits for what takes some tens of milliseconds."""
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_KEPT_FREE: Final = 1 << 20
"""Bytes that are given back at once when they are free at the end of the heap, or in one block."""


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends (Linux; elsewhere the supervisor's own stop must do)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def configure_logs(process: str, *, json_lines: bool | None = None, level: str = "info") -> None:
    """Set up structured logs on standard error; a person at a terminal gets them coloured, a machine as JSON lines.

    Parameters
    ----------
    process : str
        Name of the process, added to each line.
    json_lines : bool, optional
        None chooses by whether standard error is a terminal.
    level : str
        Lowest level that is written.
    """
    if json_lines is None:
        json_lines = not sys.stderr.isatty()
    renderer: Any = structlog.processors.JSONRenderer() if json_lines else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(process=process)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


def _keep_little() -> None:
    """Hold the allocator's limits where they are, and all threads to one heap.

    What glibc keeps free follows the largest block that was ever given back, up to 64 MB a heap (mallopt(3), on
    ``M_MMAP_THRESHOLD``), and each thread may have a heap: a process would be as large as its largest answer asks.
    """
    set_limit = _of_glibc("mallopt")
    if set_limit is not None:
        set_limit(_M_MMAP_THRESHOLD, _KEPT_FREE)
        set_limit(_M_TRIM_THRESHOLD, _KEPT_FREE)
        set_limit(_M_ARENA_MAX, 1)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """Give a function of glibc's allocator; other allocators give back by themselves."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


async def _tidy(every_s: float) -> None:
    trim = _of_glibc("malloc_trim")
    while True:
        await asyncio.sleep(every_s)
        gc.collect(1)
        if trim is not None:
            trim(0)


async def _beat() -> None:
    pipe = os.environ.get(HEARTBEAT_FD)
    while pipe:
        try:
            os.write(int(pipe), b".")
        except BrokenPipeError:
            # The supervisor is gone. Of that the kernel tells its own children alone, not those that a spare forked.
            signal.raise_signal(signal.SIGTERM)
            return
        except OSError:
            return
        await asyncio.sleep(HEARTBEAT_S)


def run_until_stopped(
    name: str, main: Callable[[asyncio.Event], Coroutine[Any, Any, None]], *, behind: bool = False
) -> None:
    """Run a process's main coroutine on uvloop until it returns or a signal asks it to stop.

    Parameters
    ----------
    name : str
        Name of the process in the logs.
    main : callable
        Gets an event that is set by SIGINT or SIGTERM; it must return soon after that.
    behind : bool
        Nobody waits for what it does as for an alarm, so that where cores are short others go first, and it takes the
        time to give back memory more often.
    """
    if behind:
        with contextlib.suppress(OSError):
            os.nice(NICE_BEHIND)
        _keep_little()
    configure_logs(name, level=os.environ.get("RHYTHMWATCH_LOG_LEVEL", "info"))

    # What the imports made lives as long as the process: no collection need look at it. Nearly all garbage is freed
    # by its reference count; to look for cycles as often as Python does by default costs a tenth of the hot path.
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 20)

    async def body() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, stop.set)
        beside = [
            asyncio.create_task(_beat(), name="heartbeat"),
            asyncio.create_task(_tidy(TIDY_BEHIND_S if behind else TIDY_S), name="tidy"),
        ]
        try:
            await main(stop)
        finally:
            for part in beside:
                part.cancel()

    runner: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    with contextlib.suppress(ImportError):
        import uvloop

        runner = uvloop.run
    runner(body())
