"""What is too large, too slow or no HTTP is refused with a problem, on raw sockets too."""

import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from openapi.middleware import request_body
from server import timed_protocol
from settings.settings import Settings
from tests.support.client import Client, assert_problem
from tests.support.hosts import HOSTS
from tests.support.raw import connect, everything, problem
from tests.support.server import Server

SECONDS = 0.4  # that a request may take here


# Sizes


@pytest.mark.parametrize("path", ["/api/tasks", "/health", "/docs", "/nothing"])
@pytest.mark.parametrize("shape", ["{path}?q={filler}", "{path}/{filler}"])
def test_a_target_over_8_kib_is_too_long(anonymous: Client, path: str, shape: str) -> None:
    response = anonymous.get(shape.format(path=path, filler="x" * 8192))
    assert_problem(response, 414, "target_too_long", "Path and query are longer than 8192 bytes.")


def test_a_target_of_8_kib_is_looked_at(anonymous: Client) -> None:
    path = "/nothing?q="
    assert anonymous.get(path.ljust(8193, "x")).status_code == 404


@pytest.mark.parametrize("path", ["/api/tasks", "/health", "/docs", "/nothing"])
def test_headers_over_32_kib_are_too_large(anonymous: Client, path: str) -> None:
    response = anonymous.get(path, headers={f"X-{number}": "x" * 8192 for number in range(4)})
    assert_problem(response, 431, "headers_too_large", "The headers are larger than 32768 bytes.")


@pytest.mark.parametrize("path", ["/api/tasks", "/health", "/docs", "/nothing"])
def test_more_than_100_headers_are_too_many(anonymous: Client, path: str) -> None:
    response = anonymous.get(path, headers={f"X-{number}": "x" for number in range(101)})
    assert_problem(response, 431, "headers_too_large", "There are more than 100 headers.")


@pytest.mark.parametrize(("count", "status"), [(100, 200), (101, 431)])
def test_100_headers_are_read_and_no_more(server: Server, count: int, status: int) -> None:
    lines = ["GET /health HTTP/1.1", "Host: x", "Connection: close", *(f"X-{number}: x" for number in range(count - 2))]
    with connect(server) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        assert everything(connection).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize(("size", "status"), [(32 * 1024, 200), (32 * 1024 + 1, 431)])
def test_headers_of_32_kib_are_read_and_no_larger_ones(server: Server, size: int, status: int) -> None:
    filler = "x" * (size - len("Hostx") - len("Connectionclose") - len("X"))
    with connect(server) as connection:
        connection.sendall(f"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: {filler}\r\n\r\n".encode())
        assert everything(connection).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize(("length", "detail"), [(8192, "is not a JSON Web Token"), (8193, "is longer than 8192")])
def test_a_token_of_8_kib_is_looked_at_and_no_longer_one(anonymous: Client, length: int, detail: str) -> None:
    response = anonymous.get("/api/tasks", headers={"Authorization": "Bearer " + "x" * length})
    assert detail in response.json()["detail"]


def test_a_token_over_8_kib_is_refused(anonymous: Client) -> None:
    response = anonymous.get("/api/tasks", headers={"Authorization": "Bearer " + "x" * 8193})
    assert_problem(response, 401, "invalid_token", "The token is longer than 8192 characters.")


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n"])
def test_a_head_without_an_end_is_not_read_for_ever(server: Server, start: bytes) -> None:
    filler = b"X: x\r\n" if start.endswith(b"\n") else b"xxxxxx"
    with connect(server) as connection:
        connection.sendall(start)
        with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):
            connection.sendall(filler * 3_000_000)


def test_a_head_over_64_kib_is_answered_with_a_problem(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * (timed_protocol.MAX_FRAMING + 1))
        assert problem(everything(connection)) == (431, "headers_too_large")


# What is no HTTP


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nX : a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00",
    ],
)
def test_what_is_no_http_is_answered_with_a_problem(server: Server, request_: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(request_)
        assert problem(everything(connection)) == (400, "bad_request")


def test_what_is_no_http_is_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tasks_api.access"), connect(server) as connection:
        connection.sendall(b"hello\r\n\r\n")
        request_id = json.loads(everything(connection).rpartition(b"\r\n\r\n")[2])["request_id"]
    assert f"- - 400 0.0ms user=None request={request_id}" in caplog.text


def test_a_request_without_a_body_may_ask_for_another_protocol_and_does_not_get_it(anonymous: Client) -> None:
    response = anonymous.get("/health", headers={"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c"})
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_an_upgrade_to_a_websocket_is_not_made(anonymous: Client) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    response = anonymous.get("/health", headers=headers | {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="})
    assert response.status_code == 200


# Time


@pytest.fixture(params=HOSTS)
def hasty(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A server that waits for a request for a short time only."""
    monkeypatch.setattr(timed_protocol, "REQUEST_TIMEOUT", SECONDS)
    monkeypatch.setattr(request_body, "BODY_TIMEOUT", SECONDS)
    with Server(make_settings(server_framework=request.param)) as server:
        yield server


def trickle(connection: socket.socket, data: bytes) -> bytes:
    """Send a byte now and then until the server closes the connection, and return its answer."""
    connection.settimeout(0.05)
    answer = b""
    deadline = time.monotonic() + 10
    for byte in data:
        assert time.monotonic() < deadline, "the connection was not closed"
        try:
            connection.sendall(bytes([byte]))
            if not (part := connection.recv(65536)):
                return answer
            answer += part
        except TimeoutError:
            continue
        except OSError:
            return answer
    raise AssertionError("the connection was not closed")


@pytest.mark.parametrize("start", [b"", b"GE", b"GET /health HTTP/1.1\r\n", b"GET /health HTTP/1.1\r\nX: ", b"\r\n"])
def test_headers_that_stall_are_cut_off(hasty: Server, start: bytes) -> None:
    with connect(hasty) as connection:
        connection.sendall(start)
        started = time.monotonic()
        assert everything(connection) == b""
        assert SECONDS / 2 < time.monotonic() - started < SECONDS + 2


@pytest.mark.parametrize("data", [b"\r\n" * 1000, b"GET /health HTTP/1.1\r\nX: " + b"x" * 1000])
def test_headers_that_trickle_are_cut_off(hasty: Server, data: bytes) -> None:
    with connect(hasty) as connection:
        started = time.monotonic()
        assert trickle(connection, data) == b""
        assert time.monotonic() - started < SECONDS + 2


def head(server: Server, *lines: str) -> bytes:
    """Return the head of a request that creates a task."""
    token = server.token(sub="slow")
    fields = ["Host: x", f"Authorization: Bearer {token}", "Content-Type: application/json", *lines]
    return ("POST /api/tasks HTTP/1.1\r\n" + "".join(f"{field}\r\n" for field in fields) + "\r\n").encode()


@pytest.mark.parametrize(
    ("line", "part"),
    [("Content-Length: 14", b""), ("Content-Length: 14", b'{"title"'), ("Transfer-Encoding: chunked", b'8\r\n{"titl')],
)
def test_a_body_that_stalls_is_answered_with_408_and_cut_off(hasty: Server, line: str, part: bytes) -> None:
    with connect(hasty) as connection:
        connection.sendall(head(hasty, line) + part)
        started = time.monotonic()
        assert problem(everything(connection)) == (408, "request_timeout")
        assert SECONDS / 2 < time.monotonic() - started < SECONDS + 2


def test_a_body_that_trickles_is_answered_with_408_and_cut_off(hasty: Server) -> None:
    with connect(hasty) as connection:
        connection.sendall(head(hasty, "Content-Length: 1000"))
        assert problem(trickle(connection, b"x" * 1000)) == (408, "request_timeout")


def test_a_body_that_goes_on_after_its_refusal_is_cut_off(hasty: Server) -> None:
    with connect(hasty) as connection:
        connection.sendall(head(hasty, "Content-Length: 70000"))
        assert problem(trickle(connection, b"x" * 1000)) == (413, "content_too_large")


def test_a_second_request_on_a_connection_is_cut_off_too(hasty: Server) -> None:
    with connect(hasty) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nX: ")
        started = time.monotonic()
        assert everything(connection).count(b"HTTP/1.1 200 OK") == 1
        assert time.monotonic() - started < SECONDS + 2


def test_a_connection_with_whole_requests_lives_longer(hasty: Server) -> None:
    with connect(hasty) as connection:
        for _ in range(6):
            time.sleep(SECONDS / 2)
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b'{"status":"ok"}'):
                part = connection.recv(65536)
                assert part, answer
                answer += part
            assert answer.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("line", "part"),
    [("Transfer-Encoding: chunked", b'e\r\n{"title": "x"}\r\n'), ("Content-Length: 20", b'{"title": "x"}')],
)
def test_a_body_whose_client_leaves_is_not_taken_for_whole(
    server: Server, alice: Client, line: str, part: bytes
) -> None:
    request = head(server, line).replace(server.token(sub="slow").encode(), b"")
    token = alice.headers["authorization"].encode()
    lines = [one for one in request.split(b"\r\n") if not one.startswith(b"Authorization")]
    lines[1:1] = [b"Authorization: " + token]
    with connect(server) as connection:
        connection.sendall(b"\r\n".join(lines) + part)
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == b""
    assert alice.titles() == []


def test_slow_connections_do_not_slow_others(hasty: Server) -> None:
    stalled = [connect(hasty) for _ in range(200)]
    for connection in stalled:
        connection.sendall(head(hasty, "Content-Length: 14"))
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: httpx.get(f"{hasty.url}/ready", trust_env=False), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert max(answer.elapsed.total_seconds() for answer in answers) < 1
    for connection in stalled:
        connection.close()
