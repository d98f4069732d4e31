"""What PostgreSQL's errors mean to the service."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy.exc

from models.errors import ConstraintViolated, DatabaseFault, DatabaseUnavailable, LockTimeout

GRANT = "grant the role what it lacks, or migrate as the role that owns the schema"
UNAVAILABLE = (
    psycopg.OperationalError,  # away, refused, timed out, at its limits
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.UndefinedTable,  # the migration has not run yet
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InsufficientPrivilege,
)


@contextmanager
def available() -> Iterator[None]:
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
