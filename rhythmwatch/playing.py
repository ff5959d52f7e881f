"""Devices that are played: recordings and simulated patients, over one connection to the broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from bus.tasks import end
from ingest.device import Connection, DeviceMeta, FleetClient
from ingest.recordings import RecordingError, data_folder, find_record, read_record
from ingest.replay import RecordingSource, Source, play
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.certificates import client_context

log = structlog.get_logger()


def device_names(records: Sequence[Path]) -> list[str]:
    """Name the devices that records play as, each once."""
    names: list[str] = []
    seen: dict[str, int] = {}
    for path in records:
        device = "-".join(part for part in (path.resolve().parent.name, path.name) if part)
        seen[device] = seen.get(device, 0) + 1
        names.append(device if seen[device] == 1 else f"{device}-{seen[device]}")
    return names


def recording_sources(
    records: Sequence[str],
    data: Path | None,
    leads: Sequence[str] | None = None,
    *,
    loop: bool = False,
    start_s: float = 0.0,
) -> list[RecordingSource]:
    """Open records as devices ``mitdb-200`` (folder and name), or ``200`` where the folder is unknown.

    Raises
    ------
    RecordingError
        If a record can't be read, or `start_s` lies behind its end.
    """
    folder = data_folder(data)
    sources: list[RecordingSource] = []
    paths = [find_record(name, folder) for name in records]
    for name, path, device in zip(records, paths, device_names(paths), strict=True):
        recording = read_record(path, leads or None)
        if start_s >= recording.seconds:
            raise RecordingError(
                f"record {name} lasts {recording.seconds:.0f} s: --start {start_s:g} lies behind its end"
            )
        start = round(start_s * recording.rate)
        sources.append(RecordingSource(device, recording, start=start, loop=loop))
    return sources


def connection_to(broker: str, authority: Path | None = None, own: tuple[Path, Path] | None = None) -> Connection:
    """How a device reaches a broker.

    Parameters
    ----------
    broker : str
        ``mqtt://`` or ``mqtts://`` address with account.
    authority : Path, optional
        Certificate of the authority that signed the broker's; else those of the system.
    own : tuple of (Path, Path), optional
        Certificate and key of the device, where the broker asks for them.
    """
    address = BrokerAddress.parse(broker)
    tls = client_context(authority, *(own or (None, None))) if address.tls else None
    return Connection(address.host, address.port, address.username, address.password, tls)


async def play_devices(
    sources: Sequence[Source], broker: str, speed: float, stop: asyncio.Event, authority: Path | None = None
) -> None:
    """Publish sources until they end or `stop` is set.

    Parameters
    ----------
    sources : sequence of Source
        One a device.
    broker : str
        ``mqtt://`` address with an account that may publish for all of them.
    speed : float
        Times real time; 0 is as fast as it goes.
    stop : asyncio.Event
        Set to end it.
    authority : Path, optional
        As of `connection_to`.
    """
    connection = connection_to(broker, authority)
    now = time.time_ns() // 1_000_000
    metas = [DeviceMeta(source.device, now, source.rate, source.leads, source.gain) for source in sources]
    async with FleetClient(connection, metas) as client:
        player = asyncio.create_task(play(sources, client, epoch=now, start_ms=now, speed=speed), name="player")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait([player, stopped], return_when=asyncio.FIRST_COMPLETED)
            if player.done():
                log.info("played", frames=player.result().frames)
                await client.drain()
        finally:
            await end((player, stopped))


async def replay_records(
    records: Sequence[str],
    broker: str,
    data: Path | None,
    leads: Sequence[str] | None,
    speed: float,
    loop: bool,
    start_s: float,
    stop: asyncio.Event,
    authority: Path | None = None,
) -> None:
    """Replay records as devices; see `recording_sources` and `play_devices`."""
    sources = recording_sources(records, data, leads, loop=loop, start_s=start_s)
    await play_devices(sources, broker, speed, stop, authority)


async def simulate_patients(
    script: str,
    patients: int,
    broker: str,
    speed: float,
    seed: int,
    stop: asyncio.Event,
    authority: Path | None = None,
) -> None:
    """Simulate patients as devices: all with one script, or the demo's cast."""
    # The simulator takes a while to load, which who replays recordings need not wait for.
    from ingest.simulator import SimulatedSource
    from ingest.simulator_cast import cast_sources

    sources: Sequence[Source]
    if script:
        sources = [SimulatedSource(f"sim-{number + 1}", script, seed + number) for number in range(patients)]
    else:
        sources = cast_sources(patients)
    await play_devices(sources, broker, speed, stop, authority)
