"""What gives way when the memory of the bus runs short: waveforms for the wall first, then new frames; alarms never.

Frames that are held back are not lost: the broker keeps what ingest has not acknowledged, and devices keep what the
broker has not. What they give up leaves the memory that is left to those who work the bus empty.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from bus.errors import BusError
from bus.streams import Bus

LOOK_S: Final = 0.5
SHED: Final = (0.75, 0.70)
"""Share of the server's memory above which no waveforms are given out, and below which they are again."""
HOLD: Final = (0.85, 0.80)
"""The same for frames: a look comes twice a second, and what is left is for beats, alarms and checkpoints."""

log = structlog.get_logger(__name__)


class Pressure:
    """How the memory of a bus stands, with hysteresis.

    Attributes
    ----------
    share : float
        Memory used of the server's limit at the last look; 0 where it has none.
    shedding : bool
        Waveforms for the wall are left out.
    holding : bool
        Frames stay with the broker.
    """

    def __init__(self) -> None:
        self.share = 0.0
        self.shedding = False
        self.holding = False
        self._room = asyncio.Event()
        self._room.set()

    def note(self, used: int, limit: int) -> None:
        """Take what `Bus.memory` gave."""
        self.share = used / limit if limit > 0 else 0.0
        shedding = self.share > SHED[self.shedding]
        holding = self.share > HOLD[self.holding]
        if (shedding, holding) != (self.shedding, self.holding):
            log.warning(
                "memory of the bus", used_percent=round(100 * self.share),
                waveforms="left out" if shedding else "given out", frames="held back" if holding else "taken",
            )  # fmt: skip
        self.shedding, self.holding = shedding, holding
        if holding:
            self._room.clear()
        else:
            self._room.set()

    async def room(self) -> None:
        """Return once there is room for frames."""
        await self._room.wait()

    async def watch(self, bus: Bus) -> None:
        """Look at the server's memory again and again until cancelled; one that does not answer changes nothing."""
        while True:
            try:
                self.note(*await bus.memory())
            except BusError as error:
                log.debug("memory of the bus can't be looked at", why=str(error))
            await asyncio.sleep(LOOK_S)
