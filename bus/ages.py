"""How old what is on a stream is: by what was its newest entry when, on a clock that nobody sets.

The ids of entries hold the time of the server, which is set at times: after a step forward what came a second ago seems
hours old, and after a step back ids stand still for as long. Only what was there before the first look is judged by its
id, against that look.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from bus.records import Position, earlier, milliseconds, order

COARSE: Final = 8
"""Marks are kept apart by at most this part of their age."""
KEPT_MS: Final = 4 * 3_600_000
"""Nobody asks for what is older."""


class Mark(NamedTuple):
    """The newest position of a stream at a time, ms of the machine's clock."""

    ms: float
    position: Position


class Ages:
    """What was newest when, of one stream; about 80 marks."""

    def __init__(self) -> None:
        self._marks: list[Mark] = []

    def add(self, now_ms: float, position: Position) -> None:
        """Note what is newest now; what is close together is thinned out, what nobody asks for is forgotten."""
        mark = Mark(now_ms, position)
        kept: list[Mark] = []
        for this, following in pairwise([*self._marks, mark]):
            if kept and COARSE * (following.ms - kept[-1].ms) <= mark.ms - following.ms:
                continue
            kept.append(this)
        while len(kept) > 1 and mark.ms - kept[1].ms >= KEPT_MS:
            del kept[0]
        self._marks = [*kept, mark]

    def before(self, now_ms: float, age_ms: float) -> Position:
        """Give a position that nothing younger than `age_ms` is before; at least one mark must have been added."""
        for mark in reversed(self._marks):
            if now_ms - mark.ms >= age_ms:
                return mark.position
        oldest = self._marks[0]
        return earlier(oldest.position, round(age_ms - (now_ms - oldest.ms)))

    def age_ms(self, now_ms: float, position: Position) -> float:
        """Age of an entry, ms: since the first look that found it or one after it; 0 of what none has found."""
        for number, mark in enumerate(self._marks):
            if order(mark.position) >= order(position):
                more = 0 if number else milliseconds(mark.position) - milliseconds(position)
                return now_ms - mark.ms + more
        return 0.0

    def dump(self, now_ms: float) -> bytes:
        """Write what is known, for another process."""
        return msgspec.msgpack.encode([(now_ms - mark.ms, mark.position) for mark in self._marks])

    def load(self, data: bytes, now_ms: float) -> None:
        """Go on from what another process knew, as of now; `msgspec.DecodeError` if it is none."""
        known = msgspec.msgpack.decode(data, type=list[tuple[float, Position]])
        self._marks = [Mark(now_ms - age, position) for age, position in known]
