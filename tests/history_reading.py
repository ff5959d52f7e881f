"""What tests ask of the history that a store has written."""

from __future__ import annotations

from alerts.alarm_log import AlarmLog
from alerts.store import Store
from bus.messages import AlarmEvent


def recent_alarms(store: Store, limit: int = 100) -> list[AlarmEvent]:
    """List the newest alarms of all patients."""
    return [item.alarm for item in AlarmLog(store._engine).find(limit=limit)]


def changes_of(store: Store, alarm: str) -> list[AlarmEvent]:
    """List every change of one alarm, in order."""
    return AlarmLog(store._engine).changes(alarm)
