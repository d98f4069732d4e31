"""The schema's revisions (Alembic)."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

LOCK = 0x7461736B73  # any number, as long as all processes use the same

_CONFIG = Config()
_CONFIG.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
_CONFIG.set_main_option("path_separator", "os")
_SCRIPTS = ScriptDirectory.from_config(_CONFIG)
HEAD = _SCRIPTS.get_current_head()


def revision(connection: Connection) -> str | None:
    """Return the revision that the schema is at, None for an empty database."""
    return MigrationContext.configure(connection).get_current_revision()


def is_known(revision: str | None) -> bool:
    """Tell whether this code can bring a schema at this revision up to date; a newer release's it cannot."""
    return revision is None or any(script.revision == revision for script in _SCRIPTS.walk_revisions())


def upgrade(connection: Connection) -> None:
    """Bring the schema to HEAD in the connection's transaction, while others that try wait."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    _CONFIG.attributes["connection"] = connection
    command.upgrade(_CONFIG, "head")
