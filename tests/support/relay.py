"""A TCP relay in front of the database, which tests cut and mend; it counts round trips and makes them longer."""

import contextlib
import select
import socket
import struct
import threading
import time
from typing import Self

from psycopg.conninfo import conninfo_to_dict


class Relay:
    """Relays connections on a loopback port to the database's Unix socket.

    `round_trips` counts how often a client sent something after an answer: what it sends in one go, and all that it
    sends before the server has said anything, is one round trip. Each takes `delay` seconds more.
    """

    def __init__(self, database_url: str, *, delay: float = 0) -> None:
        self.round_trips = 0
        self._delay = delay
        parameters = conninfo_to_dict(database_url)
        self._target = f"{parameters['host']}/.s.PGSQL.{parameters.get('port') or 5432}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_open = threading.Event()
        self._is_open.set()
        self._is_silent = threading.Event()
        self._last: bytes | None = None
        self._connections: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        port = self._listener.getsockname()[1]
        self.url = f"postgresql://tasks_api@127.0.0.1:{port}/{parameters['dbname']}?sslmode=disable&gssencmode=disable"

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()

    def cut(self) -> None:
        """Close all connections, and new ones as soon as they come."""
        self._is_open.clear()
        for connection in self._connections:
            connection.join()
        self._is_silent.clear()
        self._connections.clear()

    def reset(self, last: bytes) -> None:
        """Break all connections as a PostgreSQL does that dies: with its last bytes comes a reset."""
        self._last = last
        self.cut()
        self._last = None

    def mend(self) -> None:
        """Relay again."""
        self._is_open.set()

    def hush(self) -> None:
        """Keep all connections and take new ones, and let nothing through."""
        self._is_silent.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was shut down
            while True:
                client, _ = self._listener.accept()
                if self._is_open.is_set():
                    connection = threading.Thread(target=self._relay, args=(client,))
                    self._connections.append(connection)
                    connection.start()
                else:
                    client.close()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as PostgreSQL does
            server.connect(self._target)
            is_answered = True
            while self._is_open.is_set():
                if self._is_silent.is_set():
                    time.sleep(0.02)
                    continue
                for source in select.select([client, server], [], [], 0.02)[0]:
                    if self._is_silent.is_set():  # since the wait began
                        break
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client and is_answered:
                        self.round_trips += 1
                        time.sleep(self._delay)
                    is_answered = source is server
                    (server if source is client else client).sendall(data)
            if self._last is not None:
                client.sendall(self._last)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
