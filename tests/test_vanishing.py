"""A patient of whom nothing comes any more gives back what the signal stages and the pipeline hold of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import stories

from bus.messages import Action, AlarmEvent, BeatEvent, Entry, Inbound, StatusEvent, pack
from ingest.frame import Frame
from rhythmwatch.checkpoint import dump, restore
from rhythmwatch.ordering import REST_MS
from rhythmwatch.pipeline import FORGET_MS, Output, Pipeline

BEFORE_S, AFTER_S = 20, 40
HOUR_S = REST_MS // 1000
DAY_MS = 86_400_000


def tick(ms: int) -> Inbound:
    """Make a tick."""
    return Inbound(Entry.TICK, ms, "", b"")


def action(ms: int, name: str, device: str = "a") -> Inbound:
    """Make an action of staff."""
    return Inbound(Entry.ACTION, ms, device, pack(Action(name, "nurse")))


def frames(device: str = "a", seed: int = 3) -> list[Frame]:
    """Cut a minute of sinus rhythm."""
    return stories.frames(stories.recording("sinus:60,hr=75", BEFORE_S + AFTER_S, seed), device)


def entries(device: str = "a", *, slept: bool = False, ticks: bool = True) -> list[Inbound]:
    """Give a device that falls silent and comes back after two hours; its index goes on meanwhile unless it slept."""
    away_s = 2 * HOUR_S
    found = []
    for frame in frames(device):
        ms = (frame.seq + 1) * 1000
        if frame.seq < BEFORE_S:
            found.append(stories.frame_entry(frame, ms))
        else:
            away = 0 if slept else away_s
            moved = replace(frame, seq=frame.seq + away, sample=frame.sample + round(away * frame.rate))
            found.append(stories.frame_entry(moved, ms + 1000 * away_s))
    if ticks:
        found += [tick(BEFORE_S * 1000 + 500 + 1000 * second) for second in range(0, away_s + AFTER_S, 60)]
    return sorted(found, key=lambda one: one.server_ms)


def beats_after(output: Output, sample: int) -> list[tuple[int, str]]:
    """Beats behind a sample."""
    return [beat for beat in stories.beats(output) if beat[0] >= sample]


def test_a_silent_device_gives_its_row_back_and_goes_on() -> None:
    """After an hour of silence the row is free for another patient; what comes later is judged as without the rest."""
    pipeline = Pipeline(stories.models(), 1)
    sent = entries()
    away = next(number for number, one in enumerate(sent) if one.server_ms > BEFORE_S * 1000 + REST_MS + 1_000)
    stories.run(sent[:away], pipeline=pipeline)
    assert pipeline.patients["a"].slot == -1
    other = [stories.frame_entry(frame) for frame in frames("b", seed=7)]
    mate = stories.run(other, pipeline=pipeline)
    assert pipeline.patients["b"].slot >= 0
    after = stories.run(sent[away:], pipeline=pipeline)
    assert pipeline.patients["a"].slot not in (-1, pipeline.patients["b"].slot)
    begin = round((2 * HOUR_S + BEFORE_S) * 250)
    wanted = beats_after(stories.run(entries(ticks=False)), begin)
    assert len(wanted) > AFTER_S
    assert beats_after(after, begin) == wanted
    assert stories.beats(mate) == stories.beats(stories.run(other))


def test_a_device_whose_index_stood_still_goes_on() -> None:
    """Beats follow where the index had stopped, each once."""
    found = [sample for sample, _ in stories.beats(stories.run(entries(slept=True)))]
    assert found == sorted(set(found))
    assert len([sample for sample in found if sample >= BEFORE_S * 250]) > AFTER_S


@pytest.mark.parametrize("slept", [False, True])
def test_batches_and_takeovers_change_nothing(slept: bool) -> None:
    """However the stream is cut, and if a worker takes over while the device is away, the events are the same."""
    sent = entries(slept=slept)
    wanted = stories.by_patient(stories.run(sent))
    assert stories.by_patient(stories.run(sent, (37, 5, 200))) == wanted
    first, second = Pipeline(stories.models(), 1), Pipeline(stories.models(), 1)
    cut = len(sent) // 2
    before = stories.run(sent[:cut], (11,), first)
    assert first.patients["a"].slot == -1
    restore(second, dump(first, 0))
    after = stories.run(sent[cut:], (11,), second)
    assert stories.by_patient(before)["a"] + stories.by_patient(after)["a"] == wanted["a"]


def test_the_last_beats_before_a_gap_keep_their_time() -> None:
    """They are decided as the device comes back, and lie where they were taken."""
    found = [event for _, event in stories.run(entries(ticks=False)).events if isinstance(event, BeatEvent)]
    before = [event for event in found if event.sample < BEFORE_S * 250]
    assert before[-1].sample > (BEFORE_S - 1) * 250
    assert max(abs(event.ms - 4 * event.sample) for event in before) < 1_000
    assert max(abs(event.ms - 4 * event.sample) for event in found[len(before) + AFTER_S // 2 :]) < 1_000


def test_an_action_reaches_a_patient_who_rests() -> None:
    """Staff admit somebody while the device is away; no row of another patient is touched by it."""
    pipeline = Pipeline(stories.models(), 1)
    away_ms = BEFORE_S * 1000 + REST_MS + 2_000
    stories.run([stories.frame_entry(frame) for frame in frames()[:BEFORE_S]], pipeline=pipeline)
    stories.run([tick(away_ms)], pipeline=pipeline)
    rows = {name: store.tobytes() for name, store in pipeline.stages._stores.items()}
    stories.run([action(away_ms + 1, "admit")], pipeline=pipeline)
    assert {name: store.tobytes() for name, store in pipeline.stages._stores.items()} == rows
    back = [stories.frame_entry(frame, away_ms + 1000 * frame.seq) for frame in frames()[BEFORE_S:]]
    assert len(stories.beats(stories.run(back, pipeline=pipeline))) > AFTER_S // 2


def test_late_data_gives_its_row_back() -> None:
    """What a device had kept is judged apart, and the row for it is free once that is done."""
    pipeline = Pipeline(stories.models(), 1)
    live = [stories.frame_entry(frame) for frame in frames() if not 10 <= frame.seq < 25]
    kept = [
        Inbound(Entry.BACKFILL, 60_000 + frame.seq, "a", stories.frame_entry(frame).payload)
        for frame in frames()[10:25]
    ]
    stories.run([*live, *kept], pipeline=pipeline)
    late = pipeline.patients["a"].late
    assert late is not None
    assert late.slot >= 0
    found = stories.run([tick(61_000 + 1000 * second) for second in range(10)], pipeline=pipeline)
    assert late.slot == -1
    assert stories.beats(found), "the last beats are decided as the stretch ends"


def vanish(pipeline: Pipeline, begin_ms: int, days: float) -> Output:
    """Let days pass in ticks of an hour."""
    return stories.run([tick(begin_ms + hour * 3_600_000) for hour in range(round(24 * days))], (5,), pipeline)


def test_who_vanished_is_forgotten_once_nothing_stands() -> None:
    """A week after the last frame a discharged patient goes; one whose silence is an alarm stays until discharged."""
    pipeline = Pipeline(stories.models(), 1)
    for device in ("a", "b"):
        stories.run([stories.frame_entry(frame) for frame in frames(device)], (7,), pipeline)
    stories.run([action(61_000, "discharge")], pipeline=pipeline)
    found = vanish(pipeline, 62_000, FORGET_MS / DAY_MS)
    assert set(pipeline.patients) == {"a", "b"}
    assert any(isinstance(event, AlarmEvent) and event.kind == "NO_DATA" for _, event in found.events)
    vanish(pipeline, 62_000 + FORGET_MS, 0.2)
    assert set(pipeline.patients) == {"b"}
    assert pipeline.of_partition(0) == (pipeline.patients["b"],)
    stories.run([action(62_001 + FORGET_MS + DAY_MS, "discharge", "b")], pipeline=pipeline)
    vanish(pipeline, 62_002 + FORGET_MS + DAY_MS, 0.2)
    assert not pipeline.patients
    assert not pipeline._late_data
    again = stories.run(
        [stories.frame_entry(frame, 30 * DAY_MS + 1000 * frame.seq) for frame in frames()], (7,), pipeline
    )
    assert len(stories.beats(again)) > AFTER_S
    assert any(isinstance(event, StatusEvent) for _, event in again.events)


def test_what_staff_set_is_not_forgotten() -> None:
    """A patient with limits of its own stays, however long its device is away, as long as nobody discharged it."""
    pipeline = Pipeline(stories.models(), 1)
    stories.run([stories.frame_entry(frame) for frame in frames()], (7,), pipeline)
    changed = Inbound(
        Entry.ACTION, 60_500, "a", pack(Action("limits", "nurse", values={"NO_DATA": False, "tachy": 131.0}))
    )
    stories.run([changed], pipeline=pipeline)
    vanish(pipeline, 62_000, FORGET_MS / DAY_MS + 1)
    assert pipeline.patients["a"].slot == -1
    assert not pipeline.patients["a"].book.alarms
