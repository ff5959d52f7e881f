"""What the pages need to know from outside, as one frozen record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from bus.messages import DEFAULT_PARTITIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """Settings of one web process.

    Attributes
    ----------
    redis_url : str
        The bus; ``redis://``, ``rediss://`` or ``unix://``.
    database_url : str
        SQL of the alarm store (accounts, open alarms); empty where the stores are passed in.
    zone : str
        IANA name of the ward's time zone (``Europe/Berlin``), for reports and hours of the day; empty for the server's.
    recordings : Path or None
        Folder of the recordings; None where none are kept.
    partitions : int
        Partitions of the bus.
    ward : str
        Name shown at the top of the wall.
    origins : tuple of str
        Origins that may open a websocket or act, beside the page's own (``https://wall.example.org``); needed behind a
        proxy that changes the host.
    devices_address : str
        ``mqtt://`` or ``mqtts://`` address that devices are told when they are enrolled; empty where it is not known.
    secure_cookie : bool
        Send the session cookie over HTTPS only; switch it on wherever TLS ends in front.
    session_hours : float
        A session ends after this long, one shift by default.
    session_check_s : float
        How often the session behind an open websocket is looked up again, seconds.
    clock_s : float
        Pulse to each client, seconds; the page calls two seconds of silence a lost connection.
    wave_queue_bytes : int
        Waveform waiting for one client, bytes; above it the oldest is dropped and counted.
    control_queue : int
        Alarms and other states waiting for one client; above it the client is cut off and comes back with a snapshot,
        so that none is lost.
    backlog_s : float
        Waveform kept for a page that opens, seconds.
    feed_dead_s : float
        ``/healthz`` answers 503 after the feed was silent this long, seconds.
    """

    redis_url: str
    database_url: str = ""
    recordings: Path | None = None
    partitions: int = DEFAULT_PARTITIONS
    ward: str = "Ward"
    zone: str = ""
    origins: tuple[str, ...] = ()
    devices_address: str = ""
    secure_cookie: bool = False
    session_hours: float = 12.0
    session_check_s: float = 5.0
    clock_s: float = 1.0
    wave_queue_bytes: int = 512 * 1024
    control_queue: int = 4096
    backlog_s: float = 12.0
    feed_dead_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what can't work, before anything is opened."""
        for name in ("session_hours", "session_check_s", "clock_s", "backlog_s", "feed_dead_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        try:
            self.time_zone()
        except (ValueError, OSError, KeyError) as error:
            raise ValueError(f"time zone {self.zone!r} is not known: write a name like Europe/Berlin") from error
        if self.partitions < 1:
            raise ValueError(f"partitions is {self.partitions}; at least 1 is needed")
        if self.wave_queue_bytes < 16 * 1024 or self.control_queue < 64:
            raise ValueError("a client's queue needs at least 16 KiB of waveform and 64 messages")

    def time_zone(self) -> ZoneInfo | None:
        """Give the zone of the ward; None for that of the server."""
        return ZoneInfo(self.zone) if self.zone else None
