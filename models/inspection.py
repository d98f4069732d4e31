"""What a database is like, and what it lacks of what the models declare, in one statement."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from models import idempotency_key, service_key, task, user  # noqa: F401 (each adds its table to the metadata)
from models.base import Base

VERSION_TABLE: Final = "tasks_api_version"
OF_ITS_OWN: Final = "give the service a database or a schema of its own, as docs/deployment.md describes"
SHOWN: Final = 5  # names in a sentence
COLUMNS: Final = [(table.name, column.name) for table in Base.metadata.sorted_tables for column in table.columns]
# Only the schema that tables are made in counts. Another application's tables may stand in others on the search path.
INSPECT: Final = text("""
WITH here AS (
    SELECT relname::text AS name, pg_class.oid, relrowsecurity AND relforcerowsecurity AS is_protected
    FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = current_schema() AND relkind NOT IN ('i', 'I', 't')
),
needed AS (SELECT * FROM unnest(CAST(:tables AS text[]), CAST(:columns AS text[])) AS needed(name, attribute)),
tables AS (SELECT DISTINCT name, oid, is_protected FROM needed LEFT JOIN here USING (name))
SELECT
    current_schema()::text,
    pg_catalog.pg_is_in_recovery(),
    current_setting('transaction_read_only') = 'on',
    EXISTS (SELECT FROM here WHERE name = :version_table),
    EXISTS (SELECT FROM here WHERE name = 'alembic_version'),
    EXISTS (SELECT FROM here JOIN pg_catalog.pg_policy ON polrelid = here.oid WHERE polname = 'tasks_probe'),
    ARRAY(SELECT name FROM tables WHERE oid IS NOT NULL ORDER BY name),
    ARRAY(SELECT name FROM tables WHERE oid IS NULL ORDER BY name),
    ARRAY(
        SELECT name || '.' || attribute FROM needed JOIN tables USING (name)
        WHERE tables.oid IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_attribute WHERE attrelid = tables.oid AND attname = attribute AND NOT attisdropped
        )
        ORDER BY 1
    ),
    ARRAY(SELECT name FROM tables WHERE NOT is_protected ORDER BY name),
    ARRAY(
        SELECT privilege || ' on ' || name
        FROM tables, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
        WHERE oid IS NOT NULL AND NOT has_table_privilege(oid, privilege)
            AND (name <> 'service_keys' OR privilege IN ('SELECT', 'INSERT'))
        ORDER BY name, privilege
    )
""")


class Found(NamedTuple):
    """What there is in the schema that tables are made in, and whether the server accepts writes.

    `schema` is None where search_path names none. Of the tables that the service needs, some are `present`, by whoever
    made them. `has_policy` tells that the service itself made them.
    """

    schema: str | None
    is_standby: bool
    is_read_only: bool
    is_versioned: bool
    has_alembic: bool
    has_policy: bool
    present: Sequence[str]
    missing_tables: Sequence[str]
    missing_columns: Sequence[str]
    unprotected: Sequence[str]
    lacking: Sequence[str]

    @property
    def is_old(self) -> bool:
        """Tell whether a release before 0004 made the tables, which kept its revision in `alembic_version`."""
        return self.has_policy and self.has_alembic and not self.is_versioned

    @property
    def fault(self) -> str | None:
        """What is wrong with the tables, None if nothing is."""
        if self.missing_tables:
            return f"has no table {several(self.missing_tables)}"
        if self.missing_columns:
            return f"has no column {several(self.missing_columns)}"
        if self.unprotected:
            return f"does not force row-level security on {several(self.unprotected)}"
        return None


def inspect(connection: Connection) -> Found:
    """Look at the database."""
    tables, columns = zip(*COLUMNS, strict=True)
    parameters = {"tables": list(tables), "columns": list(columns), "version_table": VERSION_TABLE}
    return Found(*connection.execute(INSPECT, parameters).one())


def several(names: Sequence[str]) -> str:
    """Return the first SHOWN names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
