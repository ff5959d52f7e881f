"""Recordings: what nobody agreed to, what is old and what is erased is not there."""

from __future__ import annotations

import numpy as np
from recording_desk import T0, Desk, beat, desk, entry, frames, samples

from bus.messages import StatusEvent
from rhythmwatch.record import Recording

__all__ = ["desk"]


def test_what_nobody_agreed_to_is_not_kept(desk: Desk) -> None:
    """Samples, beats and minutes from before an admission and after a withdrawal are left out, and counted."""
    desk.recording = Recording(
        desk.root, desk.index, [0], may_keep=lambda patient, ms: T0 + 3_000 <= ms < T0 + 6_000 and patient == "bed-1"
    )
    units = samples(2500)
    desk.put([entry(frame) for frame in frames(units)])
    desk.put([beat(number * 250 + 100) for number in range(10)])
    desk.put([StatusEvent("bed-1", "bed-1", T0 + 600_000, "MLII", ("MLII",), "no_data")])
    desk.recording.flush()
    strip = desk.archive.read("bed-1", T0, T0 + 10_000)
    assert strip.gaps == [(T0, T0 + 3_000), (T0 + 6_000, T0 + 10_000)]
    assert np.array_equal(strip.units[750:1500], units[750:1500])
    assert desk.archive.beats("bed-1", T0, T0 + 10_000)["sample"].tolist() == [850, 1100, 1350]
    assert desk.recording.counters.refused == {"not agreed": 14}
    assert desk.archive.minutes("bed-1", T0, T0 + 600_000).ms.size == 0


def test_retention_deletes_what_is_old(desk: Desk) -> None:
    """Segments and minutes from before the limit go with their files, and nothing else does."""
    units = samples(250 * 7300, leads=1)
    desk.put([entry(frame) for frame in frames(units)])
    desk.recording.flush()
    before = T0 + 2 * 3_600_000 - 1
    desk.recording.leave(before)
    assert desk.archive.expire(before) == 1
    assert sorted(path.name for path in desk.root.rglob("*.dat")) == ["000001.dat", "000002.dat"]
    assert np.array_equal(desk.archive.read("bed-1", T0 + 3_600_000, T0 + 7_300_000).units, units[250 * 3600 :])
    assert desk.archive.read("bed-1", T0, T0 + 3_600_000).units.size == 0


def test_erasure_takes_a_stretch(desk: Desk) -> None:
    """Samples, beats and trends of a stretch are gone from disk, what is around it stays, and recording goes on."""
    units = samples(2500)
    sent = [entry(frame) for frame in frames(units)]
    desk.put(sent[:8])
    desk.put([beat(number * 250 + 100) for number in range(8)])
    desk.recording.flush()
    assert desk.archive.erase("bed-1", T0 + 2_000, T0 + 5_000) == 1
    desk.put(sent[8:])
    desk.put([beat(2100)])
    desk.recording.flush()
    strip = desk.archive.read("bed-1", T0, T0 + 10_000)
    assert strip.gaps == [(T0 + 2_000, T0 + 5_000)]
    assert np.array_equal(strip.units[1250:], units[1250:])
    wanted = [number * 250 + 100 for number in (0, 1, 5, 6, 7, 8)]
    assert desk.archive.beats("bed-1", T0, T0 + 10_000)["sample"].tolist() == wanted
    assert units[600:700].tobytes() not in next(desk.root.rglob("*.dat")).read_bytes()
