"""What staff do travels through the patient's stream: limits, profiles, kinds off, pauses, admission, discharge."""

from __future__ import annotations

import pytest
import stories

from bus.messages import Action, AlarmEvent, Entry, Event, Inbound, SettingsEvent, pack
from rhythmwatch.checkpoint import CheckpointError, dump, restore, salvage
from rhythmwatch.pipeline import Pipeline

FAST = "sinus:90,hr=134"


def act(ms: int, name: str, alarm: str | None = None, **values: float | str | bool) -> Inbound:
    """Make the entry of an action of one nurse on patient a."""
    return Inbound(Entry.ACTION, ms, "a", pack(Action(name, "anna", alarm, values)))


def story(script: str, seconds: int, *actions: Inbound) -> list[Inbound]:
    """Frames of patient a, ticks, and actions among them."""
    entries = [stories.frame_entry(frame) for frame in stories.frames(stories.recording(script, seconds), "a")]
    entries += [Inbound(Entry.TICK, second * 1000 + 500, "", b"") for second in range(seconds)]
    return sorted([*entries, *actions], key=lambda entry: entry.server_ms)


def events(entries: list[Inbound], pipeline: Pipeline | None = None) -> list[Event]:
    """Fold entries one by one; events in order."""
    return [event for _, event in stories.run(entries, (1,), pipeline).events]


def alarms(found: list[Event], kind: str) -> list[tuple[str, str]]:
    """Presence and reason of each change of one kind, but for new values."""
    changes = [e for e in found if isinstance(e, AlarmEvent) and e.kind == kind]
    return [(e.presence, e.reason) for e in changes if e.reason != "value"]


def told(found: list[Event]) -> list[SettingsEvent]:
    """Pick the settings out."""
    return [event for event in found if isinstance(event, SettingsEvent)]


def test_a_changed_limit_decides_from_its_place_in_the_stream_on():
    """HR 134 alarms over 120 and no more over 150; the settings say who changed it and all that holds."""
    found = events(story(FAST, 60, act(30_300, "limits", tachy=150.0, extreme_tachy=170.0)))
    assert alarms(found, "TACHY")[0] == ("on", "raised")
    assert alarms(found, "TACHY")[-1] == ("latched", "latched")
    (settings,) = told(found)
    assert (settings.reason, settings.user, settings.profile) == ("limits", "anna", "adult")
    assert (settings.values["tachy"], settings.values["brady"]) == (150.0, 50.0)
    assert settings.ms == 30_300


def test_limits_that_contradict_each_other_change_nothing_and_say_so():
    """The stream is the judge: what a page sent against older limits is refused, counted, and told."""
    output = stories.run(story(FAST, 20, act(5_300, "limits", tachy=45.0)), (1,))
    (settings,) = told([event for _, event in output.events])
    assert settings.reason == "refused"
    assert "brady = 50 must lie below tachy = 45" in settings.note
    assert settings.values["tachy"] == 120.0
    assert output.refused == {"limits": 1}


def test_a_kind_is_switched_off_and_on():
    """Off, its alarm ends and none comes; on again, it comes again."""
    found = events(story(FAST, 70, act(30_300, "limits", TACHY=False), act(50_300, "limits", TACHY=True)))
    assert alarms(found, "TACHY") == [("on", "raised"), ("off", "switched_off"), ("on", "raised")]
    off, on = told(found)
    assert (off.off, off.lethal_off) == (("TACHY",), ())
    assert on.off == ()


def test_a_lethal_kind_switched_off_is_told_as_such():
    """The wall can show it: it is named apart, and the alarm that stands stays until somebody acknowledges it."""
    found = events(story(stories.VT_STORY, 40, act(20_300, "limits", VTACH=False)))
    (settings,) = told(found)
    assert settings.lethal_off == ("VTACH",)
    changes = alarms(found, "VTACH")
    assert changes[0] == ("on", "raised")
    assert ("latched", "switched_off") in changes
    assert changes[-1][0] == "latched"


def test_a_profile_sets_all_limits_and_switches_all_kinds_on():
    """Nothing of what was set before stays."""
    found = events(
        story(
            "sinus:30,hr=70",
            12,
            act(3_300, "limits", brady=45.0, PAUSE=False),
            act(5_300, "profile", profile="athlete"),
        )
    )
    _, profile = told(found)
    assert (profile.reason, profile.profile, profile.off) == ("profile", "athlete", ())
    assert (profile.values["brady"], profile.values["extreme_brady"]) == (40.0, 30.0)


@pytest.mark.parametrize("profile", ["surgeon", 4.0, True])
def test_there_is_no_such_profile(profile: str | float | bool):
    """It is refused in one sentence."""
    (settings,) = told(events(story("sinus:30,hr=70", 8, act(3_300, "profile", profile=profile))))
    assert settings.reason == "refused"
    assert "there is no profile" in settings.note


def test_discharge_ends_alarms_and_puts_the_limits_back():
    """The next patient inherits nothing: alarms end, limits are the profile's, and what was learnt is forgotten."""
    pipeline = Pipeline(stories.models(), 1)
    entries = story(
        FAST, 60, act(5_300, "limits", brady=30.0, extreme_brady=20.0, PAUSE=False), act(30_300, "discharge")
    )
    found = events(entries, pipeline)
    assert ("off", "discharged") in alarms(found, "TACHY")
    settings = told(found)[-1]
    assert (settings.reason, settings.vacant, settings.off) == ("discharge", True, ())
    assert settings.values["brady"] == 50.0
    # The device still sends: somebody may wear it, so a clinical alarm comes again, under another identity.
    raised = [e.id for e in found if isinstance(e, AlarmEvent) and e.kind == "TACHY" and e.reason == "raised"]
    assert len(raised) == len(set(raised)) == 2


def test_a_device_without_a_patient_does_not_call_for_data():
    """After the discharge nobody is called to a device that lies switched off; after an admission it counts again."""
    ticks = [Inbound(Entry.TICK, ms, "", b"") for ms in range(21_000, 70_000, 1_000)]
    left = [*story("sinus:20,hr=70", 20, act(19_800, "discharge")), *ticks]
    assert not alarms(events(left), "NO_DATA")
    frames = [stories.frame_entry(f) for f in stories.frames(stories.recording("sinus:30,hr=70", 24), "a")[20:]]
    late = [Inbound(e.kind, e.server_ms + 60_000, e.patient, e.payload) for e in frames]
    more = [Inbound(Entry.TICK, ms, "", b"") for ms in range(85_000, 110_000, 1_000)]
    back = [*left, act(70_000, "admit", profile="elderly"), *late, *more]
    found = events(back)
    assert alarms(found, "NO_DATA")[0] == ("on", "raised")
    admitted = told(found)[-1]
    assert (admitted.reason, admitted.profile, admitted.vacant) == ("admit", "elderly", False)
    assert admitted.values["tachy"] == 110.0


def test_beats_go_on_after_an_admission():
    """A slot that begins anew sees the beats that come, and no alarm is made of the seam."""
    found = stories.run(story("sinus:60,hr=75", 50, act(20_300, "admit", profile="adult")), (3,))
    beats = [sample / 250 for sample, _ in stories.beats(found)]
    assert len([at for at in beats if 25 < at < 48]) >= 27
    assert not [e for _, e in found.events if isinstance(e, AlarmEvent)]


def test_an_audio_pause_is_told_with_its_end():
    """Also where nothing alarms: the page counts it down, and hears when a lethal alarm broke through."""
    found = events(story(stories.VT_STORY, 40, act(5_300, "pause", seconds=60.0)))
    begun, ended = told(found)
    assert (begun.reason, begun.user, begun.pause_until_ms, begun.pause_by) == ("pause", "anna", 65_300, "anna")
    assert (ended.reason, ended.user, ended.pause_until_ms) == ("pause_ended", "", 0)
    raised = next(e for e in found if isinstance(e, AlarmEvent) and e.kind == "VTACH")
    assert raised.silent_until_ms == 0
    assert ended.ms == raised.raised_ms
    resumed = told(events(story("sinus:30,hr=70", 20, act(5_300, "pause"), act(8_300, "resume"))))
    assert [(event.reason, event.pause_until_ms) for event in resumed] == [("pause", 125_300), ("resume", 0)]


def test_an_endless_pause_is_refused():
    """No entry of the stream can silence a bed for longer than the house allows."""
    (settings,) = told(events(story("sinus:30,hr=70", 8, act(3_300, "pause", seconds=1e9))))
    assert (settings.reason, settings.pause_until_ms) == ("refused", 0)
    assert "at most 120 seconds" in settings.note


def test_an_acknowledgement_that_comes_second_is_nothing_to_report():
    """Two of staff press at the same moment: the first one counts, and nobody is told that an entry was refused."""
    acks = [act(40_300, "ack"), Inbound(Entry.ACTION, 40_400, "a", pack(Action("ack", "bert")))]
    output = stories.run(story(FAST, 45, *acks), (1,))
    acknowledged = [e for _, e in output.events if isinstance(e, AlarmEvent) and e.reason == "acknowledged"]
    assert [(e.kind, e.acked_by) for e in acknowledged] == [("TACHY", "anna")]
    assert output.refused == {}
    dance = stories.run(story(FAST, 8, act(3_300, "dance")), (1,))
    assert dance.refused == {"action": 1}


def test_batches_and_a_checkpoint_change_nothing():
    """Actions in the middle of everything give the same to the bit however the stream is cut, and across a takeover."""
    entries = story(
        FAST, 60,
        act(12_300, "limits", tachy=130.0, extreme_tachy=170.0, PVC_PAIR=False), act(22_100, "pause"),
        act(25_300, "discharge"), act(33_700, "admit", profile="elderly"), act(50_000, "ack"),
    )  # fmt: skip
    whole = stories.by_patient(stories.run(entries))
    assert stories.by_patient(stories.run(entries, (7, 1, 19))) == whole
    for cut in (40, 58, 90):
        first, second = Pipeline(stories.models(), 1), Pipeline(stories.models(), 1)
        early = stories.by_patient(stories.run(entries[:cut], (5,), first)).get("a", [])
        restore(second, dump(first, 0))
        assert early + stories.by_patient(stories.run(entries[cut:], (5,), second)).get("a", []) == whole["a"]


def test_limits_and_alarms_outlive_other_networks(monkeypatch: pytest.MonkeyPatch):
    """A checkpoint of other networks is no state of signals, but what staff set and what nobody acknowledged stays."""
    first, second = Pipeline(stories.models(), 1), Pipeline(stories.models(), 1)
    found = events(story(stories.VT_STORY, 19, act(5_300, "limits", brady=45.0, PAUSE=False)), first)
    (vtach,) = [e for e in found if isinstance(e, AlarmEvent) and e.kind == "VTACH" and e.reason == "raised"]
    data = dump(first, 0)
    with monkeypatch.context() as other:
        other.setattr(second.stages, "layout_hash", "of other networks")
        with pytest.raises(CheckpointError, match="of other networks"):
            restore(second, data)
        (patient,) = salvage(second, data)
    assert (patient.limits.brady, patient.limits.off, patient.profile) == (45.0, {"PAUSE"}, "adult")
    assert patient.late is not None
    assert patient.late.limits == patient.limits
    alarm = patient.book.alarms[vtach.id]
    assert (alarm.presence, alarm.acked_by) == ("latched", None)
    assert patient.book.active == {}
    assert second.patients == {"a": patient}
    assert salvage(second, b"damaged") == []
