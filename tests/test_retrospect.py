"""Data that comes after its time is judged apart: its alarms are listed at their time and call nobody."""

from __future__ import annotations

from dataclasses import replace

import stories
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.messages import Action, AlarmEvent, BeatEvent, Entry, Event, Inbound, RhythmEvent, StatusEvent, pack
from ingest.codecs import encode_frame
from ingest.frame import Frame
from rhythmwatch.checkpoint import dump, restore
from rhythmwatch.pipeline import Pipeline

STORY = "sinus:34,hr=75; vt:9,hr=180; sinus:60,hr=75"
T0 = 1_760_000_040_000
SECONDS = 90


def frames() -> list[Frame]:
    """Frames of a second, with a run of ventricular tachycardia from 34 s on."""
    return [replace(f, device_ms=T0 + f.sample * 4) for f in stories.frames(stories.recording(STORY, SECONDS), "a")]


def live(frame: Frame) -> Inbound:
    """Make the entry of a frame that came in time."""
    return stories.frame_entry(frame, T0 + frame.sample * 4 + 1000)


def stored(frame: Frame, at_s: float) -> Inbound:
    """Make the entry of a frame that the device had kept and sent at some time."""
    return Inbound(Entry.BACKFILL, T0 + round(at_s * 1000), "a", encode_frame(frame))


def ticks(seconds: int) -> list[Inbound]:
    """Make a tick a second."""
    return [Inbound(Entry.TICK, T0 + second * 1000 + 500, "", b"") for second in range(seconds)]


def ward(kept: tuple[int, int] = (20, 60)) -> list[Inbound]:
    """Frames from `kept` on to its end did not come in time; the device sends them at 92 s and later."""
    sent = frames()
    entries = [live(f) for n, f in enumerate(sent) if not kept[0] <= n < kept[1]]
    entries += [stored(f, 92 + number * 0.1) for number, f in enumerate(sent[kept[0] : kept[1]])]
    return sorted([*entries, *ticks(120)], key=lambda entry: entry.server_ms)


def events(entries: list[Inbound], sizes: tuple[int, ...] = (1,)) -> list[Event]:
    """Fold entries; events in order."""
    return [event for _, event in stories.run(entries, sizes).events]


def found_late(found: list[Event]) -> list[AlarmEvent]:
    """Alarms that were found afterwards."""
    return [event for event in found if isinstance(event, AlarmEvent) and event.retrospective]


def apart(found: list[Event]) -> tuple[list[Event], list[Event]]:
    """Part events of the live signal from those of late data, each in their order."""
    late = [
        event
        for event in found
        if getattr(event, "retrospective", False)
        or (isinstance(event, BeatEvent) and 20 * 250 <= event.sample < 60 * 250)
    ]
    return [event for event in found if event not in late], late


def test_a_stored_run_is_found_at_its_time_and_calls_nobody():
    """VTACH in what the device sent later: off from the first, never announced, at the time it happened."""
    found = events(ward())
    late = [event for event in found_late(found) if event.kind == "VTACH"]
    first = late[0]
    assert first.id == f"a/VTACH/1/{first.onset_sample}/late"
    assert 34 * 250 <= first.onset_sample <= 37 * 250
    assert abs(first.onset_ms - (T0 + first.onset_sample * 4)) < 300
    assert first.onset_ms < first.raised_ms < T0 + 45_000
    assert first.changed_ms > T0 + 92_000
    assert {event.presence for event in late} == {"off"}
    assert {event.announced_ms for event in late} == {0}
    assert late[-1].cleared_ms is not None
    assert [event.revision for event in late] == list(range(len(late)))
    assert not [e for e in found if isinstance(e, AlarmEvent) and e.kind == "VTACH" and not e.retrospective]
    assert not [event for event in found_late(found) if event.technical]


def test_late_data_leaves_the_live_signal_alone():
    """Live beats, rhythms, states and alarms are those of the stream without what came late."""
    entries = ward()
    with_late = events(entries)
    without = events([entry for entry in entries if entry.kind is not Entry.BACKFILL])
    mine = [event for event in with_late if not getattr(event, "retrospective", False)]
    beats = {event.sample for event in without if isinstance(event, BeatEvent)}
    assert [e for e in mine if not isinstance(e, BeatEvent)] == [e for e in without if not isinstance(e, BeatEvent)]
    assert [e for e in mine if isinstance(e, BeatEvent) and e.sample in beats] == [
        e for e in without if isinstance(e, BeatEvent)
    ]
    extra = [e for e in mine if isinstance(e, BeatEvent) and e.sample not in beats]
    assert len(extra) > 40
    assert all(19 * 250 < e.sample < 61 * 250 for e in extra)
    assert [e.code for e in extra].count("V") > 15
    kinds = (RhythmEvent, StatusEvent)
    assert [e for e in with_late if isinstance(e, kinds)] == [e for e in without if isinstance(e, kinds)]


def test_data_that_was_seen_live_is_not_judged_again():
    """A device that sends once more what had come makes no second alarm of it."""
    sent = frames()
    again = [stored(f, 92 + number * 0.1) for number, f in enumerate(sent[25:50])]
    found = events(sorted([*map(live, sent), *again, *ticks(120)], key=lambda entry: entry.server_ms))
    assert [e for e in found if isinstance(e, AlarmEvent) and e.kind == "VTACH"]
    assert found_late(found) == []


def test_an_epoch_that_nobody_heard_is_judged_too():
    """A device out of reach that was started anew meanwhile: the old epoch's time comes from the device's clock."""
    old = [replace(f, device_ms=f.device_ms - 3_600_000) for f in frames()]
    new = [replace(f, epoch=2) for f in stories.frames(stories.recording("sinus:60,hr=70", 30), "a")]
    new = [replace(f, device_ms=T0 + f.sample * 4) for f in new]
    entries = [*map(live, new), *(stored(f, 32 + number * 0.1) for number, f in enumerate(old)), *ticks(60)]
    late = [e for e in found_late(events(sorted(entries, key=lambda entry: entry.server_ms))) if e.kind == "VTACH"]
    assert late[0].epoch == 1
    assert abs(late[0].onset_ms - (T0 - 3_600_000 + late[0].onset_sample * 4)) < 1_500


def test_frames_behind_the_window_are_judged_too():
    """A network that delivers half a minute late: nothing of it is live, all of it is judged."""
    sent = frames()
    late = [Inbound(Entry.FRAME, T0 + 92_000 + n * 100, "a", encode_frame(f)) for n, f in enumerate(sent[20:60])]
    entries = [*(live(f) for n, f in enumerate(sent) if not 20 <= n < 60), *late, *ticks(120)]
    assert "VTACH" in {e.kind for e in found_late(events(sorted(entries, key=lambda entry: entry.server_ms)))}


def test_limits_hold_for_late_data_as_well():
    """A kind that was switched off before the data came is not found in it."""
    off = Inbound(Entry.ACTION, T0 + 91_000, "a", pack(Action("limits", "anna", None, {"VTACH": False})))
    found = events(sorted([*ward(), off], key=lambda entry: entry.server_ms))
    assert "VTACH" not in {event.kind for event in found_late(found)}
    assert len([event for event in found if getattr(event, "reason", "") == "limits"]) == 1


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(100, 200))
def test_batches_and_checkpoints_change_nothing(sizes: list[int], cut: int):
    """However the stream is cut, and wherever another worker takes over."""
    acts = [
        Inbound(Entry.ACTION, T0 + 93_000, "a", pack(Action("limits", "anna", None, {"tachy": 130.0}))),
        Inbound(Entry.ACTION, T0 + 94_500, "a", pack(Action("admit", "anna", None, {"profile": "elderly"}))),
    ]
    entries = sorted([*ward(), *acts], key=lambda entry: entry.server_ms)
    whole = apart(events(entries))
    assert apart(events(entries, tuple(sizes))) == whole
    first, second = Pipeline(stories.models(), 1), Pipeline(stories.models(), 1)
    early = [event for _, event in stories.run(entries[:cut], (7,), first).events]
    restore(second, dump(first, 0))
    assert apart(early + [event for _, event in stories.run(entries[cut:], (3,), second).events]) == whole


def test_what_can_not_be_judged_any_more_is_counted():
    """An older epoch behind a newer one among the late: kept by the recorder, counted here."""
    pipeline = Pipeline(stories.models(), 1)
    sent = frames()
    live_now = [replace(f, epoch=9) for f in sent[:5]]
    entries = [live(f) for f in live_now]
    entries += [stored(replace(f, epoch=5), 6 + n * 0.1) for n, f in enumerate(sent[:3])]
    entries += [stored(replace(f, epoch=4), 7 + n * 0.1) for n, f in enumerate(sent[:3])]
    stories.run(entries, (1,), pipeline)
    assert (pipeline.late_frames, pipeline.unjudged_frames) == (6, 3)
