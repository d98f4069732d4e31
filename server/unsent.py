"""What the peers have not taken of their answers: bounded for the process, and in time for each connection."""

import asyncio
import logging
import struct
import sys
from collections import Counter
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

with suppress(ImportError):  # on Windows
    from fcntl import ioctl
    from termios import TIOCOUTQ

STALL_TIMEOUT = 30  # seconds
MIN_TAKEN: Final = 16 * 1024  # bytes that a peer has to take within STALL_TIMEOUT
MAX_UNSENT = 24 * 1024 * 1024  # bytes of all connections of the process
SWEEP: Final = 1  # seconds

logger = logging.getLogger(__name__)


class Connection(Protocol):
    """A connection with answers."""

    transport: asyncio.Transport
    stalled: tuple[float, int] | None  # since when, and how many bytes were left then

    @property
    def unsent(self) -> int:
        """How many bytes of memory its answer takes up."""

    @property
    def owner(self) -> str:
        """Whose answer it is: a user's id, or the peer's address."""


class UnsentAnswers:
    """Closes connections whose peers do not read.

    A peer that takes less than MIN_TAKEN in STALL_TIMEOUT is gone, or means harm. When all connections together hold
    more than MAX_UNSENT, those of the user who holds most are closed, the oldest first, so nobody pays for another's.
    """

    _of: Final[WeakKeyDictionary[Any, "UnsentAnswers"]] = WeakKeyDictionary()

    def __init__(self, connections: set[Any]) -> None:
        self._connections = connections
        self._full: dict[Connection, None] = {}  # in their order
        self._sweep: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, server_state: Any) -> "UnsentAnswers":
        """Return the one of a server."""
        if server_state not in cls._of:
            cls._of[server_state] = cls(server_state.connections)
        return cls._of[server_state]

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look after the connections until there are none."""
        if self._sweep is None:
            self._sweep = loop.call_later(SWEEP, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweep = None
        now = loop.time()
        for connection in tuple(self._connections):
            self._check(connection, now)
        if self._connections:
            self.watch(loop)

    def _check(self, connection: Connection, now: float) -> None:
        if not connection.transport.get_write_buffer_size():
            connection.stalled = None
            return
        left = _left(connection.transport)
        since, before = connection.stalled or (now, left)
        if before - left >= MIN_TAKEN:
            since, before = now, left
        connection.stalled = since, before
        if now - since >= STALL_TIMEOUT:
            self._close(connection, f"its peer takes less than {MIN_TAKEN} bytes in {STALL_TIMEOUT} s")

    def fill(self, connection: Connection) -> None:
        """Take note that a connection has more to send than its peer takes."""
        self._full[connection] = None
        sizes = {one: one.unsent for one in self._full}
        total = sum(sizes.values())
        while total > MAX_UNSENT:
            owners: Counter[str] = Counter()
            for one in self._full:
                owners[one.owner] += sizes[one]
            (greediest, _), *_ = owners.most_common(1)
            oldest = next(one for one in self._full if one.owner == greediest)
            total -= sizes[oldest]
            self._close(oldest, f"more than {MAX_UNSENT} bytes of answers are not taken, most of them by its user")

    def drain(self, connection: Connection) -> None:
        """Take note that the peer has taken its answer, or has left."""
        self._full.pop(connection, None)
        connection.stalled = None

    def _close(self, connection: Connection, reason: str) -> None:
        logger.info("A connection is closed: %s.", reason)
        self._full.pop(connection, None)
        with suppress(OSError):  # a reset: or the kernel would keep what is left, and try to send it
            connection.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        connection.transport.abort()


def _left(transport: asyncio.Transport) -> int:
    """Return how many bytes the peer's machine has not acknowledged, those in the kernel included (tcp(7))."""
    left = transport.get_write_buffer_size()
    with suppress(NameError, OSError):  # a system that cannot tell
        queued = ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, bytes(4))
        left += int.from_bytes(queued, sys.byteorder)
    return left
