"""One round trip to PostgreSQL: a prelude and a statement in one pipeline, which is one implicit transaction.

There are two ways to wait for its end: in the calling thread, or in an event loop that goes on with other requests.
Whoever calls writes the same plain functions for both. Under `OnLoop` they run by SQLAlchemy's `greenlet_spawn`, which
lets a function without `await` wait for one that has it.

The pipeline is driven through psycopg's wrapper of libpq (PostgreSQL's manual, libpq, "Pipeline Mode"). psycopg's own
cursors send each part and wait for it by itself, which takes more than twice the time.
"""

import asyncio
import select
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import await_

Row = dict[str, Any]
CANCEL_TIMEOUT: Final = 1  # seconds
# Prepared statements do not survive a transaction pooler such as PgBouncer or Neon's.
OPTIONS: Final[dict[str, Any]] = {"prepare_threshold": None}
RESULTS: Final = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)


class RoundTrip:
    """A prelude and a statement on their way; parameters are $1, $2 and so on.

    psycopg.Error is raised for what goes wrong with the connection, here and there.
    """

    def __init__(
        self, connection: Any, prelude: bytes, scope: Sequence[str], query: bytes, values: Sequence[Any]
    ) -> None:
        self.connection = connection
        self._pgconn = connection.pgconn
        self._transformer = Transformer(connection)
        self._results: list[PGresult] = []
        parameters = self._transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        self._pgconn.enter_pipeline_mode()
        self._pgconn.send_query_params(prelude, [text.encode() for text in scope])
        self._pgconn.send_query_params(query, parameters, self._transformer.types, self._transformer.formats)
        self._pgconn.pipeline_sync()
        # What to wait for: that it can be read, and written to while there is more to send.
        self.socket: int = self._pgconn.socket
        self.is_sending = self._pgconn.flush() == 1

    def proceed(self) -> bool:
        """Send and read what can be without waiting; tell whether that was all."""
        if self.is_sending:
            self.is_sending = self._pgconn.flush() == 1
        self._pgconn.consume_input()
        while not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is None:
                if self._pgconn.status != ConnStatus.OK:
                    return True
            elif result.status == ExecStatus.PIPELINE_SYNC:
                self._pgconn.exit_pipeline_mode()
                return True
            else:
                self._results.append(result)
        return False

    def rows(self) -> list[Row]:
        """Return the statement's rows.

        Raises psycopg.Error for what PostgreSQL says.
        """
        for result in self._results:
            if result.status not in RESULTS:
                raise error_from_result(result)
        result = self._results[1]
        self._transformer.set_pgresult(result, set_loaders=True)
        names = [(result.fname(index) or b"").decode() for index in range(result.nfields)]
        return self._transformer.load_rows(0, result.ntuples, lambda values: dict(zip(names, values, strict=True)))


class Driver(Protocol):
    """What differs between the two ways to wait."""

    def engine(self, parameters: Mapping[str, Any], **options: Any) -> Engine:
        """Return an engine that connects with libpq's parameters."""

    def wait(self, trip: RoundTrip) -> None:
        """Wait until the round trip is over."""

    def look_again(self) -> None:
        """Go on with every round trip whose socket has news that were not told."""

    def cancel(self, connection: Any) -> None:
        """End what the connection runs at the moment."""


class InThread:
    """Waits in the calling thread."""

    def engine(self, parameters: Mapping[str, Any], **options: Any) -> Engine:
        """Return an engine that connects with libpq's parameters."""
        return create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(**parameters, **OPTIONS), **options
        )

    def wait(self, trip: RoundTrip) -> None:
        """Wait until the round trip is over."""
        while True:
            await_socket(trip.socket, trip.is_sending)
            if trip.proceed():
                return

    def look_again(self) -> None:
        """Do nothing: the operating system tells a thread all news."""

    def cancel(self, connection: psycopg.Connection) -> None:
        """End what the connection runs; the thread that waits for it gets an error."""
        if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=CANCEL_TIMEOUT)


class OnLoop:
    """Waits in the event loop; each call has to come from a function that runs by `greenlet_spawn`."""

    def __init__(self) -> None:
        self._waiting: dict[RoundTrip, asyncio.Future[None]] = {}

    def engine(self, parameters: Mapping[str, Any], **options: Any) -> Engine:
        """Return an engine that connects with libpq's parameters."""

        async def connect() -> psycopg.AsyncConnection:
            return await psycopg.AsyncConnection.connect(**parameters, **OPTIONS)

        return create_async_engine("postgresql+psycopg_async://", async_creator=connect, **options).sync_engine

    def wait(self, trip: RoundTrip) -> None:
        """Wait until the round trip is over."""
        await_(self._end(trip))

    async def _end(self, trip: RoundTrip) -> None:
        loop = asyncio.get_running_loop()
        self._waiting[trip] = end = loop.create_future()
        loop.add_reader(trip.socket, self._proceed, trip)
        if trip.is_sending:
            loop.add_writer(trip.socket, self._proceed, trip)
        try:
            await end
        except asyncio.CancelledError:
            with suppress(psycopg.Error):
                await trip.connection.cancel_safe(timeout=CANCEL_TIMEOUT)
            raise
        finally:
            self._leave(trip)

    def _proceed(self, trip: RoundTrip) -> None:
        try:
            is_over, failure = trip.proceed(), None
        except psycopg.Error as error:
            is_over, failure = True, error
        if is_over:
            # At once: libpq has closed a broken connection, and the next one may get the same descriptor.
            end = self._leave(trip)
            if end and not end.done():
                end.set_exception(failure) if failure else end.set_result(None)
        elif not trip.is_sending:
            asyncio.get_running_loop().remove_writer(trip.socket)

    def _leave(self, trip: RoundTrip) -> asyncio.Future[None] | None:
        end = self._waiting.pop(trip, None)
        if end:
            end.get_loop().remove_reader(trip.socket)
            end.get_loop().remove_writer(trip.socket)
        return end

    def look_again(self) -> None:
        """Go on with every round trip: uvloop does not tell when a connection is reset right after its last bytes."""
        for trip in list(self._waiting):
            self._proceed(trip)

    def cancel(self, connection: psycopg.AsyncConnection) -> None:
        """Do nothing: it ends with the task that waits for it."""


def await_socket(descriptor: int, is_sending: bool = False, timeout: float | None = None) -> bool:
    """Wait until the socket can be read, or written to where `is_sending`; tell whether it came to that.

    `timeout` is in seconds.
    """
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | (select.POLLOUT if is_sending else 0))
        return bool(poll.poll(None if timeout is None else timeout * 1000))
    writers = [descriptor] if is_sending else []  # pragma: no cover (Windows)
    return any(select.select([descriptor], writers, [], timeout))  # pragma: no cover (Windows)
