"""A device that keeps what it measures, in a process of its own, so that a test can pull its plug."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from ingest.codecs import encode_frame
from ingest.device import Connection, DeviceMeta
from ingest.frame import Frame
from ingest.journal import Journal
from ingest.store_device import StoringDevice
from rhythmwatch.addresses import BrokerAddress
from rhythmwatch.load import load_sources

DEVICE: Final = "returning"
EPOCH: Final = 7
PATIENT: Final = 23
"""Record 200: runs of ventricular beats."""


def frames(data: Path | None, start_ms: int) -> Iterator[Frame]:
    """Give the frames of the device, one a second, without end."""
    (source,) = load_sources(data, PATIENT, 1)
    return (replace(frame, device=DEVICE) for frame in source.frames(EPOCH, start_ms))


def keep(folder: Path, data: Path | None, start_ms: int, seconds: int) -> None:
    """Lay a journal down as a device without a connection leaves it."""
    journal = Journal(folder, sync=False)
    for frame in itertools.islice(frames(data, start_ms), seconds):
        journal.append(encode_frame(frame))
    journal.close()


async def run(broker: str, folder: Path, data: Path | None, start_ms: int) -> None:
    """Go on from the journal, a frame a second."""
    address = BrokerAddress.parse(broker)
    connection = Connection(address.host, address.port, address.username, address.password)
    journal = Journal(folder)
    rest = itertools.islice(frames(data, start_ms), journal.last, None)
    first = next(rest)
    meta = DeviceMeta(DEVICE, EPOCH, first.rate, first.leads, first.gain)
    async with StoringDevice(connection, meta, journal) as device:
        for frame in itertools.chain([first], rest):
            device.offer(frame)
            await asyncio.sleep(1.0)


if __name__ == "__main__":
    _, broker, folder, data, start_ms = sys.argv
    asyncio.run(run(broker, Path(folder), Path(data) if data else None, int(start_ms)))
