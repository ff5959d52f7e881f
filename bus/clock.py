"""Wall time that never steps: what the processes of a machine stamp, wait and remind by.

When the system's clock is set, pauses, reminders and limits of silence must neither end at once nor never. So time goes
on with the clock of the machine that nobody can set, and follows the system's slowly. Processes of one machine share
where it stands, so that one that starts after a step knows no other time than those before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from bus.errors import BusError

SLEW: Final = 0.05
"""The most by which time runs faster or slower than it passes, while it follows the system's clock."""
LOST_MS: Final = 86_400_000
"""A system's clock that is this much ahead is believed at once: ours had never been right."""
SHARE_S: Final = 1.0
OLD_S: Final = 60.0
"""What was shared longer ago says nothing: the service stood, and who started it again may have set the clock."""
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """Where a clock stands: its time, ms, at a reading of the machine's, ns."""

    at_ns: int
    ms: float


class Marks(Protocol):
    """The part of the bus that clocks are shared by (`bus.streams.Bus`)."""

    async def put_clock(self, machine: str, mark: bytes) -> None:
        """Keep where the clock of a machine stands."""
        ...

    async def clock_of(self, machine: str) -> bytes | None:
        """Give what was kept."""
        ...


class SteadyClock:
    """Wall time, ms since the Unix epoch, that neither steps nor runs backwards.

    Parameters
    ----------
    wall : callable
        The system's clock, ns since the Unix epoch; may step.
    passing : callable
        The machine's clock, ns since it started.
    """

    def __init__(self, wall: Callable[[], int], passing: Callable[[], int]) -> None:
        self._wall, self._passing = wall, passing
        self._at_ns, self._ms = passing(), wall() / 1e6
        self._told = 0

    def __call__(self) -> int:
        """Server time, ms."""
        self._go_on()
        self._told = max(self._told, int(self._ms))
        return self._told

    def mark(self) -> Mark:
        """Where the clock stands."""
        self._go_on()
        return Mark(self._at_ns, self._ms)

    def join(self, mark: Mark) -> bool:
        """Go on from where another clock of this machine stood; False if that is too long ago."""
        since = self._passing() - mark.at_ns
        if not 0 <= since <= OLD_S * 1e9:
            return False
        self._at_ns, self._ms = mark.at_ns, mark.ms
        self._go_on()
        return True

    def not_before(self, ms: int) -> None:
        """Go on from a time that was told before; where the system's clock is behind it, that catches up."""
        self._go_on()
        self._ms = max(self._ms, ms)

    def _go_on(self) -> None:
        at_ns = self._passing()
        passed = max(0, at_ns - self._at_ns) / 1e6
        ms = self._ms + passed
        error = self._wall() / 1e6 - ms
        if error <= LOST_MS:
            error = max(-SLEW * passed, min(SLEW * passed, error))
        self._at_ns, self._ms = at_ns, ms + error


def _clock_of_the_machine() -> tuple[str, Callable[[], int]]:
    """Give the clock that nobody sets, if possible one that goes on while the machine sleeps, and whose it is."""
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    number = getattr(time, "CLOCK_BOOTTIME", None)
    if number is not None:
        try:
            time.clock_gettime_ns(number)
        except OSError:
            pass
        else:
            return boot and f"{boot}/boot", lambda: time.clock_gettime_ns(number)
    return boot and f"{boot}/monotonic", time.monotonic_ns


_MACHINE, _passing = _clock_of_the_machine()
_CLOCK: Final = SteadyClock(time.time_ns, _passing)


def now_ms() -> int:
    """Server time, ms since the Unix epoch; never steps (see the module)."""
    return _CLOCK()


async def join_clock(bus: Marks) -> None:
    """Take over the time of the processes of this machine that run already; without any, the system's is ours."""
    try:
        kept = await bus.clock_of(_MACHINE) if _MACHINE else None
    except BusError:
        return
    if kept is not None:
        with contextlib.suppress(msgspec.DecodeError):
            _CLOCK.join(msgspec.msgpack.decode(kept, type=Mark))


def clock_not_before(ms: int) -> None:
    """See `SteadyClock.not_before`."""
    _CLOCK.not_before(ms)


async def share_clock(bus: Marks) -> None:
    """Tell others where our clock stands, again and again, until cancelled."""
    while _MACHINE:
        with contextlib.suppress(BusError):
            await bus.put_clock(_MACHINE, msgspec.msgpack.encode(_CLOCK.mark()))
        await asyncio.sleep(SHARE_S)
