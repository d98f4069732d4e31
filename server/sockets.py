"""The sockets that the server listens on: bound before anything else is started or said."""

import errno
import socket
import sys
from typing import Any

from settings.values import InvalidSettings

BACKLOG = 2048  # connections that wait to be accepted, as uvicorn has it


class SharedPort(socket.socket):
    """A bound socket of which each worker gets its own at the same address.

    Linux then spreads connections over the workers (socket(7), SO_REUSEPORT). With a common socket the first worker to
    wake takes every waiting connection, and keeps it as long as the frontend does.
    """

    def __reduce__(self) -> Any:
        return share, (self.family, self.getsockname(), is_ipv6_only(self))


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen at every address of the host; 0 finds a free port. Raises InvalidSettings.

    From here on nobody else can have the port. Connections wait until the server accepts them.
    """
    sockets: list[socket.socket] = []
    try:
        addresses = addresses_of(host, port)
        missing: OSError | None = None
        for family, (address, _, *scope) in addresses:
            # Every address of `localhost` has the same port.
            found = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(listen_at(family, (address, found, *scope), ipv6_only=len(addresses) > 1))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error  # such as `::1` in a container without IPv6
        if missing and not sockets:
            raise missing
    except OSError as error:
        for one in sockets:
            one.close()
        raise InvalidSettings(_complaint(error, host, port)) from None
    return sockets


def shared(sockets: list[socket.socket]) -> list[socket.socket]:
    """Turn listening sockets into shared ones that do not listen yet, at no time leaving the port to others."""
    owned: list[socket.socket] = []
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        owned.append(share(one.family, one.getsockname(), is_ipv6_only(one)))
        # With it, others could bind the port as long as no worker listens.
        owned[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        one.close()
    return owned


def share(family: int, address: Any, ipv6_only: bool) -> SharedPort:
    """Bind a socket to an address that other sockets of this user share."""
    one = SharedPort(family)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _bind(one, address, ipv6_only=ipv6_only)
    return one


def is_ipv6_only(one: socket.socket) -> bool:
    """Tell whether an IPv6 socket leaves IPv4 to others."""
    return one.family == socket.AF_INET6 and bool(one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


def addresses_of(host: str, port: int) -> list[tuple[int, Any]]:
    """Return family and address of each address that a host has. Raises InvalidSettings."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError):  # ValueError for what is no name at all
        raise InvalidSettings(f"HOST is {host}, which has no address. Set it to one of this machine's.") from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def listen_at(family: int, address: Any, *, ipv6_only: bool) -> socket.socket:
    """Listen at one address. Raises OSError."""
    one = socket.socket(family)
    try:
        _bind(one, address, ipv6_only=ipv6_only)
        one.listen(BACKLOG)
    except OSError:
        one.close()
        raise
    return one


def _bind(one: socket.socket, address: Any, *, ipv6_only: bool) -> None:
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6_only)
    if sys.platform != "win32":  # pragma: no branch (Windows, where it would let two servers have one port)
        # Connections of an earlier server do not hold the port.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(address)


def _complaint(error: OSError, host: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"Another program listens on port {port} of {host}. Stop it, or set PORT to another one."
        case errno.EACCES | errno.EPERM:
            return f"This user may not listen on port {port}. Set PORT to one above 1023, with a proxy in front."
        case errno.EADDRNOTAVAIL:
            return f"HOST is {host}, which is no address of this machine. Set it to one that is."
    return f"The service cannot listen on port {port} of {host}: {error.strerror}."
