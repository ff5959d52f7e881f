"""Which live frames are on the bus already, so that one that comes again costs the bus and the workers nothing.

A device sends its last frames again after a broken connection, because a broker that was killed forgets what it had
acknowledged. Here the newest `FRAMES` of each device are known by what they are: epoch, number, sample, clock and
checksum together. Nothing but a copy is taken for one, in whatever order frames come and whatever a device that starts
again calls its epoch. What is not known here, because another ingest took it or this one was started again, the
sequencer drops. Pure: time is an argument.
"""

from __future__ import annotations

import math
from array import array
from typing import Final

FRAMES: Final = 64
"""Of each device, by sequence number: what 5 s bring in the shortest frames, and what may be under way besides."""
KEPT_S: Final = 60.0
"""A device that has been silent for twice as long is forgotten, or sooner where there are more than `MOST_DEVICES`."""
MOST_DEVICES: Final = 65_536
_EMPTY: Final = bytes(8 * FRAMES)
_SHORTEST: Final = 44


class KnownFrames:
    """Copies of frames in the binary codec, told from what is new."""

    def __init__(self) -> None:
        self._young: dict[str, array[int]] = {}
        self._old: dict[str, array[int]] = {}
        self._turned_s = -math.inf

    def __len__(self) -> int:
        """Devices of which frames are known."""
        return len(self._young.keys() | self._old.keys())

    def has(self, device: str, payload: bytes) -> bool:
        """Whether a payload is a copy of a frame of the device that was noted."""
        marks = self._young.get(device) or self._old.get(device)
        return marks is not None and len(payload) >= _SHORTEST and marks[payload[16] % FRAMES] == _mark(payload)

    def note(self, device: str, payload: bytes, now_s: float) -> None:
        """Note a frame that has been checked, and that is stored for good.

        Parameters
        ----------
        device : str
            Whose it is.
        payload : bytes
            In the binary codec.
        now_s : float
            Monotonic clock, s.
        """
        marks = self._young.get(device)
        if marks is None:
            if now_s - self._turned_s >= KEPT_S or len(self._young) >= MOST_DEVICES:
                self._old, self._young, self._turned_s = self._young, {}, now_s
            marks = self._old.pop(device) if device in self._old else array("q", _EMPTY)
            self._young[device] = marks
        marks[payload[16] % FRAMES] = _mark(payload)

    def forget(self) -> None:
        """Forget all: a bus that failed may have lost the last of what it had taken."""
        self._young.clear()
        self._old.clear()


def _mark(payload: bytes) -> int:
    """Sum up what no two frames of a device share: where a frame stands in the stream, and its checksum."""
    return hash(payload[8:40] + payload[-4:])
