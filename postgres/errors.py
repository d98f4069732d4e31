"""Errors of the database, and what PostgreSQL's errors mean for the service."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy.exc


class DatabaseFault(Exception):
    """A statement failed because of a bug; the message has none of its parameters."""


class ConstraintViolated(DatabaseFault):
    """A statement violated a constraint of the schema."""


class DatabaseUnavailable(Exception):
    """The database cannot be reached, is overloaded, or its schema is not in place yet."""


class NotInOrder(DatabaseUnavailable):
    """The check found a database that the service cannot use as it is; the message says why, and has no secret."""


class ReadOnly(DatabaseUnavailable):
    """The database accepts no writes, as a standby; reads that write raise DatabaseFault before this."""


class ConnectionBroken(DatabaseUnavailable):
    """The connection broke during a statement, which may or may not have been executed."""


class RoleUnbound(DatabaseUnavailable):
    """Row-level security does not bind the application's role."""


class LockTimeout(DatabaseUnavailable):
    """Another transaction held a lock for too long."""


class StatementTimeout(DatabaseUnavailable):
    """A statement took longer than its time limit."""


GRANT = "grant the role what it lacks, or migrate as the role that owns the schema"
# What callers tell apart.
UNAVAILABLE_AS: dict[Any, type[DatabaseUnavailable]] = {
    psycopg.errors.LockNotAvailable: LockTimeout,
    psycopg.errors.QueryCanceled: StatementTimeout,
    psycopg.errors.ReadOnlySqlTransaction: ReadOnly,
}
UNAVAILABLE = (
    psycopg.OperationalError,  # down, refused, timed out, at its limits
    psycopg.InterfaceError,
    psycopg.errors.UndefinedTable,  # not migrated yet
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InsufficientPrivilege,
)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn errors into DatabaseUnavailable if the database cannot serve now, else ConstraintViolated, DatabaseFault."""
    try:
        yield
    except sqlalchemy.exc.TimeoutError as error:  # no connection became free
        raise DatabaseUnavailable(str(error)) from error
    except (psycopg.Error, sqlalchemy.exc.DBAPIError) as error:
        original = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
        message = first_line(original)
        if known := UNAVAILABLE_AS.get(type(original)):
            raise known(message) from error
        if isinstance(original, psycopg.errors.InsufficientPrivilege):
            message += f"; {GRANT}"
        if isinstance(original, UNAVAILABLE):
            raise DatabaseUnavailable(message) from error
        # Without the cause, whose traceback would show the user's data.
        kind = ConstraintViolated if isinstance(original, psycopg.IntegrityError) else DatabaseFault
        raise kind(f"{type(original).__name__}: {message}") from None


def first_line(error: BaseException | None) -> str:
    """Return the message without the lines that quote the user's data."""
    return str(error).partition("\n")[0]
