"""How long a device waits before it tries its broker again. Pure: time and chance are arguments.

A broker that refuses has worked for that, and is tried ever less often. One that can't be reached is not: what counts
there is how long after its return the devices are back, so that the wait grows with the outage alone.
"""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 0.25
SOON_S: Final = 1.0
SHARE: Final = 1 / 15
"""An outage is made longer by no more than this share of it, or `SOON_S`."""
LONGEST_S: Final = 30.0
_DOUBLINGS: Final = 16


def wait_s(attempt: int, outage_s: float, chance: float, *, refused: bool) -> float:
    """Give the wait before the next attempt, s.

    Parameters
    ----------
    attempt : int
        Attempts that failed in a row in the same way, 1 for the first.
    outage_s : float
        How long there has been no connection, s.
    chance : float
        Random, 0 to 1; scatters the waits of many devices over their upper half.
    refused : bool
        Whether the broker answered, and said no.
    """
    longest = LONGEST_S if refused else min(LONGEST_S, max(SOON_S, SHARE * outage_s))
    return min(longest, FIRST_S * 2.0 ** min(attempt - 1, _DOUBLINGS)) * (0.5 + 0.5 * chance)
