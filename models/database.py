"""The database: a bounded pool, statements that run as one user in one round trip, and the state of the schema."""

import select
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import sqlalchemy.exc
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Executable, create_engine, event, text

from models.errors import ConstraintViolated, DatabaseFault, DatabaseUnavailable, LockTimeout, RoleUnbound

Row = dict[str, Any]
AnExecutable = TypeVar("AnExecutable", bound=Executable)

# libpq's parameters where the URL does not set them itself.
CONNECTION_DEFAULTS = {
    "application_name": "tasks-api",
    "client_encoding": "utf8",
    "connect_timeout": 5,  # seconds
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
}
# All settings are local to the statement's own transaction, so that nothing stays behind on a pooled connection.
PRELUDE = (
    "SELECT set_config('app.user_id', %s, true), set_config('app.probe', %s, true),"
    " set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true)"
)
UNBOUND = (
    "SELECT rolname, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)"
)
CANCEL_TIMEOUT = 1  # seconds
MIGRATION_LOCK = 0x7461736B73  # any number, as long as all processes use the same


def read(statement: AnExecutable) -> AnExecutable:
    """Mark a statement that only reads: it runs once more when the connection under it breaks."""
    return statement.execution_options(is_read=True)


class Database:
    """A pool of connections to one PostgreSQL.

    `url` is anything that libpq takes. `pool_size` bounds the connections; a statement that waits for one, runs or
    waits for a lock longer than the timeouts (seconds) raises DatabaseUnavailable. No statement of a user runs as a
    role that row-level security does not bind.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        pool_timeout: float = 5,
        statement_timeout: float = 5,
        lock_timeout: float = 2,
    ) -> None:
        parameters = CONNECTION_DEFAULTS | conninfo_to_dict(url)
        self._statement_timeout = statement_timeout
        self._lock_timeout = lock_timeout
        self.engine = create_engine(
            "postgresql+psycopg://",
            # Prepared statements do not survive a transaction pooler such as PgBouncer or Neon's.
            creator=lambda: psycopg.connect(**parameters, prepare_threshold=None),  # type: ignore[arg-type]
            isolation_level="AUTOCOMMIT",
            skip_autocommit_rollback=True,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout,
            use_native_hstore=False,
            hide_parameters=True,
        )
        self._connections: weakref.WeakSet[psycopg.Connection] = weakref.WeakSet()
        self._trusted_since = float("-inf")  # connections that are older are replaced
        self._is_disposed = False
        event.listen(self.engine, "connect", self._welcome)
        event.listen(self.engine, "checkout", self._vet)
        event.listen(self.engine, "checkin", self._part)
        event.listen(self.engine, "do_execute", self._scope)

    def rows(
        self,
        user_id: str,
        statement: Executable,
        parameters: Mapping[str, Any],
        *,
        probe: str = "",
        timeout: float | None = None,
    ) -> list[Row]:
        """Run one statement as the user and return its rows.

        `probe` names what else the statement may see: one task by its id, or what a policy of row-level security has
        a name for. `timeout` (seconds) replaces the usual one.

        Raises DatabaseUnavailable, RoleUnbound.
        """
        scope = (
            user_id,
            probe,
            f"{(timeout or self._statement_timeout) * 1000:.0f}",
            f"{self._lock_timeout * 1000:.0f}",
        )
        started = time.monotonic()
        with _available():
            try:
                return self._run(scope, statement, parameters)
            except sqlalchemy.exc.DBAPIError as error:
                is_read = statement.get_execution_options().get("is_read")
                is_quick = time.monotonic() - started < self._statement_timeout
                if not (error.connection_invalidated and is_read and is_quick):
                    raise
            return self._run(scope, statement, parameters)

    def _run(self, scope: tuple[str, ...], statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        with self.engine.connect() as connection:
            if connection.info["unbound"]:
                raise RoleUnbound(connection.info["unbound"])
            result = connection.execute(statement, parameters, execution_options={"scope": scope})
            return [dict(row) for row in result.mappings()]

    def _welcome(self, connection: psycopg.Connection, record: Any) -> None:
        self._connections.add(connection)
        unbound = _unbound(connection.execute(UNBOUND).fetchone())
        record.info.update(is_new=True, since=time.monotonic(), unbound=unbound)

    def _vet(self, connection: psycopg.Connection, record: Any, _proxy: Any) -> None:
        """Replace a pooled connection that is of no use any more, without a round trip.

        PostgreSQL says nothing on an idle connection, so one with something to read is at its end.
        """
        if record.info.pop("is_new", False):
            return
        is_stale = record.info["unbound"] or record.info["since"] < self._trusted_since
        if is_stale or _is_readable(connection.pgconn.socket):
            raise sqlalchemy.exc.DisconnectionError("of no use any more")

    def _part(self, connection: psycopg.Connection | None, _record: Any) -> None:
        if self._is_disposed and connection:
            connection.close()  # the pool that it goes back to is no one's any more

    def _scope(self, cursor: psycopg.Cursor, statement: str, parameters: Any, context: Any) -> bool | None:
        """Send the scope and the statement in one pipeline: one implicit transaction, one round trip."""
        scope = context.execution_options.get("scope")
        if scope is None:
            return None
        with cursor.connection.pipeline():
            cursor.connection.execute(PRELUDE, scope)
            cursor.execute(statement, parameters)
        return True

    def check(self) -> None:
        """Raise DatabaseUnavailable unless the database answers and its schema is the one that this code needs.

        Raises RoleUnbound, a DatabaseUnavailable too, when row-level security does not bind the role.
        """
        with _available(), self.engine.connect() as connection:
            unbound = _unbound(connection.exec_driver_sql(UNBOUND).fetchone())
        if unbound:
            self._trusted_since = time.monotonic()  # the role has changed since the pooled connections were made
            raise RoleUnbound(unbound)
        revision = self.revision()
        if revision != HEAD and _is_known(revision):
            raise DatabaseUnavailable(f"the schema is at revision {revision or 'none'}, this version needs {HEAD}")

    def revision(self) -> str | None:
        """Return the revision that the schema is at, None for an empty database.

        Raises DatabaseUnavailable.
        """
        with _available(psycopg.errors.InsufficientPrivilege), self.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def migrate(self) -> None:
        """Bring the schema to the newest revision; of many processes that try at once one does it, the others wait.

        A schema that is newer than this code is left as it is, so that releases can overlap.

        Raises DatabaseUnavailable.
        """
        revision = self.revision()
        if revision == HEAD or not _is_known(revision):
            return
        transactional = self.engine.execution_options(isolation_level="READ COMMITTED")
        with _available(psycopg.errors.InsufficientPrivilege), transactional.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            _upgrade(connection)

    def dispose(self) -> None:
        """Close all idle connections, cancel what the others run, and close those when that has ended."""
        self._is_disposed = True
        self.engine.dispose()
        for connection in list(self._connections):
            if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=CANCEL_TIMEOUT)


_UNAVAILABLE = (
    psycopg.OperationalError,  # away, refused, timed out, at its limits
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.UndefinedTable,  # the migration has not run yet
    psycopg.errors.UndefinedColumn,
)


@contextmanager
def _available(*more: type[psycopg.Error]) -> Iterator[None]:
    """Turn what says that the database cannot serve now, and `more`, into DatabaseUnavailable, all else into a fault.

    Raises DatabaseUnavailable, ConstraintViolated, DatabaseFault.
    """
    try:
        yield
    except sqlalchemy.exc.TimeoutError as error:  # no connection became free
        raise DatabaseUnavailable(str(error)) from error
    except sqlalchemy.exc.DBAPIError as error:
        message = str(error.orig).partition("\n")[0]
        if isinstance(error.orig, psycopg.errors.LockNotAvailable):
            raise LockTimeout(message) from error
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege) and more:
            message += "; grant the role what it lacks, or migrate as the role that owns the schema"
        if isinstance(error.orig, (*_UNAVAILABLE, *more)):
            raise DatabaseUnavailable(message) from error
        # Not from the error: it holds what the user wrote, and a traceback would show it.
        kind = ConstraintViolated if isinstance(error.orig, psycopg.IntegrityError) else DatabaseFault
        raise kind(f"{type(error.orig).__name__}: {message}") from None


def _unbound(role_found: Any) -> str | None:
    """Return why row-level security does not bind the role that UNBOUND found, None where it found none."""
    if role_found is None:
        return None
    role, is_superuser = role_found
    attribute = "is a superuser" if is_superuser else "has BYPASSRLS"
    return f"the role {role} {attribute}, so that row-level security does not bind it; connect as a role without either"


def _is_readable(descriptor: int) -> bool:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([descriptor], [], [], 0)[0])


_CONFIG = Config()
_CONFIG.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
_CONFIG.set_main_option("path_separator", "os")
_SCRIPTS = ScriptDirectory.from_config(_CONFIG)
HEAD = _SCRIPTS.get_current_head()


def _is_known(revision: str | None) -> bool:
    return revision is None or any(script.revision == revision for script in _SCRIPTS.walk_revisions())


def _upgrade(connection: Connection) -> None:
    _CONFIG.attributes["connection"] = connection
    command.upgrade(_CONFIG, "head")
