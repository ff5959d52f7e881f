"""Tables of the history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this version."""
    op.create_table(
        "alarm_changes",
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(length=320), nullable=False),
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("device", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("presence", sa.String(length=16), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("onset_sample", sa.BigInteger(), nullable=False),
        sa.Column("onset_ms", sa.BigInteger(), nullable=False),
        sa.Column("raised_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.Column("cleared_ms", sa.BigInteger(), nullable=True),
        sa.Column("acked_by", sa.String(length=255), nullable=True),
        sa.Column("acked_ms", sa.BigInteger(), nullable=True),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("limit", sa.Float(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("technical", sa.Boolean(), nullable=False),
        sa.Column("lethal", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("announced_ms", sa.BigInteger(), nullable=False),
        sa.Column("escalation", sa.Integer(), nullable=False),
        sa.Column("silent_until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("revision", "id", name=op.f("pk_alarm_changes")),
    )
    with op.batch_alter_table("alarm_changes", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_alarm_changes_patient_changed_ms"), ["patient", "changed_ms"], unique=False
        )

    op.create_table(
        "alarms",
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(length=320), nullable=False),
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("device", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("presence", sa.String(length=16), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("onset_sample", sa.BigInteger(), nullable=False),
        sa.Column("onset_ms", sa.BigInteger(), nullable=False),
        sa.Column("raised_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.Column("cleared_ms", sa.BigInteger(), nullable=True),
        sa.Column("acked_by", sa.String(length=255), nullable=True),
        sa.Column("acked_ms", sa.BigInteger(), nullable=True),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("limit", sa.Float(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("technical", sa.Boolean(), nullable=False),
        sa.Column("lethal", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("announced_ms", sa.BigInteger(), nullable=False),
        sa.Column("escalation", sa.Integer(), nullable=False),
        sa.Column("silent_until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarms")),
    )
    with op.batch_alter_table("alarms", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_alarms_patient_raised_ms"), ["patient", "raised_ms"], unique=False)
        batch_op.create_index(batch_op.f("ix_alarms_presence"), ["presence"], unique=False)
        batch_op.create_index(batch_op.f("ix_alarms_raised_ms"), ["raised_ms"], unique=False)

    op.create_table(
        "cursors",
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("partition", name=op.f("pk_cursors")),
    )
    op.create_table(
        "rhythms",
        sa.Column("device", sa.String(length=255), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sample", sa.BigInteger(), nullable=False),
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("ms", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.String(length=16), nullable=False),
        sa.Column("p", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("device", "epoch", "sample", name=op.f("pk_rhythms")),
    )
    with op.batch_alter_table("rhythms", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rhythms_patient_ms"), ["patient", "ms"], unique=False)

    op.create_table(
        "statuses",
        sa.Column("entry", sa.String(length=64), nullable=False),
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("device", sa.String(length=255), nullable=False),
        sa.Column("ms", sa.BigInteger(), nullable=False),
        sa.Column("lead", sa.String(length=64), nullable=False),
        sa.Column("leads", sa.Text(), nullable=False),
        sa.Column("quality", sa.String(length=16), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("entry", name=op.f("pk_statuses")),
    )
    with op.batch_alter_table("statuses", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_statuses_patient_ms"), ["patient", "ms"], unique=False)

    op.create_table(
        "users",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_users")),
    )


def downgrade() -> None:
    """Go back from this version."""
    op.drop_table("users")
    with op.batch_alter_table("statuses", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_statuses_patient_ms"))

    op.drop_table("statuses")
    with op.batch_alter_table("rhythms", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_rhythms_patient_ms"))

    op.drop_table("rhythms")
    op.drop_table("cursors")
    with op.batch_alter_table("alarms", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_alarms_raised_ms"))
        batch_op.drop_index(batch_op.f("ix_alarms_presence"))
        batch_op.drop_index(batch_op.f("ix_alarms_patient_raised_ms"))

    op.drop_table("alarms")
    with op.batch_alter_table("alarm_changes", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_alarm_changes_patient_changed_ms"))

    op.drop_table("alarm_changes")
