"""Index of the recordings on disk, trends of each minute, and the recorder's place on the bus."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this version."""
    op.create_table(
        "segments",
        sa.Column("path", sa.String(length=400), nullable=False),
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("device", sa.String(length=255), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("to_ms", sa.BigInteger(), nullable=False),
        sa.Column("fs", sa.Float(), nullable=False),
        sa.Column("gain", sa.Float(), nullable=False),
        sa.Column("leads", sa.Text(), nullable=False),
        sa.Column("bits", sa.Integer(), nullable=False),
        sa.Column("anchors", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_segments")),
    )
    op.create_index(op.f("ix_segments_patient_to_ms"), "segments", ["patient", "to_ms"])
    op.create_index(op.f("ix_segments_to_ms"), "segments", ["to_ms"])
    op.create_table(
        "minutes",
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("ms", sa.BigInteger(), nullable=False),
        sa.Column("beats", sa.Integer(), nullable=False),
        sa.Column("rr_count", sa.Integer(), nullable=False),
        sa.Column("rr_ms", sa.BigInteger(), nullable=False),
        sa.Column("hr_min", sa.Float(), nullable=True),
        sa.Column("hr_max", sa.Float(), nullable=True),
        sa.Column("pvc", sa.Integer(), nullable=False),
        sa.Column("sveb", sa.Integer(), nullable=False),
        sa.Column("af_ms", sa.BigInteger(), nullable=False),
        sa.Column("good_ms", sa.BigInteger(), nullable=False),
        sa.Column("signal_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("patient", "ms", name=op.f("pk_minutes")),
    )
    op.create_table(
        "recorders",
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("entries", sa.String(length=64), nullable=False),
        sa.Column("events", sa.String(length=64), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("partition", name=op.f("pk_recorders")),
    )


def downgrade() -> None:
    """Go back."""
    for table in ("recorders", "minutes", "segments"):
        op.drop_table(table)
