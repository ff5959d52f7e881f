"""The stream clock: the server's estimate of the wall time of each sample of a device.

A frame arrives when its last sample was taken, plus a delay that is never negative and mostly small. The estimate of
the origin (wall time of sample 0) therefore follows early arrivals quickly and late ones hardly: a backlog after an
outage moves it by no more than a bad crystal would. What is so late that the device's index may have stood still is
believed to come from a backlog for as long as it catches up. Time never steps back: between two frames the origin
falls by no more than the time that passed between them.
"""

from __future__ import annotations

from typing import Final

import msgspec

EARLY_GAIN: Final = 0.25
LATE_GAIN: Final = 0.01
LATE_SLEW: Final = 0.001
"""Ms a ms of signal; ten times the drift of a poor crystal."""
EARLY_SLEW: Final = 0.05
LOST_MS: Final = 1_000.0
"""An arrival this much too early means that the origin is wrong, not the delay: follow as fast as time allows."""
STEP_MS: Final = 30_000.0
"""An arrival this much too late: the device slept with its index stopped, or its frames were held up on their way."""
HELD_MS: Final = 120_000.0
"""Later than this nothing is held up: step forward."""
STEADY_S: Final = 5.0
"""Signal that does not come less late than the signal this long before is no backlog: step forward."""
CAUGHT_UP_MS: Final = 1_000.0
"""What counts as less late."""


class StreamClock(msgspec.Struct):
    """Wall time of the samples of one device; a small value that a checkpoint holds.

    Attributes
    ----------
    rate : float
        Samples a second of the epoch, Hz; 0 before `start`.
    origin_ms : float
        Estimated wall time of sample 0, ms since the Unix epoch.
    end : int
        Index after the last sample that was observed.
    late_ms, late_end : float, int
        The least that signal from `late_end` on was late by while it was so by more than `STEP_MS`; 0 for none.
    """

    rate: float = 0.0
    origin_ms: float = 0.0
    end: int = 0
    late_ms: float = 0.0
    late_end: int = 0

    def start(self, rate: float, end: int, arrived_ms: int) -> None:
        """Begin an epoch whose first frame ended before sample `end` and arrived at `arrived_ms`."""
        floor = self.ms(self.end) if self.rate else 0
        self.rate = rate
        self.origin_ms = max(arrived_ms, floor) - end * 1000 / rate
        self.end = end
        self.late_ms = 0.0

    def observe(self, end: int, arrived_ms: int) -> None:
        """Learn from a frame that ended before sample `end`; one that came out of order teaches nothing."""
        passed = (end - self.end) * 1000 / self.rate
        if passed <= 0:
            return
        error = arrived_ms - (self.origin_ms + end * 1000 / self.rate)
        if error <= STEP_MS:
            self.late_ms = 0.0
        elif not self.late_ms or error < self.late_ms - CAUGHT_UP_MS:
            self.late_ms, self.late_end = error, end
        if error > HELD_MS or (self.late_ms and end - self.late_end >= STEADY_S * self.rate):
            self.origin_ms += error
            self.late_ms = 0.0
        elif error > 0:
            self.origin_ms += min(error * LATE_GAIN, passed * LATE_SLEW)
        elif error < -LOST_MS:
            self.origin_ms += max(error, -passed)
        else:
            self.origin_ms += max(error * EARLY_GAIN, -passed * EARLY_SLEW)
        self.end = end

    def ms(self, sample: int) -> int:
        """Wall time of a sample, ms since the Unix epoch."""
        return round(self.origin_ms + sample * 1000 / self.rate)
