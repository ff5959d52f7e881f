"""Settings in force, evidence, judgements, labelled beats, contacts, deliveries; retrospective alarms."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this version."""
    op.create_table(
        "beat_labels",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sample", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.String(length=8), nullable=False),
        sa.Column("ms", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_beat_labels")),
    )
    op.create_index(op.f("ix_beat_labels_patient_epoch_sample"), "beat_labels", ["patient", "epoch", "sample"])

    op.create_table(
        "contacts",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("label", sa.String(length=255), nullable=False),
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("ward", sa.String(length=255), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("secret", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contacts")),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("alarm", sa.String(length=320), nullable=False),
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("contact", sa.String(length=32), nullable=False),
        sa.Column("label", sa.String(length=255), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_ms", sa.BigInteger(), nullable=False),
        sa.Column("done_ms", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
    )
    op.create_index(op.f("ix_deliveries_alarm"), "deliveries", ["alarm"])
    op.create_index(op.f("ix_deliveries_made_ms"), "deliveries", ["made_ms"])
    op.create_index(op.f("ix_deliveries_patient"), "deliveries", ["patient"])
    op.create_index(op.f("ix_deliveries_state_due_ms"), "deliveries", ["state", "due_ms"])

    op.create_table(
        "evidence",
        sa.Column("alarm", sa.String(length=320), nullable=False),
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("whole", sa.Boolean(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("alarm", name=op.f("pk_evidence")),
    )
    op.create_index(op.f("ix_evidence_made_ms"), "evidence", ["made_ms"])
    op.create_index(op.f("ix_evidence_patient"), "evidence", ["patient"])

    op.create_table(
        "judgements",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("alarm", sa.String(length=320), nullable=False),
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("ms", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_judgements")),
    )
    op.create_index(op.f("ix_judgements_alarm"), "judgements", ["alarm"])
    op.create_index(op.f("ix_judgements_patient"), "judgements", ["patient"])

    op.create_table(
        "notified",
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("partition", name=op.f("pk_notified")),
    )
    op.create_table(
        "settings",
        sa.Column("entry", sa.String(length=64), nullable=False),
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("device", sa.String(length=255), nullable=False),
        sa.Column("ms", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("profile", sa.String(length=32), nullable=False),
        sa.Column("limits", sa.Text(), nullable=False),
        sa.Column("off", sa.Text(), nullable=False),
        sa.Column("lethal_off", sa.Text(), nullable=False),
        sa.Column("pause_until_ms", sa.BigInteger(), nullable=False),
        sa.Column("pause_by", sa.String(length=255), nullable=False),
        sa.Column("vacant", sa.Boolean(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("entry", name=op.f("pk_settings")),
    )
    op.create_index(op.f("ix_settings_patient_ms"), "settings", ["patient", "ms"])

    with op.batch_alter_table("alarm_changes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("retrospective", sa.Boolean(), nullable=False, server_default=sa.false()))

    with op.batch_alter_table("alarms", schema=None) as batch_op:
        batch_op.add_column(sa.Column("retrospective", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Go back from this version."""
    for name in ("alarms", "alarm_changes"):
        with op.batch_alter_table(name, schema=None) as batch_op:
            batch_op.drop_column("retrospective")
    for name in ("settings", "notified", "judgements", "evidence", "deliveries", "contacts", "beat_labels"):
        op.drop_table(name)
