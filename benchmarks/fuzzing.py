"""What a fuzz target is, and the valid frames that many begin from."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

DEVICE: Final = "bed-7"
NOW_MS: Final = 1_700_000_000_000

Run = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """A decoder under test.

    Attributes
    ----------
    run : callable
        Gives it bytes; raises for a finding alone.
    seeds : list of bytes
        Valid messages.
    close : callable
        Lets go of what it holds.
    """

    run: Run
    seeds: list[bytes]
    close: Callable[[], None] = lambda: None


def repaired(data: bytes) -> bytes:
    """Make length and checksum of a frame right, so that damage reaches what lies behind them."""
    from crc32c import crc32c

    if len(data) < 72:
        return data
    body = b"RW\1" + data[3:4] + struct.pack("<I", len(data)) + data[8:-4]
    return body + struct.pack("<I", crc32c(body))


def valid_frames() -> list[Any]:
    """Make frames of one to three leads and both widths."""
    import numpy as np

    from ingest.frame import Frame

    rng = np.random.default_rng(1)
    kinds = ((1, 4, np.int16), (2, 25, np.int16), (3, 60, np.int32))
    return [
        Frame(
            DEVICE, 5 + n, n, 250 * n, NOW_MS, 250.0, tuple(f"L{i}" for i in range(leads)), 200.0,
            rng.integers(-2000, 2000, (rows, leads)).astype(kind),
        )
        for n, (leads, rows, kind) in enumerate(kinds)
    ]  # fmt: skip
