"""How fast stored data may follow, so that it never stands before the live data of others. Pure: time is an argument.

Two buckets count seconds of signal: one of each device, one of all. The one of all fills slower the later the workers
are, and not at all where they are late already: a stored frame can wait, the alarm behind it can't.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

LATE_MS: Final = (400, 1_000)
"""Lag of a worker from which less stored data is let through, and from which none is."""
RISE: Final = 1 / 16
"""Share of the whole rate that each look which finds room adds."""
BURST_S: Final = 0.25
"""A bucket holds what this time brings, so that what was saved up does not come in one piece."""


class Pace(msgspec.Struct, frozen=True):
    """Seconds of signal that are let through a second.

    Attributes
    ----------
    device : float
        Of one device.
    whole : float
        Of all together, for one ingest, where there is room.
    least : float
        Of all together while workers fall behind or the memory of the bus runs short.
    messages, bytes : float
        The most of one device; what is small or large counts as more signal. 0 for no limit.
    """

    device: float = 120.0
    whole: float = 240.0
    least: float = 4.0
    messages: float = 0.0
    bytes: float = 0.0

    def cost(self, seconds: float, size: int) -> float:
        """Seconds of signal that a message of `seconds` and `size` bytes counts as."""
        cost = seconds
        if self.messages > 0:
            cost = max(cost, self.device / self.messages)
        if self.bytes > 0:
            cost = max(cost, size * self.device / self.bytes)
        return cost


class Pacer:
    """What of the stored data may go now.

    Parameters
    ----------
    pace : Pace
        Upper and lower bounds.
    now_s : float
        Monotonic clock, s.

    Attributes
    ----------
    rate : float
        Seconds of signal a second of all devices together, at the moment.
    """

    def __init__(self, pace: Pace, now_s: float) -> None:
        self.pace = pace
        self.rate = 0.0
        self._at = now_s
        self._all = 0.0
        self._left: dict[str, float] = {}

    def look(self, lag_ms: float, *, pressed: bool) -> None:
        """Take how late the latest worker is, and whether the memory of the bus runs short."""
        pace = self.pace
        slow, none = LATE_MS
        if lag_ms >= none:
            self.rate = 0.0
        elif pressed:
            self.rate = pace.least
        elif lag_ms >= slow:
            self.rate = max(pace.least, self.rate / 2)
        else:
            self.rate = min(pace.whole, max(pace.least, self.rate) + RISE * pace.whole)

    def stop(self) -> None:
        """Let nothing through until the next look."""
        self.rate = 0.0

    def turn(self, waiting: Iterable[str], now_s: float) -> None:
        """Fill the buckets with what the time since the last turn brings; whoever does not wait keeps no debt."""
        passed, self._at = max(0.0, now_s - self._at), now_s
        self._all = min(BURST_S * self.rate, self._all + passed * self.rate)
        full = BURST_S * self.pace.device
        more = passed * self.pace.device
        kept = {device: min(full, left + more) for device, left in self._left.items()}
        waits = set(waiting)
        self._left = {device: left for device, left in kept.items() if left < full or device in waits}

    def may(self, device: str) -> bool:
        """Whether a message of a device may go now."""
        return self._all > 0 and self._left.get(device, BURST_S * self.pace.device) > 0

    @property
    def done(self) -> bool:
        """Whether no message of any device may go now."""
        return self._all <= 0

    def take(self, device: str, cost: float) -> None:
        """Count a message that goes; a large one is paid for by those after it."""
        self._all -= cost
        self._left[device] = self._left.get(device, BURST_S * self.pace.device) - cost
