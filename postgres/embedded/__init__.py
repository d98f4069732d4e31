"""A real PostgreSQL from a PyPI package, started when no URL is configured, for development and tests.

It lives as long as the last process that uses it: see `use.py`. The package is taken for its programs alone.
"""

import atexit
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from postgres.embedded.failure import EmbeddedFailure, first_line

if TYPE_CHECKING:
    from postgres.embedded.use import Use

NAME = "tasks_api"  # of the role and of the database
# Another process has just created it.
ALREADY_CREATED = (psycopg.errors.DuplicateObject, psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation)
_uses: dict[Path, "Use"] = {}


def start(directory: Path) -> str:
    """Start the server with its data in `directory`, or join the running one, and return the application's URL.

    The server ends after the last process that started or joined it, however that ends, and is started again if it
    dies before. The application's role owns its database and, in contrast to the superuser, is bound by row-level
    security. Variables of libpq leave this process's environment, since they are meant for another server.
    Raises EmbeddedFailure with a sentence for the user, and OSError.
    """
    if sys.platform == "win32":  # pragma: no cover (Windows)
        raise EmbeddedFailure("There is no embedded PostgreSQL for Windows. Set DATABASE_URL.")
    from postgres.embedded.use import Use

    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    directory = Path(os.path.realpath(directory))
    if directory not in _uses:
        _uses[directory] = Use(directory)
        atexit.register(stop, directory)
    try:
        superuser = _uses[directory].await_server()
        with psycopg.connect(superuser, autocommit=True) as connection:
            _create(connection, "pg_roles", "rolname", "CREATE ROLE {} LOGIN")
            _create(connection, "pg_database", "datname", "CREATE DATABASE {0} OWNER {0}")
    except psycopg.Error as error:
        stop(directory)
        raise EmbeddedFailure(f"The embedded PostgreSQL is of no use: {first_line(error)}.") from None
    except OSError as error:
        stop(directory)
        raise EmbeddedFailure(
            f"The embedded PostgreSQL cannot use {error.filename or directory.parent}: {error.strerror or error}."
        ) from None
    except EmbeddedFailure:
        stop(directory)
        raise
    return make_conninfo(superuser, user=NAME, dbname=NAME)


def stop(directory: Path) -> None:
    """End this process's use, and wait until the server has stopped, unless another process uses it."""
    directory = Path(os.path.realpath(directory))
    if use := _uses.pop(directory, None):
        use.end()


def _create(connection: psycopg.Connection, catalogue: str, column: str, statement: str) -> None:
    query = sql.SQL("SELECT 1 FROM {} WHERE {} = %s").format(sql.Identifier(catalogue), sql.Identifier(column))
    if connection.execute(query, (NAME,)).fetchone():
        return
    with suppress(*ALREADY_CREATED):
        connection.execute(sql.SQL(statement).format(sql.Identifier(NAME)))
