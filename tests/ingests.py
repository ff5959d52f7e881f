"""Running subscribers in tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from waiting import until

from bus.tasks import end
from ingest.subscriber import Subscriber


@contextlib.asynccontextmanager
async def running(subscriber: Subscriber, seconds: float = 120.0) -> AsyncIterator[Subscriber]:
    """Run a subscriber for the block, connected; what ends it before fails the test."""
    task = asyncio.create_task(subscriber.run())
    try:
        await until(lambda: subscriber.connected or task.done(), seconds)
        if task.done():
            task.result()
        yield subscriber
    finally:
        await end([task])
    if not task.cancelled():
        task.result()
