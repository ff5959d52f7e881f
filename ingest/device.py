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

import msgspec

from ingest.codecs import encode_frame
from ingest.connection import Received
from ingest.device_model import Connection, DeviceMeta, PublishStats, meta_of, topic_of
from ingest.frame import DEVICE_ID, Frame
from ingest.reconnecting import wait_s
from ingest.sending import Sender, Will

__all__ = ["Connection", "DeviceClient", "DeviceMeta", "FleetClient", "PublishStats", "meta_of", "topic_of"]

_AGAIN_S: Final = 5.0
"""Frames acknowledged within this time before the last one are sent again when a connection breaks."""
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
        self._waiting: deque[_Message] = deque()
        self._first: deque[_Message] = deque()
        self._under_way: dict[int, _Message] = {}
        self._lately: deque[tuple[float, _Message]] = deque()
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
            connects = self.stats.connects
            sender = self._sender()
            try:
                await self._session(sender)
                self._lately.clear()
                return
            except OSError as error:
                self.stats.failures += 1
                self.stats.last_error = _reason(error)
            finally:
                self._connected.clear()
                self._keep_under_way()
            if self.stats.connects > connects:
                attempt, since = 0, time.monotonic()
            attempt, refused = attempt + 1 if refused == sender.refused else 1, sender.refused
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

        A broker that died had perhaps not handed on what it acknowledged last, however long ago that was. Frames may
        come twice: ingest knows them, and the sequencer by their number.
        """
        again = [message._replace(done=None) for _, message in self._lately]
        self._lately.clear()
        again += (message for message in self._under_way.values() if not message.retain)
        self.stats.resent += len(again)
        self._waiting.extendleft(reversed(again))
        self._under_way.clear()

    def _will(self) -> Will | None:
        """Give what the broker says when the connection breaks; it can speak for one device alone."""
        if len(self._metas) > 1:
            return None
        (device,) = self._metas
        return Will(topic_of(device, "status"), _note("offline"))

    def _identifier(self) -> str:
        return ""

    def _sender(self) -> Sender:
        probing = self._connection.mqtt5 is None and not self.stats.connects
        return Sender(
            self._connection,
            mqtt5=self._mqtt5,
            client_id=self._identifier(),
            will=self._will(),
            timeout_s=_PROBE_S if probing else _TIMEOUT_S,
            commands=self._hear,
            acknowledged=self._sent,
            lost=self._wake.set,
        )

    async def _session(self, sender: Sender) -> None:
        """Send announcements, then whatever is waiting, until told to stop and nothing is left, and then goodbyes."""
        metas = self._metas.values()
        async with sender:
            self.stats.connects += 1
            if self._on_command is not None:
                await sender.subscribe(topic_of(meta.device, "commands") for meta in metas)
            self._first.clear()
            for meta in metas:
                for leaf, payload in (("meta", msgspec.json.encode(meta)), ("status", _note("online"))):
                    self._first.append(_Message(topic_of(meta.device, leaf), payload, retain=True))
            await self._pump(sender)
            self._first.extend(
                _Message(topic_of(meta.device, "status"), _note("offline"), retain=True) for meta in metas
            )
            await self._pump(sender)

    async def _pump(self, sender: Sender) -> None:
        """Send what is waiting, as much as may be under way in one write, until told to stop and all has arrived."""
        most = min(self._inflight, sender.most)
        while True:
            self._wake.clear()
            sender.check()
            packets: list[bytes] = []
            while len(self._under_way) < most and (self._first or self._waiting):
                message = (self._first or self._waiting).popleft()
                # Stored frames are for the history, however long they wait.
                lasts = message.retain or message.topic.endswith("/backfill")
                number, packet = sender.publish(
                    message.topic, message.payload, retain=message.retain, expires=not lasts
                )
                self._under_way[number] = message
                packets.append(packet)
            if packets:
                sender.write(b"".join(packets))
                self._room.set()
            if not self._first:
                self._connected.set()
                if self._stop.is_set() and not self._waiting and not self._under_way:
                    return
            await self._wake.wait()

    def _hear(self, message: Received) -> None:
        """Hand a command over."""
        if self._on_command is not None:
            self._on_command(message.topic.split("/")[2], message.payload)
        message.acknowledge()

    def _sent(self, number: int) -> None:
        """Take the broker's acknowledgement."""
        message = self._under_way.pop(number)
        self._wake.set()
        if not message.retain:
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


def _reason(error: OSError) -> str:
    """Say in one line why a connection failed."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
