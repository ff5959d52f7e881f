"""SQL tables of care: persons, where they stay, what they consented to, notes, retention, what leaves for erasure."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from alerts.tables import Base

_NUMBER = BigInteger().with_variant(Integer, "sqlite")


class PersonRow(Base):
    """A person; `person` is made here and means nothing elsewhere."""

    __tablename__ = "persons"
    __table_args__ = (Index(None, "mrn"),)

    person: Mapped[str] = mapped_column(String(32), primary_key=True)
    mrn: Mapped[str] = mapped_column(String(128))
    """Record number of the hospital; empty where none is known."""
    name: Mapped[str] = mapped_column(String(255))
    born: Mapped[str] = mapped_column(String(10))
    sex: Mapped[str] = mapped_column(String(16))
    made_ms: Mapped[int] = mapped_column(BigInteger)


class StayRow(Base):
    """A person in a bed on a monitoring channel, from admission or transfer to the next; the end is left out."""

    __tablename__ = "stays"
    __table_args__ = (Index(None, "patient", "from_ms"), Index(None, "person"), Index(None, "to_ms"))

    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True)
    person: Mapped[str] = mapped_column(String(32))
    patient: Mapped[str] = mapped_column(String(255))
    bed: Mapped[str] = mapped_column(String(64))
    ward: Mapped[str] = mapped_column(String(64))
    profile: Mapped[str] = mapped_column(String(32))
    visit: Mapped[str] = mapped_column(String(128))
    """Number of the visit in the hospital's own system."""
    from_ms: Mapped[int] = mapped_column(BigInteger)
    to_ms: Mapped[int | None] = mapped_column(BigInteger)


class ConsentRow(Base):
    """A person said yes or no to a purpose; the newest of a purpose counts."""

    __tablename__ = "consents"
    __table_args__ = (Index(None, "person", "purpose"),)

    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True)
    person: Mapped[str] = mapped_column(String(32))
    purpose: Mapped[str] = mapped_column(String(32))
    given: Mapped[bool] = mapped_column(Boolean)
    by: Mapped[str] = mapped_column(String(255))
    """Who spoke: the person, or a guardian."""
    who: Mapped[str] = mapped_column(String(255))
    """Member of staff who wrote it down."""
    ms: Mapped[int] = mapped_column(BigInteger)


class NoteRow(Base):
    """What staff wrote about a person."""

    __tablename__ = "notes"
    __table_args__ = (Index(None, "person"),)

    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True)
    person: Mapped[str] = mapped_column(String(32))
    ms: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(String(255))
    text: Mapped[str] = mapped_column(Text)


class RetentionRow(Base):
    """How long a kind of data is kept, where it differs from the default."""

    __tablename__ = "retention"

    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    days: Mapped[int] = mapped_column(Integer)


class TurnoverRow(Base):
    """An admission or discharge that the channel's stream has not been told yet."""

    __tablename__ = "turnovers"

    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True)
    channel: Mapped[str] = mapped_column(String(255))
    ms: Mapped[int] = mapped_column(BigInteger)
    act: Mapped[str] = mapped_column(String(16))
    profile: Mapped[str] = mapped_column(String(32))
    who: Mapped[str] = mapped_column(String(255))


class ErasureRow(Base):
    """An erasure: which channels and times it reaches, and what of it is still to be done. It names nobody."""

    __tablename__ = "erasures"
    __table_args__ = (Index(None, "done_ms"),)

    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True)
    person: Mapped[str] = mapped_column(String(32))
    asked_ms: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(String(255))
    spans: Mapped[str] = mapped_column(Text)
    """JSON list of [channel, from_ms, to_ms]."""
    done_ms: Mapped[int | None] = mapped_column(BigInteger)
    left: Mapped[str] = mapped_column(Text)
    """What could not be done yet, in words."""


class ExportRow(Base):
    """A folder on disk with data of a person, written for training; an erasure takes it away."""

    __tablename__ = "exports"
    __table_args__ = (Index(None, "person"),)

    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True)
    person: Mapped[str] = mapped_column(String(32))
    path: Mapped[str] = mapped_column(Text)
    ms: Mapped[int] = mapped_column(BigInteger)
