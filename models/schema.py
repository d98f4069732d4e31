"""The schema's revisions. Alembic, which is large, is imported only by a process that brings the schema up to date."""

from pathlib import Path

from sqlalchemy import Connection, text

from postgres.database import Database
from postgres.errors import GRANT, DatabaseUnavailable

LOCK = 0x7461736B73  # any number, as long as all processes use the same
MIGRATIONS = Path(__file__).parent / "migrations"
# Each file of a revision begins with its number.
REVISIONS = sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
HEAD = REVISIONS[-1]
# What the service does with its tables; a role may be granted less by mistake.
LACKING = """
SELECT string_agg(privilege || ' on ' || name, ', ' ORDER BY name, privilege)
FROM unnest(ARRAY['users', 'tasks', 'idempotency_keys']) name,
     unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) privilege
WHERE NOT has_table_privilege(to_regclass(name), privilege)
"""


def check(database: Database) -> None:
    """Raise DatabaseUnavailable unless the database answers and its schema is the one that this code needs.

    Raises RoleUnbound, a DatabaseUnavailable too, when row-level security does not bind the role.
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
    """Return the revision that the schema is at, None for an empty database.

    Raises DatabaseUnavailable.
    """
    with database.connect() as connection:
        return _revision(connection)


def migrate(database: Database) -> None:
    """Bring the schema to HEAD; of many processes that try at once one does it, the others wait.

    A schema that is newer than this code is left as it is, so that releases can overlap.

    Raises DatabaseUnavailable.
    """
    found = revision(database)
    if found == HEAD or not _is_known(found):
        return
    from alembic import command
    from alembic.config import Config

    with database.transaction() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(MIGRATIONS))
        config.set_main_option("path_separator", "os")
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    return str(connection.scalar(text("SELECT version_num FROM alembic_version")))


def _is_known(revision: str | None) -> bool:
    """Tell whether this code can bring a schema at this revision up to date; a newer release's it cannot."""
    return revision is None or revision in REVISIONS
