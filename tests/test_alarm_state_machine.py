"""Model-based test of the life of alarms: whatever is done in whatever order, the promises to staff hold."""

from __future__ import annotations

from typing import ClassVar

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from alerts.book import Alarm, AlarmBook, AlarmChange, Presence, Reason, is_sounding
from alerts.limits import KINDS, Policy
from alerts.model import LETHAL, TECHNICAL, Condition, Kind, Priority
from alerts.state import on_action, on_clock, on_condition, on_discharge, on_epoch, on_restart, on_switched_off

LEGAL = {
    (Presence.OFF, Presence.ON),
    (Presence.ON, Presence.ON),
    (Presence.ON, Presence.ACK),
    (Presence.ON, Presence.LATCHED),
    (Presence.ON, Presence.OFF),
    (Presence.ACK, Presence.ACK),
    (Presence.ACK, Presence.OFF),
    (Presence.ACK, Presence.ON),
    (Presence.LATCHED, Presence.LATCHED),
    (Presence.LATCHED, Presence.OFF),
    (Presence.LATCHED, Presence.ON),
}
# Often enough the same few kinds, onsets and pauses, so that they meet each other.
KIND = st.one_of(st.sampled_from([Kind.VFIB, Kind.VTACH, Kind.NSVT, Kind.LEADS_OFF]), st.sampled_from(list(Kind)))
SECONDS = st.one_of(st.sampled_from([1.0, 60.0, 120.0]), st.floats(), st.booleans(), st.text(max_size=3))
PAUSE_MS = Policy().pause_ms


class AlarmLife(RuleBasedStateMachine):
    """A patient's book beside what the changes told a listener who sees nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.book = AlarmBook("p")
        self.now = 0
        self.told: dict[str, Alarm] = {}
        self.acknowledged: set[str] = set()
        self.standing: dict[Kind, int] = {}
        self.inputs: list[tuple[str, tuple[object, ...]]] = []
        self.log: list[AlarmChange] = []
        self.allowed_silence: set[str] = set()

    def hear(self, changes: list[AlarmChange]) -> None:
        """Check each change as a listener does."""
        for change in changes:
            alarm = change.alarm
            before = self.told.get(alarm.id)
            assert alarm.revision == (before.revision + 1 if before else 0), "a revision was skipped"
            was = before.presence if before else Presence.OFF
            assert (was, alarm.presence) in LEGAL, f"{was} to {alarm.presence}"
            assert before is None or alarm.changed_ms >= before.changed_ms
            if alarm.kind in LETHAL and alarm.presence is Presence.OFF:
                assert alarm.acked_by, "a lethal alarm vanished that nobody acknowledged"
                left = change.reason is Reason.DISCHARGED
                acted = alarm.id in self.acknowledged and change.reason is Reason.ACKNOWLEDGED
                assert left or was is Presence.ACK or acted
            if change.reason is Reason.RAISED:
                assert change.announce
                self.acknowledged.discard(alarm.id)
                self.allowed_silence.discard(alarm.id)
                if alarm.kind in LETHAL:
                    assert is_sounding(alarm, self.book.now_ms), "a new lethal alarm is silent"
            if alarm.presence is Presence.LATCHED:
                assert alarm.kind not in TECHNICAL
                assert alarm.priority is not Priority.LOW
            if alarm.presence is Presence.ACK:
                assert alarm.acked_by
            self.told[alarm.id] = alarm
        self.log += changes

    def do(self, name: str, *values: object) -> list[AlarmChange]:
        """Apply an input and keep it for the replay."""
        self.inputs.append((name, values))
        return apply(self.book, name, values)

    @initialize(epoch=st.integers(0, 5))
    def start(self, epoch: int) -> None:
        """Begin in some epoch."""
        self.hear(self.do("epoch", epoch, self.now))

    @rule(kind=KIND, onset=st.integers(0, 5), value=st.sampled_from([None, 1.0, 2.0]))
    def condition_begins(self, kind: Kind, onset: int, value: float | None) -> None:
        """Tell a condition, new, known or out of order."""
        self.standing[kind] = onset
        before = self.book.strays
        changes = self.do("condition", Condition(kind, True, onset, onset + 10, value), self.now)
        self.hear(changes)
        assert self.book.active[kind] in self.book.alarms
        assert self.book.strays == before

    @rule(kind=KIND, by=st.sampled_from([None, *Kind]))
    def condition_ends(self, kind: Kind, by: Kind | None) -> None:
        """End a condition that stands or does not."""
        stands = kind in self.book.active
        strays = self.book.strays
        self.hear(self.do("condition", Condition(kind, False, self.standing.get(kind, 0), 10_000, by=by), self.now))
        assert self.book.strays == strays + (not stands)
        assert kind not in self.book.active

    @rule(data=st.data(), one=st.booleans())
    def acknowledge(self, data: st.DataObject, one: bool) -> None:
        """Acknowledge one alarm, known, gone or made up, or all."""
        known = sorted(self.told) or ["p/VFIB/0/0"]
        alarm = data.draw(st.sampled_from(known)) if one else None
        self.acknowledged |= set(self.book.alarms) if alarm is None else {alarm}
        self.hear(self.do("action", "ack", "anna", alarm, {}, self.now))

    @rule(seconds=SECONDS)
    def pause(self, seconds: float | str | bool) -> None:
        """Ask for an audio pause, sensible or not."""
        changes = self.do("action", "pause", "bert", None, {"seconds": seconds}, self.now)
        self.allowed_silence = {c.alarm.id for c in changes if c.reason is Reason.PAUSED} or self.allowed_silence
        self.hear(changes)

    @rule(name=st.sampled_from(["resume", "limits", "dance", ""]), alarm=st.one_of(st.none(), st.text(max_size=5)))
    def other_action(self, name: str, alarm: str | None) -> None:
        """Resume, or ask for what the book does not know."""
        self.hear(self.do("action", name, "cleo", alarm, {}, self.now))

    @rule(ms=st.one_of(st.integers(1, 5_000), st.sampled_from([30_000, 60_000, 120_000, 180_000])))
    def time_passes(self, ms: int) -> None:
        """Let the stream clock go on."""
        self.now += ms
        self.hear(self.do("clock", self.now))
        for alarm in self.book.alarms.values():
            assert self.now >= alarm.silent_until_ms or alarm.silent_until_ms == self.book.pause_until_ms

    @rule(back=st.integers(0, 10_000))
    def an_entry_with_an_older_clock(self, back: int) -> None:
        """Bring an entry that is stamped earlier."""
        self.hear(self.do("clock", max(0, self.now - back)))

    @rule(epoch=st.integers(0, 5))
    def device_starts_anew(self, epoch: int) -> None:
        """Begin a later epoch."""
        if epoch > self.book.epoch:
            self.standing.clear()
            self.hear(self.do("epoch", epoch, self.now))

    @rule(off=st.sets(KIND, max_size=4))
    def kinds_are_switched_off(self, off: set[Kind]) -> None:
        """Switch kinds off while some of them stand."""
        standing = {kind: self.book.alarms[identity] for kind, identity in self.book.active.items()}
        self.hear(self.do("off", frozenset(off), "dora", self.now))
        assert not off & self.book.active.keys()
        for kind, alarm in standing.items():
            if kind in off & LETHAL and alarm.presence is Presence.ON:
                assert self.book.alarms[alarm.id].presence is Presence.LATCHED

    @rule()
    def patient_leaves(self) -> None:
        """Discharge: nothing of the patient stays, and no pause waits for the next."""
        self.standing.clear()
        self.hear(self.do("discharge", "emil", self.now))
        assert not self.book.alarms
        assert not self.book.active
        assert not self.book.pause_until_ms

    @rule()
    def service_starts_anew(self) -> None:
        """Go on with rules that know nothing of what stood."""
        unseen = {i for i, a in self.book.alarms.items() if a.kind in LETHAL and a.presence is not Presence.ACK}
        self.standing.clear()
        self.hear(self.do("restart", self.now))
        assert not self.book.active
        assert unseen <= self.book.alarms.keys()

    @rule()
    def checkpoint(self) -> None:
        """Go on from bytes."""
        self.book = msgspec.msgpack.decode(msgspec.msgpack.encode(self.book), type=AlarmBook)

    @invariant()
    def listener_knows_the_book(self) -> None:
        """Know the whole book from the changes alone."""
        open_alarms = {i: a for i, a in self.told.items() if a.presence is not Presence.OFF}
        assert open_alarms == self.book.alarms

    @invariant()
    def no_pause_is_endless(self) -> None:
        """End each pause within two minutes, for each alarm."""
        assert self.book.pause_until_ms <= self.book.now_ms + PAUSE_MS
        for alarm in self.book.alarms.values():
            assert alarm.silent_until_ms in (0, self.book.pause_until_ms)

    @invariant()
    def lethal_alarm_is_silent_only_by_somebodys_act(self) -> None:
        """Silent means acknowledged, or standing when somebody paused."""
        for alarm in self.book.alarms.values():
            if alarm.kind in LETHAL and not is_sounding(alarm, self.book.now_ms):
                assert alarm.presence is Presence.ACK or alarm.id in self.allowed_silence

    @invariant()
    def nothing_is_capped(self) -> None:
        """Keep what stands in the book, and nothing else but latched alarms."""
        for kind, identity in self.book.active.items():
            alarm = self.book.alarms[identity]
            assert alarm.kind is kind
            assert alarm.presence in (Presence.ON, Presence.ACK)
        for identity, alarm in self.book.alarms.items():
            assert alarm.presence is Presence.LATCHED or self.book.active.get(alarm.kind) == identity
            assert alarm.priority >= KINDS[alarm.kind].priority

    def teardown(self) -> None:
        """Replay: the same inputs give the same changes and the same book."""
        again = AlarmBook("p")
        log = [change for name, values in self.inputs for change in apply(again, name, values)]
        assert log == self.log
        assert again == self.book


def apply(book: AlarmBook, name: str, values: tuple[object, ...]) -> list[AlarmChange]:
    """One input of the machine."""
    if name == "action":
        outcome = on_action(book, *values)  # type: ignore[arg-type]
        assert outcome.message
        return outcome.changes
    step = {
        "condition": on_condition,
        "clock": on_clock,
        "epoch": on_epoch,
        "off": on_switched_off,
        "restart": on_restart,
        "discharge": on_discharge,
    }[name]
    return step(book, *values)  # type: ignore[operator, no-any-return]


class TestAlarmLife(AlarmLife.TestCase):  # type: ignore[misc, name-defined]
    """Run by pytest."""

    settings: ClassVar[settings] = settings(
        max_examples=120, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
