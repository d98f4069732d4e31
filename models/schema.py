"""The schema's revisions. Only a process that migrates imports Alembic, which is large."""

from pathlib import Path

import psycopg
import sqlalchemy.exc
from sqlalchemy import Connection, text

from models.inspection import OF_ITS_OWN, VERSION_TABLE, Found, inspect, several
from postgres.database import Database
from postgres.errors import GRANT, DatabaseUnavailable, NotInOrder, first_line

LOCK = 0x7461736B73  # any number that all processes share
MIGRATIONS = Path(__file__).parent / "migrations"
# The name of a revision's file begins with its number.
REVISIONS = sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
HEAD = REVISIONS[-1]
# Before 0004 the revision stood in Alembic's usual table, which belongs to whichever application made it.
OLD_VERSION = text("SELECT version_num FROM alembic_version WHERE version_num IN ('0001', '0002', '0003')")
VERSION = text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 (a constant)
# Names are looked up in the schema that tables are made in, not in others on the search path.
ONE_SCHEMA = text("SELECT set_config('search_path', quote_ident(current_schema()), true)")
TAKEN = (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject)


def check(database: Database) -> None:
    """Raise DatabaseUnavailable unless the database responds, accepts writes and has the schema that this code needs.

    Of its subclasses, RoleUnbound means that row-level security does not bind the role, and NotInOrder says what was
    found instead of what is needed.
    """
    with database.connect() as connection:
        database.check_role(connection)
        found = inspect(connection)
        at = _revision(connection, found)
    if found.is_standby:
        raise NotInOrder(
            "the server is a standby, which accepts no writes; connect to the primary, or name both servers with "
            "target_session_attrs=read-write"
        )
    if found.is_read_only:
        raise NotInOrder("the database accepts no writes: transaction_read_only is on")
    if at != HEAD and _is_known(at):
        _refuse_foreign(at, found)
        other = f"; alembic_version in {found.schema} is another application's" if found.has_alembic and not at else ""
        raise NotInOrder(f"the schema is at revision {at or 'none'}, this version needs {HEAD}{other}")
    if found.fault:
        raise NotInOrder(f"the schema {found.schema} is at revision {at} and {found.fault}")
    if found.lacking:
        raise DatabaseUnavailable(f"the role has no {', '.join(found.lacking)}; {GRANT}")


def revision(database: Database) -> str | None:
    """Return the schema's revision, None for a database without one. Raises DatabaseUnavailable."""
    with database.connect() as connection:
        return _revision(connection, inspect(connection))


def migrate(database: Database) -> None:
    """Bring the schema to HEAD, in one process while others wait. Raises DatabaseUnavailable.

    A schema that is newer than this code stays as it is, so that releases can overlap. NotInOrder says that another
    application has tables of the same names.
    """
    at = revision(database)
    if at == HEAD or not _is_known(at):
        return
    from alembic import command
    from alembic.config import Config

    with database.transaction() as connection:
        config = Config(attributes={"connection": connection})
        # Read as by configparser, to which a percent sign means more.
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        connection.execute(ONE_SCHEMA)
        found = inspect(connection)
        at = _revision(connection, found)
        _refuse_foreign(at, found)
        try:
            if at and not found.is_versioned:
                command.stamp(config, at)  # alembic_version stays for the release before, which reads it
            command.upgrade(config, "head")
        except sqlalchemy.exc.ProgrammingError as error:
            if isinstance(error.orig, TAKEN):
                raise NotInOrder(f"in the schema {found.schema} {first_line(error.orig)}; {OF_ITS_OWN}") from None
            raise


def _refuse_foreign(at: str | None, found: Found) -> None:
    """Raise NotInOrder if there is no schema, or one whose tables are another application's."""
    if found.schema is None:
        raise NotInOrder("search_path names no schema that exists and that the role may use")
    if at is None and found.present:
        raise NotInOrder(f"the schema {found.schema} has {several(found.present)} of another application; {OF_ITS_OWN}")


def _revision(connection: Connection, found: Found) -> str | None:
    at: str | None = None
    if found.is_versioned:
        at = connection.scalar(VERSION)
    elif found.is_old:
        at = connection.scalar(OLD_VERSION)
    return at


def _is_known(revision: str | None) -> bool:
    """Tell whether this code knows a revision; it does not know those of newer releases."""
    return revision is None or revision in REVISIONS
