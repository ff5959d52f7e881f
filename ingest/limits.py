"""What one device may send, so that one gone mad, or lying, harms nobody but itself. Pure: time is an argument.

Up to the burst everything is taken, beyond it only the rate. What exceeds it is dropped and counted, and the device is
flagged. Stored data is let through within the rate (`ingest.pacing`), so that nothing of it is dropped.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

import msgspec

from ingest.pacing import Pace

FLAGS: Final = {
    "flood": "the device sends more than is taken; part of it was dropped",
    "backlog": "the device sends what it had stored faster than it is taken; for a while none of it is",
    "wrong_id": "the device sends data under another id; it was dropped",
    "bad_rate": "the device sends more seconds of signal than pass",
    "bad_clock": "the device's clock is more than a day off",
    "late": "the signal comes late",
}
"""What is told to staff, by the name of the `bus.messages.DeviceNote`."""
CLOCK_OFF_MS: Final = 86_400_000
LATE_MS: Final = 20_000.0
FLAG_AGAIN_S: Final = 60.0
MOST_DEVICES: Final = 200_000
SIGNAL_SPEED: Final = 1.5
SIGNAL_BURST_S: Final = 7_200.0


def flag_text(name: str, value: float = 0.0) -> str:
    """Say to staff what a flag means; a value is seconds."""
    return FLAGS[name] + (f" ({value:.0f} s)" if value else "")


class DeviceLimits(msgspec.Struct, frozen=True):
    """Limits of one device and kind of data.

    Attributes
    ----------
    messages : float
        Messages a second; 0 for no limit at all.
    message_burst : float
        Messages at once.
    bytes : float
        Bytes a second.
    byte_burst : float
        Bytes at once.
    shut_after : int
        Refused messages after which the broker is asked to shut the device out for a while; one larger than `bytes`
        over `messages` counts as more.
    """

    messages: float = 200.0
    message_burst: float = 20_000.0
    bytes: float = 1e6
    byte_burst: float = 64e6
    shut_after: int = 5_000

    @classmethod
    def of(cls, messages: float) -> DeviceLimits:
        """Scale all limits by the messages a second."""
        return cls(messages, 100 * messages, 5_000 * messages, 320_000 * messages, max(1, round(25 * messages)))

    def within(self, pace: Pace) -> Pace:
        """Give a pace at which a device that is let through by it never exceeds these limits."""
        return msgspec.structs.replace(pace, messages=self.messages, bytes=self.bytes if self.messages else 0.0)


class _Share:
    """What a device has left."""

    __slots__ = ("at", "bytes", "flagged", "messages", "refused", "signal")

    def __init__(self, limits: DeviceLimits, now_s: float) -> None:
        self.messages, self.bytes, self.signal = limits.message_burst, limits.byte_burst, SIGNAL_BURST_S
        self.at = now_s
        self.refused = 0.0
        self.flagged: dict[str, float] = {}


class Quotas:
    """The shares of all devices.

    Parameters
    ----------
    limits : DeviceLimits
        Same for all.
    """

    def __init__(self, limits: DeviceLimits) -> None:
        self.limits = limits
        self._shares: OrderedDict[str, _Share] = OrderedDict()
        self._swept_s = -math.inf

    def __len__(self) -> int:
        """Shares that are kept."""
        return len(self._shares)

    @property
    def full_after_s(self) -> float:
        """Seconds of silence after which a share is whole again, and needs not be kept."""
        limits, signal = self.limits, SIGNAL_BURST_S / SIGNAL_SPEED
        if limits.messages <= 0:
            return signal
        return max(signal, limits.message_burst / limits.messages, limits.byte_burst / limits.bytes, FLAG_AGAIN_S)

    def take(self, device: str, size: int, now_s: float) -> bool:
        """Take a message of `size` bytes; False if it is too much.

        Parameters
        ----------
        device : str
            Whose share it is; stored data may have another one by another name.
        size : int
            Bytes.
        now_s : float
            Monotonic clock, s.
        """
        limits = self.limits
        if limits.messages <= 0:
            return True
        share = self._share(device, now_s)
        self._refill(share, now_s)
        if share.messages < 1 or share.bytes < size:
            share.refused += max(1.0, size * limits.messages / limits.bytes)
            return False
        share.messages -= 1
        share.bytes -= size
        return True

    def take_signal(self, device: str, seconds: float, now_s: float) -> bool:
        """Take seconds of live signal that was taken already; False if more came than can have passed."""
        share = self._share(device, now_s)
        self._refill(share, now_s)
        if share.signal < seconds:
            return False
        share.signal -= seconds
        return True

    def flag(self, device: str, name: str, now_s: float) -> bool:
        """Whether staff should be told of something now: the first time, and again after a while."""
        flagged = self._share(device, now_s).flagged
        if now_s - flagged.get(name, -FLAG_AGAIN_S) < FLAG_AGAIN_S:
            return False
        flagged[name] = now_s
        return True

    def must_go(self, device: str, now_s: float) -> bool:
        """Whether a device was refused so often that the broker should shut it out; begins to count anew then."""
        share = self._share(device, now_s)
        if share.refused < self.limits.shut_after:
            return False
        share.refused = 0.0
        return True

    def _refill(self, share: _Share, now_s: float) -> None:
        passed = now_s - share.at
        if passed > 0:
            limits = self.limits
            share.messages = min(limits.message_burst, share.messages + passed * limits.messages)
            share.bytes = min(limits.byte_burst, share.bytes + passed * limits.bytes)
            share.signal = min(SIGNAL_BURST_S, share.signal + passed * SIGNAL_SPEED)
            share.at = now_s

    def _sweep(self, now_s: float) -> None:
        """Forget the shares of devices that have been silent until theirs was whole again."""
        self._swept_s = now_s
        before_s = now_s - self.full_after_s
        for device in [device for device, share in self._shares.items() if share.at < before_s]:
            del self._shares[device]

    def _share(self, device: str, now_s: float) -> _Share:
        share = self._shares.get(device)
        if share is None:
            if now_s - self._swept_s >= self.full_after_s:
                self._sweep(now_s)
            share = self._shares[device] = _Share(self.limits, now_s)
            if len(self._shares) > MOST_DEVICES:
                self._shares.popitem(last=False)
        return share
