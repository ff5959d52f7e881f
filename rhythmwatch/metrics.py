"""Figures of a process for Prometheus, on an address of its own; no patient appears in them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

from prometheus_client import GC_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

PREFIX: Final = "rhythmwatch"


class Figure(NamedTuple):
    """One figure.

    Attributes
    ----------
    name : str
        Without the prefix and without ``_total``.
    value : float
        Now.
    text : str
        What it counts, for people.
    counts : bool
        Whether it only grows.
    label : (str, str), optional
        Name and value of one label.
    """

    name: str
    value: float
    text: str
    counts: bool = True
    label: tuple[str, str] | None = None


Source: TypeAlias = Callable[[], Iterable[Figure]]


class _Collector(Collector):
    """Asks the source at each scrape, so that the process itself spends nothing."""

    def __init__(self, process: str, source: Source) -> None:
        self._process, self._source = process, source

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Give the families."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for figure in self._source():
            family = families.get(figure.name)
            if family is None:
                kind = CounterMetricFamily if figure.counts else GaugeMetricFamily
                labels = [figure.label[0]] if figure.label else []
                name = f"{PREFIX}_{self._process}_{figure.name}"
                family = families[figure.name] = kind(name, figure.text, labels=labels)
            family.add_metric([figure.label[1]] if figure.label else [], figure.value)
        yield from families.values()


def by_reason(name: str, counts: Mapping[str, int], text: str) -> Iterator[Figure]:
    """Figures of a count that is kept by reason."""
    for reason, count in sorted(counts.items()):
        yield Figure(name, count, text, label=("reason", reason))


@contextlib.contextmanager
def exposing(address: str, process: str, source: Source) -> Iterator[int]:
    """Serve ``/metrics`` for as long as the block lasts.

    Parameters
    ----------
    address : str
        ``host:port``; port 0 picks one; empty serves nothing.
    process : str
        Part of every name.
    source : callable
        Gives the figures; called in another thread at each scrape.

    Yields
    ------
    int
        The port; 0 where nothing is served.

    Raises
    ------
    ValueError
        If the address is none.
    OSError
        If nothing can listen there.
    """
    if not address:
        yield 0
        return
    host, port = parse_address(address)
    registry = CollectorRegistry()
    registry.register(_Collector(process, source))
    registry.register(PROCESS_COLLECTOR)
    registry.register(GC_COLLECTOR)
    server, thread = start_http_server(port, host, registry)
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def parse_address(address: str) -> tuple[str, int]:
    """Split ``host:port``; `ValueError` if it is none."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"address {address!r}: write host:port, for instance 127.0.0.1:9464")
    return host.strip("[]"), int(port)
