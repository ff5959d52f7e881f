"""Which events may be recorded: those that came of entries which are recorded already.

A beat lies in samples that must be known when it is taken. The ids of both streams say nothing of that: they hold the
time of the server, which is set at times, and stand still after a step back. So it goes by what was the newest of both
at one look: an event that was there came of entries that were.
"""

from __future__ import annotations

from typing import Final

from bus.streams import START, Position, order

LOOKS: Final = 64
"""Looks that are kept while entries are behind; then every second one goes, and events wait for the next."""


class Gate:
    """Looks at the streams of one partition, until their entries are taken."""

    def __init__(self) -> None:
        self._looks: list[tuple[Position, Position]] = []

    def note(self, entries: Position, events: Position) -> None:
        """Take the newest position of each stream; that of the events must have been asked for first."""
        if not self._looks or self._looks[-1] != (entries, events):
            self._looks.append((entries, events))
        if len(self._looks) > LOOKS:
            del self._looks[1:-1:2]

    def until(self, taken: Position) -> Position:
        """Give the last event that may be taken once entries are taken up to a position."""
        passed = 0
        while passed < len(self._looks) and order(self._looks[passed][0]) <= order(taken):
            passed += 1
        if passed:
            # The last one that was passed holds until the next is.
            del self._looks[: passed - 1]
        return self._looks[0][1] if passed else START
