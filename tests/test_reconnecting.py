"""Waits of a device between attempts: short where the broker is out of reach, ever longer where it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.reconnecting import FIRST_S, LONGEST_S, SHARE, SOON_S, wait_s


@given(st.integers(1, 10_000), st.floats(0, 1e6), st.floats(0, 1), st.booleans())
def test_no_wait_is_longer_than_it_may_be(attempt: int, outage_s: float, chance: float, refused: bool):
    """Half of the wait is left to chance; an unreachable broker is missed for a share of the outage at most."""
    wait = wait_s(attempt, outage_s, chance, refused=refused)
    assert FIRST_S / 2 <= wait <= LONGEST_S
    assert refused or wait <= max(SOON_S, SHARE * outage_s)
    assert wait_s(attempt, outage_s, 0.0, refused=refused) <= wait <= wait_s(attempt, outage_s, 1.0, refused=refused)


@pytest.mark.parametrize("cut_s", [1.0, 10.0, 30.0, 300.0, 3_600.0])
def test_a_device_is_back_soon_after_an_outage(cut_s: float):
    """At whatever moment of the waits the broker returns; and in long outages few attempts are made."""
    now, attempts = 0.0, 0
    while now < cut_s:
        attempts += 1
        now += wait_s(attempts, now, 1.0, refused=False)
    assert now - cut_s <= max(SOON_S, SHARE * cut_s)
    assert attempts <= 75 + cut_s / LONGEST_S


def test_a_broker_that_refuses_is_left_in_peace():
    """Its waits double from the first on, whatever the outage."""
    waits = [wait_s(attempt, 0.0, 1.0, refused=True) for attempt in range(1, 10)]
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
