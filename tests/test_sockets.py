"""The sockets that the server listens on, and what it says when it cannot."""

import errno
import os
import socket
import sys
from typing import Any, cast

import pytest

from server import sockets
from settings.values import InvalidSettings


def refusal(host: str, port: int) -> str:
    with pytest.raises(InvalidSettings) as caught:
        sockets.listen(host, port)
    return str(caught.value)


@pytest.fixture
def taken() -> Any:
    """A socket that listens on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_port_that_is_taken_is_told(taken: socket.socket, host: str) -> None:
    port = taken.getsockname()[1]
    assert refusal(host, port) == (
        f"Another program listens on port {port} of {host}. Stop it, or set PORT to another one."
    )


@pytest.mark.parametrize("host", ["nowhere.invalid", "x" * 300, "http://x", "a..b"])
def test_a_host_without_an_address_is_told(host: str) -> None:
    assert refusal(host, 0) == f"HOST is {host}, which has no address. Set it to one of this machine's."


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.EACCES, "This user may not listen on port 80. Set PORT to one above 1023, with a proxy in front."),
        (errno.EADDRNOTAVAIL, "HOST is 127.0.0.1, which is no address of this machine. Set it to one that is."),
        (errno.EMFILE, f"The service cannot listen on port 80 of 127.0.0.1: {os.strerror(errno.EMFILE)}."),
    ],
)
def test_whatever_else_prevents_it_is_told(monkeypatch: pytest.MonkeyPatch, number: int, sentence: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", fail)
    assert refusal("127.0.0.1", 80) == sentence


def test_every_address_of_a_host_has_the_same_port_and_is_let_go_if_one_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET, ("127.0.0.2", 0))]
    monkeypatch.setattr(sockets, "addresses_of", lambda *_: both)
    first, second = sockets.listen("both", 0)
    port = first.getsockname()[1]
    assert second.getsockname() == ("127.0.0.2", port)
    first.close()
    assert refusal("both", port).startswith(f"Another program listens on port {port}")
    second.close()
    for one in sockets.listen("both", port):  # the first was let go
        one.close()


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_an_address_that_this_machine_lacks_is_passed_over_if_there_is_another(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    listen = sockets.listen_at

    def without_ipv6(family: int, address: Any, *, ipv6_only: bool) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(number, os.strerror(number))
        return listen(family, address, ipv6_only=ipv6_only)

    both = [(socket.AF_INET6, ("::1", 0, 0, 0)), (socket.AF_INET, ("127.0.0.1", 0))]
    monkeypatch.setattr(sockets, "listen_at", without_ipv6)
    monkeypatch.setattr(sockets, "addresses_of", lambda *_: both)
    (found,) = sockets.listen("localhost", 0)
    with found:
        assert found.getsockname()[0] == "127.0.0.1"
    monkeypatch.setattr(sockets, "addresses_of", lambda *_: both[:1])
    assert refusal("localhost", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="workers share a port on Linux only")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_a_shared_port_is_never_free_in_between(host: str) -> None:
    shared = sockets.shared(sockets.listen(host, 0))
    with shared[0] as one:
        address = one.getsockname()
        assert refusal(host, address[1]).startswith("Another program listens on port")
        rebuild, arguments = cast(Any, one.__reduce__())
        with rebuild(*arguments) as another:  # a worker's
            assert another.getsockname() == address
            assert sockets.is_ipv6_only(another) == sockets.is_ipv6_only(one)
