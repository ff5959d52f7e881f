"""SQL tables round alarms: settings in force, evidence, judgements, labelled beats, contacts and deliveries."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from alerts.tables import Base


class SettingsRow(Base):
    """Each `bus.messages.SettingsEvent`; rows are only added. `entry` is its place on the bus."""

    __tablename__ = "settings"
    __table_args__ = (Index(None, "patient", "ms"), Index(None, "ms"))

    entry: Mapped[str] = mapped_column(String(64), primary_key=True)
    patient: Mapped[str] = mapped_column(String(255))
    device: Mapped[str] = mapped_column(String(255))
    ms: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(String(32))
    who: Mapped[str] = mapped_column(String(255))
    profile: Mapped[str] = mapped_column(String(32))
    limits: Mapped[str] = mapped_column(Text)
    """JSON of every limit by its name."""
    off: Mapped[str] = mapped_column(Text)
    lethal_off: Mapped[str] = mapped_column(Text)
    pause_until_ms: Mapped[int] = mapped_column(BigInteger)
    pause_by: Mapped[str] = mapped_column(String(255))
    vacant: Mapped[bool] = mapped_column(Boolean)
    note: Mapped[str] = mapped_column(Text)


class EvidenceRow(Base):
    """What was seen round an alarm, cut out once and kept apart from the recordings."""

    __tablename__ = "evidence"
    __table_args__ = (Index(None, "patient"), Index(None, "made_ms"))

    alarm: Mapped[str] = mapped_column(String(320), primary_key=True)
    patient: Mapped[str] = mapped_column(String(255))
    made_ms: Mapped[int] = mapped_column(BigInteger)
    whole: Mapped[bool] = mapped_column(Boolean)
    """Every second of it was there."""
    data: Mapped[bytes] = mapped_column(LargeBinary)
    """Deflated JSON of `alerts.evidence.Evidence`; empty where nothing was recorded."""


class JudgementRow(Base):
    """What a person held an alarm to be; the newest of an alarm counts."""

    __tablename__ = "judgements"
    __table_args__ = (Index(None, "alarm"), Index(None, "patient"), Index(None, "ms"))

    seq: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    alarm: Mapped[str] = mapped_column(String(320))
    patient: Mapped[str] = mapped_column(String(255))
    ms: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(String(255))
    verdict: Mapped[str] = mapped_column(String(16))
    comment: Mapped[str] = mapped_column(Text)


class BeatLabelRow(Base):
    """What a person held a beat to be; the newest of a beat counts."""

    __tablename__ = "beat_labels"
    __table_args__ = (Index(None, "patient", "epoch", "sample"), Index(None, "ms"))

    seq: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    patient: Mapped[str] = mapped_column(String(255))
    epoch: Mapped[int] = mapped_column(BigInteger)
    sample: Mapped[int] = mapped_column(BigInteger)
    code: Mapped[str] = mapped_column(String(8))
    ms: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(String(255))


class ContactRow(Base):
    """Whom an alarm is told, from which escalation level on."""

    __tablename__ = "contacts"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    label: Mapped[str] = mapped_column(String(255))
    patient: Mapped[str] = mapped_column(String(255))
    """Only alarms of this one; empty for all."""
    ward: Mapped[str] = mapped_column(String(255))
    """Only alarms of patients of this ward; empty for all."""
    level: Mapped[int] = mapped_column(Integer)
    priority: Mapped[int] = mapped_column(Integer)
    """Least priority."""
    channel: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(String(255))


class DeliveryRow(Base):
    """One message to one contact, and how far it got; `id` is its idempotency key."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index(None, "alarm"),
        Index(None, "patient"),
        Index(None, "state", "due_ms"),
        Index(None, "made_ms"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    partition: Mapped[int] = mapped_column(Integer, server_default="0")
    """Of the patient: whose notifier sends it."""
    alarm: Mapped[str] = mapped_column(String(320))
    patient: Mapped[str] = mapped_column(String(255))
    contact: Mapped[str] = mapped_column(String(32))
    label: Mapped[str] = mapped_column(String(255))
    channel: Mapped[str] = mapped_column(String(16))
    level: Mapped[int] = mapped_column(Integer)
    made_ms: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16))
    """waiting, sent or given_up."""
    tries: Mapped[int] = mapped_column(Integer)
    due_ms: Mapped[int] = mapped_column(BigInteger)
    done_ms: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[str] = mapped_column(Text)
    message: Mapped[str] = mapped_column(Text)
    """JSON that is sent."""


class NotifiedRow(Base):
    """Position on the bus up to which a partition's events are deliveries."""

    __tablename__ = "notified"

    partition: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    position: Mapped[str] = mapped_column(String(64))
