"""One enrolled device: a recording, numbers on standard input or a strap, kept on disk until the broker has them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TextIO

import numpy as np
import structlog

from bus.tasks import end
from ingest.device import Connection, DeviceMeta
from ingest.frame import DEVICE_ID, Frame
from ingest.journal import Journal
from ingest.replay import play
from ingest.store_device import StoringDevice
from rhythmwatch.gateway import Gateway, Peer, polar_meta
from rhythmwatch.playing import connection_to, recording_sources

log = structlog.get_logger()

FRAME_S: Final = 1.0
UV_GAIN: Final = 1000.0


def own_connection(broker: str, authority: Path | None, own: tuple[Path, Path] | None = None) -> tuple[str, Connection]:
    """Device id and connection of the account in an address.

    Raises
    ------
    ValueError
        If the address holds no account whose name is a device id.
    """
    connection = connection_to(broker, authority, own)
    device = connection.username or ""
    if DEVICE_ID.fullmatch(device) is None:
        raise ValueError("the broker's address must hold the device's account: mqtts://bed-7:password@host:8883")
    return device, connection


async def publish_recording(
    record: str,
    broker: str,
    store: Path,
    data: Path | None,
    leads: Sequence[str] | None,
    speed: float,
    loop: bool,
    stop: asyncio.Event,
    authority: Path | None = None,
    own: tuple[Path, Path] | None = None,
) -> None:
    """Play a recording as the enrolled device whose account the address holds.

    Parameters
    ----------
    record, data, leads, speed, loop
        As of ``replay``.
    broker : str
        ``mqtt://`` or ``mqtts://`` address with the device's account.
    store : Path
        Directory of the journal.
    stop : asyncio.Event
        Set to end it.
    authority : Path, optional
        Certificate of the authority that signed the broker's.
    own : tuple of (Path, Path), optional
        Certificate and key of the device, where the broker asks for them.
    """
    device, connection = own_connection(broker, authority, own)
    (source,) = recording_sources([record], data, leads, loop=loop)
    source = replace(source, device=device)
    now = _now()
    meta = DeviceMeta(device, now, source.rate, source.leads, source.gain)
    journal = Journal(store / device)
    try:
        async with StoringDevice(connection, meta, journal) as sink:
            player = asyncio.create_task(play([source], sink, epoch=now, start_ms=now, speed=speed), name="player")
            stopped = asyncio.create_task(stop.wait(), name="stop")
            try:
                await asyncio.wait([player, stopped], return_when=asyncio.FIRST_COMPLETED)
                if player.done():
                    log.info("published", frames=player.result().frames)
                    draining = asyncio.create_task(sink.drain(), name="drain")
                    await asyncio.wait([draining, stopped], return_when=asyncio.FIRST_COMPLETED)
                    await end([draining])
            finally:
                await end((player, stopped))
    finally:
        journal.close()


async def publish_numbers(
    broker: str,
    store: Path,
    rate: float,
    stop: asyncio.Event,
    authority: Path | None = None,
    own: tuple[Path, Path] | None = None,
    lines: TextIO | None = None,
) -> None:
    """Publish numbers in uV, one a line, from standard input as the enrolled device whose account the address holds.

    Parameters
    ----------
    broker, store, stop, authority, own
        As of `publish_recording`.
    rate : float
        Samples a second, Hz.
    lines : file, optional
        Else standard input.
    """
    device, connection = own_connection(broker, authority, own)
    now = _now()
    journal = Journal(store / device)
    try:
        async with StoringDevice(connection, DeviceMeta(device, now, rate, ("ECG",), UV_GAIN), journal) as sink:
            stopped = asyncio.create_task(stop.wait(), name="stop")
            reader = asyncio.create_task(_forward(device, now, rate, lines or sys.stdin, sink), name="reader")
            try:
                await asyncio.wait([reader, stopped], return_when=asyncio.FIRST_COMPLETED)
                if reader.done():
                    reader.result()
                    draining = asyncio.create_task(sink.drain(), name="drain")
                    await asyncio.wait([draining, stopped], return_when=asyncio.FIRST_COMPLETED)
                    await end([draining])
            finally:
                await end((reader, stopped))
    finally:
        journal.close()


async def forward_polar(
    peer: Peer,
    broker: str,
    store: Path,
    stop: asyncio.Event,
    authority: Path | None = None,
    own: tuple[Path, Path] | None = None,
) -> None:
    """Forward a strap as the enrolled device whose account the address holds, until `stop` is set."""
    device, connection = own_connection(broker, authority, own)
    journal = Journal(store / device)
    try:
        async with StoringDevice(connection, polar_meta(device, _now()), journal) as sink:
            gateway = Gateway(device, peer, sink)
            running = asyncio.create_task(gateway.run(), name="gateway")
            try:
                await stop.wait()
            finally:
                await end([running])
                log.info("gateway ended", counts=dict(gateway.counts), stream=dict(gateway.stream.counts))
    finally:
        journal.close()


async def _forward(device: str, epoch: int, rate: float, lines: TextIO, sink: StoringDevice) -> None:
    size = max(1, round(rate * FRAME_S))
    sample = seq = 0
    async for values in _blocks(lines, size):
        device_ms = _now() - round(len(values) * 1000 / rate)
        samples = np.array(values, np.int32)[:, None]
        frame = Frame(device, epoch, seq, sample, max(0, device_ms), rate, ("ECG",), UV_GAIN, samples)
        await sink.publish(frame)
        sample, seq = sample + len(values), seq + 1


async def _blocks(lines: TextIO, size: int) -> AsyncIterator[list[int]]:
    """Read numbers in blocks; a line that is none stands for a missing sample."""
    missing = int(np.iinfo(np.int32).min)

    def take() -> list[int]:
        return [_number(line, missing) for line in _some(lines, size)]

    while block := await asyncio.to_thread(take):
        yield block


def _some(lines: TextIO, size: int) -> Iterator[str]:
    for _ in range(size):
        line = lines.readline()
        if not line:
            return
        yield line


def _number(line: str, missing: int) -> int:
    try:
        return max(missing + 1, min(2**31 - 1, round(float(line))))
    except (ValueError, OverflowError):
        return missing


def _now() -> int:
    return time.time_ns() // 1_000_000
