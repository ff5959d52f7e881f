"""The hub: what each page gets, what it may lose, and what it never loses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import until
from wall_fakes import EPOCH, FakePatient, FakeWard, alarm, make_loop

from bus.messages import AlarmEvent, BeatEvent, Event, RhythmEvent, SettingsEvent, StatusEvent, View, pack
from web import wire
from web.board import CLOSED_KEPT, FORGET_MS, STILL_MS, Board
from web.feed import FeedItem, FeedKind
from web.hub import TIDY_S, Hub, Subscription
from web.outbox import BATCH_BYTES, Outbox, OutboxFullError
from web.settings import WebSettings

SETTINGS = WebSettings(redis_url="redis://nowhere")


def rows(data: bytes) -> list[list[object]]:
    """Take a websocket frame apart as the page does."""
    return msgspec.msgpack.decode(data)


def sent(subscription: Subscription) -> list[list[object]]:
    """Messages that the next frame to a client holds."""
    return rows(wire.frame(subscription.outbox.take()))


def tags(subscription: Subscription) -> list[str]:
    """Kinds of the messages that the next frame holds, in order."""
    return [str(row[0]) for row in sent(subscription)]


def view(patient: str, index: int, samples: int = 4, columns: bytes = b"") -> View:
    """Make a short view."""
    return View(patient, "d", EPOCH, 1_000 + index * 4, index, 250, "MLII", b"\0\0" * samples, columns, 0, 8, 4, 45.0,
                72.0, 1_000, "N", 0, "good")  # fmt: skip


def beat(patient: str, sample: int) -> BeatEvent:
    """Make a normal beat."""
    return BeatEvent(patient, "d", EPOCH, sample, 1_000 + sample, "N", 0.9, "V", 0.1, 800)


def event(item: Event, written_ms: int = 0) -> FeedItem:
    """Wrap an event as the feed gives it."""
    return FeedItem(FeedKind.EVENT, pack(item), written_ms)


class Clock:
    """A wall clock moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def make_hub(alarms: Iterable[AlarmEvent] = (), settings: WebSettings = SETTINGS, clock: Clock | None = None) -> Hub:
    """Make a hub whose board holds open alarms."""
    now = clock or Clock()
    hub = Hub(FakeWard([]), FakeWard([], alarms), settings, now, now)
    hub.board.load(alarms)
    return hub


def watching(hub: Hub, **watch: object) -> Subscription:
    """Open a client that has drained its snapshot and watches."""
    subscription = hub.subscribe("nurse")
    subscription.outbox.take()
    hub.watch(subscription, wire.Watch(**watch))
    return subscription


def test_snapshot_comes_first_and_holds_every_open_alarm() -> None:
    """A page that opens gets greeting, beds and all alarms before anything else, and then the sign that it is whole."""
    alarms = [alarm(f"p{i}", "TACHY", 2) for i in range(70)]
    hub = make_hub(alarms)
    frame = sent(hub.subscribe("nurse"))
    assert [row[0] for row in frame[:2]] == ["hello", "reset"]
    assert frame[-1][0] == "synced"
    assert {row[1] for row in frame if row[0] == "alarm"} == {item.id for item in alarms}


def test_full_wave_lane_drops_oldest_waveform_and_counts_it() -> None:
    """A slow page loses its oldest waveform, is told how many, and keeps the newest."""
    hub = make_hub(settings=WebSettings(redis_url="redis://nowhere", wave_queue_bytes=16 * 1024))
    subscription = watching(hub, beds=None)
    for i in range(100):
        hub.take(FeedItem(FeedKind.VIEW, pack(view("a", i * 250, 250))))
    dropped = hub.counters.dropped
    left = [row for row in sent(subscription) if row[0] == "wave"]
    assert dropped > 0
    assert left[-1][3] == 99 * 250
    assert len(left) + dropped == 100
    assert rows(hub.clock(subscription))[4] == dropped


def test_alarm_passes_waiting_waveform_and_is_never_dropped() -> None:
    """An alarm raised behind a queue of waveform leaves in the next frame, before it."""
    hub = make_hub(settings=WebSettings(redis_url="redis://nowhere", wave_queue_bytes=16 * 1024))
    subscription = watching(hub, beds=None)
    for i in range(100):
        hub.take(FeedItem(FeedKind.VIEW, pack(view("a", i * 250, 250))))
    hub.take(event(alarm("a", "VFIB", 3)))
    for i in range(100, 200):
        hub.take(FeedItem(FeedKind.VIEW, pack(view("a", i * 250, 250))))
    kinds = tags(subscription)
    assert "alarm" in kinds
    assert "wave" not in kinds[: kinds.index("alarm")]


def test_client_that_reads_no_states_is_cut_off_instead_of_losing_one() -> None:
    """When even states pile up the outbox refuses to go on, so that the page starts again from a snapshot."""
    outbox = Outbox(BATCH_BYTES, 3)
    for _ in range(4):
        outbox.put_control(b"x")
    with pytest.raises(OutboxFullError, match="3 states unread"):
        outbox.take()


def test_frames_are_read_back_by_a_client_in_python() -> None:
    """`read_frame` gives the messages that went into a frame."""
    messages: list[wire.Message] = [wire.Synced(5), wire.Rhythm("a", 1, "AFIB", 0.5), wire.Beds(("a", "b"))]
    assert wire.read_frame(wire.frame([wire.encode(message) for message in messages])) == messages


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3000)), max_size=200))
def test_outbox_keeps_control_whole_and_wave_in_order(puts: list[tuple[bool, int]]) -> None:
    """Whatever comes in whatever order: every state leaves in order, waveform leaves as a suffix of what came."""
    outbox = Outbox(20_000, 1000)
    control, wave = [], []
    for i, (state, size) in enumerate(puts):
        message = bytes([i % 256]) * size
        if state:
            outbox.put_control(message)
            control.append(message)
        else:
            outbox.put_wave(message)
            wave.append(message)
    first = b"".join(outbox.take())
    assert first.startswith(b"".join(control))
    rest = first[len(b"".join(control)) :]
    while len(outbox):
        rest += b"".join(outbox.take())
    assert b"".join(wave).endswith(rest)
    assert len(wave) - outbox.dropped >= 0
    assert rest == b"".join(wave[outbox.dropped :])


def test_only_watched_beds_get_waveform_and_only_the_open_patient_columns() -> None:
    """A page gets the waveform of the beds in its sight and the spectrogram of the one that it shows."""
    hub = make_hub()
    subscription = watching(hub, beds=frozenset({"a"}), detail="b")
    for name in ("a", "b", "c"):
        hub.take(FeedItem(FeedKind.VIEW, pack(view(name, 0, columns=b"\1" * 8))))
    messages = sent(subscription)
    assert [row[1] for row in messages if row[0] == "wave"] == ["a", "b"]
    assert [row[1] for row in messages if row[0] == "cols"] == ["b"]


def test_bed_that_comes_into_sight_starts_with_its_last_seconds() -> None:
    """Opening a patient sends what is kept of waveform, columns and beats, without waiting for the next second."""
    hub = make_hub()
    other = watching(hub, beds=frozenset())
    for i in range(5):
        hub.take(FeedItem(FeedKind.VIEW, pack(view("a", i * 250, 250, b"\1" * 8))))
    hub.take(event(beat("a", 100)))
    assert "wave" not in tags(other)
    hub.watch(other, wire.Watch(beds=frozenset({"a"}), detail="a"))
    kinds = tags(other)
    assert kinds.count("wave") == 5
    assert kinds.count("cols") == 5
    assert kinds.count("beat") == 1


def test_views_are_not_decoded_while_nobody_watches() -> None:
    """Without a page, a view stays as bytes; the first page that opens still gets it."""
    hub = make_hub()
    hub.take(FeedItem(FeedKind.VIEW, pack(view("a", 0))))
    assert "a" not in hub.board.beds
    subscription = watching(hub, beds=None)
    assert tags(subscription) == ["wave"]


def test_old_revision_of_an_alarm_changes_nothing() -> None:
    """Events come at least once and late: the highest revision counts, whatever the order."""
    hub = make_hub()
    subscription = watching(hub, beds=frozenset())
    newest = alarm("a", "TACHY", 2, revision=2, presence="ack")
    hub.take(event(newest))
    hub.take(event(alarm("a", "TACHY", 2, revision=1, presence="on")))
    hub.take(event(newest))
    assert tags(subscription).count("alarm") == 1
    assert hub.board.alarms[newest.id].presence == "ack"


def test_open_alarms_are_never_forgotten_for_closed_ones() -> None:
    """The board keeps a bounded number of alarms that are over, and every one that is not."""
    board = Board(10)
    still = alarm("a", "VFIB", 3)
    board.apply(still)
    for i in range(3 * CLOSED_KEPT):
        board.apply(alarm("b", "PVC_PAIR", 1, id=f"b/PVC_PAIR/7/{i}", presence="off"))
    assert still.id in board.alarms
    assert len(board.alarms) == CLOSED_KEPT + 1


def test_repeated_and_late_views_and_beats_are_left_out() -> None:
    """A view or beat that was seen before is not sent twice; a new epoch begins afresh."""
    board = Board(10)
    assert board.view(view("a", 250))
    assert not board.view(view("a", 250))
    assert not board.view(view("a", 0))
    assert board.apply(beat("a", 10))
    assert not board.apply(beat("a", 10))
    assert board.view(msgspec.structs.replace(view("a", 0), epoch=EPOCH + 1))
    assert len(board.beds["a"].views) == 1


def test_undecodable_entries_are_counted_and_passed_over() -> None:
    """Garbage on a stream stops nothing and is counted."""
    hub = make_hub()
    subscription = watching(hub, beds=None)
    for kind in (FeedKind.EVENT, FeedKind.VIEW):
        hub.take(FeedItem(kind, b"\xc1garbage"))
    hub.take(event(alarm("a", "TACHY", 2)))
    assert hub.counters.undecodable == 2
    assert "alarm" in tags(subscription)


def test_new_bed_is_announced_once() -> None:
    """Every page hears of a bed with its first message, whatever that is."""
    hub = make_hub()
    subscription = watching(hub, beds=frozenset())
    hub.take(event(StatusEvent("new", "d", 1, "MLII", ("MLII",), "good")))
    hub.take(event(RhythmEvent("new", "d", EPOCH, 5, 1, "N", 0.9)))
    assert tags(subscription) == ["beds", "status", "rhythm"]


def test_health_reports_lag_and_a_dead_feed() -> None:
    """Health shows how old entries were when read, and says dead after the feed was silent."""
    clock = Clock()
    hub = make_hub(clock=clock)
    hub.take(event(beat("a", 1), written_ms=int(clock.now * 1000) - 700))
    assert hub.health()["bus_lag_ms"] == 700
    assert hub.health()["status"] == "ok"
    clock.now += SETTINGS.feed_dead_s + 1
    assert hub.health()["status"] == "feed dead"
    hub.take(FeedItem(FeedKind.PULSE))
    assert hub.health()["status"] == "ok"


async def test_hub_comes_back_after_a_broken_feed_and_keeps_its_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed that breaks is counted and opened again; alarms that come afterwards arrive."""
    monkeypatch.setattr("web.hub.BACKOFF_S", (0.01, 0.02))
    ward = FakeWard([FakePatient("a", make_loop(1, "N", 70, 0))], [alarm("a", "TACHY", 2)])
    hub = Hub(ward, ward, SETTINGS)
    ward.broken = True
    running = asyncio.create_task(hub.run())
    try:
        async with asyncio.timeout(30):
            while hub.counters.feed_failures < 3:
                await asyncio.sleep(0)
            assert {item.kind for item in hub.board.open_alarms()} == {"TACHY"}
            ward.broken = False
            ward.raise_alarm(alarm("a", "VTACH", 3))
            while len(hub.board.alarms) < 2:
                await asyncio.sleep(0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert {item.kind for item in hub.board.open_alarms()} == {"TACHY", "VTACH"}


class OrderedWard(FakeWard):
    """A ward that notes whether the feed was marked when the store was read."""

    read_after_mark: bool | None = None

    def open_alarms(self) -> list[AlarmEvent]:
        """Open alarms of the store."""
        self.read_after_mark = self.marked
        return super().open_alarms()


async def test_hub_asks_where_the_feed_begins_before_it_reads_the_store() -> None:
    """The other way round, what a historian stores between the two would be in neither."""
    ward = OrderedWard([])
    running = asyncio.create_task(Hub(ward, ward, SETTINGS).run())
    try:
        await until(lambda: ward.read_after_mark is not None, seconds=30)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert ward.read_after_mark


def test_settings_that_can_not_work_are_refused() -> None:
    """A bound or a time of nothing is an error before anything is opened."""
    with pytest.raises(ValueError, match="clock_s is 0"):
        WebSettings(redis_url="redis://x", clock_s=0)
    with pytest.raises(ValueError, match="partitions is 0"):
        WebSettings(redis_url="redis://x", partitions=0)
    with pytest.raises(ValueError, match="16 KiB"):
        WebSettings(redis_url="redis://x", wave_queue_bytes=10)


def settings_of(patient: str, *, vacant: bool) -> SettingsEvent:
    """Tell whether somebody lies in a bed."""
    reason = "discharge" if vacant else "admit"
    return SettingsEvent(patient, patient, 1_000, reason, "nurse", "adult", {}, (), vacant=vacant)


def test_beds_of_which_nothing_comes_are_forgotten():
    """The waveform of a silent bed goes after an hour, the bed after a week, unless somebody lies there."""
    clock = Clock()
    standing = alarm("alarmed", "TACHY", 2)
    hub = make_hub([standing], clock=clock)
    hub.take(FeedItem(FeedKind.PULSE))
    for patient in ("gone", "taken", "left", "alarmed"):
        hub.take(FeedItem(FeedKind.VIEW, pack(view(patient, 0))))
        hub.take(event(beat(patient, 10)))
    hub.take(event(alarm("gone", "TACHY", 2, presence="off")))
    hub.take(event(settings_of("taken", vacant=False)))
    hub.take(event(settings_of("left", vacant=True)))
    client = watching(hub)
    clock.now += STILL_MS / 1000 + TIDY_S
    hub.take(FeedItem(FeedKind.PULSE))
    assert not any(bed.views or bed.beats for bed in hub.board.beds.values())
    assert len(hub.board.beds) == 4
    client.outbox.take()
    clock.now += FORGET_MS / 1000
    hub.take(FeedItem(FeedKind.PULSE))
    hub.take(event(beat("here", 10)))
    assert ["beds", ["alarmed", "taken"]] in sent(client)
    assert set(hub.board.beds) == {"taken", "alarmed", "here"}
    assert set(hub.board.alarms) == {standing.id}
    hub.take(FeedItem(FeedKind.VIEW, pack(view("gone", 0))))
    assert "gone" in hub.board.beds, "who comes back is there again"
