"""What staff and the broker are told of devices that send what they should not."""

from __future__ import annotations

from collections import Counter

from bus.messages import DeviceNote, Entry, pack, pack_inbound_parts
from ingest.accounts import LIMITS
from ingest.connection import Received
from ingest.limits import Quotas
from ingest.routes import Route


class Complaints:
    """Tells of devices, now and then.

    Parameters
    ----------
    quotas : Quotas
        What devices may send.
    counts : Counter
        ``flags`` (notes to staff) and ``shut_out`` (devices that the broker was asked to shut out) are counted.
    """

    def __init__(self, quotas: Quotas, counts: Counter[str]) -> None:
        self._quotas, self._counts = quotas, counts

    def note(self, route: Route, name: str, message: Received, now_s: float, value: float = 0.0) -> list[bytes]:
        """Make the entry that tells staff what is wrong with a device; none where they were told lately."""
        if not self._quotas.flag(route.device, name, now_s):
            return []
        self._counts["flags"] += 1
        note = pack(DeviceNote(name, value))
        return [pack_inbound_parts(Entry.DEVICE, message.server_ms, route.patient, note)]

    def shut_out(self, route: Route, message: Received, now_s: float) -> None:
        """Ask the broker to shut a device out that goes on to send beyond its share."""
        if self._quotas.must_go(route.share, now_s):
            self._counts["shut_out"] += 1
            message.reply(f"{LIMITS}/{route.device}", b"flood")
