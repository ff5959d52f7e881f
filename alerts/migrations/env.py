"""Entry point of alembic: migrate over the connection that `alerts.store.upgrade` gives."""

from __future__ import annotations

from alembic import context

from alerts.tables_all import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=False,  # the caller's transaction holds it all, on SQLite too
)
context.run_migrations()
