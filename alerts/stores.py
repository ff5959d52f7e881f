"""The stores round alarms that the pages use, over one engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Engine

from alerts.alarm_log import AlarmLog
from alerts.contacts import Contacts
from alerts.deliveries import Deliveries
from alerts.evidence import EvidenceStore
from alerts.judging import Judging


@dataclass(frozen=True, slots=True)
class AlarmStores:
    """Stores over the history's engine, its schema up to date."""

    engine: Engine
    log: AlarmLog = field(init=False)
    judging: Judging = field(init=False)
    evidence: EvidenceStore = field(init=False)
    contacts: Contacts = field(init=False)
    deliveries: Deliveries = field(init=False)

    def __post_init__(self) -> None:
        """Open each of them."""
        for name, kind in (
            ("log", AlarmLog),
            ("judging", Judging),
            ("evidence", EvidenceStore),
            ("contacts", Contacts),
            ("deliveries", Deliveries),
        ):
            object.__setattr__(self, name, kind(self.engine))
