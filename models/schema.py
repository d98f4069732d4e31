"""The schema's revisions. Only a process that migrates imports Alembic, which is large."""

from pathlib import Path

from sqlalchemy import Connection, text

from postgres.database import Database
from postgres.errors import GRANT, DatabaseUnavailable

LOCK = 0x7461736B73  # any number that all processes share
MIGRATIONS = Path(__file__).parent / "migrations"
# The name of a revision's file begins with its number.
REVISIONS = sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
HEAD = REVISIONS[-1]
# The privileges that the service needs; a role may lack some by mistake.
LACKING = """
SELECT string_agg(privilege || ' on ' || name, ', ' ORDER BY name, privilege)
FROM unnest(ARRAY['users', 'tasks', 'idempotency_keys']) name,
     unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) privilege
WHERE NOT has_table_privilege(to_regclass(name), privilege)
"""


def check(database: Database) -> None:
    """Raise DatabaseUnavailable unless the database responds and has the schema that this code needs.

    Its subclass RoleUnbound means that row-level security does not bind the role.
    """
    with database.connect() as connection:
        database.check_role(connection)
        lacking = connection.exec_driver_sql(LACKING).scalar()
        found = _revision(connection)
    if lacking:
        raise DatabaseUnavailable(f"the role has no {lacking}; {GRANT}")
    if found != HEAD and _is_known(found):
        raise DatabaseUnavailable(f"the schema is at revision {found or 'none'}, this version needs {HEAD}")


def revision(database: Database) -> str | None:
    """Return the schema's revision, None for an empty database. Raises DatabaseUnavailable."""
    with database.connect() as connection:
        return _revision(connection)


def migrate(database: Database) -> None:
    """Bring the schema to HEAD, in one process while others wait. Raises DatabaseUnavailable.

    A schema that is newer than this code stays as it is, so that releases can overlap.
    """
    found = revision(database)
    if found == HEAD or not _is_known(found):
        return
    from alembic import command
    from alembic.config import Config

    with database.transaction() as connection:
        config = Config(attributes={"connection": connection})
        # Read as by configparser, to which a percent sign means more.
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    return str(connection.scalar(text("SELECT version_num FROM alembic_version")))


def _is_known(revision: str | None) -> bool:
    """Tell whether this code knows a revision; it does not know those of newer releases."""
    return revision is None or revision in REVISIONS
