"""Deadlines for a database that no longer responds."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

GRACE = 3  # seconds that a statement may take beyond its own time limit


class Deadlines:
    """The deadlines of all running statements.

    PostgreSQL aborts a statement at its time limit and says so. If even that never arrives, as from a network that
    acknowledges everything and delivers nothing, only a deadline ends the wait.
    """

    def __init__(self) -> None:
        self._deadlines: dict[Any, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def limit(self, connection: Any, seconds: float) -> Iterator[None]:
        """Let `abort_overdue` abort the connection's statement when it takes longer than `seconds` plus GRACE."""
        self._deadlines[connection] = time.monotonic() + seconds + GRACE
        try:
            yield
        finally:
            with self._lock:
                del self._deadlines[connection]

    def abort_overdue(self) -> None:
        """Shut down the sockets of all overdue statements, which fail with an error."""
        with self._lock:  # so that no connection is returned, and no descriptor reused, meanwhile
            for connection, deadline in list(self._deadlines.items()):
                if deadline < time.monotonic():
                    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as silent:
                        silent.shutdown(socket.SHUT_RDWR)
