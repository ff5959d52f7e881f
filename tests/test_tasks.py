"""Tasks end for certain, also when a library swallows a cancellation and when the one who ends them is cancelled."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from bus.tasks import end, run_all

DEADLINE_S = 60.0


async def deaf(times: int) -> None:
    """Run for ever and swallow some cancellations."""
    for _ in range(times):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    await asyncio.Event().wait()


async def test_a_task_that_swallows_cancellations_ends():
    """Two swallowed cancellations only take longer."""
    task = asyncio.create_task(deaf(2))
    await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        await end([task])
    assert task.cancelled()


async def test_whoever_is_cancelled_while_it_ends_tasks_ends_them_first():
    """A runner that is cancelled again and again leaves no task behind."""
    inner = asyncio.create_task(deaf(3))
    outer = asyncio.create_task(run_all([inner]))
    await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        await end([outer])
    assert inner.cancelled()
    assert outer.cancelled()


async def test_an_error_of_one_ends_all_and_is_raised():
    """The first failure is what the caller gets."""

    async def fail() -> None:
        raise OSError("gone")

    other = asyncio.create_task(deaf(0))
    with pytest.raises(OSError, match="gone"):
        await run_all([asyncio.create_task(fail()), other])
    assert other.cancelled()


async def test_a_scope_that_cancels_an_end_knows_its_own_cancellation():
    """Cancelled by a scope of anyio while it ends its tasks, it ends them and leaves the scope as any block does."""
    inner = asyncio.create_task(deaf(2))
    await asyncio.sleep(0)
    with anyio.CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        async with asyncio.timeout(DEADLINE_S):
            await end([inner])
    assert scope.cancelled_caught
    assert inner.cancelled()
