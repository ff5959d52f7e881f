"""The partition of each message, so that several notifiers share the outbox."""

from __future__ import annotations

import zlib

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_PARTITIONS = 64


def upgrade() -> None:
    """Go to this version."""
    op.add_column("deliveries", sa.Column("partition", sa.Integer(), server_default="0", nullable=False))
    rows = sa.table("deliveries", sa.column("patient"), sa.column("state"), sa.column("partition"))
    connection = op.get_bind()
    for patient in connection.scalars(sa.select(rows.c.patient).where(rows.c.state == "waiting").distinct()).all():
        partition = zlib.crc32(patient.encode()) % _PARTITIONS
        connection.execute(rows.update().where(rows.c.patient == patient).values(partition=partition))


def downgrade() -> None:
    """Go back from this version."""
    op.drop_column("deliveries", "partition")
