"""Where a frame belongs in time: in order behind the last one, late, or not to be believed.

Pure, a small value for each patient. The wall clock of the samples is estimated as in the pipeline
(`ingest.clock.StreamClock`) and for the same entries, so that recordings and alarms agree.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bus.messages import Entry
from ingest.clock import StreamClock
from ingest.frame import Frame

AHEAD_MS: Final = 60_000
"""A frame whose samples would lie this far in the future is believed only when a second one joins on behind it."""
STORED_MS: Final = 30 * 86_400_000
"""Longest that a device is believed to have kept a frame."""


class Timeline(msgspec.Struct):
    """The order of one patient's frames.

    Attributes
    ----------
    epoch : int
        -1 before the first frame.
    rate, gain, leads
        Format of the epoch.
    offset_ms : float or None
        Wall clock minus the device's clock, None before the first frame.
    suspect : int
        Sample behind a frame that was not believed; -1 for none.
    """

    epoch: int = -1
    rate: float = 0.0
    gain: float = 0.0
    leads: tuple[str, ...] = ()
    clock: StreamClock = msgspec.field(default_factory=StreamClock)
    offset_ms: float | None = None
    suspect: int = -1

    def place(self, frame: Frame, kind: Entry, server_ms: int) -> str:
        """Take a frame as it arrived.

        Parameters
        ----------
        frame : Frame
        kind : Entry
            ``FRAME`` or ``BACKFILL``.
        server_ms : int
            Stream clock of its entry.

        Returns
        -------
        str
            ``live`` (behind the last, the clock has learnt from it), ``late`` (it may fill what is missing), or why it
            is left out: ``changed`` (other format within the epoch), ``jump``.
        """
        if kind is Entry.FRAME and frame.epoch > self.epoch:
            self.epoch, self.suspect = frame.epoch, -1
            self.rate, self.gain, self.leads = frame.rate, frame.gain, frame.leads
            self.clock.start(frame.rate, frame.sample + len(frame.samples), server_ms)
            self.offset_ms = self.clock.ms(frame.sample) - frame.device_ms
            return "live"
        if frame.epoch != self.epoch:
            return "late"
        if frame.rate != self.rate or frame.gain != self.gain or frame.leads != self.leads:
            return "changed"
        end = frame.sample + len(frame.samples)
        ahead = self.clock.ms(end) - server_ms > AHEAD_MS
        if kind is not Entry.FRAME or frame.sample < self.clock.end:
            return "jump" if ahead else "late"
        if ahead and frame.sample != self.suspect:
            self.suspect = end
            return "jump"
        self.suspect = -1
        self.clock.observe(end, server_ms)
        self.offset_ms = self.clock.ms(frame.sample) - frame.device_ms
        return "live"

    def guess_ms(self, frame: Frame, server_ms: int) -> float:
        """Wall time of the first sample of a frame, by the clock of its device where it is of another epoch."""
        if frame.epoch == self.epoch:
            return self.clock.ms(frame.sample)
        ms = frame.device_ms + (self.offset_ms or 0.0)
        arrived = server_ms - len(frame.samples) * 1000 / frame.rate
        return ms if arrived - STORED_MS < ms <= arrived + AHEAD_MS else arrived
