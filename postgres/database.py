"""The database: statements that run in a scope, each in one round trip."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, Executable

from postgres.deadlines import Deadlines
from postgres.driver import Driver, InThread, OnLoop
from postgres.errors import ConnectionBroken, DatabaseFault, RoleUnbound, first_line, translate_errors
from postgres.pool import UNBOUND, Pool, explain_unbound
from postgres.round_trip import RoundTrip, Row
from postgres.scope import Scope
from postgres.statement import Compiled, compiled


class Database:
    """A PostgreSQL database.

    `url` is anything that libpq accepts. `pool_size` limits the connections. Waiting for one, running or waiting for a
    lock longer than the timeouts (seconds) raises DatabaseUnavailable. Users' statements only run as a role that
    row-level security binds.

    With `on_loop` every method waits in the event loop, and must be called through `run_in_greenlet`.
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
        self._pool = Pool(url, self._driver, size=pool_size, timeout=pool_timeout)
        self._deadlines = Deadlines()
        self.engine = self._pool.engine
        self.dispose = self._pool.dispose

    def rows(
        self, scope: Scope, statement: Executable, parameters: Mapping[str, Any], *, timeout: float | None = None
    ) -> list[Row]:
        """Run a statement within `timeout` seconds. Raises DatabaseUnavailable, RoleUnbound, DatabaseFault."""
        limit = timeout or self._statement_timeout
        form = compiled(statement)
        given = {**form.constants, **parameters}
        values = [given[name] for name in form.names]
        started = time.monotonic()
        with translate_errors():
            try:
                return self._run(scope, form, values, limit)
            except ConnectionBroken:
                if not form.is_read or time.monotonic() - started > self._statement_timeout:
                    raise
            return self._run(scope, form, values, limit)

    def _run(self, scope: Scope, form: Compiled, values: Sequence[Any], limit: float) -> list[Row]:
        settings = (scope.user_id, scope.probe_id, f"{limit * 1000:.0f}", f"{self._lock_timeout * 1000:.0f}")
        with self._pool.bound_connection() as connection:
            try:
                with self._deadlines.limit(connection, limit):
                    trip = RoundTrip(connection, scope.prelude(form.is_read), settings, form.query, values)
                    self._driver.wait(trip)
                    return trip.rows()
            except psycopg.errors.ReadOnlySqlTransaction as error:
                if form.is_read:
                    raise DatabaseFault("a statement that is marked as a read writes") from error
                raise
            except psycopg.OperationalError as error:
                if connection.closed:
                    raise ConnectionBroken(first_line(error)) from error
                raise

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Lend an autocommit connection without a scope, for inspection. Raises DatabaseUnavailable, DatabaseFault."""
        with (
            translate_errors(),
            self.engine.connect() as connection,
            self._deadlines.limit(connection.connection.driver_connection, self._statement_timeout),
        ):
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Lend a connection for one transaction without scope or timeout. Raises DatabaseUnavailable, DatabaseFault."""
        transactional = self.engine.execution_options(isolation_level="READ COMMITTED")
        with translate_errors(), transactional.begin() as connection:
            yield connection

    def check_role(self, connection: Connection) -> None:
        """Raise RoleUnbound unless row-level security binds the role."""
        if unbound := explain_unbound(connection.exec_driver_sql(UNBOUND).fetchone()):
            self._pool.distrust()
            raise RoleUnbound(unbound)

    def watch(self) -> None:
        """Abort overdue statements and poll the others; call it every second."""
        self._deadlines.abort_overdue()
        self._driver.poll_pending()
