"""The end of a wait for a database that has fallen silent."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

GRACE = 3  # seconds beyond its own time limit that a statement may go without an answer


class Deadlines:
    """When the statements under way are overdue.

    PostgreSQL ends a statement at its time limit and says so. Where even that does not come, as from a network that
    acknowledges everything and delivers nothing, nothing else would end the wait.
    """

    def __init__(self) -> None:
        self._deadlines: dict[Any, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def limit(self, connection: Any, seconds: float) -> Iterator[None]:
        """Let `abort_overdue` end a statement on the connection that takes longer than `seconds` and GRACE."""
        self._deadlines[connection] = time.monotonic() + seconds + GRACE
        try:
            yield
        finally:
            with self._lock:
                del self._deadlines[connection]

    def abort_overdue(self) -> None:
        """Shut the sockets of all overdue statements; whoever waits for one gets an error."""
        with self._lock:  # meanwhile no connection goes back, and no descriptor is used again
            for connection, deadline in list(self._deadlines.items()):
                if deadline < time.monotonic():
                    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as silent:
                        silent.shutdown(socket.SHUT_RDWR)
