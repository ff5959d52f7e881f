"""Nobody crosses a border; ``pytest tests/test_borders.py -s`` prints what was tried."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from borders import (
    DEVICES,
    SECRET,
    Attempt,
    all_of,
    comes_in,
    device_attempts,
    payload_attempts,
    role_attempts,
    table,
    token_attempts,
    topic_attempts,
)
from test_devices import DeviceSite
from test_roles import guarded

from ingest.broker import embedded_broker


@pytest.fixture
def site(tmp_path: Path) -> Iterator[DeviceSite]:
    """Run the application."""
    made = DeviceSite(tmp_path)
    with made.client:
        yield made
    made.store.close()
    made.engine.dispose()


def tell(title: str, rows: list[Attempt]) -> None:
    """Print the table, and name what got through."""
    sys.stdout.write(f"\n{title}\n{table(rows)}\n")
    assert [row.what for row in rows if not row.refused] == []


@pytest.mark.parametrize(
    ("engine", "plugin"),
    [
        pytest.param("mosquitto", True, marks=pytest.mark.services),
        pytest.param("mosquitto", False, marks=pytest.mark.services),
        pytest.param("amqtt", False),
    ],
)
async def test_devices_stay_within_their_borders(tmp_path: Path, engine: str, plugin: bool):
    """No log-in as another, no topic of another, no reading of others, on each broker that we run."""
    async with embedded_broker(tmp_path, engine=engine, plugin=plugin, devices=DEVICES) as broker:
        assert await comes_in(broker, "bed-1", SECRET)
        rows = await all_of(broker, device_attempts, topic_attempts)
        assert await comes_in(broker, "bed-1", SECRET)
    rows += payload_attempts()
    assert len(rows) >= 60
    tell(f"{engine}, plug-in {plugin}", rows)


def test_people_and_programs_stay_within_their_roles(site: DeviceSite):
    """No route answers a role below its own, nor a token that is none or says too little."""
    routes = guarded(site)
    rows = [*role_attempts(site, routes), *token_attempts(site, [route for route in routes if route[2].acting])]
    assert len(rows) >= 60
    tell("pages and interface", rows)
