"""Which stored frames a device has sent and the service has not answered. Pure: time is an argument.

The broker acknowledges a message once it holds it, however long it will hold it. The service lets stored data in at its
own pace, so a device waits for its answers: what is not answered stays on the disk, and no more than a window of it is
with the broker. A service that does not say that it answers is taken to have what the broker has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from ingest.codecs import frame_number

WINDOW: Final = 240
"""Two seconds of what is let through of one device."""
ASK_S: Final = 30.0
"""How long a device waits after a connect to hear whether there are answers."""
STALL_S: Final = 600.0
"""After this long without an answer what is not answered is sent again."""


class Answers:
    """Frames that wait for their answer.

    Parameters
    ----------
    ask_s : float
        As `ASK_S`.

    Attributes
    ----------
    given : bool or None
        Whether the service answers; None while it has not said.
    """

    def __init__(self, ask_s: float = ASK_S) -> None:
        self.given: bool | None = None
        self._ask_s = ask_s
        self._open: dict[tuple[int, int], int] = {}
        self._frames: dict[int, tuple[int, int]] = {}
        self._since_s = self._asked_s = 0.0

    def __len__(self) -> int:
        """Frames not answered."""
        return len(self._frames)

    def __contains__(self, number: object) -> bool:
        """Whether a record was sent and is not answered."""
        return number in self._frames

    def connected(self, under_way: Collection[int], now_s: float) -> None:
        """Forget, at a new connection, what the broker took before: it may have forgotten it too."""
        for number in self._frames.keys() - under_way:
            self.end(number)
        self._since_s = self._asked_s = now_s

    def sent(self, number: int, payload: bytes, now_s: float) -> None:
        """Note that a record, a frame in the binary codec, is on its way."""
        if not self._frames:
            self._since_s = now_s
        frame = frame_number(payload)
        self._open[frame], self._frames[number] = number, frame

    def end(self, number: int) -> None:
        """Wait no more for the answer to a record."""
        frame = self._frames.pop(number, None)
        if frame is not None:
            self._open.pop(frame, None)

    def take(self, frames: Iterable[tuple[int, int]], now_s: float) -> list[int]:
        """Take an answer, frames by epoch and sequence number; gives the numbers of their records."""
        self.given, self._since_s = True, now_s
        return [self._open[frame] for frame in set(frames) if frame in self._open]

    def say(self, given: bool) -> list[int]:
        """Take what the service says of itself; gives the records that need no answer any more."""
        self.given = given
        return [] if given else list(self._frames)

    def may(self, now_s: float) -> bool:
        """Whether another frame may be sent."""
        if self.given is None and now_s - self._asked_s < self._ask_s:
            return False
        return len(self._frames) < WINDOW or not self.given

    def stalled(self, now_s: float) -> bool:
        """Whether answers have failed to come for so long that they got lost."""
        return bool(self._frames) and now_s - self._since_s >= STALL_S
