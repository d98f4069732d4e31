"""Two ways to wait for PostgreSQL: in the calling thread, or in an event loop that goes on with other requests.

Whoever calls writes the same plain functions for both. Under `OnLoop` they run by SQLAlchemy's `greenlet_spawn`, which
lets a function without `await` wait for one that has it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import await_

Row = dict[str, Any]
CANCEL_TIMEOUT = 1  # seconds
# Prepared statements do not survive a transaction pooler such as PgBouncer or Neon's.
OPTIONS: dict[str, Any] = {"prepare_threshold": None}


class Driver(Protocol):
    """What differs between the two ways."""

    def engine(self, parameters: Mapping[str, Any], **options: Any) -> Engine:
        """Return an engine that connects with libpq's parameters."""

    def run(self, connection: Any, prelude: str, scope: Sequence[str], query: str, values: Any) -> list[Row]:
        """Send prelude and query in one pipeline: one implicit transaction, one round trip.

        Raises psycopg.Error.
        """

    def cancel(self, connection: Any) -> None:
        """End what the connection runs at the moment."""


class InThread:
    """Waits in the calling thread."""

    def engine(self, parameters: Mapping[str, Any], **options: Any) -> Engine:
        """Return an engine that connects with libpq's parameters."""
        return create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(**parameters, **OPTIONS), **options
        )

    def run(
        self, connection: psycopg.Connection, prelude: str, scope: Sequence[str], query: str, values: Any
    ) -> list[Row]:
        """Send prelude and query in one pipeline."""
        cursor = connection.cursor(row_factory=dict_row)
        with connection.pipeline():
            connection.execute(prelude, scope)
            cursor.execute(query, values)
        return cursor.fetchall()

    def cancel(self, connection: psycopg.Connection) -> None:
        """End what the connection runs; the thread that waits for it gets an error."""
        if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=CANCEL_TIMEOUT)


class OnLoop:
    """Waits in the event loop; each call has to come from a function that runs by `greenlet_spawn`."""

    def engine(self, parameters: Mapping[str, Any], **options: Any) -> Engine:
        """Return an engine that connects with libpq's parameters."""

        async def connect() -> psycopg.AsyncConnection:
            return await psycopg.AsyncConnection.connect(**parameters, **OPTIONS)

        return create_async_engine("postgresql+psycopg_async://", async_creator=connect, **options).sync_engine

    def run(
        self, connection: psycopg.AsyncConnection, prelude: str, scope: Sequence[str], query: str, values: Any
    ) -> list[Row]:
        """Send prelude and query in one pipeline."""
        return await_(self._run(connection, prelude, scope, query, values))

    async def _run(
        self, connection: psycopg.AsyncConnection, prelude: str, scope: Sequence[str], query: str, values: Any
    ) -> list[Row]:
        cursor = connection.cursor(row_factory=dict_row)
        async with connection.pipeline():
            await connection.execute(prelude, scope)
            await cursor.execute(query, values)
        return await cursor.fetchall()

    def cancel(self, connection: psycopg.AsyncConnection) -> None:
        """Do nothing: psycopg cancels the statement of a task that is cancelled."""
