"""What a limit would have done: the rules over the beats, rhythms and states that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people_app import running_site

from alerts.archive import TIMED_BEAT, Archive
from alerts.limits import ADULT, LIMITS_OF, RANGES, Limits, changed
from alerts.model import TECHNICAL, Kind
from alerts.preview import count, kinds_of, past_of

T0 = 1_760_000_000_000


def beats(*stretches: tuple[float, float, str]) -> np.ndarray:
    """Make beats: seconds, beats a minute, code; one stretch after the other."""
    at, rows = 0.0, []
    for seconds, rate, code in stretches:
        until = at + seconds
        while at < until:
            rows.append((round(at * 1000), code))
            at += 60 / rate
    found = np.zeros(len(rows), TIMED_BEAT)
    found["ms"] = [T0 + ms for ms, _ in rows]
    found["code"] = [code.encode() for _, code in rows]
    found["p"] = 0.95
    return found


def counted(
    found: np.ndarray,
    name: str,
    limits: Limits = ADULT,
    rhythms: Sequence[tuple[int, str]] = (),
    states: Sequence[tuple[int, str]] = (),
) -> int:
    """Count what a limit would have given over the beats' time."""
    past = past_of(found, rhythms, states, T0, int(found["ms"][-1]) + 1000)
    return count(past, limits, kinds_of(name))


def test_a_rate_limit_counts_the_spells_beyond_it():
    """Three spells of 134/min, one of 150: four over 120, one over 140, none over 155."""
    spells = [(60, 75, "N"), (30, 134, "N")] * 3 + [(60, 75, "N"), (30, 150, "N"), (30, 75, "N")]
    found = beats(*spells)
    for value, wanted in ((120.0, 4), (140.0, 1), (155.0, 0)):
        assert counted(found, "tachy", changed(ADULT, {"tachy": value})) == wanted


def test_runs_pauses_and_ectopic_beats():
    """Runs by their length, pauses by theirs, ectopic beats by their number a minute."""
    run = beats((60, 75, "N"), (2.4, 150, "V"), (60, 75, "N"))
    assert counted(run, "vtach_beats") == 1
    assert counted(run, "vtach_beats", changed(ADULT, {"vtach_beats": 9})) == 0
    pause = beats((30, 75, "N"), (3, 20, "N"), (30, 75, "N"))
    assert counted(pause, "pause_s") == 1
    assert counted(pause, "pause_s", changed(ADULT, {"pause_s": 3.4})) == 0
    often = beats(*[(4, 60, "N"), (1, 60, "V")] * 24)
    assert counted(often, "pvc_per_min") == 1
    assert counted(often, "pvc_per_min", changed(ADULT, {"pvc_per_min": 30})) == 0


def test_atrial_fibrillation_by_its_length():
    """Two minutes of it: over one minute, not over three; a normal rhythm ends it."""
    found = beats((600, 75, "N"))
    rhythms = [(T0 - 5_000, "N"), (T0 + 100_000, "AFIB"), (T0 + 220_000, "N")]
    assert counted(found, "afib_s", rhythms=rhythms) == 1
    assert counted(found, "afib_s", changed(ADULT, {"afib_s": 180.0}), rhythms=rhythms) == 0


@pytest.mark.parametrize("quality", ["lead_off", "missing", "no_data"])
def test_a_lost_signal_is_no_asystole(quality: str):
    """Without beats for half a minute because nothing was seen: not counted; with a good signal it is."""
    before, after = beats((60, 75, "N")), beats((60, 75, "N"))
    after["ms"] += 90_000
    found = np.concatenate([before, after])
    late = 10_000 if quality == "no_data" else 1_000
    states = [(T0, "good"), (T0 + 60_000 + late, quality), (T0 + 89_500, "good")]
    assert counted(found, "asystole_s", states=states) == 0
    assert counted(found, "asystole_s", states=states[:1]) == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(5, 40), st.integers(30, 180), st.sampled_from("NNVA")), min_size=1, max_size=8))
def test_a_wider_limit_never_sounds_for_longer_runs_or_pauses(stretches: list[tuple[int, int, str]]):
    """Asking for more seconds of pause can only lower the number."""
    found = beats(*stretches)
    numbers = [counted(found, "pause_s", changed(ADULT, {"pause_s": value})) for value in (1.5, 2.5, 3.4)]
    assert numbers == sorted(numbers, reverse=True)


def test_what_can_be_tried():
    """Every limit belongs to a kind; technical ones and shapes can't be tried on what is kept."""
    assert set(RANGES) <= {name for names in LIMITS_OF.values() for name in names}
    for name in RANGES:
        kinds = kinds_of(name)
        assert not kinds & (TECHNICAL | {Kind.MULTIFORM})
    assert kinds_of("battery") == kinds_of("multiform_s") == kinds_of("nothing") == frozenset()
    assert Kind.TACHY in kinds_of("tachy")


def test_the_route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """How often, how often now, and on how much it rests; what can't be tried or set is refused in words."""
    with running_site(tmp_path) as site:
        headers = site.enter("viewer")
        site.app.state.hub.board.bed("Bed 1")
        path = "/api/patients/Bed 1/limits/preview"
        ask = {"name": "tachy", "value": 140}
        missing = site.app.state.parts.archive is None
        if missing:
            assert site.client.get(path, params=ask, headers=headers).status_code == 503
        with Archive(site.url, tmp_path / "recordings") as archive:
            monkeypatch.setattr("web.api_limits.part", lambda *_: archive)
            now = site.app.state.hub._clock()
            found = beats((60, 75, "N"), (30, 134, "N"), (60, 75, "N"))
            found["ms"] += int(now * 1000) - 600_000 - T0
            monkeypatch.setattr(Archive, "beats", lambda *_: found)
            answer = site.client.get(path, params=ask | {"hours": 1}, headers=headers)
            assert answer.json() == {"count": 0, "now": 1, "hours": 1.0, "beats": len(found)}
            for wrong in ({"name": "battery", "value": 5}, {"name": "tachy", "value": 45}, {"name": "x", "value": 1}):
                answer = site.client.get(path, params=wrong, headers=headers)
                assert answer.status_code == 422, wrong
