"""Persons, stays, consents, notes, retention, erasures and exports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this version."""
    op.create_table(
        "consents",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("person", sa.String(length=32), nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("given", sa.Boolean(), nullable=False),
        sa.Column("by", sa.String(length=255), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consents")),
    )
    op.create_index(op.f("ix_consents_person_purpose"), "consents", ["person", "purpose"], unique=False)
    op.create_table(
        "erasures",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("person", sa.String(length=32), nullable=False),
        sa.Column("asked_ms", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("spans", sa.Text(), nullable=False),
        sa.Column("done_ms", sa.BigInteger(), nullable=True),
        sa.Column("left", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
    )
    op.create_index(op.f("ix_erasures_done_ms"), "erasures", ["done_ms"], unique=False)
    op.create_table(
        "exports",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("person", sa.String(length=32), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exports")),
    )
    op.create_index(op.f("ix_exports_person"), "exports", ["person"], unique=False)
    op.create_table(
        "notes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("person", sa.String(length=32), nullable=False),
        sa.Column("ms", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notes")),
    )
    op.create_index(op.f("ix_notes_person"), "notes", ["person"], unique=False)
    op.create_table(
        "persons",
        sa.Column("person", sa.String(length=32), nullable=False),
        sa.Column("mrn", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("born", sa.String(length=10), nullable=False),
        sa.Column("sex", sa.String(length=16), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("person", name=op.f("pk_persons")),
    )
    op.create_index(op.f("ix_persons_mrn"), "persons", ["mrn"], unique=False)
    op.create_table(
        "retention",
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_retention")),
    )
    op.create_table(
        "stays",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("person", sa.String(length=32), nullable=False),
        sa.Column("patient", sa.String(length=255), nullable=False),
        sa.Column("bed", sa.String(length=64), nullable=False),
        sa.Column("ward", sa.String(length=64), nullable=False),
        sa.Column("profile", sa.String(length=32), nullable=False),
        sa.Column("visit", sa.String(length=128), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("to_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stays")),
    )
    op.create_index(op.f("ix_stays_patient_from_ms"), "stays", ["patient", "from_ms"], unique=False)
    op.create_index(op.f("ix_stays_person"), "stays", ["person"], unique=False)
    op.create_index(op.f("ix_stays_to_ms"), "stays", ["to_ms"], unique=False)
    op.create_table(
        "turnovers",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("channel", sa.String(length=255), nullable=False),
        sa.Column("ms", sa.BigInteger(), nullable=False),
        sa.Column("act", sa.String(length=16), nullable=False),
        sa.Column("profile", sa.String(length=32), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_turnovers")),
    )


def downgrade() -> None:
    """Go back from this version."""
    op.drop_table("turnovers")
    op.drop_index(op.f("ix_stays_to_ms"), table_name="stays")
    op.drop_index(op.f("ix_stays_person"), table_name="stays")
    op.drop_index(op.f("ix_stays_patient_from_ms"), table_name="stays")
    op.drop_table("stays")
    op.drop_table("retention")
    op.drop_index(op.f("ix_persons_mrn"), table_name="persons")
    op.drop_table("persons")
    op.drop_index(op.f("ix_notes_person"), table_name="notes")
    op.drop_table("notes")
    op.drop_index(op.f("ix_exports_person"), table_name="exports")
    op.drop_table("exports")
    op.drop_index(op.f("ix_erasures_done_ms"), table_name="erasures")
    op.drop_table("erasures")
    op.drop_index(op.f("ix_consents_person_purpose"), table_name="consents")
    op.drop_table("consents")
