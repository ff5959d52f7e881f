"""Whom alarms are told outside the pages: contacts by patient, ward, priority and escalation level. Calls block."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import delete, insert, select

from alerts.database import Rows, StoreError
from alerts.tables import columns_of, table_of
from alerts.tables_alarms import ContactRow
from bus.messages import AlarmEvent

CHANNELS: Final = ("webhook", "email", "mqtt")
LEVELS: Final = (0, 1, 2, 3)
"""0: at once; 1, 2, 3: with the escalations of an alarm that nobody acknowledges."""
MOST: Final = 500

CONTACTS: Final = table_of(ContactRow)
_EMAIL: Final = re.compile(r"[^@\s,<>]{1,64}@[^@\s,<>]{1,253}")


class Contact(msgspec.Struct, frozen=True):
    """One receiver.

    Attributes
    ----------
    id : str
        Empty for a new one.
    patient, ward : str
        Only alarms of this patient, of this ward; empty for all.
    level : int
        From which escalation level on; 0 is told at once.
    priority : int
        Least priority of an alarm, 1 to 3.
    channel : str
        ``webhook`` (address: URL), ``email`` (address) or ``mqtt`` (the topic of the patient's device; no address).
    secret : str
        Key that signs webhooks; made by us, shown once.
    """

    label: str
    channel: str
    address: str = ""
    patient: str = ""
    ward: str = ""
    level: int = 0
    priority: int = 3
    id: str = ""
    secret: str = ""


def problems_of(contact: Contact) -> list[str]:
    """Say what is wrong with a contact, each fault in one sentence."""
    problems: list[str] = []
    if not contact.label.strip():
        problems.append("a contact needs a label")
    if contact.level not in LEVELS:
        problems.append(f"{contact.label}: level {contact.level} is none of 0, 1, 2, 3")
    if contact.priority not in (1, 2, 3):
        problems.append(f"{contact.label}: priority {contact.priority} is none of 1, 2, 3")
    if contact.channel == "webhook":
        try:
            parts = urlsplit(contact.address)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good:
            problems.append(f"{contact.label}: a webhook needs an address like https://host/path")
    elif contact.channel == "email":
        if not _EMAIL.fullmatch(contact.address):
            problems.append(f"{contact.label}: {contact.address!r} is no e-mail address")
    elif contact.channel != "mqtt":
        problems.append(f"{contact.label}: channel {contact.channel!r} is none of {', '.join(CHANNELS)}")
    return problems


def is_told(contact: Contact, alarm: AlarmEvent, ward: str) -> bool:
    """Whether a contact is to hear of an announcement.

    Parameters
    ----------
    contact : Contact
    alarm : AlarmEvent
        At the announcement.
    ward : str
        Of the patient now; empty when unknown.
    """
    return (
        contact.patient in ("", alarm.patient)
        and contact.ward in ("", ward)
        and alarm.priority >= contact.priority
        and alarm.escalation >= contact.level
    )


class Contacts(Rows):
    """Contacts in SQL."""

    def all(self) -> list[Contact]:
        """List the contacts by level and label, with their secrets."""
        columns = columns_of(CONTACTS, Contact)
        with self._engine.connect() as connection:
            rows = connection.execute(select(*columns).order_by(CONTACTS.c.level, CONTACTS.c.label, CONTACTS.c.id))
            return [Contact(**row) for row in rows.mappings()]

    def replace(self, contacts: Sequence[Contact]) -> list[Contact]:
        """Make these all the contacts there are.

        A contact with the id of a known one keeps its secret; a new one, or one whose address changed, gets its own.

        Returns
        -------
        list of Contact
            As kept; a secret only where it was made now.

        Raises
        ------
        StoreError
            If one of them can't be used.
        """
        problems = [problem for contact in contacts for problem in problems_of(contact)]
        if len(contacts) > MOST:
            problems.append(f"{len(contacts)} contacts are more than {MOST}")
        if problems:
            raise StoreError("; ".join(problems))
        shown: list[Contact] = []
        kept: list[Contact] = []
        with self._writer.begin() as connection:
            rows = connection.execute(select(CONTACTS.c.id, CONTACTS.c.secret, CONTACTS.c.address))
            known = {row.id: (row.secret, row.address) for row in rows}
            for contact in contacts:
                secret, address = known.get(contact.id, ("", ""))
                made = contact.channel == "webhook" and (not secret or address != contact.address)
                if contact.channel != "webhook":
                    secret = ""
                elif made:
                    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
                ident = contact.id if known.pop(contact.id, None) else secrets.token_hex(8)
                kept.append(msgspec.structs.replace(contact, id=ident, secret=secret))
                shown.append(msgspec.structs.replace(kept[-1], secret=secret if made else ""))
            connection.execute(delete(CONTACTS))
            if kept:
                connection.execute(insert(CONTACTS), [msgspec.structs.asdict(contact) for contact in kept])
        return shown
