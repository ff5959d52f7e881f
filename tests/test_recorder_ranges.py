"""Two recorders that have the same partitions: by mistake, for a moment, or one after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recording_desk import T0, Desk, beat, desk, entry, frames, samples
from sqlalchemy import select

from alerts.archive_index import MINUTES, Index, MinuteSums, OvertakenError, Place
from bus.errors import ServerError
from bus.messages import StatusEvent
from rhythmwatch.recorder import hold_partitions

__all__ = ["desk"]


def beats_by_minute(index: Index) -> dict[int, int]:
    """Beats that each minute is said to have had."""
    with index._engine.connect() as connection:
        rows = connection.execute(select(MINUTES.c.ms, MINUTES.c.beats)).all()
    return {row.ms: row.beats for row in rows}


def test_a_recorder_that_was_overtaken_stores_nothing_more(desk: Desk) -> None:
    """It was held for dead, and another one went on: what it has in hand is neither lost nor added twice."""
    units = samples(250 * 200)
    sent = frames(units)
    good = StatusEvent("bed-1", "bed-1", T0, "MLII", ("MLII", "V1"), "good")
    desk.put([entry(sent[0]), good])
    desk.recording.flush()
    stale, place = desk.recording, desk.number
    rest = [entry(frame) for frame in sent[1:]] + [beat(sample) for sample in range(250, 250 * 200, 250)]
    desk.put(rest[:-5])
    desk.start()
    desk.number = place
    desk.put(rest)
    desk.recording.flush()
    kept = beats_by_minute(desk.index)
    assert sum(kept.values()) >= 100
    with pytest.raises(OvertakenError, match="partitions 0"):
        stale.flush()
    stale.close()
    desk.recording.close()
    assert beats_by_minute(desk.index) == kept
    strip = desk.archive.read("bed-1", T0, T0 + 200_000)
    assert np.array_equal(strip.units, units)
    assert len(desk.archive.beats("bed-1", T0, T0 + 200_000)) == 199


def test_a_commit_whose_answer_was_lost_is_not_done_twice(url: str) -> None:
    """The database had it; the same call again adds nothing to a minute."""
    with Index(url) as index:
        index.upgrade()
        one = [("bed-1", T0, MinuteSums(beats=70))]
        moved = [(3, Place("10-0", "5-0", b"x"))]
        index.commit([], one, moved, {})
        index.commit([], one, moved, {})
        assert beats_by_minute(index) == {T0: 70}
        index.commit([], one, [(3, Place("11-0", "5-0", b"y"))], {3: ("10-0", "5-0")})
        assert beats_by_minute(index) == {T0: 140}
        for before in ({}, {3: ("10-0", "5-0")}):
            with pytest.raises(OvertakenError, match="partitions 3"):
                index.commit([], one, [(3, Place("12-0", "5-0", b"z")), (4, Place("1-0", "1-0", b""))], before)
        assert beats_by_minute(index) == {T0: 140}
        assert index.places([3, 4]) == {3: Place("11-0", "5-0", b"y")}


def test_a_partition_has_one_recorder(tmp_path: Path) -> None:
    """Ranges that meet in one partition are refused, whatever they begin with; what is let go can be had."""
    with hold_partitions(tmp_path, range(32)):
        with hold_partitions(tmp_path, range(32, 64)):
            pass
        for wanted in (range(64), range(16, 48), range(31, 32)):
            with pytest.raises(ServerError, match="by another process"), hold_partitions(tmp_path, wanted):
                pass
    with hold_partitions(tmp_path, range(64)):
        pass
