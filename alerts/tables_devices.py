"""SQL table of the devices that may publish."""

from __future__ import annotations

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from alerts.tables import Base


class DeviceRow(Base):
    """A device and the hash of its secret; a revoked one stays, so that its id is not given to another by mistake."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    label: Mapped[str] = mapped_column(String(255))
    secret_hash: Mapped[str] = mapped_column(String(255))
    made_by: Mapped[str] = mapped_column(String(255))
    made_ms: Mapped[int] = mapped_column(BigInteger)
    rotated_ms: Mapped[int] = mapped_column(BigInteger)
    revoked_ms: Mapped[int | None] = mapped_column(BigInteger)
