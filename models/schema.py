"""The schema's revisions. Alembic, which is large, is imported only by a process that brings the schema up to date."""

from pathlib import Path

from sqlalchemy import Connection, text

LOCK = 0x7461736B73  # any number, as long as all processes use the same
MIGRATIONS = Path(__file__).parent / "migrations"
# Each file of a revision begins with its number.
REVISIONS = sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
HEAD = REVISIONS[-1]


def revision(connection: Connection) -> str | None:
    """Return the revision that the schema is at, None for an empty database."""
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    return str(connection.scalar(text("SELECT version_num FROM alembic_version")))


def is_known(revision: str | None) -> bool:
    """Tell whether this code can bring a schema at this revision up to date; a newer release's it cannot."""
    return revision is None or revision in REVISIONS


def upgrade(connection: Connection) -> None:
    """Bring the schema to HEAD in the connection's transaction, while others that try wait."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    command.upgrade(config, "head")
