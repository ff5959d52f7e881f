"""Words of care: persons, stays, consents, notes, and the word that a stream is owed."""

from __future__ import annotations

import msgspec


class Person(msgspec.Struct, frozen=True):
    """A person as the hospital knows it."""

    person: str
    name: str
    mrn: str = ""
    born: str = ""
    """``YYYY-MM-DD`` or empty."""
    sex: str = ""
    """male, female, other, unknown or empty, as FHIR has it."""
    made_ms: int = 0


class Stay(msgspec.Struct, frozen=True):
    """A person in a bed on a channel."""

    id: int
    person: str
    patient: str
    bed: str
    ward: str
    profile: str
    visit: str
    from_ms: int
    to_ms: int | None = None


class Consent(msgspec.Struct, frozen=True):
    """A yes or no to a purpose."""

    person: str
    purpose: str
    given: bool
    by: str
    who: str
    ms: int


class StaffNote(msgspec.Struct, frozen=True):
    """What staff wrote about a person."""

    person: str
    ms: int
    who: str
    text: str


class Turnover(msgspec.Struct, frozen=True):
    """An admission or discharge that the channel's stream has to be told."""

    id: int
    channel: str
    ms: int
    act: str
    profile: str
    who: str
