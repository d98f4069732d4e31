"""The database: a bounded pool, statements that run as one user in one round trip, and the state of the schema."""

import os
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar, cast

import psycopg
import sqlalchemy.exc
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGconn
from sqlalchemy import ClauseElement, Connection, Executable, event
from sqlalchemy.dialects import postgresql

from models import schema
from models.errors import ConnectionBroken, DatabaseUnavailable, RoleUnbound
from postgres.availability import GRANT, available, first_line
from postgres.driver import Driver, InThread, OnLoop, RoundTrip, Row, await_socket

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
    b"SELECT set_config('app.user_id', $1, true), set_config('app.probe', $2, true),"
    b" set_config('statement_timeout', $3, true), set_config('lock_timeout', $4, true)"
)
UNBOUND = (
    "SELECT rolname, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)"
)
# What the service does with its tables; a role may be granted less by mistake.
LACKING = """
SELECT string_agg(privilege || ' on ' || name, ', ' ORDER BY name, privilege)
FROM unnest(ARRAY['users', 'tasks', 'idempotency_keys']) name,
     unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) privilege
WHERE NOT has_table_privilege(to_regclass(name), privilege)
"""
ENCODING = b"UTF8"
SILENCE = 3  # seconds beyond its own time limit that a statement may go without an answer


def read(statement: AnExecutable) -> AnExecutable:
    """Mark a statement that only reads: it runs once more when the connection under it breaks."""
    return statement.execution_options(is_read=True)


DIALECT = postgresql.psycopg.dialect(paramstyle="numeric_dollar")


class Compiled(NamedTuple):
    """A statement as PostgreSQL takes it, the names of its parameters, and the values that stand in it already."""

    query: bytes
    names: list[str]
    constants: dict[str, Any]


_compiled: weakref.WeakKeyDictionary[Executable, Compiled] = weakref.WeakKeyDictionary()


def compiled(statement: Executable) -> Compiled:
    """Return the statement as PostgreSQL takes it.

    Compiling costs more than running, so each statement is to be built once.
    """
    if statement not in _compiled:
        form: Any = cast(ClauseElement, statement).compile(dialect=DIALECT)
        constants = {name: bind.effective_value for bind, name in form.bind_names.items() if not bind.required}
        _compiled[statement] = Compiled(str(form).encode(), form.positiontup, constants)
    return _compiled[statement]


class Database:
    """A pool of connections to one PostgreSQL.

    `url` is anything that libpq takes. `pool_size` bounds the connections; a statement that waits for one, runs or
    waits for a lock longer than the timeouts (seconds) raises DatabaseUnavailable. No statement of a user runs as a
    role that row-level security does not bind.

    With `on_loop` every method waits in the event loop, and has to be called by way of `greenlet_spawn`.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        pool_timeout: float = 5,
        statement_timeout: float = 5,
        lock_timeout: float = 2,
        on_loop: bool = False,
    ) -> None:
        self._statement_timeout = statement_timeout
        self._lock_timeout = lock_timeout
        self._driver: Driver = OnLoop() if on_loop else InThread()
        self.engine = self._driver.engine(
            CONNECTION_DEFAULTS | conninfo_to_dict(url),
            isolation_level="AUTOCOMMIT",
            skip_autocommit_rollback=True,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout,
            use_native_hstore=False,
            hide_parameters=True,
        )
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self._trusted_since = float("-inf")  # connections that are older are replaced
        self._deadlines: dict[Any, float] = {}  # of the statements that run
        self._lock = threading.Lock()  # of the deadlines
        self._is_disposed = False
        event.listen(self.engine, "connect", self._welcome)
        event.listen(self.engine, "checkout", self._vet)
        event.listen(self.engine, "checkin", self._part)

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
        limit = timeout or self._statement_timeout
        scope = (
            user_id,
            probe,
            f"{limit * 1000:.0f}",
            f"{self._lock_timeout * 1000:.0f}",
        )
        query, names, constants = compiled(statement)
        given = {**constants, **parameters}
        values = [given[name] for name in names]
        started = time.monotonic()
        with available():
            try:
                return self._run(scope, query, values, limit)
            except ConnectionBroken:
                is_read = statement.get_execution_options().get("is_read")
                if not is_read or time.monotonic() - started > self._statement_timeout:
                    raise
            return self._run(scope, query, values, limit)

    def _run(self, scope: tuple[str, ...], query: bytes, values: Sequence[Any], limit: float) -> list[Row]:
        pooled = self.engine.raw_connection()
        connection: Any = pooled.driver_connection
        try:
            if pooled.info["unbound"]:
                raise RoleUnbound(pooled.info["unbound"])
            with self._deadline(connection, limit):
                trip = RoundTrip(connection, PRELUDE, scope, query, values)
                self._driver.wait(trip)
                return trip.rows()
        except psycopg.OperationalError as error:
            if connection.closed:
                raise ConnectionBroken(first_line(error)) from error
            raise
        finally:
            pooled.close()

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with (
            self.engine.connect() as connection,
            self._deadline(_driver_connection(connection), self._statement_timeout),
        ):
            yield connection

    @contextmanager
    def _deadline(self, connection: Any, limit: float) -> Iterator[None]:
        """Let `cut_silent` end a statement of `limit` seconds at the most that overruns them."""
        self._deadlines[connection] = time.monotonic() + limit + SILENCE
        try:
            yield
        finally:
            with self._lock:
                del self._deadlines[connection]

    def cut_silent(self) -> None:
        """Cut the connections whose statements are overdue, and look for news of all others; to be called each second.

        PostgreSQL ends a statement at its time limit and says so. Where even that does not come, as from a network that
        swallows everything and acknowledges it, nothing else would end the wait.
        """
        with self._lock:  # no connection goes back, and no descriptor to another one, meanwhile
            for connection, deadline in list(self._deadlines.items()):
                if deadline < time.monotonic():
                    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as silent:
                        silent.shutdown(socket.SHUT_RDWR)
        self._driver.look_again()

    def _welcome(self, connection: Any, record: Any) -> None:
        driver = record.driver_connection
        encoding = driver.pgconn.parameter_status(b"server_encoding")
        if encoding != ENCODING:
            driver.pgconn.finish()
            raise DatabaseUnavailable(
                f"the database has the encoding {(encoding or b'unknown').decode()}; make one with ENCODING 'UTF8'"
            )
        self._connections.add(driver)
        cursor = connection.cursor()
        cursor.execute(UNBOUND)
        unbound = _unbound(cursor.fetchone())
        cursor.close()
        record.info.update(is_new=True, since=time.monotonic(), unbound=unbound)

    def _vet(self, _connection: Any, record: Any, _proxy: Any) -> None:
        """Replace a pooled connection that is of no use any more, without a round trip.

        PostgreSQL says nothing on an idle connection, so one with something to read is at its end.
        """
        if record.info.pop("is_new", False):
            return
        is_stale = record.info["unbound"] or record.info["since"] < self._trusted_since
        if is_stale or await_socket(record.driver_connection.pgconn.socket, timeout=0):
            raise sqlalchemy.exc.DisconnectionError("of no use any more")

    def _part(self, connection: Any, record: Any) -> None:
        """Close a connection that does not come back as it was lent, or that nobody needs any more."""
        if connection and (self._is_disposed or not _is_idle(record.driver_connection.pgconn)):
            record.invalidate()

    def check(self) -> None:
        """Raise DatabaseUnavailable unless the database answers and its schema is the one that this code needs.

        Raises RoleUnbound, a DatabaseUnavailable too, when row-level security does not bind the role.
        """
        with available(), self._connect() as connection:
            unbound = _unbound(connection.exec_driver_sql(UNBOUND).fetchone())
            lacking = connection.exec_driver_sql(LACKING).scalar()
        if unbound:
            self._trusted_since = time.monotonic()  # the role has changed since the pooled connections were made
            raise RoleUnbound(unbound)
        revision = self.revision()
        if lacking:
            raise DatabaseUnavailable(f"the role has no {lacking}; {GRANT}")
        if revision != schema.HEAD and schema.is_known(revision):
            raise DatabaseUnavailable(
                f"the schema is at revision {revision or 'none'}, this version needs {schema.HEAD}"
            )

    def revision(self) -> str | None:
        """Return the revision that the schema is at, None for an empty database.

        Raises DatabaseUnavailable.
        """
        with available(), self._connect() as connection:
            return schema.revision(connection)

    def migrate(self) -> None:
        """Bring the schema to the newest revision; of many processes that try at once one does it, the others wait.

        A schema that is newer than this code is left as it is, so that releases can overlap.

        Raises DatabaseUnavailable.
        """
        revision = self.revision()
        if revision == schema.HEAD or not schema.is_known(revision):
            return
        transactional = self.engine.execution_options(isolation_level="READ COMMITTED")
        with available(), transactional.begin() as connection:
            schema.upgrade(connection)

    def dispose(self) -> None:
        """Close all idle connections, cancel what the others run, and close those when that has ended."""
        self._is_disposed = True
        self.engine.dispose()
        for connection in list(self._connections):
            self._driver.cancel(connection)


def _unbound(role_found: Any) -> str | None:
    """Return why row-level security does not bind the role that UNBOUND found, None where it found none."""
    if role_found is None:
        return None
    role, is_superuser = role_found
    attribute = "is a superuser" if is_superuser else "has BYPASSRLS"
    return f"the role {role} {attribute}, so that row-level security does not bind it; connect as a role without either"


def _driver_connection(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _is_idle(pgconn: PGconn) -> bool:
    return pgconn.transaction_status == TransactionStatus.IDLE and pgconn.pipeline_status == PipelineStatus.OFF
