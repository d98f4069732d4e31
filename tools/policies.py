"""Writes the row-level security of the finished schema to `models/policies.sql`: `make policies`."""

import tempfile
from pathlib import Path

from sqlalchemy import text

from models import schema
from postgres import embedded
from postgres.database import Database

FILE = Path(__file__).parent.parent / "models" / "policies.sql"
HEAD = """\
-- The row-level security of the finished schema, as PostgreSQL tells it: for reading, since the migrations make it.
-- `make policies` writes this file, and a test compares it with the schema. What a statement may see is set
-- by postgres/scope.py.
"""
TABLES = """
SELECT relname,
       CASE WHEN relrowsecurity THEN 'ENABLE' ELSE 'DISABLE' END,
       CASE WHEN relforcerowsecurity THEN 'FORCE' ELSE 'NO FORCE' END
FROM pg_class
WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace AND relname <> 'tasks_api_version'
ORDER BY relname
"""
POLICIES = """
SELECT format('CREATE POLICY %s ON %s AS %s FOR %s TO %s', policyname, tablename, permissive, cmd,
              array_to_string(roles, ', '))
       || coalesce(E'\\n    USING (' || pg_get_expr(polqual, polrelid, true) || ')', '')
       || coalesce(E'\\n    WITH CHECK (' || pg_get_expr(polwithcheck, polrelid, true) || ')', '') || ';'
FROM pg_policies JOIN pg_policy ON polname = policyname AND polrelid = tablename::regclass
WHERE schemaname = current_schema() AND tablename = :table
ORDER BY policyname
"""


def policies(database: Database) -> str:
    """Return the statements that make the row-level security that the schema has."""
    with database.connect() as connection:
        parts = [HEAD]
        for table, *commands in connection.execute(text(TABLES)):
            switches = [f"ALTER TABLE {table} {command} ROW LEVEL SECURITY;" for command in commands]
            rows = connection.execute(text(POLICIES), {"table": table}).scalars()
            parts.append("\n" + "\n".join([*switches, *rows]) + "\n")
    return "".join(parts)


def main() -> None:
    """Make the schema in a database of its own, and write the file."""
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "postgres"
        database = Database(embedded.start(data))
        try:
            schema.migrate(database)
            FILE.write_text(policies(database), encoding="utf-8")
        finally:
            database.dispose()
            embedded.stop(data)


if __name__ == "__main__":
    main()
