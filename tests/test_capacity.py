"""How the search for the largest number of patients narrows down."""

from __future__ import annotations

import pytest

from rhythmwatch.capacity import Level, between


def level(patients: int, p99_ms: float) -> Level:
    """Make a level with enough alarms."""
    return Level(patients, 100, 50.0, p99_ms, 10, {}, {})


@pytest.mark.parametrize(
    ("levels", "wanted"),
    [
        ([level(600, 90), level(900, 180), level(1200, 700)], 1050),
        ([level(900, 180), level(1200, 700), level(1050, 300)], 1125),
        ([level(900, 180), level(1200, 700), level(1050, 900)], 975),
        ([level(1000, 180), level(1050, 700)], None),
        ([level(1000, 180), level(1051, 700)], 1025),
        ([level(600, 90), level(900, 180)], None),
        ([level(600, 900)], None),
        ([level(1, 90), level(2, 900)], None),
    ],
)
def test_the_search_halves_between_carried_and_not(levels: list[Level], wanted: int | None):
    """Until 5 % lie between; it needs one number that was carried and one that was not."""
    assert between(levels, 500.0) == wanted
