"""The clock of the streams: a tick a second to every partition."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

from bus.clock import now_ms
from bus.errors import BusError
from bus.messages import Entry, Inbound, pack_inbound
from bus.streams import Bus

TICK_S: Final = 1.0

_log = structlog.get_logger(__name__)


async def tick_forever(
    bus: Bus, *, clock: Callable[[], int] = now_ms, period_s: float = TICK_S, counts: Counter[str] | None = None
) -> None:
    """Append a TICK to every partition each period, so that time goes on where no frame comes.

    One process need do so; several do no harm. A tick that can't be stored is left out and counted: the next one says
    all that it would have said.
    """
    counts = Counter() if counts is None else counts
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        tick = pack_inbound(Inbound(Entry.TICK, clock(), "", b""))
        try:
            await bus.append_in([(partition, tick) for partition in range(bus.partitions)])
            counts["ticks"] += 1
        except BusError as error:
            counts["drop_tick"] += 1
            _log.warning("tick_dropped", why=str(error))
        due = max(due + period_s, loop.time())
        await asyncio.sleep(due - loop.time())
