"""Alembic's entry point: runs the migrations on the connection of `models.schema.migrate`."""

from alembic import context

from models.base import Base
from models.inspection import VERSION_TABLE  # which imports every table

# A version table of its own: another application in the same schema may use Alembic too.
connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table=VERSION_TABLE, target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
