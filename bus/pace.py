"""How long those rest between two turns of work who serve many at once: the more there is to do, the more at a time."""

from __future__ import annotations


def rest_s(took_s: float, share: float, bounds: tuple[float, float]) -> float:
    """Give the time from the end of a turn to the next one, s.

    Parameters
    ----------
    took_s : float
        What the turn took, s.
    share : float
        Time from one begin to the next, as a multiple of it.
    bounds : tuple of float
        Least and most time from one begin to the next, s.

    Returns
    -------
    float
        Not above 0 where the next turn is due.
    """
    least, most = bounds
    return min(most, max(least, share * took_s)) - took_s
