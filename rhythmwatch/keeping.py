"""The historian process: events from the bus into the history database, until told to stop."""

from __future__ import annotations

import asyncio

import structlog

from alerts.history import Counters, keep_history
from alerts.store import Store
from bus.messages import DEFAULT_PARTITIONS
from bus.streams import Bus

log = structlog.get_logger()


async def keep(bus_url: str, history: str, stop: asyncio.Event) -> None:
    """Keep the history until `stop` is set.

    Parameters
    ----------
    bus_url, history : str
        Addresses of the bus and the history database.
    stop : asyncio.Event
        Set to end it.
    """
    counters = Counters()
    with Store(history) as store:
        async with Bus(bus_url) as bus:
            await keep_history(
                bus, store, range(DEFAULT_PARTITIONS), stop, counters, report=lambda line: log.warning(line)
            )
    log.info("historian ended", alarms=counters.alarms, beats=counters.beats)
