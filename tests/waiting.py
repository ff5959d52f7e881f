"""Waiting in tests: for a condition, with a deadline, and never for a time alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], Any], seconds: float) -> None:
    """Let the loop run until something is so; `TimeoutError` after so many seconds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
