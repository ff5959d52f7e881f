"""SQL tables of the audit trail and of access tokens."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from alerts.tables import Base


class AuditRow(Base):
    """One act of one person; rows are only added, each holds the hash of the one before (`alerts.audit`)."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "ms"), Index(None, "subject"))

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    ms: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(String(255))
    act: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(512))
    detail: Mapped[str] = mapped_column(Text)
    former: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class TokenRow(Base):
    """An access token of a program; only its hash is kept."""

    __tablename__ = "tokens"
    __table_args__ = (Index(None, "secret_hash", unique=True),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    label: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(32))
    secret_hash: Mapped[str] = mapped_column(String(64))
    made_by: Mapped[str] = mapped_column(String(255))
    made_ms: Mapped[int] = mapped_column(BigInteger)
    until_ms: Mapped[int] = mapped_column(BigInteger)
