"""Stored data is let through at a rate that follows the workers, and no device takes the share of another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.limits import DeviceLimits, Quotas
from ingest.pacing import BURST_S, LATE_MS, Pace, Pacer

PACE = Pace(device=120.0, whole=240.0, least=4.0)


def opened(pace: Pace = PACE) -> Pacer:
    """Make a pacer that found room for a while."""
    pacer = Pacer(pace, 0.0)
    for _ in range(100):
        pacer.look(0.0, pressed=False)
    return pacer


def sent(pacer: Pacer, devices: list[str], seconds: float, cost: float = 1.0) -> dict[str, float]:
    """Let all that may go for a while; gives the seconds of signal of each device."""
    out = dict.fromkeys(devices, 0.0)
    for turn in range(round(seconds / 0.05)):
        pacer.turn(devices, 0.05 * (turn + 1))
        going = True
        while going:
            going = False
            for device in devices:
                if pacer.may(device):
                    pacer.take(device, cost)
                    out[device] += cost
                    going = True
    return out


def test_one_device_gets_its_rate_and_many_share_the_whole():
    """120 s of signal a second for one, 240 s for fifty together."""
    assert sent(opened(), ["a"], 10.0)["a"] == pytest.approx(1_200, rel=0.05)
    many = sent(opened(), [f"bed-{number}" for number in range(50)], 10.0)
    assert sum(many.values()) == pytest.approx(2_400, rel=0.05)
    assert max(many.values()) <= 1_230


@given(
    st.lists(
        st.tuples(st.floats(0.0, 3.0), st.integers(0, 3), st.floats(0.01, 400.0), st.floats(0, 2_000), st.booleans())
    )
)
def test_no_more_goes_than_the_bounds_allow(moves: list[tuple[float, int, float, float, bool]]):
    """Over any time: rate times time, what a bucket holds, and the one message that overdraws it."""
    pacer, now, all_out = Pacer(PACE, 0.0), 0.0, 0.0
    out = [0.0] * 4
    for passed, device, cost, lag, pressed in moves:
        now += passed
        pacer.look(lag, pressed=pressed)
        assert 0 <= pacer.rate <= PACE.whole
        assert pacer.rate == 0 if lag >= LATE_MS[1] else pacer.rate >= PACE.least
        pacer.turn(["0", "1", "2", "3"], now)
        if pacer.may(str(device)):
            pacer.take(str(device), cost)
            out[device] += cost
            all_out += cost
        assert all_out <= PACE.whole * (now + BURST_S) + 400
        assert out[device] <= PACE.device * (now + BURST_S) + 400


def test_it_gives_way_and_comes_back():
    """Less while workers fall behind, least while the bus is pressed, nothing once they are late."""
    pacer = opened()
    assert pacer.rate == PACE.whole
    pacer.look(LATE_MS[0], pressed=False)
    assert pacer.rate == PACE.whole / 2
    pacer.look(0.0, pressed=True)
    assert pacer.rate == PACE.least
    pacer.look(LATE_MS[1], pressed=False)
    assert pacer.rate == 0
    assert sum(sent(pacer, ["a"], 5.0).values()) <= BURST_S * PACE.whole
    pacer.look(0.0, pressed=False)
    assert PACE.least < pacer.rate < PACE.whole


def test_what_is_let_through_never_exceeds_a_devices_limits():
    """Frames of 0.2 s, for an hour: the quota that drops what is too much finds nothing."""
    limits = DeviceLimits.of(20)
    pace, quotas, now = limits.within(PACE), Quotas(limits), 0.0
    pacer, frames = Pacer(pace, 0.0), 0
    for second in range(3_600):
        pacer.look(0.0, pressed=False)
        for turn in range(20):
            now = second + turn / 20
            pacer.turn(["a"], now)
            while pacer.may("a"):
                pacer.take("a", pace.cost(0.2, 600))
                assert quotas.take("a", 600, now)
                frames += 1
    assert frames > 0.9 * 3_600 * 20
    assert DeviceLimits.of(0).within(PACE).cost(0.2, 10**6) == 0.2
    assert limits.within(PACE).cost(1.0, 10**6) == pytest.approx(10**6 * PACE.device / limits.bytes)
