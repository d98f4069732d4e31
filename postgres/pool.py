"""The pool of connections, and the checks of each before a statement runs on it."""

import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy.exc
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Engine, event

from postgres.driver import Driver, await_socket
from postgres.errors import DatabaseUnavailable, RoleUnbound
from postgres.round_trip import is_idle, server_encoding

# libpq's parameters, unless the URL sets them.
CONNECTION_DEFAULTS: Final = {
    "application_name": "tasks-api",
    "client_encoding": "utf8",
    "connect_timeout": 5,  # seconds
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
}
ENCODING: Final = "UTF8"
UNBOUND: Final = (
    "SELECT rolname, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)"
)


class Pool:
    """At most `size` connections, for each of which a caller waits `timeout` seconds at most."""

    def __init__(self, url: str, driver: Driver, *, size: int, timeout: float) -> None:
        self._driver = driver
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self._trusted_since = float("-inf")  # older connections are replaced
        self._is_disposed = False
        self.engine: Engine = driver.engine(
            CONNECTION_DEFAULTS | conninfo_to_dict(url),
            isolation_level="AUTOCOMMIT",
            skip_autocommit_rollback=True,
            pool_size=size,
            max_overflow=0,
            pool_timeout=timeout,
            use_native_hstore=False,
            hide_parameters=True,
        )
        event.listen(self.engine, "connect", self._on_connect)
        event.listen(self.engine, "checkout", self._on_checkout)
        event.listen(self.engine, "checkin", self._on_checkin)

    @contextmanager
    def bound_connection(self) -> Iterator[Any]:
        """Lend a psycopg connection whose role is bound by row-level security. Raises RoleUnbound."""
        pooled = self.engine.raw_connection()
        try:
            if pooled.info["unbound"]:
                raise RoleUnbound(pooled.info["unbound"])
            yield pooled.driver_connection
        finally:
            pooled.close()

    def distrust(self) -> None:
        """Replace all present connections, since the role may have changed."""
        self._trusted_since = time.monotonic()

    def dispose(self) -> None:
        """Close all idle connections, cancel the statements of the others, and close those afterwards."""
        self._is_disposed = True
        self.engine.dispose()
        for connection in list(self._connections):
            self._driver.cancel(connection)

    def _on_connect(self, connection: Any, record: Any) -> None:
        driver_connection = record.driver_connection
        if (encoding := server_encoding(driver_connection)) != ENCODING:
            driver_connection.pgconn.finish()
            raise DatabaseUnavailable(f"the database has the encoding {encoding}; make one with ENCODING 'UTF8'")
        self._connections.add(driver_connection)
        cursor = connection.cursor()
        cursor.execute(UNBOUND)
        unbound = explain_unbound(cursor.fetchone())
        cursor.close()
        record.info.update(is_new=True, since=time.monotonic(), unbound=unbound)

    def _on_checkout(self, _connection: Any, record: Any, _proxy: Any) -> None:
        """Replace a stale or broken connection. PostgreSQL sends nothing on an idle one: a readable one is broken."""
        if record.info.pop("is_new", False):
            return
        is_stale = record.info["unbound"] or record.info["since"] < self._trusted_since
        if is_stale or await_socket(record.driver_connection.pgconn.socket, timeout=0):
            raise sqlalchemy.exc.DisconnectionError("stale or broken")

    def _on_checkin(self, connection: Any, record: Any) -> None:
        """Close a connection that is not idle when it returns, or returns after `dispose`."""
        if connection and (self._is_disposed or not is_idle(record.driver_connection)):
            record.invalidate()


def explain_unbound(role_found: Any) -> str | None:
    """Return why row-level security does not bind the role that UNBOUND found, None if it found none."""
    if role_found is None:
        return None
    role, is_superuser = role_found
    attribute = "is a superuser" if is_superuser else "has BYPASSRLS"
    return f"the role {role} {attribute}, so that row-level security does not bind it; connect as a role without either"
