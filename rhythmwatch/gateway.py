"""A gateway of straps: what comes over Bluetooth goes out as frames, however often the strap goes away.

The Bluetooth end is a `Peer`; `rhythmwatch.gateway_ble` has the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from ingest.device import DeviceMeta
from ingest.frame import Frame, FrameError
from ingest.straps import LEAD, POLAR_GAIN, POLAR_RATE, StrapStream, decode_polar

log = structlog.get_logger()

SILENT_S: Final = 5.0
"""A strap that says nothing for so long, although connected, is let go and asked again."""
BACKOFF_S: Final = (1.0, 60.0)
BATTERY_S: Final = 600.0


class PeerError(Exception):
    """The strap is not there, or went away."""


class Peer(Protocol):
    """A strap as the gateway needs it."""

    async def open(self, on_packet: Callable[[bytes], None]) -> None:
        """Find the strap, connect and start its ECG; raises `PeerError`."""
        ...

    async def battery(self) -> float:
        """Charge, 0 to 1; raises `PeerError`."""
        ...

    async def close(self) -> None:
        """Let go of it, however it stands; raises nothing."""
        ...


class Sink(Protocol):
    """Where frames go (`ingest.store_device.StoringDevice`)."""

    def offer(self, frame: Frame) -> bool:
        """Take a frame."""
        ...

    def note(self, name: str, value: float = 0.0) -> None:
        """Take a note."""
        ...


def polar_meta(device: str, epoch: int) -> DeviceMeta:
    """Say what a Polar strap is, for ``meta``."""
    return DeviceMeta(device, epoch, POLAR_RATE, (LEAD,), POLAR_GAIN, "polar-h10")


class Gateway:
    """Forwards one strap.

    Parameters
    ----------
    device : str
        Device id of its frames.
    peer : Peer
        The strap.
    sink : Sink
        Where frames go.
    silent_s : float
        How long it may say nothing.
    clock : callable
        Ms since the Unix epoch.
    jitter : callable
        Gives a number in [0, 1) that scatters the waits between attempts.

    Attributes
    ----------
    counts : Counter
        ``packets``, ``connects``, ``failures``, ``silent``, and what was refused as ``drop_<reason>``.
    stream : StrapStream
        What numbers the samples.
    """

    def __init__(
        self,
        device: str,
        peer: Peer,
        sink: Sink,
        *,
        silent_s: float = SILENT_S,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.stream = StrapStream(device)
        self._peer, self._sink = peer, sink
        self._silent_s, self._clock, self._jitter = silent_s, clock, jitter
        self._heard = asyncio.Event()

    async def run(self) -> None:
        """Forward until cancelled."""
        attempt = 0
        while True:
            before = self.counts["packets"]
            try:
                await self._session()
            except PeerError as error:
                self.counts["failures"] += 1
                log.warning("strap lost", why=str(error))
            finally:
                await self._peer.close()
            attempt = 0 if self.counts["packets"] > before else attempt + 1
            low, high = BACKOFF_S
            await asyncio.sleep(min(high, low * 2.0 ** min(attempt, 16)) * (0.5 + 0.5 * self._jitter()))

    async def _session(self) -> None:
        await self._peer.open(self._packet)
        self.counts["connects"] += 1
        loop = asyncio.get_running_loop()
        battery_at = loop.time()
        while True:
            if loop.time() >= battery_at:
                battery_at = loop.time() + BATTERY_S
                with contextlib.suppress(PeerError):
                    self._sink.note("battery", min(1.0, max(0.0, await self._peer.battery())))
            self._heard.clear()
            try:
                async with asyncio.timeout(self._silent_s):
                    await self._heard.wait()
            except TimeoutError:
                self.counts["silent"] += 1
                raise PeerError(f"the strap said nothing for {self._silent_s:g} s") from None

    def _packet(self, payload: bytes) -> None:
        self._heard.set()
        self.counts["packets"] += 1
        try:
            frame = self.stream.push(decode_polar(payload), self._clock())
        except FrameError as error:
            self.counts[f"drop_{error.reason}"] += 1
            return
        if frame is not None:
            try:
                self._sink.offer(frame)
            except OSError as error:
                self.counts["drop_disk"] += 1
                log.error("frame not kept", why=str(error))
