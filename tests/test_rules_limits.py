"""Limits of the rules: kinds, bounds, changes by staff."""

from __future__ import annotations

import pytest
from rule_evidence import beats, run, starts

from alerts.limits import ADULT, HIGHER, KINDS, Limits, LimitsError, changed
from alerts.model import Kind, Priority


def test_every_kind_has_its_row_and_chains_lead_upwards():
    """The table is complete, and what stands for a kind is never of a lower priority."""
    assert set(KINDS) == set(Kind)
    for low, highs in HIGHER.items():
        assert all(KINDS[high].priority >= KINDS[low].priority for high in highs)
        assert low not in highs


def test_limits_are_checked_as_a_set():
    """All contradictions are told at once, in words."""
    with pytest.raises(LimitsError) as caught:
        Limits(brady=119.0, extreme_tachy=1000.0, battery=float("nan"))
    text = str(caught.value)
    assert "brady = 119 must lie below tachy = 120" in text
    assert "extreme_tachy = 1000 is outside" in text
    assert "battery = nan" in text


def test_changes_of_limits_by_staff():
    """Values by name; unknown names, wrong types and fractions of beats are refused in words."""
    new = changed(ADULT, {"tachy": 130, "PVC_RATE": False, "afib_with_rate": True, "vtach_beats": 6.0})
    assert (new.tachy, new.vtach_beats, new.off) == (130.0, 6, frozenset({Kind.PVC_RATE}))
    assert changed(new, {"PVC_RATE": True}).off == frozenset()
    for values in (
        {"no_such": 1.0},
        {"tachy": "fast"},
        {"tachy": True},
        {"vtach_beats": 5.5},
        {"ASYSTOLE": 1.0},
        {"afib_with_rate": 1.0},
        {"pvc_per_min": float("inf")},
        {"brady": 200.0},
    ):
        with pytest.raises(LimitsError):
            changed(ADULT, values)


def test_a_kind_switched_off_is_silent_and_lower_ones_stay():
    """Without VTACH a run of seven is told as NSVT."""
    off = changed(ADULT, {"VTACH": False})
    conditions, _ = run(beats("NNNVVVVVVVNN", 0.45), off)
    assert {c.kind for c in starts(conditions)} >= {Kind.NSVT}
    assert Kind.VTACH not in {c.kind for c in conditions}
    assert KINDS[Kind.VTACH].priority is Priority.HIGH
