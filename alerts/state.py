"""Life of the alarms of one patient: off, on, latched, acknowledged (``docs``: IEC 60601-1-8). Pure.

Server time comes in as ``now_ms`` with each entry of the patient's stream and is never read; the same inputs give the
same changes. A condition comes on: the alarm is ``on`` and announced. It ends: high and medium alarms that nobody
acknowledged are ``latched`` (a high one goes on with light and sound, a medium one stays as a silent message), others
are ``off``. Acknowledged (``ack``): silent and visible until the condition ends. Rules of the house:

- a new alarm of a kind, or one that became worse, is announced afresh, acknowledged or not;
- an end because a higher condition stands for it does not latch, but for a lethal alarm;
- a latched medium message gives way to a newer alarm of its kind; high ones stay, each to be acknowledged;
- an audio pause ends by itself, and at once with a lethal alarm or one higher than all that stood when it began;
- a high alarm that nobody acknowledges escalates; an acknowledged one that goes on is announced again after a while;
- a kind that is switched off ends at once, but a lethal alarm that nobody acknowledged latches;
- at discharge all alarms end, acknowledged by whoever discharged;
- what is found in data that came after its time is listed and never announced.

If the stream ends in an alarm it stays as it is; NO_DATA comes beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from math import isfinite
from typing import Final

from msgspec.structs import replace

from alerts.book import Alarm, AlarmBook, AlarmChange, Outcome, Presence, Reason
from alerts.limits import KINDS, Policy, is_latching
from alerts.model import LETHAL, RATE, Condition, Kind, Priority

HOUSE: Final = Policy()
ONSET_AND_END: Final = frozenset({Kind.AFIB})
"""Announced when they begin and end and never between."""


def on_condition(
    book: AlarmBook, condition: Condition, now_ms: int, *, onset_ms: int | None = None, policy: Policy = HOUSE
) -> list[AlarmChange]:
    """Take in what the rules found.

    Parameters
    ----------
    book : AlarmBook
        Changed in place.
    condition : Condition
        Of the book's epoch.
    now_ms : int
        Server time of the entry that brought it.
    onset_ms : int, optional
        Wall time of the onset; without it, `now_ms` less the time from `onset` to `at`.
    policy : Policy
        Settings of the institution.

    Returns
    -------
    list of AlarmChange
        In order; also what the clock had made due until now.
    """
    changes = on_clock(book, now_ms, policy=policy)
    now_ms = book.now_ms
    kind = condition.kind
    standing = book.active.get(kind)
    if not condition.on:
        if standing is None:
            book.strays += 1
        else:
            _end(book, book.alarms[standing], condition.detail, condition.by, policy, changes)
        return changes
    if standing is not None:
        alarm = book.alarms[standing]
        if condition.onset <= alarm.onset:
            new = replace(alarm, value=condition.value, limit=condition.limit, detail=condition.detail)
            if new != alarm:
                _put(book, new, Reason.VALUE, changes)
            return changes
        _end(book, alarm, "", None, policy, changes)
    if onset_ms is None:
        onset_ms = now_ms - round((condition.at - condition.onset) * 1000 / RATE)
    _raise(book, condition, onset_ms, changes)
    return changes


def on_clock(book: AlarmBook, now_ms: int, *, policy: Policy = HOUSE) -> list[AlarmChange]:
    """Let time pass: pauses end, alarms escalate, grow worse or are announced again; time never runs backwards."""
    now_ms = book.now_ms = max(now_ms, book.now_ms)
    changes: list[AlarmChange] = []
    if book.pause_until_ms and now_ms >= book.pause_until_ms:
        _end_pause(book, changes)
    if not book.alarms:
        return changes
    for identity in list(book.alarms):
        alarm = book.alarms[identity]
        stands = book.active.get(alarm.kind) == alarm.id
        row = KINDS[alarm.kind]
        if stands and row.raise_s and alarm.priority < row.raised and now_ms - alarm.raised_ms >= row.raise_s * 1000:
            _break_through(book, alarm.kind, row.raised, changes)
            worse = replace(
                book.alarms[alarm.id],
                priority=row.raised,
                presence=Presence.ON,
                announced_ms=now_ms,
                escalation=0,
                acked_by=None,
                acked_ms=None,
                silent_until_ms=book.pause_until_ms,
            )
            _put(book, worse, Reason.WORSE, changes, announce=True)
        elif alarm.presence is Presence.ACK:
            since = max(alarm.acked_ms or 0, alarm.reminded_ms)
            if alarm.kind not in ONSET_AND_END and now_ms - since >= policy.reminder_ms:
                _put(book, replace(alarm, reminded_ms=now_ms), Reason.REMINDED, changes, announce=True)
        elif alarm.priority is Priority.HIGH:
            level = sum(now_ms - alarm.announced_ms >= after for after in policy.escalate_ms)
            if level > alarm.escalation:
                _put(book, replace(alarm, escalation=level), Reason.ESCALATED, changes, announce=True)
    return changes


def on_action(
    book: AlarmBook,
    name: str,
    user: str,
    alarm: str | None,
    values: Mapping[str, float | str | bool],
    now_ms: int,
    *,
    policy: Policy = HOUSE,
) -> Outcome:
    """Do what a member of staff asks for.

    Parameters
    ----------
    book : AlarmBook
        Changed in place.
    name : str
        ``ack`` (one alarm, or all of the patient without `alarm`), ``pause`` (audio; ``values["seconds"]``, at most
        and by default the institution's) or ``resume``.
    user : str
        Who.
    alarm : str or None
        Identity of an alarm.
    values : mapping
        See `name`.
    now_ms : int
        Server time of the entry.
    policy : Policy
        Settings of the institution.

    Returns
    -------
    Outcome
        What can't be done has no effect, is not accepted, and says why. What the clock had made due comes first.
    """
    changes = on_clock(book, now_ms, policy=policy)
    if name == "ack":
        accepted, message = _acknowledge(book, user, alarm, changes)
    elif name == "pause":
        accepted, message = _pause(book, user, values, policy, changes)
    elif name == "resume":
        accepted = book.pause_until_ms > 0
        message = "audio pause ended" if accepted else "no audio pause to end"
        if accepted:
            _end_pause(book, changes)
    else:
        accepted, message = False, f"unknown action {name!r}: ack, pause and resume act on alarms"
    return Outcome(changes, accepted, message)


def on_late_condition(
    book: AlarmBook, condition: Condition, now_ms: int, *, onset_ms: int, at_ms: int
) -> list[AlarmChange]:
    """Take in what the rules found in data that came after its time: listed, and nobody is called.

    Parameters
    ----------
    book : AlarmBook
        Of the late data alone; nothing in it ever stands.
    condition : Condition
        Of the book's epoch.
    now_ms : int
        Server time of the entry that brought it.
    onset_ms, at_ms : int
        Wall time of the onset, and at which it would have been raised (or ended).

    Returns
    -------
    list of AlarmChange
        Its alarm is off from the first.
    """
    now_ms = book.now_ms = max(now_ms, book.now_ms)
    kind = condition.kind
    before = book.last.get(kind)
    changes: list[AlarmChange] = []
    if not condition.on:
        if before is None or before.cleared_ms is not None:
            book.strays += 1
        else:
            _put(book, replace(before, cleared_ms=at_ms), Reason.ENDED, changes)
        return changes
    if before is not None and condition.onset <= before.onset:
        new = replace(before, value=condition.value, limit=condition.limit, detail=condition.detail)
        if new != before:
            _put(book, new, Reason.VALUE, changes)
        return changes
    book.last[kind] = Alarm(
        id=f"{book.patient}/{kind}/{book.epoch}/{condition.onset}/late",
        kind=kind,
        priority=KINDS[kind].priority,
        presence=Presence.OFF,
        revision=-1,
        epoch=book.epoch,
        onset=condition.onset,
        onset_ms=onset_ms,
        raised_ms=at_ms,
        changed_ms=now_ms,
        announced_ms=0,
        value=condition.value,
        limit=condition.limit,
        detail=condition.detail,
        retrospective=True,
    )
    _put(book, book.last[kind], Reason.RETROSPECTIVE, changes)
    return changes


def on_epoch(book: AlarmBook, epoch: int, now_ms: int, *, policy: Policy = HOUSE) -> list[AlarmChange]:
    """Let a new stream epoch begin: what stood can't be judged any more, so it ends as if its condition had ended."""
    changes = on_clock(book, now_ms, policy=policy)
    if epoch != book.epoch:
        _end_all(book, "the device started anew", policy, changes)
        book.epoch = epoch
        book.last.clear()
    return changes


def on_restart(book: AlarmBook, now_ms: int, *, policy: Policy = HOUSE) -> list[AlarmChange]:
    """Go on where the rules forgot what stood: it ends as if its condition had ended, and may come again."""
    changes = on_clock(book, now_ms, policy=policy)
    _end_all(book, "the service started anew", policy, changes)
    return changes


def on_switched_off(
    book: AlarmBook, off: Set[Kind], user: str, now_ms: int, *, policy: Policy = HOUSE
) -> list[AlarmChange]:
    """End the standing alarms of kinds that staff switched off; a lethal one that nobody acknowledged latches."""
    changes = on_clock(book, now_ms, policy=policy)
    for kind in sorted(off & book.active.keys()):
        alarm = book.alarms[book.active.pop(kind)]
        latches = kind in LETHAL and alarm.presence is Presence.ON
        new = replace(
            alarm,
            presence=Presence.LATCHED if latches else Presence.OFF,
            cleared_ms=book.now_ms,
            detail=f"{alarm.detail} (switched off by {user})",
        )
        _put(book, new, Reason.SWITCHED_OFF, changes)
    return changes


def on_discharge(book: AlarmBook, user: str, now_ms: int, *, policy: Policy = HOUSE) -> list[AlarmChange]:
    """End all alarms and the audio pause: the patient leaves, and who says so has acknowledged what stood."""
    changes = on_clock(book, now_ms, policy=policy)
    now_ms = book.now_ms
    book.pause_until_ms = book.pause_priority = 0
    book.pause_by = ""
    book.active.clear()
    for alarm in list(book.alarms.values()):
        new = replace(
            alarm,
            presence=Presence.OFF,
            cleared_ms=now_ms if alarm.cleared_ms is None else alarm.cleared_ms,
            acked_by=alarm.acked_by or user,
            acked_ms=now_ms if alarm.acked_ms is None else alarm.acked_ms,
            escalation=0,
            silent_until_ms=0,
        )
        _put(book, new, Reason.DISCHARGED, changes)
    return changes


def _put(book: AlarmBook, alarm: Alarm, reason: Reason, changes: list[AlarmChange], *, announce: bool = False) -> None:
    alarm = replace(alarm, revision=alarm.revision + 1, changed_ms=book.now_ms)
    if alarm.presence is Presence.OFF:
        book.alarms.pop(alarm.id, None)
    else:
        book.alarms[alarm.id] = alarm
    newest = book.last.get(alarm.kind)
    if newest is not None and newest.id == alarm.id:
        book.last[alarm.kind] = alarm
    changes.append(AlarmChange(alarm, reason, announce))


def _raise(book: AlarmBook, condition: Condition, onset_ms: int, changes: list[AlarmChange]) -> None:
    kind, now_ms = condition.kind, book.now_ms
    priority = KINDS[kind].priority
    before = book.last.get(kind)
    if before is not None and condition.onset <= before.onset:
        # The evidence overlaps with that of the alarm that just ended: it is the same alarm, announced afresh.
        identity, onset, onset_ms = before.id, before.onset, before.onset_ms
    else:
        identity, onset = f"{book.patient}/{kind}/{book.epoch}/{condition.onset}", condition.onset
    _break_through(book, kind, priority, changes)
    revision = book.last[kind].revision if before is not None and before.id == identity else -1
    alarm = Alarm(
        identity,
        kind,
        priority,
        Presence.ON,
        revision,
        book.epoch,
        onset,
        onset_ms,
        now_ms,
        now_ms,
        now_ms,
        value=condition.value,
        limit=condition.limit,
        detail=condition.detail,
        silent_until_ms=book.pause_until_ms,
    )
    for old in list(book.alarms.values()):
        if old.kind is kind and old.id != identity and old.priority is not Priority.HIGH:
            _put(book, replace(old, presence=Presence.OFF), Reason.SUPERSEDED, changes)
    book.active[kind] = identity
    book.last[kind] = alarm
    _put(book, alarm, Reason.RAISED, changes, announce=True)


def _end_all(book: AlarmBook, detail: str, policy: Policy, changes: list[AlarmChange]) -> None:
    for identity in list(book.active.values()):
        _end(book, book.alarms[identity], detail, None, policy, changes)


def _end(
    book: AlarmBook, alarm: Alarm, detail: str, by: Kind | None, policy: Policy, changes: list[AlarmChange]
) -> None:
    del book.active[alarm.kind]
    replaced = by is not None and alarm.kind not in LETHAL
    latches = alarm.presence is Presence.ON and is_latching(alarm.kind, alarm.priority, policy) and not replaced
    reason = Reason.LATCHED if latches else Reason.REPLACED if replaced else Reason.ENDED
    new = replace(
        alarm,
        presence=Presence.LATCHED if latches else Presence.OFF,
        cleared_ms=book.now_ms,
        detail=f"{alarm.detail} (ended: {detail})" if detail else alarm.detail,
    )
    _put(book, new, reason, changes, announce=alarm.kind in ONSET_AND_END)


def _acknowledge(book: AlarmBook, user: str, identity: str | None, changes: list[AlarmChange]) -> tuple[bool, str]:
    if identity is not None and identity not in book.alarms:
        return False, f"no alarm {identity} stands: it is off or never was"
    wanted = list(book.alarms.values()) if identity is None else [book.alarms[identity]]
    done = 0
    for alarm in wanted:
        if alarm.presence is Presence.ACK:
            continue
        presence = Presence.OFF if alarm.presence is Presence.LATCHED else Presence.ACK
        new = replace(alarm, presence=presence, acked_by=user, acked_ms=book.now_ms, escalation=0, silent_until_ms=0)
        _put(book, new, Reason.ACKNOWLEDGED, changes)
        done += 1
    if done == 0:
        return False, "nothing to acknowledge" if identity is None else f"{identity} is acknowledged already"
    return True, f"{done} acknowledged"


def _pause(
    book: AlarmBook, user: str, values: Mapping[str, float | str | bool], policy: Policy, changes: list[AlarmChange]
) -> tuple[bool, str]:
    most = policy.pause_ms / 1000
    seconds = values.get("seconds", most)
    if isinstance(seconds, bool | str) or not isfinite(seconds) or not 0 < seconds <= most:
        return False, f"an audio pause takes more than 0 and at most {most:g} seconds, not {seconds!r}"
    calling = [alarm for alarm in book.alarms.values() if alarm.presence is not Presence.ACK]
    book.pause_until_ms = book.now_ms + max(round(seconds * 1000), 1)
    book.pause_by = user
    book.pause_priority = max((alarm.priority for alarm in calling), default=0)
    for alarm in calling:
        _put(book, replace(alarm, silent_until_ms=book.pause_until_ms), Reason.PAUSED, changes)
    return True, f"audio paused for {seconds:g} s"


def _break_through(book: AlarmBook, kind: Kind, priority: Priority, changes: list[AlarmChange]) -> None:
    """End the audio pause for a new alarm that it doesn't cover."""
    if book.pause_until_ms and (kind in LETHAL or priority > book.pause_priority):
        _end_pause(book, changes)


def _end_pause(book: AlarmBook, changes: list[AlarmChange]) -> None:
    book.pause_until_ms = book.pause_priority = 0
    book.pause_by = ""
    for alarm in list(book.alarms.values()):
        if alarm.silent_until_ms:
            _put(book, replace(alarm, silent_until_ms=0), Reason.RESUMED, changes)
