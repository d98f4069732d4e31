"""Alembic's entry point: runs the migrations on the connection that `models.schema.migrate` hands over."""

from alembic import context

from models import idempotency, task, user  # noqa: F401 (each puts its table into the metadata)
from models.base import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
