"""Alembic's entry point: runs the migrations on the connection of `models.schema.migrate`."""

from alembic import context

from models import idempotency_key, task, user  # noqa: F401 (each adds its table to the metadata)
from models.base import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
