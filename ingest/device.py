"""The device's end of MQTT: frames go out at QoS 1 in order, kept while the broker is away, and every drop is counted.

`DeviceClient` is one device on one connection, with a last will. `FleetClient` carries many simulated or replayed
devices over one connection, with an account that may publish for all of them; a connection has only one will, so of
several devices none is told to be offline when it breaks, only when it closes.

A frame counts as sent once the broker acknowledged it. What was under way when a connection broke is sent again, before
anything newer; receivers drop duplicates by sequence number.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, NamedTuple, Self

import aiomqtt
import msgspec
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ingest.codecs import encode_frame
from ingest.device_model import Connection, DeviceMeta, PublishStats, meta_of, topic_of
from ingest.frame import DEVICE_ID, Frame
from ingest.reconnecting import wait_s

__all__ = ["Connection", "DeviceClient", "DeviceMeta", "FleetClient", "PublishStats", "meta_of", "topic_of"]

_AGAIN_S: Final = 5.0
"""Frames acknowledged this short before a connection broke are sent again."""
_LOG: Final = logging.getLogger(__name__)
_TIMEOUT_S: Final = 10.0
_PROBE_S: Final = 3.0
"""How long a broker may take to answer while it is not known which MQTT it speaks; some never refuse the other."""


class _Message(NamedTuple):
    topic: str
    payload: bytes
    retain: bool = False
    done: Callable[[], None] | None = None


class FleetClient:
    """Publishes for many devices over one connection. Use it as an async context manager.

    Parameters
    ----------
    connection : Connection
        How to reach the broker.
    metas : iterable of DeviceMeta
        The devices; announced, retained, at every connect.
    inflight : int
        Messages that may wait for the broker's acknowledgement.
    keep : int
        Messages a device that are kept while the broker is away; then the oldest goes, counted.
    close_s : float
        How long leaving the block may take to send what is left, s.
    on_command : callable, optional
        Called with (device, payload) for each message on ``commands``.
    jitter : callable, optional
        Gives a number in [0, 1) that scatters the waits between attempts.

    Raises
    ------
    ValueError
        If a device id is none, two are equal, or a limit is below 1.
    """

    def __init__(
        self,
        connection: Connection,
        metas: Iterable[DeviceMeta],
        *,
        inflight: int = 100,
        keep: int = 600,
        close_s: float = 5.0,
        on_command: Callable[[str, bytes], None] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        announced = list(metas)
        self._metas = {meta.device: meta for meta in announced}
        if not self._metas or len(self._metas) != len(announced):
            raise ValueError("one meta a device is needed, and at least one device")
        if bad := [device for device in self._metas if DEVICE_ID.fullmatch(device) is None]:
            raise ValueError(f"device id {bad[0]!r} must match {DEVICE_ID.pattern}")
        if inflight < 1 or keep < 1:
            raise ValueError("inflight and keep must be at least 1")
        self.stats = PublishStats()
        self._connection, self._inflight, self._close_s = connection, inflight, close_s
        self._limit = keep * len(self._metas)
        self._mqtt5 = connection.mqtt5 is not False
        self._on_command, self._jitter = on_command, jitter
        # The same for all: to make them costs a third of what a message does.
        self._expiring = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        self._expiring.MessageExpiryInterval = connection.expiry_s
        self._waiting: deque[_Message] = deque()
        self._under_way: dict[int, _Message] = {}
        self._lately: deque[tuple[float, _Message]] = deque()
        self._number = 0
        self._wake, self._room, self._stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._connected, self._idle = asyncio.Event(), asyncio.Event()
        self._room.set()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def offer(self, frame: Frame) -> bool:
        """Take a frame without waiting.

        Returns
        -------
        bool
            False when an older message was dropped for it (counted in `stats`).

        Raises
        ------
        ValueError
            If the frame's device isn't one of this client.
        """
        return self._take(_Message(topic_of(self._known(frame.device), "ecg"), encode_frame(frame)))

    async def publish(self, frame: Frame) -> None:
        """Take a frame, waiting while as many as may be kept are waiting; errors as in `offer`."""
        message = _Message(topic_of(self._known(frame.device), "ecg"), encode_frame(frame))
        while len(self._waiting) >= min(self._limit, 4 * self._inflight):
            self._check_running()
            self._room.clear()
            await self._room.wait()
        self._take(message)

    def note(self, device: str, name: str, value: float = 0.0) -> bool:
        """Send a note on ``events``: ``button``, or ``battery`` (0 to 1); returns and raises as `offer`."""
        return self._take(_Message(topic_of(self._known(device), "events"), _note(name, value)))

    def hand(self, device: str, leaf: str, payload: bytes, done: Callable[[], None]) -> None:
        """Take a payload for a topic of a device; `done` is called when the broker has acknowledged it."""
        self._take(_Message(topic_of(self._known(device), leaf), payload, done=done))

    @property
    def waiting(self) -> int:
        """Messages taken that the broker has not acknowledged."""
        return len(self._waiting) + len(self._under_way)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connected.is_set() and self._task is not None and not self._task.done()

    async def drain(self) -> None:
        """Wait until the broker has acknowledged everything taken so far."""
        await self._idle.wait()
        self._check_running()

    async def connected(self) -> None:
        """Wait until there is a connection."""
        await self._connected.wait()
        self._check_running()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="mqtt publisher")
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is left if that is quick, say goodbye, disconnect; what could not be sent is counted."""
        task = self._task
        if task is None:
            return
        self._stop.set()
        self._wake.set()
        try:
            _, pending = await asyncio.wait([task], timeout=self._close_s)
            if pending:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        finally:
            task.cancel()
            self.stats.unsent = len(self._waiting) + len(self._under_way)

    def _ended(self, _: asyncio.Task[None]) -> None:
        """Wake whoever waits for what will not happen any more."""
        for event in (self._room, self._idle, self._connected):
            event.set()

    def _known(self, device: str) -> str:
        if device not in self._metas:
            raise ValueError(f"device {device!r} is not one of this client's")
        return device

    def _check_running(self) -> None:
        if self._task is None or self._task.done():
            raise RuntimeError("the client is not open: use it in an async with block")

    def _take(self, message: _Message) -> bool:
        self.stats.offered += 1
        full = len(self._waiting) >= self._limit
        if full:
            self._waiting.popleft()
            self.stats.dropped += 1
        self._waiting.append(message)
        self._idle.clear()
        self._wake.set()
        return not full

    async def _run(self) -> None:
        """Connect, pump, and after a failure wait, scattered, until told to stop."""
        attempt, since, refused = 0, time.monotonic(), False
        while True:
            connects, refused_before = self.stats.connects, refused
            try:
                await self._session()
                self._lately.clear()
                return
            except* (aiomqtt.MqttError, OSError) as group:
                self.stats.failures += 1
                self.stats.last_error = _reason(group)
                refused = group.subgroup(aiomqtt.MqttCodeError) is not None and self.stats.connects == connects
            finally:
                self._connected.clear()
                self._keep_under_way()
            if self.stats.connects > connects:
                attempt, since = 0, time.monotonic()
            attempt = attempt + 1 if refused == refused_before else 1
            if self._connection.mqtt5 is None and not self.stats.connects:
                self._mqtt5 = not self._mqtt5
            wait = wait_s(attempt, time.monotonic() - since, self._jitter(), refused=refused)
            host = f"{self._connection.host}:{self._connection.port}"
            _LOG.warning("broker %s: %s; next attempt in %.1f s", host, self.stats.last_error, wait)
            if self._stop.is_set():
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait)

    def _keep_under_way(self) -> None:
        """Put what the broker did not acknowledge back in front, in order, behind what it may have forgotten.

        A broker that died had perhaps not handed on what it acknowledged last. Frames may come twice: the sequencer
        knows them by their number.
        """
        oldest = time.monotonic() - _AGAIN_S
        again = [message._replace(done=None) for at, message in self._lately if at >= oldest]
        self._lately.clear()
        again += self._under_way.values()
        self.stats.resent += len(again)
        self._waiting.extendleft(reversed(again))
        self._under_way.clear()

    def _will(self) -> aiomqtt.Will | None:
        """Give what the broker says when the connection breaks; it can speak for one device alone."""
        if len(self._metas) > 1:
            return None
        (device,) = self._metas
        return aiomqtt.Will(topic_of(device, "status"), _note("offline"), qos=1, retain=True)

    def _identifier(self) -> str | None:
        return None

    async def _session(self) -> None:
        c = self._connection
        client = aiomqtt.Client(
            c.host,
            c.port,
            username=c.username,
            password=c.password,
            identifier=self._identifier(),
            protocol=aiomqtt.ProtocolVersion.V5 if self._mqtt5 else aiomqtt.ProtocolVersion.V311,
            will=self._will(),
            clean_session=None if self._mqtt5 else True,
            timeout=_PROBE_S if c.mqtt5 is None and not self.stats.connects else _TIMEOUT_S,
            keepalive=c.keepalive_s,
            tls_context=c.tls,
            max_inflight_messages=self._inflight,
        )
        # aiomqtt warns of many calls under way; here their number is bounded on purpose. One that is over still counts.
        client.pending_calls_threshold = 2 * self._inflight
        async with client:
            self.stats.connects += 1
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._listen(client), name="mqtt commands")
                await self._pump(client, group)
                reader.cancel()
            for device in self._metas:
                await client.publish(topic_of(device, "status"), _note("offline"), qos=1, retain=True)

    async def _listen(self, client: aiomqtt.Client) -> None:
        """Hand commands over; it also is what notices that an idle connection broke."""
        if self._on_command is not None:
            for device in self._metas:
                await client.subscribe(topic_of(device, "commands"), qos=1)
        async for message in client.messages:
            device = str(message.topic).split("/")[2]
            if self._on_command is not None and isinstance(message.payload, bytes):
                self._on_command(device, message.payload)

    async def _pump(self, client: aiomqtt.Client, group: asyncio.TaskGroup) -> None:
        """Send announcements, then whatever is waiting, until told to stop and nothing is left."""
        slots = asyncio.Semaphore(self._inflight)
        for meta in self._metas.values():
            for leaf, payload in (("meta", msgspec.json.encode(meta)), ("status", _note("online"))):
                await slots.acquire()
                message = _Message(topic_of(meta.device, leaf), payload, retain=True)
                group.create_task(self._send(client, message, None, slots))
        self._connected.set()
        while True:
            self._wake.clear()
            if not self._waiting:
                if self._stop.is_set():
                    return
                await self._wake.wait()
                continue
            await slots.acquire()
            if not self._waiting:
                slots.release()
                continue
            self._number += 1
            message = self._under_way[self._number] = self._waiting.popleft()
            self._room.set()
            group.create_task(self._send(client, message, self._number, slots))

    async def _send(
        self, client: aiomqtt.Client, message: _Message, number: int | None, slots: asyncio.Semaphore
    ) -> None:
        # Tasks start in the order in which they were made, and a publish is queued before its first wait: order holds.
        # Stored frames are for the history, however long they wait.
        lasts = message.retain or message.topic.endswith("/backfill")
        properties = self._expiring if self._mqtt5 and not lasts else None
        await client.publish(message.topic, message.payload, qos=1, retain=message.retain, properties=properties)
        slots.release()
        if number is not None:
            del self._under_way[number]
            self.stats.sent += 1
            if message.done is not None:
                message.done()
            if message.topic.endswith("/ecg"):
                self._lately.append((time.monotonic(), message))
                while self._lately[0][0] < self._lately[-1][0] - _AGAIN_S:
                    self._lately.popleft()
            if not self._waiting and not self._under_way:
                self._idle.set()


class DeviceClient(FleetClient):
    """Publishes for one device over its own connection, with a last will that says ``offline``.

    Parameters
    ----------
    connection : Connection
        How to reach the broker, with the device's own account.
    meta : DeviceMeta
        The device.
    inflight, keep, close_s, on_command, jitter
        As in `FleetClient`.
    """

    def __init__(
        self,
        connection: Connection,
        meta: DeviceMeta,
        *,
        inflight: int = 20,
        keep: int = 600,
        close_s: float = 5.0,
        on_command: Callable[[str, bytes], None] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(
            connection, [meta], inflight=inflight, keep=keep, close_s=close_s, on_command=on_command, jitter=jitter
        )
        self._device = meta.device

    def _identifier(self) -> str:
        # The broker lets a device in under its own name alone, so that none can take another client's session over.
        return self._device


def _note(name: str, value: float = 0.0) -> bytes:
    """Lay a `bus.messages.DeviceNote` out as JSON."""
    return msgspec.json.encode({"name": name, "value": value})


def _reason(group: BaseExceptionGroup[Exception]) -> str:
    """Say in one line why a connection failed."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
