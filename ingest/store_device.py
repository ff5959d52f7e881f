"""The device that forgets nothing: every frame is on disk before it is sent, and goes when it was delivered.

What is measured while there is a connection, and for a few seconds after it broke, goes out live on ``ecg``. What
could not is sent on ``backfill``, in order, while live frames go on. A live frame is delivered when the broker has it,
a stored one when the service has (`ingest.answers`). A restart, or a power cut, continues with what is on the disk.
What was sent but perhaps not delivered is sent again; receivers drop what they had.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

import msgspec

from ingest.answers import ASK_S, Answers
from ingest.codecs import UNREADABLE, encode_frame
from ingest.device import Connection, DeviceClient, DeviceMeta, PublishStats
from ingest.frame import Frame
from ingest.journal import Journal, Kept

LIVE_FRAMES: Final = 20
"""Frames that may wait for a connection and still go out live."""
BACKLOG_INFLIGHT: Final = 10
_CHUNK: Final = 500
_CLOCK_S: Final = 600.0
_IDLE_S: Final = 0.2


class ClockOffset:
    """How far the server's clock is before ours, learnt from questions and answers.

    The answer with the shortest way of the last ones counts: half of its way is the most that it can be wrong.

    Attributes
    ----------
    ms : float
        Server's clock minus ours, ms; 0 before the first answer.
    within_ms : float
        The most by which `ms` can be wrong; infinite before the first answer.
    """

    LAST: Final = 8

    def __init__(self) -> None:
        self.ms = 0.0
        self.within_ms = float("inf")
        self._answers: list[tuple[float, float]] = []

    def observe(self, asked_ms: float, server_ms: float, now_ms: float) -> None:
        """Learn from an answer: when we asked, what the server's clock said, when the answer came."""
        way = now_ms - asked_ms
        if way < 0:
            # Our clock was set back meanwhile: the answer says nothing, nor do those from before.
            self._answers.clear()
            return
        self._answers = [*self._answers, (way / 2, server_ms - (asked_ms + now_ms) / 2)][-self.LAST :]
        self.within_ms, self.ms = min(self._answers)


class _Answer(msgspec.Struct):
    name: str
    asked_ms: float = 0.0
    server_ms: float = 0.0
    stored: bool = False
    frames: list[tuple[int, int]] = []


class StoringDevice:
    """Publishes for one device with a journal behind. Use it as an async context manager.

    Parameters
    ----------
    connection : Connection
        How to reach the broker, with the device's own account.
    meta : DeviceMeta
        The device.
    journal : Journal
        Where frames are kept; closed by the caller.
    live_frames : int
        Frames that may wait for a connection and still go out live.
    close_s : float
        How long leaving the block may take to send what is left, s; what remains is sent next time.
    ask_s : float
        How long stored frames wait after a connect until the service says whether it answers them, s.
    on_command : callable, optional
        Called with the payload of each message on ``commands`` but the answers of the service.
    wall : callable
        Own clock, ms since the Unix epoch.
    jitter : callable
        Gives a number in [0, 1) that scatters the waits between attempts.

    Attributes
    ----------
    clock : ClockOffset
        What is known of the server's clock; frames are sent with their device time corrected by it.
    """

    def __init__(
        self,
        connection: Connection,
        meta: DeviceMeta,
        journal: Journal,
        *,
        live_frames: int = LIVE_FRAMES,
        close_s: float = 5.0,
        ask_s: float = ASK_S,
        on_command: Callable[[bytes], None] | None = None,
        wall: Callable[[], float] = lambda: time.time() * 1000,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.clock = ClockOffset()
        self._device, self._journal, self._live = meta.device, journal, live_frames
        self._on_command, self._wall = on_command, wall
        self._client = DeviceClient(
            connection,
            meta,
            inflight=max(live_frames, BACKLOG_INFLIGHT) + BACKLOG_INFLIGHT,
            keep=live_frames + 2 * BACKLOG_INFLIGHT + 100,
            close_s=close_s,
            on_command=self._command,
            jitter=jitter,
        )
        self._acknowledged: set[int] = set()
        self._handed: set[int] = set()
        self._answers = Answers(ask_s)
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def stats(self) -> PublishStats:
        """What became of messages on the line."""
        return self._client.stats

    @property
    def stored(self) -> int:
        """Frames on the disk that are not delivered."""
        return self._journal.last - self._journal.delivered - len(self._acknowledged)

    def offer(self, frame: Frame) -> bool:
        """Keep a frame and send it as soon as that goes.

        Returns
        -------
        bool
            False when an older frame was dropped because the disk's share is full (counted in the journal).

        Raises
        ------
        ValueError
            If the frame is of another device.
        OSError
            If the disk does not take it; it is sent if there is a connection, and not kept.
        """
        if frame.device != self._device:
            raise ValueError(f"frame of {frame.device!r}, this is device {self._device!r}")
        if self.clock.ms:
            frame = replace(frame, device_ms=max(0, frame.device_ms + round(self.clock.ms)))
        payload, dropped = encode_frame(frame), self._journal.dropped
        number = self._journal.append(payload)
        if len(self._handed) < self._live:
            self._hand("ecg", Kept(number, payload))
        else:
            self._changed.set()
        return self._journal.dropped == dropped

    async def publish(self, frame: Frame) -> None:
        """Keep and send a frame, waiting while as many as may be under way are; raises as `offer`."""
        while self._client.is_connected and len(self._handed) >= self._live:
            self._changed.clear()
            await self._changed.wait()
        self.offer(frame)

    def note(self, name: str, value: float = 0.0) -> None:
        """Send ``button`` or ``battery`` (0 to 1) if there is a connection; such a note is worth nothing later."""
        if self._client.is_connected:
            self._client.note(self._device, name, value)

    async def drain(self) -> None:
        """Wait until all that is on the disk is delivered."""
        while self.stored:
            self._changed.clear()
            await self._changed.wait()

    async def connected(self) -> None:
        """Wait until there is a connection."""
        await self._client.connected()

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        self._tasks = [
            asyncio.create_task(self._backfill(), name="backlog"),
            asyncio.create_task(self._ask_time(), name="clock"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is under way if that is quick; the rest stays on the disk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.__aexit__(kind, error, trace)

    def _hand(self, leaf: str, kept: Kept) -> None:
        number = kept.number
        self._handed.add(number)
        if leaf == "backfill":
            self._answers.sent(number, kept.payload, time.monotonic())
        self._client.hand(self._device, leaf, kept.payload, lambda: self._taken(number))

    def _taken(self, number: int) -> None:
        """Note what the broker has: it is delivered unless an answer is to come."""
        self._handed.discard(number)
        if self._answers.given and number in self._answers:
            self._changed.set()
        else:
            self._done(number)

    def _done(self, number: int) -> None:
        """Note what was delivered; the journal is told how far everything was."""
        self._answers.end(number)
        if number <= self._journal.delivered:
            return
        self._acknowledged.add(number)
        low = self._journal.delivered
        while low + 1 in self._acknowledged:
            low += 1
            self._acknowledged.discard(low)
        self._journal.acknowledge(low)
        self._changed.set()

    async def _backfill(self) -> None:
        """Send what never went out live, oldest first, a few at a time, whenever there is a connection."""
        last = self._journal.delivered
        connects = 0
        while True:
            await self._client.connected()
            if self._begins_anew(connects):
                connects, last = self._client.stats.connects, self._journal.delivered
                self._answers.connected(self._handed, time.monotonic())
            newest = self._journal.last
            chunk = self._journal.read(last, _CHUNK) if newest > last else []
            for kept in chunk:
                if kept.number <= last or self._is_known(kept.number):
                    last = max(last, kept.number)
                    continue
                while not self._has_room() and not self._begins_anew(connects):
                    await self._change()
                if self._begins_anew(connects):
                    break
                self._skip(last, kept.number)
                last = kept.number
                self._hand("backfill", kept)
            if not chunk:
                self._skip(last, newest + 1)
                last = newest
                if self._journal.last == newest:
                    await self._change()

    def _begins_anew(self, connects: int) -> bool:
        """Whether what was not answered must be sent again."""
        return self._client.stats.connects != connects or self._answers.stalled(time.monotonic())

    def _is_known(self, number: int) -> bool:
        """Whether a record was sent and nothing is to be done about it now."""
        return number in self._handed or number in self._acknowledged or number in self._answers

    def _has_room(self) -> bool:
        """Whether another stored frame may be sent now."""
        client = self._client
        free = client.is_connected and client.waiting < self._live + BACKLOG_INFLIGHT
        return free and self._answers.may(time.monotonic())

    async def _change(self) -> None:
        """Wait until something has changed, or a moment: not all is told."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_S):
                await self._changed.wait()

    def _skip(self, after: int, until: int) -> None:
        """Count numbers between two as done that no whole record has any more (damaged, or dropped for newer ones)."""
        for number in range(max(after, self._journal.delivered) + 1, until):
            if not self._is_known(number):
                self._done(number)

    async def _ask_time(self) -> None:
        while True:
            await self._client.connected()
            self._client.note(self._device, "clock", self._wall())
            await asyncio.sleep(_CLOCK_S)

    def _deliver(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._done(number)
        self._changed.set()

    def _command(self, _: str, payload: bytes) -> None:
        with contextlib.suppress(*UNREADABLE):
            answer = msgspec.json.decode(payload, type=_Answer)
            if answer.name == "clock":
                self.clock.observe(answer.asked_ms, answer.server_ms, self._wall())
                done = self._answers.say(answer.stored)
                self._deliver(number for number in done if number not in self._handed)
                return
            if answer.name == "stored":
                self._deliver(self._answers.take(answer.frames, time.monotonic()))
                return
        if self._on_command is not None:
            self._on_command(payload)
