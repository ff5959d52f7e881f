"""Figures for Prometheus: each process gives them on its own address, and no patient appears in them."""

import asyncio
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from alerts.history import Counters
from bus.clock import now_ms
from bus.messages import Entry, Inbound, pack_inbound
from bus.pressure import Pressure
from bus.server import embedded
from bus.streams import Bus
from rhythmwatch.ingesting import figures as ingest_figures
from rhythmwatch.keeping import figures as historian_figures
from rhythmwatch.metrics import Figure, by_reason, exposing, parse_address
from rhythmwatch.models import load_models
from rhythmwatch.worker import Worker, figures

DEADLINE_S = 60.0


def scrape(port: int) -> dict[tuple[str, str], float]:
    """Read all samples as Prometheus does."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S) as answer:
        text = answer.read().decode()
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_figures_come_fresh_with_each_scrape():
    """Counters end in _total, reasons become labels, gauges may fall, and the address is free again afterwards."""
    counts = {"refused": 1}

    def source() -> Iterator[Figure]:
        yield from by_reason("refused", counts, "refused things")
        yield Figure("level", counts.get("level", 7), "a level", counts=False)

    with exposing("127.0.0.1:0", "test", source) as port:
        assert scrape(port)["rhythmwatch_test_refused_total", "refused"] == 1
        counts |= {"refused": 3, "size": 2, "level": 5}
        got = scrape(port)
        assert got["rhythmwatch_test_refused_total", "refused"] == 3
        assert got["rhythmwatch_test_refused_total", "size"] == 2
        assert got["rhythmwatch_test_level", ""] == 5
        assert got["process_resident_memory_bytes", ""] > 1e6
    with pytest.raises(OSError, match="refused"):
        scrape(port)
    with exposing("", "test", source) as port:
        assert port == 0


@pytest.mark.parametrize("wrong", ["9464", "localhost:", ":9464", "localhost:http", "localhost:70000"])
def test_a_wrong_address_is_named(wrong: str):
    """It says how one is written."""
    with pytest.raises(ValueError, match="host:port"):
        parse_address(wrong)


async def test_each_process_has_figures(tmp_path: Path):
    """Worker, ingest and historian give what they counted; the lag is that of the last batch."""
    async with embedded(tmp_path / "bus") as url, Bus(url) as bus:
        worker = Worker(bus, load_models(), range(2))
        await worker.take_over()
        tick = pack_inbound(Inbound(Entry.TICK, now_ms() - 1000, "", b""))
        await bus.append_in([(0, b"no entry"), (0, tick)])
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop))
        async with asyncio.timeout(DEADLINE_S):
            while not worker.counters.refused or worker.lag_s == 0.0:
                await asyncio.sleep(0.01)
        found = {(figure.name, figure.label): figure.value for figure in figures(worker)}
        stop.set()
        await running
    assert found["refused", ("reason", "entry")] == 1
    assert found["partitions", None] == 2
    assert 1 <= found["lag_seconds", None] < DEADLINE_S
    found = [tuple(f)[:2] for f in ingest_figures({"stored": 4}, Pressure())]
    assert found == [("messages", 4), ("bus_memory_share", 0.0), ("stored_waiting", 0), ("stored_rate", 0.0)]
    assert {f.name: f.value for f in historian_figures(Counters(alarms=3))}["alarms"] == 3
