"""Schema of the history, step by step (alembic)."""
