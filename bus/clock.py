"""Wall time that never steps and is the same on all machines: what the service stamps, waits and reminds by.

When a system's clock is set, pauses, reminders and limits of silence must neither end at once nor never. So time goes
on with the clock of the machine that nobody can set, and slowly follows one system's clock: that of the bus's server,
since clocks of machines differ, and a notifier that is ten minutes ahead would hold every alarm to be too old. Who
stamps what comes in shares where the time stands, so that a process that starts after a step knows no other time than
those before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from bus.errors import BusError
from bus.tasks import end

SLEW: Final = 0.05
"""The most by which time runs faster or slower than it passes, while it follows the system's clock."""
LOST_MS: Final = 86_400_000
"""A system's clock that is this much ahead is believed at once: ours had never been right."""
SHARE_S: Final = 1.0
OLD_S: Final = 60.0
"""What was shared longer ago says nothing: the service stood, and who started it again may have set the clock."""
FRESH_MS: Final = 5_000
"""The same for what another machine shared, since its age is told by the server's clock, which may have been set."""
KEPT_MS: Final = 2 * LOST_MS
"""The bus forgets what was shared after so long. Its server counts by a clock that may leap, but one that leaps by more
than `LOST_MS` is believed at once, so that nothing is missed then."""
SERVICE: Final = "service"
"""Name under which whatever machine shared last is found by others."""
LOOK_S: Final = 10.0
ASKS: Final = 3
"""Times that the server is asked in a look; the quickest answer is the best."""
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """Where a clock stands: its time, ms, at a reading of the machine's, ns, while the server's said `server_ms`."""

    at_ns: int
    ms: float
    server_ms: float = 0.0


class Marks(Protocol):
    """The part of the bus that clocks are shared by (`bus.streams.Bus`)."""

    async def server_ms(self) -> float:
        """Read the system's clock of the server, ms since the Unix epoch."""
        ...

    async def put_clock(self, machine: str, mark: bytes, kept_ms: int) -> None:
        """Keep where the clock of a machine stands, for a time."""
        ...

    async def clock_of(self, machine: str) -> bytes | None:
        """Give what was kept."""
        ...


class SteadyClock:
    """Wall time, ms since the Unix epoch, that neither steps nor runs backwards.

    Parameters
    ----------
    wall : callable
        The system's clock, ns since the Unix epoch; may step. Followed until another one is (`follow`).
    passing : callable
        The machine's clock, ns since it started.
    """

    def __init__(self, wall: Callable[[], int], passing: Callable[[], int]) -> None:
        self._wall, self._passing = wall, passing
        self._at_ns, self._ms = passing(), wall() / 1e6
        self._told = 0
        self._server_ms: float | None = None
        """What the followed clock says where the machine's says 0."""

    def __call__(self) -> int:
        """Server time, ms."""
        self._go_on()
        self._told = max(self._told, int(self._ms))
        return self._told

    def mark(self) -> Mark:
        """Where the clock stands."""
        self._go_on()
        return Mark(self._at_ns, self._ms, self.server_ms())

    def reading(self) -> int:
        """Read the machine's clock, ns."""
        return self._passing()

    def server_ms(self) -> float:
        """Read the clock that is followed, ms since the Unix epoch."""
        return self._wall() / 1e6 if self._server_ms is None else self._server_ms + self._passing() / 1e6

    def follow(self, mark: Mark) -> None:
        """Follow the server's clock, which said `server_ms` at a reading of the machine's, in place of the system's."""
        self._go_on()
        self._server_ms = mark.server_ms - mark.at_ns / 1e6

    def join(self, mark: Mark) -> bool:
        """Go on from where another clock of this machine stood; False if that is too long ago."""
        if not 0 <= self._passing() - mark.at_ns <= OLD_S * 1e9:
            return False
        self._begin(mark.at_ns, mark.ms)
        return True

    def join_other(self, mark: Mark | None) -> None:
        """Go on from where a clock of another machine stood; if that is too long ago, the time is the server's."""
        ms = server_ms = self.server_ms()
        if mark is not None and abs(server_ms - mark.server_ms) <= FRESH_MS:
            ms += mark.ms - mark.server_ms
        self._begin(self._passing(), ms)

    def _begin(self, at_ns: int, ms: float) -> None:
        self._at_ns, self._ms, self._told = at_ns, ms, 0
        self._go_on()

    def not_before(self, ms: int) -> None:
        """Go on from a time that was told before; where the followed clock is behind it, that catches up."""
        self._go_on()
        self._ms = max(self._ms, ms)

    def _go_on(self) -> None:
        at_ns = self._passing()
        passed = max(0, at_ns - self._at_ns) / 1e6
        ms = self._ms + passed
        error = self.server_ms() - ms
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


def server_ms() -> int:
    """Tell what the clock of the bus's server says, by which ids are made, ms since the Unix epoch; may step."""
    return int(_CLOCK.server_ms())


async def join_clock(bus: Marks) -> bool:
    """Take over the time of the service; where nobody shares it, that of the bus's server. False if the bus is away."""
    clock = _CLOCK
    try:
        kept = await bus.clock_of(_MACHINE) if _MACHINE else None
        other = await bus.clock_of(SERVICE)
        said = await _look(bus, clock)
    except BusError:
        return False
    clock.follow(said)
    mine = _mark_of(kept)
    if mine is None or not clock.join(mine):
        clock.join_other(_mark_of(other))
    return True


def clock_not_before(ms: int) -> None:
    """See `SteadyClock.not_before`."""
    _CLOCK.not_before(ms)


@contextlib.asynccontextmanager
async def keeping_time(bus: Marks) -> AsyncIterator[None]:
    """Join the time of the service, and follow the clock of the bus's server for as long as the block lasts."""
    joined = await join_clock(bus)
    following = asyncio.create_task(_follow(bus, joined), name="clock")
    try:
        yield
    finally:
        await end([following])


async def share_clock(bus: Marks) -> None:
    """Tell others where our clock stands, again and again, until cancelled."""
    while True:
        mark = msgspec.msgpack.encode(_CLOCK.mark())
        with contextlib.suppress(BusError):
            for name in filter(None, (_MACHINE, SERVICE)):
                await bus.put_clock(name, mark, KEPT_MS)
        await asyncio.sleep(SHARE_S)


async def _follow(bus: Marks, joined: bool) -> None:
    while True:
        await asyncio.sleep(LOOK_S if joined else SHARE_S)
        if not joined:
            joined = await join_clock(bus)
            continue
        with contextlib.suppress(BusError):
            _CLOCK.follow(await _look(bus, _CLOCK))


async def _look(bus: Marks, clock: SteadyClock) -> Mark:
    """Ask what the server's clock says; the answer was made half-way between question and answer."""
    found: list[tuple[int, Mark]] = []
    for _ in range(ASKS):
        asked = clock.reading()
        server_ms = await bus.server_ms()
        took = clock.reading() - asked
        found.append((took, Mark(asked + took // 2, 0.0, server_ms)))
    return min(found, key=lambda item: item[0])[1]


def _mark_of(data: bytes | None) -> Mark | None:
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.msgpack.decode(data, type=Mark) if data is not None else None
    return None
