"""Trends of each minute from a patient's events: rates, ectopic beats, time in fibrillation, quality.

Pure: all times are in the events. What a minute held is kept as sums, so that it does not matter in how many parts it
is written.
"""

from __future__ import annotations

from typing import Final

import msgspec

from alerts.archive_index import MinuteSums
from bus.messages import BeatEvent, Event, RhythmEvent, StatusEvent

MINUTE_MS: Final = 60_000
RATE_BEATS: Final = 4
"""RR intervals that a rate is the mean of, as on the wall."""
SETTLED_MS: Final = 15_000
"""A minute is written this long after its end: beats are decided a second or so after they come."""
LONGEST_MS: Final = 86_400_000
"""A state is not carried over a silence longer than this."""
_VENTRICULAR: Final = frozenset("VE")
_SUPRAVENTRICULAR: Final = frozenset("AaJS")


class Trend(msgspec.Struct):
    """What is known of a patient between events.

    Attributes
    ----------
    rhythm, quality : str
        As the last event said; quality is empty before the first.
    until_ms : int
        Time up to which states have been counted; 0 before the first event.
    recent : list of int
        Last RR intervals, ms.
    open : dict of int to MinuteSums
        Minutes that may still change, by their begin.
    """

    rhythm: str = ""
    quality: str = ""
    until_ms: int = 0
    recent: list[int] = []
    open: dict[int, MinuteSums] = {}

    def take(self, event: Event) -> None:
        """Take the next event of the patient."""
        if isinstance(event, BeatEvent):
            self._pass(event.ms)
            self._beat(event)
        elif isinstance(event, RhythmEvent):
            self._pass(event.ms)
            self.rhythm = event.code
        elif isinstance(event, StatusEvent):
            self._pass(event.ms)
            self.quality = event.quality

    def settled(self, *, over: bool = False) -> list[tuple[int, MinuteSums]]:
        """Give the minutes that have ended for certain, or all where nothing more comes, and forget them."""
        done = sorted(ms for ms in self.open if over or ms + MINUTE_MS + SETTLED_MS < self.until_ms)
        return [(ms, self.open.pop(ms)) for ms in done]

    def _minute(self, ms: int) -> MinuteSums:
        begin = ms - ms % MINUTE_MS
        sums = self.open.get(begin)
        if sums is None:
            sums = self.open[begin] = MinuteSums()
        return sums

    def _beat(self, event: BeatEvent) -> None:
        sums = self._minute(event.ms)
        sums.beats += 1
        if event.code in _VENTRICULAR:
            sums.pvc += 1
        elif event.code in _SUPRAVENTRICULAR:
            sums.sveb += 1
        if event.rr_ms == 0:
            self.recent.clear()
            return
        sums.rr_count += 1
        sums.rr_ms += event.rr_ms
        self.recent.append(event.rr_ms)
        if len(self.recent) < RATE_BEATS:
            return
        del self.recent[:-RATE_BEATS]
        rate = round(60_000 * RATE_BEATS / sum(self.recent), 1)
        if sums.hr_min is None or rate < sums.hr_min:
            sums.hr_min = rate
        if sums.hr_max is None or rate > sums.hr_max:
            sums.hr_max = rate

    def _pass(self, ms: int) -> None:
        """Count the states up to a time."""
        if self.until_ms == 0 or ms - self.until_ms > LONGEST_MS:
            self.until_ms = ms
            return
        while self.until_ms < ms:
            end = min(ms, self.until_ms - self.until_ms % MINUTE_MS + MINUTE_MS)
            if self.quality in ("good", "noisy"):
                sums, passed = self._minute(self.until_ms), end - self.until_ms
                sums.signal_ms += passed
                if self.quality == "good":
                    sums.good_ms += passed
                if self.rhythm == "AFIB":
                    sums.af_ms += passed
            self.until_ms = end
