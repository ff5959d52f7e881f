"""An index by age wherever old rows are deleted, so that nobody waits while a whole table is read."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_AGES = (
    ("alarms", "onset_ms"),
    ("alarm_changes", "onset_ms"),
    ("rhythms", "ms"),
    ("statuses", "ms"),
    ("settings", "ms"),
    ("judgements", "ms"),
    ("beat_labels", "ms"),
    ("minutes", "ms"),
)


def upgrade() -> None:
    """Go to this version."""
    for table, column in _AGES:
        op.create_index(f"ix_{table}_{column}", table, [column])


def downgrade() -> None:
    """Go back from this version."""
    for table, column in _AGES:
        op.drop_index(f"ix_{table}_{column}", table)
