"""What the recorder keeps in memory does not grow with time."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from recording_desk import T0, Desk, beat, desk, entry, frames, samples

from alerts.archive_files import Segment, read_beats, read_units
from bus.messages import Entry, Inbound, StatusEvent
from ingest.codecs import encode_frame
from rhythmwatch.record import LEFT_AT_ONCE
from rhythmwatch.record_segments import ANCHOR_MS, ANCHORS, KEPT
from rhythmwatch.record_state import FORGET_MS, PartitionState, PatientState

__all__ = ["desk"]


def patients(desk: Desk) -> list[str]:
    """List of whom something is known."""
    return sorted(desk.recording._states[0].patients)


def test_a_signal_that_is_played_fast_leaves_few_anchors(desk: Desk) -> None:
    """Two hours that come in seconds are whole, and neither a segment nor memory holds a time for each frame."""
    units = samples(250 * 7300, leads=1)
    for number, frame in enumerate(frames(units)):
        arrived = T0 + 1_000 + number * 10
        desk.put(
            [
                Inbound(Entry.FRAME, arrived, "bed-1", encode_frame(frame)),
                msgspec.structs.replace(beat(number * 250), ms=arrived),
            ]
        )
        if number % 600 == 0:
            desk.recording.flush()
    desk.recording.flush()
    found = desk.archive.segments("bed-1")
    assert [item.first // item.length for item in found] == [0, 1, 2]
    assert max(len(item.anchors) for item in found) < 16 * ANCHORS
    assert np.array_equal(np.concatenate([read_units(desk.root, one, one.first, 10**9) for one in found]), units)
    assert sum(len(read_beats(desk.root / f"{one.path}.beats")) for one in found) == 7300


def test_times_follow_a_clock_that_steps_often(desk: Desk) -> None:
    """A device that sleeps again and again is put at the time of the wall each time, however often it was."""
    sent, off = [], 0
    for number, frame in enumerate(frames(samples(250 * 1200, leads=1))):
        off += 150_000 if number % 20 == 19 else 0
        sent.append(entry(frame, delay=off))
    desk.put(sent)
    desk.recording.flush()
    (segment,) = desk.archive.segments("bed-1")
    assert len(segment.anchors) == 1 + 60
    for number in (19, 500, 1199):
        assert segment.ms((number + 1) * 250) == pytest.approx(sent[number].server_ms, abs=ANCHOR_MS)


def test_memory_holds_the_end_of_an_epoch(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an epoch of days only the last hour is in memory; what comes late finds its segment all the same."""
    hours, step = 40, 250 * 3600
    asked: list[int] = []
    segments_of = desk.index.segments_of

    def counted(patient: str, epoch: int, sample: int) -> list[Segment]:
        found = segments_of(patient, epoch, sample)
        asked.append(len(found))
        return found

    monkeypatch.setattr(desk.index, "segments_of", counted)
    part = samples(250, leads=1)
    for hour in range(hours):
        (frame,) = frames(part, first=hour * step)
        desk.put([entry(frame), entry(replace(frame, sample=hour * step + 250)), beat(hour * step + 100)])
        desk.recording.flush()
    assert len(desk.recording._segments.of_epoch("bed-1", 1, hours * step)) == KEPT
    assert sum(asked) <= hours, "an hour costs more the longer the epoch is"
    (missed,) = frames(samples(250, leads=1, seed=5), first=3 * step + 500)
    desk.put([entry(missed, Entry.BACKFILL, 3_600_000), beat(3 * step + 600)])
    desk.recording.flush()
    found = desk.archive.segments("bed-1")
    assert len(found) == hours
    assert np.array_equal(read_units(desk.root, found[3], 3 * step + 500, 3 * step + 750), missed.samples)
    assert read_beats(desk.root / f"{found[3].path}.beats")["sample"].tolist() == [3 * step + 100, 3 * step + 600]
    assert len(desk.recording._segments.of_epoch("bed-1", 1, hours * step)) == KEPT


def test_segments_that_end_at_once_are_completed_some_at_a_time(desk: Desk) -> None:
    """The whole ward begins a new hour in one moment: no write takes long, and soon the newest files alone are open."""
    beds = [f"bed-{number}" for number in range(2 * LEFT_AT_ONCE + 3)]
    for first in (0, 250 * 3600):
        desk.put([entry(frame) for bed in beds for frame in frames(samples(250, leads=1), bed, first=first)])
        desk.recording.flush()
    completed = [len(list(desk.root.rglob("*.atr")))]
    while completed[-1] < len(beds):
        desk.recording.write()
        completed.append(len(list(desk.root.rglob("*.atr"))))
    assert completed == [LEFT_AT_ONCE, 2 * LEFT_AT_ONCE, len(beds)]
    newest = {desk.archive.segments(bed)[-1].path for bed in beds}
    assert set(desk.recording._files) == newest


def test_a_patient_who_vanished_is_forgotten(desk: Desk) -> None:
    """After a week without a word a patient's state goes, its last minute kept; who comes back is recorded again."""
    desk.number = T0
    desk.put([entry(frame) for frame in frames(samples(2500))])
    desk.put([StatusEvent("bed-1", "bed-1", T0, "MLII", ("MLII", "V1"), "good"), beat(250), beat(450)])
    # The server's clock was set by more than a week; by what ingest says it is one.
    desk.number += 2 * FORGET_MS
    desk.put([entry(frame, delay=FORGET_MS + 9_000) for frame in frames(samples(250, seed=2), "bed-2")])
    desk.recording.flush()
    desk.start()
    assert patients(desk) == ["bed-1", "bed-2"]
    assert desk.archive.minutes("bed-1", T0, T0 + 60_000).beats.tolist() == []
    late = [entry(frame, delay=FORGET_MS + 9_000) for frame in frames(samples(250, seed=4), "bed-2", first=750)]
    desk.put(late)
    desk.recording.flush()
    assert patients(desk) == ["bed-2"]
    assert desk.archive.minutes("bed-1", T0, T0 + 60_000).beats.tolist() == [2]
    desk.start()
    assert patients(desk) == ["bed-2"]
    back = samples(1000, seed=6)
    desk.put([entry(frame, delay=8 * 86_400_000) for frame in frames(back, first=2500)])
    desk.recording.flush()
    begin = T0 + 10_000 + 8 * 86_400_000
    assert np.array_equal(desk.archive.read("bed-1", begin, begin + 4_000).units, back)


def test_of_an_older_state_nobody_is_forgotten_at_once() -> None:
    """Where it was never noted when something came of a patient, the week begins now."""
    state = PartitionState(patients={"bed-1": PatientState()}, now_ms=T0)
    assert state.forget() == {}
    state.now_ms = T0 + FORGET_MS
    assert state.forget() == {}
    state.now_ms = T0 + FORGET_MS + 1
    assert list(state.forget()) == ["bed-1"]
    assert state.patients == {}


def test_a_new_segment_is_news_until_it_is_stored(desk: Desk) -> None:
    """Also where its samples were written before, as they are once many wait."""
    desk.put([entry(frame) for frame in frames(samples(250, leads=1))])
    assert desk.recording.news
    desk.recording.write()
    assert desk.recording.news
    assert desk.archive.segments("bed-1") == []
    desk.recording.flush()
    assert not desk.recording.news
    assert len(desk.archive.segments("bed-1")) == 1
