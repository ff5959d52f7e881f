"""SQL tables of the history, as typed models; `alerts.migrations` makes them."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Names of constraints are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s"},
    )


def table_of(model: type[Base]) -> Table:
    """Give the table of a model."""
    table = model.__table__
    assert isinstance(table, Table)  # noqa: S101
    return table


def columns_of(table: Table, kind: type[msgspec.Struct]) -> list[Column[Any]]:
    """Give the columns of a table that hold the fields of a struct, so that each row makes one."""
    return [table.c[name] for name in kind.__struct_fields__]


class AlarmColumns:
    """An alarm after one change, as `bus.messages.AlarmEvent`."""

    id: Mapped[str] = mapped_column(String(320), primary_key=True)
    patient: Mapped[str] = mapped_column(String(255))
    device: Mapped[str] = mapped_column(String(255))
    kind: Mapped[str] = mapped_column(String(32))
    priority: Mapped[int] = mapped_column(Integer)
    presence: Mapped[str] = mapped_column(String(16))
    epoch: Mapped[int] = mapped_column(BigInteger)
    onset_sample: Mapped[int] = mapped_column(BigInteger)
    onset_ms: Mapped[int] = mapped_column(BigInteger)
    raised_ms: Mapped[int] = mapped_column(BigInteger)
    changed_ms: Mapped[int] = mapped_column(BigInteger)
    cleared_ms: Mapped[int | None] = mapped_column(BigInteger)
    acked_by: Mapped[str | None] = mapped_column(String(255))
    acked_ms: Mapped[int | None] = mapped_column(BigInteger)
    value: Mapped[float | None] = mapped_column(Float)
    limit: Mapped[float | None] = mapped_column(Float)
    detail: Mapped[str] = mapped_column(Text)
    technical: Mapped[bool] = mapped_column(Boolean)
    lethal: Mapped[bool] = mapped_column(Boolean)
    reason: Mapped[str] = mapped_column(String(32))
    announced_ms: Mapped[int] = mapped_column(BigInteger)
    escalation: Mapped[int] = mapped_column(Integer)
    silent_until_ms: Mapped[int] = mapped_column(BigInteger)
    retrospective: Mapped[bool] = mapped_column(Boolean)


class AlarmRow(AlarmColumns, Base):
    """Each alarm as it stands."""

    __tablename__ = "alarms"
    __table_args__ = (
        Index(None, "patient", "raised_ms"),
        Index(None, "presence"),
        Index(None, "raised_ms"),
        Index(None, "onset_ms"),
    )

    revision: Mapped[int] = mapped_column(Integer)


class ChangeRow(AlarmColumns, Base):
    """Every change of every alarm; rows are only added."""

    __tablename__ = "alarm_changes"
    __table_args__ = (Index(None, "patient", "changed_ms"), Index(None, "onset_ms"))

    revision: Mapped[int] = mapped_column(Integer, primary_key=True)


class RhythmRow(Base):
    """Changes of rhythm."""

    __tablename__ = "rhythms"
    __table_args__ = (Index(None, "patient", "ms"), Index(None, "ms"))

    device: Mapped[str] = mapped_column(String(255), primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    sample: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    patient: Mapped[str] = mapped_column(String(255))
    ms: Mapped[int] = mapped_column(BigInteger)
    code: Mapped[str] = mapped_column(String(16))
    p: Mapped[float] = mapped_column(Float)


class StatusRow(Base):
    """Changes of signal and device state; `entry` is the event's place on the bus, ``partition:position``."""

    __tablename__ = "statuses"
    __table_args__ = (Index(None, "patient", "ms"), Index(None, "ms"))

    entry: Mapped[str] = mapped_column(String(64), primary_key=True)
    patient: Mapped[str] = mapped_column(String(255))
    device: Mapped[str] = mapped_column(String(255))
    ms: Mapped[int] = mapped_column(BigInteger)
    lead: Mapped[str] = mapped_column(String(64))
    leads: Mapped[str] = mapped_column(Text)
    quality: Mapped[str] = mapped_column(String(16))
    note: Mapped[str] = mapped_column(Text)


class UserRow(Base):
    """Who may log in."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(32))
    disabled: Mapped[bool] = mapped_column(Boolean, default=False)
    made_ms: Mapped[int] = mapped_column(BigInteger, default=0)
    since_ms: Mapped[int] = mapped_column(BigInteger, default=0)
    """Sessions begun before are over (the password changed)."""


class CursorRow(Base):
    """Position on the bus up to which a partition's events are in these tables."""

    __tablename__ = "cursors"

    partition: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    position: Mapped[str] = mapped_column(String(64))
