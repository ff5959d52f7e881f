"""The historian process: events from the bus into the history database, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence

import structlog

from alerts.history import READER, Counters, keep_history
from alerts.store import Store
from bus.streams import Bus
from rhythmwatch.metrics import Figure, exposing

log = structlog.get_logger()


def figures(counters: Counters) -> Iterator[Figure]:
    """Figures of the historian for Prometheus."""
    for name in Counters.__dataclass_fields__:
        value = getattr(counters, name)
        if isinstance(value, int):
            grows = name not in ("waiting", "behind_ms")
            yield Figure(name, value, f"{name.replace('_', ' ')} of the historian.", counts=grows)


async def keep(
    bus_url: str, history: str, partitions: Sequence[int], stop: asyncio.Event, *, metrics: str = ""
) -> None:
    """Keep the history until `stop` is set.

    Parameters
    ----------
    bus_url, history : str
        Addresses of the bus and the history database.
    partitions : sequence of int
        Whose events are kept.
    stop : asyncio.Event
        Set to end it.
    metrics : str
        ``host:port`` for Prometheus; empty for none.
    """
    counters = Counters()
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(history))
        async with Bus(bus_url) as bus:

            async def hold(at: Mapping[int, str]) -> int:
                return len(await bus.hold(READER, {partition: {"events": place} for partition, place in at.items()}))

            stack.enter_context(exposing(metrics, "historian", lambda: figures(counters)))
            await keep_history(bus, store, partitions, stop, counters, report=lambda line: log.warning(line), hold=hold)
    log.info("historian ended", alarms=counters.alarms, beats=counters.beats)
