"""Alembic's entry point: runs the migrations on the connection of `models.schema.migrate`."""

from alembic import context

from models import idempotency_key, service_key, task, user  # noqa: F401 (each adds its table to the metadata)
from models.base import Base

given = context.config.attributes
# A version table of its own: another application in the same schema may use Alembic too.
context.configure(connection=given["connection"], version_table=given["version_table"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
