"""The ingest process: the subscriber and the ticker, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog

from bus.clock import clock_not_before, keeping_time, share_clock
from bus.errors import BusError
from bus.messages import unpack_inbound
from bus.pressure import Pressure
from bus.streams import START, Bus, milliseconds
from bus.tasks import run_all
from ingest.limits import DeviceLimits
from ingest.subscriber import Subscriber, SubscriberOptions
from ingest.ticker import tick_forever
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.metrics import Figure, exposing

log = structlog.get_logger()


def figures(
    counts: Mapping[str, int], pressure: Pressure, stored_waiting: int = 0, stored_rate: float = 0.0
) -> Iterator[Figure]:
    """Figures of an ingest for Prometheus."""
    for name, value in sorted(counts.items()):
        yield Figure("messages", value, "Messages and what became of them.", label=("outcome", name))
    yield Figure("bus_memory_share", pressure.share, "Memory that the bus uses of its limit.", counts=False)
    yield Figure("stored_waiting", stored_waiting, "Stored frames that are not let through yet.", counts=False)
    yield Figure("stored_rate", stored_rate, "Stored signal that may go, s a second.", counts=False)


async def newest_ms(bus: Bus) -> int:
    """Server time of the newest entry of a partition, which all have a tick each second; 0 where none is found."""
    with contextlib.suppress(BusError):
        last = (await bus.last([0], "in"))[0]
        if last != START:
            before = f"{milliseconds(last) - 1}-0"
            return max(unpack_inbound(item.data).server_ms for item in await bus.read_range(0, before, last))
    return 0


async def receive(
    broker: str,
    bus_url: str,
    *,
    share: bool,
    stop: asyncio.Event,
    metrics: str = "",
    authority: Path | None = None,
    limit: float = DeviceLimits().messages,
    name: str = "",
    replicas: int = 0,
) -> None:
    """Receive frames until `stop` is set.

    Parameters
    ----------
    broker : str
        ``mqtt://`` address with account.
    bus_url : str
        Address of the bus.
    share : bool
        Share the load with other ingest processes.
    stop : asyncio.Event
        Set to end it.
    metrics : str
        ``host:port`` for Prometheus; empty for none.
    authority : Path, optional
        Certificate of the authority that signed the broker's, for ``mqtts://``; else those of the system.
    limit : float
        Messages a second that one device may send (100 times as many at once); 0 for no limit.
    name : str
        Of this process among those that share the load, the same after a restart; else the host's.
    replicas : int
        Of the bus server: that many have what a device sent before it is acknowledged.
    """
    address = BrokerAddress.parse(broker)
    # The broker keeps our session by this name, with what it has not delivered yet: a successor must have the same one,
    # and processes that share the load one each.
    client_id = f"rw-ingest-{name or socket.gethostname()}" if share else "rw-ingest"
    options = SubscriberOptions(
        host=address.host,
        port=address.port,
        username=address.username,
        password=address.password,
        client_id=client_id,
        shared=share,
        tls=address.tls,
        ca_file=str(authority) if authority else None,
    )
    async with Bus(bus_url, replicas=replicas) as bus, keeping_time(bus):
        clock_not_before(await newest_ms(bus))
        pressure = Pressure()
        subscriber = Subscriber(options, bus, limits=DeviceLimits.of(limit), pressure=pressure)
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(subscriber.run(), name="subscriber"),
            asyncio.create_task(pressure.watch(bus), name="pressure"),
            asyncio.create_task(share_clock(bus), name="clock"),
            asyncio.create_task(tick_forever(bus, counts=subscriber.counts), name="ticker"),
        ]
        tasks.append(asyncio.create_task(stop.wait(), name="stop"))
        try:
            backlog = subscriber.backlog
            with exposing(
                metrics,
                "ingest",
                lambda: figures(dict(subscriber.counts), pressure, backlog.waiting, backlog.rate),
            ):
                await run_all(tasks)
        finally:
            log.info("ingest ended", counts=dict(subscriber.counts))
