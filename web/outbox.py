"""What waits for one client: states are kept, waveform makes room.

Two lanes. *Control* (alarms, rhythm, status, snapshots) is sent first and is never dropped: when its bound is reached
the client is cut off and resynchronises, which loses nothing. *Wave* (waveform, spectrogram columns, beat marks) is
bounded in bytes and drops its oldest message; the page sees the gap in the sample index, and the count is sent to it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

BATCH_BYTES: Final = 32 * 1024
"""Waveform in one websocket frame at most, so that an alarm never waits behind more than this."""


class OutboxFullError(RuntimeError):
    """The client reads too slowly even for states."""


class Outbox:
    """Bounded queue of encoded messages between the hub and one client's writer.

    Parameters
    ----------
    wave_bytes : int
        Bound of the wave lane, bytes.
    control_limit : int
        Bound of the control lane, messages.
    """

    def __init__(self, wave_bytes: int, control_limit: int) -> None:
        self._wave_bytes = wave_bytes
        self._control_limit = control_limit
        self._control: deque[bytes] = deque()
        self._wave: deque[bytes] = deque()
        self._waiting = 0
        self._ready = asyncio.Event()
        self.dropped = 0
        self.overrun = False

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._control) + len(self._wave)

    def put_control(self, message: bytes) -> None:
        """Queue a message that must arrive; past the bound the client is marked for a resync."""
        if len(self._control) >= self._control_limit:
            self.overrun = True
        else:
            self._control.append(message)
        self._ready.set()

    def put_snapshot(self, messages: Iterable[bytes]) -> None:
        """Queue a snapshot: it arrives whole, whatever its size."""
        self._control.extend(messages)
        self._ready.set()

    def put_wave(self, message: bytes) -> int:
        """Queue waveform; returns how many old messages had to go for it."""
        self._wave.append(message)
        self._waiting += len(message)
        dropped = 0
        while self._waiting > self._wave_bytes and len(self._wave) > 1:
            self._waiting -= len(self._wave.popleft())
            dropped += 1
        self.dropped += dropped
        self._ready.set()
        return dropped

    def take(self) -> list[bytes]:
        """Take what goes into the next websocket frame: all of control, then waveform up to `BATCH_BYTES`.

        Raises
        ------
        OutboxFullError
            If control messages could not be kept: the client has to start again from a snapshot.
        """
        if self.overrun:
            raise OutboxFullError(f"client left {self._control_limit} states unread; it starts again from a snapshot")
        batch = list(self._control)
        self._control.clear()
        size = 0
        while self._wave and size < BATCH_BYTES:
            message = self._wave.popleft()
            self._waiting -= len(message)
            size += len(message)
            batch.append(message)
        if not self._wave:
            self._ready.clear()
        return batch

    async def wait(self, seconds: float) -> bool:
        """Wait until something is there; False when `seconds` passed first."""
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True
