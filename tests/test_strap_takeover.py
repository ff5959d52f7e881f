"""Ingests that share the load, as processes: the one that takes packets of straps is killed, stalled, started again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import aiomqtt
import numpy as np
import pytest
from cluster import running_cluster
from test_strap_session import assert_whole, frames_of, payload, strap

from bus.server import embedded
from bus.streams import Bus
from ingest.broker import Broker, embedded_broker
from ingest.codecs import encode_frame
from ingest.frame import Frame
from rhythmwatch.addresses import BrokerAddress

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
STRAPS = 3
NAMES = ("a", "b", "c")
RECOVERY_S = 5.0
PERIOD_S = 0.04


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Wait until something on the bus is so."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def lease(bus: Bus) -> tuple[int, str]:
    """Epoch and name of the ingest that takes packets of straps."""
    held = (await bus._call("GET", "rw:{straps}:lease") or b"0 nobody").decode()
    epoch, _, holder = held.partition(" ")
    return int(epoch), holder.removeprefix("rw-ingest-")


class Ingests:
    """Ingests as processes of their own, by name."""

    def __init__(self, bus: str, broker: Broker) -> None:
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._bus = bus
        self._broker = BrokerAddress(broker.host, broker.port, broker.username, broker.password).url()

    def start(self, name: str) -> None:
        """Start one, or start it again."""
        command = [sys.executable, "-m", "rhythmwatch", "ingest", "--share", "--name", name]
        self.processes[name] = subprocess.Popen([*command, "--bus", self._bus, "--broker", self._broker])

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one; whoever is killed is waited for."""
        self.processes[name].send_signal(number)
        if number is signal.SIGKILL:
            self.processes[name].wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


class Devices:
    """Straps and a bed that send all the time, at least once each message."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.sent = 0
        self._client = client
        self._ending = asyncio.Event()

    async def send(self) -> None:
        """Send packets of straps and frames of a bed until told to stop."""
        while not self._ending.is_set():
            for device in range(STRAPS):
                await self._client.publish(f"rw/v1/strap-{device}/polar", payload(self.sent, device), qos=1)
            samples = np.full((50, 1), self.sent, np.int16)
            frame = Frame("bed-7", 1, self.sent, 50 * self.sent, 1_000, 250.0, ("MLII",), 200.0, samples)
            await self._client.publish("rw/v1/bed-7/ecg", encode_frame(frame), qos=1)
            self.sent += 1
            await asyncio.sleep(PERIOD_S)

    async def stop(self, sending: asyncio.Task[None]) -> int:
        """Stop, and say how many each one sent."""
        self._ending.set()
        await sending
        return self.sent


@contextlib.asynccontextmanager
async def a_bus(kind: str, folder: Path) -> AsyncIterator[tuple[str, Bus]]:
    """Run one server or a cluster; gives its address and a bus on it."""
    async with contextlib.AsyncExitStack() as stack:
        if kind == "cluster":
            url = (await stack.enter_async_context(running_cluster(folder))).url
        else:
            url = await stack.enter_async_context(embedded(folder))
        yield url, await stack.enter_async_context(Bus(url, timeout_s=60.0))


async def stored(bus: Bus, count: int) -> bool:
    """Whether every strap has so many frames on the bus."""
    return all([len(await frames_of(bus, f"strap-{device}")) >= count for device in range(STRAPS)])


@pytest.mark.parametrize("kind", ["one", "cluster"])
async def test_nothing_is_lost_or_doubled_whatever_becomes_of_the_holder(tmp_path: Path, kind: str):
    """Killed, started again under its name, stalled and woken: every sample of every strap is there once, in order."""
    async with (
        a_bus(kind, tmp_path / "bus") as (url, bus),
        embedded_broker(tmp_path / "broker", engine="mosquitto") as broker,
        strap(broker) as client,
    ):
        devices = Devices(client)

        async def holder_is_new(epoch: int) -> bool:
            return (await lease(bus))[0] > epoch

        async def goes_on() -> None:
            sent = devices.sent
            await until(lambda: stored(bus, sent + 5))

        with Ingests(url, broker) as ingests:
            for name in NAMES:
                ingests.start(name)
            await until(lambda: holder_is_new(0))
            # What is sent before anyone has subscribed for the first time is kept by nobody.
            await until(lambda: subscribed(client, bus))
            sending = asyncio.create_task(devices.send())
            await goes_on()

            epoch, killed = await lease(bus)
            killed_ms = time.time() * 1000
            ingests.signal(killed, signal.SIGKILL)
            await until(lambda: holder_is_new(epoch))
            epoch, holder = await lease(bus)
            assert holder != killed
            assert epoch - killed_ms < RECOVERY_S * 1000
            await goes_on()
            ingests.start(killed)

            ingests.signal(holder, signal.SIGKILL)
            ingests.start(holder)
            await until(lambda: holder_is_new(epoch))
            await goes_on()

            epoch, stalled = await lease(bus)
            ingests.signal(stalled, signal.SIGSTOP)
            await until(lambda: holder_is_new(epoch))
            await goes_on()
            ingests.signal(stalled, signal.SIGCONT)
            await goes_on()
            assert (await lease(bus))[1] != stalled

            sent = await devices.stop(sending)
            await until(lambda: stored(bus, sent))

            async def bed_is_whole() -> bool:
                return {frame.seq for frame in await frames_of(bus, "bed-7")} == set(range(sent))

            await until(bed_is_whole)
            assert all(process.poll() is None for process in ingests.processes.values())
        for device in range(STRAPS):
            assert_whole(await frames_of(bus, f"strap-{device}"), sent, device)


async def subscribed(client: aiomqtt.Client, bus: Bus) -> bool:
    """Whether what straps and beds send reaches the bus."""
    await client.publish("rw/v1/first/polar", payload(0), qos=1)
    return bool(await frames_of(bus, "first"))
