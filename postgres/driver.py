"""Two ways to wait for a round trip: in the calling thread, or in an event loop that serves others meanwhile.

Callers are plain functions for both; with `OnLoop` they run through `run_in_greenlet`.
"""

import asyncio
import select
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import psycopg
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from postgres.greenlets import wait_for
from postgres.round_trip import RoundTrip, is_active

CANCEL_TIMEOUT: Final = 1  # seconds
# Prepared statements do not survive a transaction pooler such as PgBouncer or Neon's.
OPTIONS: Final[dict[str, Any]] = {"prepare_threshold": None}


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

    def poll_pending(self) -> None:
        """Do nothing: a thread misses no event."""

    def cancel(self, connection: psycopg.Connection) -> None:
        """Cancel the connection's statement; the thread that waits for it gets an error."""
        if is_active(connection):
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=CANCEL_TIMEOUT)


class OnLoop:
    """Waits in the event loop; every call must come from a function that runs through `run_in_greenlet`."""

    def __init__(self) -> None:
        self._waiting: dict[RoundTrip, asyncio.Future[None]] = {}

    def engine(self, parameters: Mapping[str, Any], **options: Any) -> Engine:
        """Return an engine that connects with libpq's parameters."""

        async def connect() -> psycopg.AsyncConnection:
            return await psycopg.AsyncConnection.connect(**parameters, **OPTIONS)

        return create_async_engine("postgresql+psycopg_async://", async_creator=connect, **options).sync_engine

    def wait(self, trip: RoundTrip) -> None:
        """Wait until the round trip is over."""
        wait_for(self._end(trip))

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
            # At once: libpq has closed a broken connection, and the next one may reuse its descriptor.
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

    def poll_pending(self) -> None:
        """Continue every round trip: uvloop misses a reset right after the last bytes."""
        for trip in list(self._waiting):
            self._proceed(trip)

    def cancel(self, connection: psycopg.AsyncConnection) -> None:
        """Do nothing: the statement is cancelled with the task that waits for it."""


Driver = InThread | OnLoop


def await_socket(descriptor: int, is_sending: bool = False, timeout: float | None = None) -> bool:
    """Wait until the socket is readable, or writable if `is_sending`; return False after `timeout` seconds."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | (select.POLLOUT if is_sending else 0))
        return bool(poll.poll(None if timeout is None else timeout * 1000))
    writers = [descriptor] if is_sending else []  # pragma: no cover (Windows)
    return any(select.select([descriptor], writers, [], timeout))  # pragma: no cover (Windows)
