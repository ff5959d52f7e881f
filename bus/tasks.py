"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

AGAIN_S: Final = 0.1


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until all of them are done; their errors are left with them.

    One `cancel` is not enough: the redis client can swallow it while it connects, and the task would go on for ever.
    For the same reason an `asyncio.TaskGroup`, which cancels its tasks once, does not serve around the bus. Whoever is
    cancelled in here ends its tasks first.
    """
    pending = {task for task in tasks if not task.done()}
    interrupted: asyncio.CancelledError | None = None
    while pending:
        for task in pending:
            task.cancel()
        try:
            _, pending = await asyncio.wait(pending, timeout=AGAIN_S)
        except asyncio.CancelledError as cancelled:
            # The one that came, not one like it: scopes of anyio know theirs by what it says.
            interrupted = cancelled
            pending = {task for task in pending if not task.done()}
    if interrupted is not None:
        raise interrupted


async def run_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until the first of some tasks that should run for ever ends, raise what ended it, and end the others."""
    running = list(tasks)
    try:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await end(running)
