"""The fold from frames to alarms gives the same for any batches, frame lengths, order of arrival and duplicates."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import stories
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.messages import Action, AlarmEvent, BeatEvent, DeviceNote, Entry, Inbound, StatusEvent, View, pack
from ingest.recordings import Recording
from rhythmwatch.checkpoint import CheckpointError, dump, restore
from rhythmwatch.pipeline import Output, Pipeline

SECONDS = 35


def ward() -> list[Inbound]:
    """Three patients of different rates, ticks and an acknowledgement, interleaved."""
    streams = [
        stories.frames(stories.recording(stories.VT_STORY, SECONDS, 3, 250.0), "a"),
        stories.frames(stories.recording("sinus:40,hr=60,pvc=0.3", SECONDS, 4, 360.0), "b"),
        stories.frames(stories.recording("af:20,hr=110; asystole:9; sinus:30", SECONDS, 5, 128.0), "c", 2.0),
    ]
    entries: list[Inbound] = []
    for stream in streams:
        entries += [stories.frame_entry(frame) for frame in stream]
    entries += [Inbound(Entry.TICK, second * 1000 + 500, "", b"") for second in range(SECONDS + 30)]
    entries.append(Inbound(Entry.ACTION, 26_200, "a", pack(Action("ack", "nurse"))))
    return sorted(entries, key=lambda entry: entry.server_ms)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, list[bytes]]:
    """Fold the ward entry by entry."""
    return stories.by_patient(stories.run(ward()))


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_batches_do_not_change_anything(undisturbed: dict[str, list[bytes]], sizes: list[int]):
    """However the stream is cut into batches, every patient's events are the same to the bit."""
    assert stories.by_patient(stories.run(ward(), sizes)) == undisturbed


def test_batch_mates_do_not_change_anything(undisturbed: dict[str, list[bytes]]):
    """A patient alone gives what it gives among others."""
    alone = [entry for entry in ward() if entry.patient in ("a", "")]
    assert stories.by_patient(stories.run(alone, (7,)))["a"] == undisturbed["a"]


@pytest.mark.parametrize("seconds", [0.1, 0.37, 2.9])
def test_frame_length_does_not_change_beats_and_conditions(seconds: float):
    """Beats and conditions, with the last sample each needed, do not depend on the length of frames."""
    record = stories.recording(stories.VT_STORY, SECONDS)
    wanted = stories.run([stories.frame_entry(frame) for frame in stories.frames(record, "a")])
    got = stories.run([stories.frame_entry(frame) for frame in stories.frames(record, "a", seconds)], (3,))
    last = min(len(stories.beats(wanted)), len(stories.beats(got)))
    assert last > 40
    assert stories.beats(got)[:last] == stories.beats(wanted)[:last]
    assert stories.conditions(got) == stories.conditions(wanted)


@settings(max_examples=5, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_and_duplicates_do_not_change_beats_and_conditions(random):
    """Frames out of order within the window, some twice, give the beats and conditions of the orderly stream."""
    record = stories.recording(stories.VT_STORY, SECONDS)
    orderly = [stories.frame_entry(frame) for frame in stories.frames(record, "a")]
    shuffled = sorted(orderly, key=lambda entry: entry.server_ms + random.uniform(0, 1_900))
    messy = [entry for entry in shuffled for _ in range(random.choice((1, 1, 2)))]
    # Entries come with the time at which they came, not with that of their frame.
    times = sorted(entry.server_ms for entry in messy)
    arrived = [Inbound(entry.kind, ms, entry.patient, entry.payload) for entry, ms in zip(messy, times, strict=True)]
    wanted, got = stories.run(orderly), stories.run(arrived, (4,))
    assert stories.beats(got) == stories.beats(wanted)
    assert stories.conditions(got) == stories.conditions(wanted)


def test_a_gap_holds_no_beat_and_the_rest_stays():
    """Lost frames: no beat is invented in the gap, it is said, and identities after it are those of the samples."""
    record = stories.recording("sinus:60,hr=75", 50)
    cut = stories.frames(record, "a")
    lost = [frame for frame in cut if not 20 <= frame.sample / 250 < 26]
    whole = stories.beats(stories.run([stories.frame_entry(frame) for frame in cut]))
    output = stories.run([stories.frame_entry(frame) for frame in lost])
    got = stories.beats(output)
    assert not [sample for sample, _ in got if 20.2 * 250 < sample < 25.8 * 250]
    far = {beat for beat in whole if beat[0] < 19 * 250 or beat[0] > 30 * 250}
    assert {sample for sample, _ in far} <= {sample for sample, _ in got}
    assert "missing" in [event.quality for _, event in output.events if isinstance(event, StatusEvent)]
    kinds = {kind for kind, *_ in stories.conditions(output)}
    assert not kinds & {"ASYSTOLE", "PAUSE", "EXTREME_BRADY"}


def test_a_new_epoch_begins_anew():
    """A device that starts again gets new identities, and what stood in the old epoch ends."""
    record = stories.recording(stories.VT_STORY, SECONDS)
    first = [stories.frame_entry(frame) for frame in stories.frames(record, "a")[:22]]
    again = [
        stories.frame_entry(frame, 30_000 + round(frame.sample * 4) + 1000)
        for frame in stories.frames(stories.recording("sinus:40,hr=70", SECONDS), "a", epoch=2)
    ]
    output = stories.run([*first, *again])
    alarms = [event for _, event in output.events if isinstance(event, AlarmEvent) and event.kind == "VTACH"]
    assert alarms[0].presence == "on"
    assert alarms[-1].presence == "latched"
    assert {event.epoch for _, event in output.events if isinstance(event, AlarmEvent)} >= {1}


def test_a_checkpoint_continues_exactly(undisturbed: dict[str, list[bytes]]):
    """State put into another pipeline in the middle of everything goes on to the bit."""
    entries = ward()
    for cut in (30, 71):
        first = Pipeline(stories.models(), 1)
        early = stories.run(entries[:cut], (5,), first)
        second = Pipeline(stories.models(), 1)
        restore(second, dump(first, 0))
        late = stories.run(entries[cut:], (9,), second)
        early.events += late.events
        assert stories.by_patient(early) == undisturbed


def test_the_battery_is_told_when_it_changes_and_outlives_a_takeover():
    """Each new charge is a status of its own, a repeated or impossible one is none; a checkpoint keeps it."""
    frames = stories.frames(stories.recording("sinus:6", 6), "p")

    def note(value: float, ms: int) -> Inbound:
        return Inbound(Entry.DEVICE, ms, "p", pack(DeviceNote("battery", value)))

    def told(output: Output) -> list[int]:
        return [event.battery for _, event in output.events if isinstance(event, StatusEvent)]

    first = Pipeline(stories.models(), 1)
    begun = stories.run([stories.frame_entry(frame) for frame in frames[:3]], pipeline=first)
    assert set(told(begun)) <= {-1}
    values = (0.8, 0.8, float("nan"), 7.0, 0.794, 0.75)
    assert told(stories.run([note(value, 3000 + n) for n, value in enumerate(values)], pipeline=first)) == [80, 79, 75]
    second = Pipeline(stories.models(), 1)
    restore(second, dump(first, 0))
    assert told(stories.run([note(0.75, 3010)], pipeline=second)) == []
    assert told(stories.run([note(0.5, 3011)], pipeline=second)) == [50]


def test_a_foreign_checkpoint_is_refused():
    """Bytes that are no checkpoint of this version leave the pipeline as it was."""
    pipeline = Pipeline(stories.models(), 1)
    with pytest.raises(CheckpointError, match="can't be read"):
        restore(pipeline, b"\x00garbage")
    assert not pipeline.patients


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (stories.constant(0.0, 40), "LEADS_OFF"),
        (stories.constant(float("nan"), 40), "NO_DATA"),
        (stories.constant(10.2, 40), "LEADS_OFF"),
    ],
    ids=["flat", "nan", "saturated"],
)
def test_a_dead_signal_raises_a_technical_alarm_and_no_beat(record: Recording, kind: str):
    """Flat, missing and saturated signals: a technical alarm, no beat, no clinical alarm."""
    output = stories.run([stories.frame_entry(frame) for frame in stories.frames(record, "a")])
    assert stories.beats(output) == []
    assert {name for name, *_ in stories.conditions(output)} == {kind}


def test_silence_raises_no_data_and_frames_end_it():
    """Ticks without frames raise NO_DATA after 10 s; the next frame ends it."""
    frames = stories.frames(stories.recording("sinus:60", 40), "a")
    entries = [stories.frame_entry(frame) for frame in frames[:10]]
    entries += [Inbound(Entry.TICK, 10_000 + 1000 * second, "", b"") for second in range(1, 16)]
    entries += [stories.frame_entry(frame, 26_000 + 10 * number) for number, frame in enumerate(frames[10:14])]
    output = stories.run(entries, (2,))
    silence = [(kind, on) for kind, on, *_ in stories.conditions(output) if kind == "NO_DATA"]
    assert silence == [("NO_DATA", True), ("NO_DATA", False)]
    raised = next(event for _, event in output.events if isinstance(event, AlarmEvent) and event.kind == "NO_DATA")
    assert raised.raised_ms == 20_000


@pytest.mark.parametrize("cut_s", [10, 30])
def test_what_a_cut_network_held_up_is_judged_live(cut_s: int):
    """Frames in order behind a silence give the same beats and alarms, at their time, and none comes too late."""
    frames = stories.frames(stories.recording("sinus:18,hr=75; sinus:60,hr=140", 75), "a")
    whole_ms = 20_500 + 1000 * cut_s
    ticks = [Inbound(Entry.TICK, 1000 * second + 700, "", b"") for second in range(80)]

    def played(*, cut: bool) -> tuple[Pipeline, Output]:
        entries = [*ticks]
        for number, frame in enumerate(frames, 1):
            held = cut and 20_500 < 1000 * number < whole_ms
            entries.append(stories.frame_entry(frame, whole_ms + 10 * number if held else None))
        pipeline = Pipeline(stories.models(), 1)
        return pipeline, stories.run(sorted(entries, key=lambda entry: entry.server_ms), pipeline=pipeline)

    def beats(output: Output) -> dict[tuple[int, str], int]:
        return {(e.sample, e.code): e.ms for _, e in output.events if isinstance(e, BeatEvent)}

    def alarms(output: Output) -> list[str]:
        found = [e for _, e in output.events if isinstance(e, AlarmEvent) and not e.technical]
        return [e.id for e in found if e.revision == 0]

    pipeline, output = played(cut=True)
    undisturbed = played(cut=False)[1]
    got, expected = beats(output), beats(undisturbed)
    assert alarms(output) == alarms(undisturbed) != []
    assert pipeline.late_frames == 0
    assert ("NO_DATA", True) in {(kind, on) for kind, on, *_ in stories.conditions(output)}
    assert got.keys() == expected.keys()
    # The clock is still settling when nothing comes any more.
    assert max(abs(ms - expected[beat]) for beat, ms in got.items()) < 200


def test_a_bad_entry_is_counted_and_stops_nothing():
    """Broken frames and unknown actions are counted by reason; the patient goes on."""
    good = [stories.frame_entry(frame) for frame in stories.frames(stories.recording("sinus:30", 12), "a")]
    bad = [
        Inbound(Entry.FRAME, 1_500, "a", b"RW nothing"),
        Inbound(Entry.ACTION, 1_600, "a", b"\xff"),
        Inbound(Entry.ACTION, 1_700, "a", pack(Action("dance", "x"))),
        Inbound(Entry.DEVICE, 1_800, "a", b""),
    ]
    output = stories.run([good[0], *bad, *good[1:]], (3,))
    assert sum(output.refused.values()) == 4
    assert len(stories.beats(output)) >= 8


def test_views_join_without_a_seam():
    """Consecutive views of a patient hold every sample and every column once."""
    output = stories.run(
        [stories.frame_entry(frame) for frame in stories.frames(stories.recording("sinus:30", 12), "a")]
    )
    views: list[View] = [view for _, view in output.views]
    for before, after in pairwise(views):
        assert after.index == before.index + len(before.wave) // 2
        assert after.column0 == before.column0 + len(before.columns) // before.bins
    wave = np.frombuffer(b"".join(view.wave for view in views), "<i2")
    assert np.ptp(wave) * 0.005 > 0.8
