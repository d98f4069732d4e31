"""Errors of the database, and what PostgreSQL's errors mean to the service."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy.exc


class DatabaseFault(Exception):
    """A statement failed for a reason of ours; the message has none of its parameters."""


class ConstraintViolated(DatabaseFault):
    """A statement broke a constraint of the schema."""


class DatabaseUnavailable(Exception):
    """The database cannot be reached, is overloaded, or its schema is not in place yet."""


class ConnectionBroken(DatabaseUnavailable):
    """The connection broke while a statement ran; whether it was carried out is not known."""


class RoleUnbound(DatabaseUnavailable):
    """Row-level security does not bind the role that the application connects as."""


class LockTimeout(DatabaseUnavailable):
    """Another transaction held what the statement needed for too long."""


GRANT = "grant the role what it lacks, or migrate as the role that owns the schema"
UNAVAILABLE = (
    psycopg.OperationalError,  # away, refused, timed out, at its limits
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,  # of a standby; a statement that is marked as a read has its own error
    psycopg.errors.UndefinedTable,  # the migration has not run yet
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InsufficientPrivilege,
)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn what says that the database cannot serve now into DatabaseUnavailable, all else into a fault.

    Raises DatabaseUnavailable, ConstraintViolated, DatabaseFault.
    """
    try:
        yield
    except sqlalchemy.exc.TimeoutError as error:  # no connection became free
        raise DatabaseUnavailable(str(error)) from error
    except (psycopg.Error, sqlalchemy.exc.DBAPIError) as error:
        original = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
        message = first_line(original)
        if isinstance(original, psycopg.errors.LockNotAvailable):
            raise LockTimeout(message) from error
        if isinstance(original, psycopg.errors.InsufficientPrivilege):
            message += f"; {GRANT}"
        if isinstance(original, UNAVAILABLE):
            raise DatabaseUnavailable(message) from error
        # Not from the error: it holds what the user wrote, and a traceback would show it.
        kind = ConstraintViolated if isinstance(original, psycopg.IntegrityError) else DatabaseFault
        raise kind(f"{type(original).__name__}: {message}") from None


def first_line(error: BaseException | None) -> str:
    """Return the message without the lines that tell what the user wrote."""
    return str(error).partition("\n")[0]
