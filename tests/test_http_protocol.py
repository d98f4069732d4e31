"""A connection: what is read of it, in which order it is answered, and when it is closed."""

import logging
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from openapi.middleware import header_limits
from server import http_protocol as protocol
from server import timed_protocol, unsent
from settings.settings import Settings
from tests.support.client import Client
from tests.support.hosts import HOSTS
from tests.support.raw import connect, everything, problem
from tests.support.server import Server

GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSE = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON = "Content-Type: application/json"
SECONDS = 0.5


def statuses(received: bytes) -> list[int]:
    """Return the status of each answer."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", received)]


def authorization(client: Client) -> bytes:
    return b"Authorization: " + client.headers["authorization"].encode()


def request(client: Client, line: bytes, *fields: bytes) -> bytes:
    """Return the head of a request of a user."""
    return b"\r\n".join([line, b"Host: x", authorization(client), *fields, b"", b""])


@pytest.mark.parametrize("host", [b"[::1::2]", b"[1.2.3]", b"[:]"])
def test_an_address_that_is_none_is_no_host(host: bytes) -> None:
    assert not header_limits.is_host(host)


# Without an end


@pytest.mark.parametrize(
    ("start", "filler", "status"),
    [
        (b"GET /", b"x", 431),
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n", 431),
        (b"GET / HTTP/1.1\r\n", b"a:\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: ", b"x", 431),
        (b"GET / HTTP/1.1\r\nX", b"x", 431),
        (b"GET / HTTP/1.1\r\nX:", b" ", 431),
        (b"", b"\r\n", 400),
        (GET, b"\r\n", 400),
        (POST, b"0", 400),
        (POST + b"2;x=", b"x", 400),
        (POST + b'2;x="', b"x", 400),
        (POST + b"2\r\n{}\r\n0\r\nX: ", b"x", 400),
        (POST + b"2\r\n{}\r\n0\r\n", b"X: y\r\n", 400),
        (POST + b"2\r\n{}\r\n0\r\nX", b"x", 400),
        (POST + b"2\r\n{}\r\n0;x=", b"x", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\nX: ", b"x", 431),
    ],
)
def test_nothing_is_collected_without_a_bound(server: Server, start: bytes, filler: bytes, status: int) -> None:
    with connect(server) as connection:
        connection.sendall(start + filler * (2 * timed_protocol.MAX_FRAMING // len(filler)))
        received = everything(connection)
    # Without a token a request may be answered before it is whole; then the connection is closed without a word.
    assert statuses(received) in ([status], [200, status], [401])


@pytest.mark.parametrize("start", [POST + b"0\r\nX: ", POST + b"1;x=", b"GET / HTTP/1.1\r\nX: ", b"GET /"])
def test_who_sends_on_without_an_end_is_cut_off(server: Server, start: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(start)
        with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):
            connection.sendall(b"x" * 16 * protocol.MAX_UNREAD)


def test_a_body_that_goes_on_behind_its_answer_is_cut_off(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):
            connection.sendall(b"x" * 16 * protocol.MAX_UNREAD)


def test_a_body_of_many_small_chunks_with_few_bytes_around_them_is_read(server: Server, alice: Client) -> None:
    content = b'{"title": "x"' + b" " * 60000 + b"}"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in content) + b"0\r\n\r\n"
    with connect(server) as connection:
        fields = (JSON.encode(), b"Transfer-Encoding: chunked", b"Connection: close")
        connection.sendall(request(alice, b"POST /api/tasks HTTP/1.1", *fields) + chunks)
        assert statuses(everything(connection)) == [201]


@pytest.mark.parametrize("field", [b"Connection: close", b"CONNECTION: x, close", b"Proxy-Connection: close"])
@pytest.mark.parametrize("behind", [b"", b"\r\nX: y"])
def test_a_connection_is_not_ended_behind_a_body(server: Server, alice: Client, field: bytes, behind: bytes) -> None:
    fields = (JSON.encode(), b"Transfer-Encoding: chunked")
    sent = request(alice, b"POST /api/tasks HTTP/1.1", *fields) + b"2\r\n{}\r\n0\r\n" + field + behind + b"\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(sent + GET)
        assert problem(everything(connection)) == (400, "bad_request")


# In a row


def test_a_thousand_requests_in_a_row_are_all_answered(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(GET * 999 + CLOSE)
        assert statuses(everything(connection)) == [200] * 1000


def test_requests_that_arrive_byte_by_byte_behind_each_other_are_all_answered(server: Server) -> None:
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in GET + GET + CLOSE:
            connection.sendall(bytes([byte]))
        assert statuses(everything(connection)) == [200] * 3


def test_bodies_in_a_row_are_each_taken_for_what_they_are(server: Server, alice: Client) -> None:
    bodies = [b'{"title": "%d", "description": "%s"}' % (number, b"x" * 1000) for number in range(20)]
    sent = b"".join(
        request(alice, b"POST /api/tasks HTTP/1.1", JSON.encode(), b"Content-Length: %d" % len(body)) + body
        for body in bodies
    )
    with connect(server) as connection:
        connection.sendall(sent + CLOSE)
        assert statuses(everything(connection)) == [201] * 20 + [200]
    assert sorted(alice.titles()) == sorted(map(str, range(20)))


# Upgrades

UPGRADES = [
    (b"Connection: upgrade", b"Upgrade: x"),
    (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
    (b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    (b"UPGRADE: a, b", b"CONNECTION: UPGRADE"),
]


@pytest.mark.parametrize("fields", UPGRADES)
@pytest.mark.parametrize("is_in_parts", [False, True])
def test_an_upgrade_is_ignored_and_what_comes_behind_is_read_as_it_is(
    server: Server, alice: Client, fields: tuple[bytes, ...], is_in_parts: bool
) -> None:
    inner = request(alice, b"DELETE /api/me HTTP/1.1")
    body = b'{"title": "x"}' + b" " * len(inner)
    length, chunked = b"Content-Length: %d" % len(inner), b"Transfer-Encoding: chunked"
    json = JSON.encode()
    sent = [
        request(alice, b"GET /api/tasks HTTP/1.1", *fields),
        request(alice, b"POST /nothing HTTP/1.1", length) + inner,
        request(alice, b"POST /api/tasks HTTP/1.1", *fields, json, b"Content-Length: %d" % len(body)) + body,
        request(alice, b"POST /nothing HTTP/1.1", *fields, length) + inner,
        request(alice, b"POST /api/tasks HTTP/1.1", *fields, json, chunked)
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
        CLOSE,
    ]  # fmt: skip
    with connect(server) as connection:
        for part in sent if is_in_parts else [b"".join(sent)]:
            connection.sendall(part)
            time.sleep(0.02 * is_in_parts)
        assert statuses(everything(connection)) == [200, 404, 201, 404, 201, 200]
    assert alice.titles() == ["x", "x"]


def test_an_upgrade_with_too_many_headers_is_refused_whole(server: Server) -> None:
    fields = "".join(f"X-{number}: x\r\n" for number in range(101))
    head = (
        f"POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n{fields}Content-Length: {len(GET)}\r\n\r\n"
    )
    with connect(server) as connection:
        connection.sendall(head.encode() + GET)
        assert problem(everything(connection)) == (431, "headers_too_large")


@pytest.mark.parametrize("line", [b"CONNECT x:443 HTTP/1.1", b"CONNECT /health HTTP/1.1", b"PRI * HTTP/2.0"])
def test_a_tunnel_is_refused_and_nothing_in_it_is_read(server: Server, line: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(line + b"\r\nHost: x\r\n\r\n" + GET)
        assert problem(everything(connection)) == (400, "bad_request")


# HTTP/1.0


def test_old_http_is_never_answered_in_chunks(server: Server, alice: Client) -> None:
    alice.create("x")
    for fields in ([], [b"Connection: keep-alive"], [b"Accept-Encoding: gzip"]):
        with connect(server) as connection:
            connection.sendall(request(alice, b"GET /api/me/export HTTP/1.0", *fields))
            head, _, body = everything(connection).partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert b"keep-alive" not in head.lower()
        assert (body[:1] + body[-1:] == b"{}") == (b"gzip" not in head)


@pytest.mark.parametrize("field", [b"Connection: keep-alive", b"Connection: Keep-Alive, x", b"", b"Connection: x"])
def test_old_http_keeps_a_connection_only_when_it_is_asked_to(server: Server, field: bytes) -> None:
    with connect(server) as connection:
        connection.sendall((b"GET /health HTTP/1.0\r\n%s\r\n\r\n" % (field or b"X: y")) + CLOSE)
        received = everything(connection)
    is_kept = b"alive" in field.lower()
    assert len(statuses(received)) == 1 + is_kept
    assert (b"connection: keep-alive" in received) == is_kept


def test_old_http_has_no_transfer_coding(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(POST.replace(b"HTTP/1.1", b"HTTP/1.0") + b"2\r\n{}\r\n0\r\n\r\n" + GET)
        assert problem(everything(connection)) == (400, "bad_request")


# Headers and targets


@pytest.mark.parametrize("blank", ["", " ", "\t", " \t  "])
def test_blanks_around_a_value_are_no_part_of_it(server: Server, alice: Client, blank: str) -> None:
    path = f"/api/tasks/{alice.create('x')['id']}"
    lines = [f"PATCH {path} HTTP/1.1", f"Host:{blank}x{blank}",
             f"Authorization: {alice.headers['authorization']}{blank}", f"If-Match:{blank}*{blank}",
             f"Content-Type: application/merge-patch+json{blank}", f"Content-Length: 2{blank}",
             f"Origin: http://localhost:3000{blank}", "Connection: close", "", "{}"]  # fmt: skip
    with connect(server) as connection:
        connection.sendall("\r\n".join(lines).encode())
        received = everything(connection)
    assert statuses(received) == [200], received
    assert b"access-control-allow-origin: http://localhost:3000\r\n" in received


@pytest.mark.parametrize("separator", ["\xa0", "\t", " \xa0", "\x85", " \t", "\xa0 ", ""])
def test_only_spaces_separate_a_scheme_and_a_token(server: Server, alice: Client, separator: str) -> None:
    token = alice.headers["authorization"].split()[1]
    head = f"GET /api/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer{separator}{token}\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(head.encode("latin-1"))
        assert problem(everything(connection))[0] == 401


@pytest.mark.parametrize("scheme", ["bearer ", "BEARER ", "Bearer    "])
def test_the_scheme_is_read_in_any_case_with_any_number_of_spaces(alice: Client, scheme: str) -> None:
    token = alice.headers["authorization"].split()[1]
    assert alice.get("/api/tasks", headers={"Authorization": scheme + token}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["a, b", "a,b", "a/../b?x", "a b", "a\tb", "u@x", "a?b", "a#b", "a:b", "a:80:80", ":80", "[::1", "::1", "[x]", "[]",
     "a\\b", "a%zz", "\xe4", "http://x", "[::1]x", "x:999999", '"x"', "<x>"],
)  # fmt: skip
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_what_is_no_host_is_refused(server: Server, host: str, version: str) -> None:
    with connect(server) as connection:
        connection.sendall(f"GET /health HTTP/{version}\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        assert problem(everything(connection)) == (400, "bad_request")


@pytest.mark.parametrize(
    "host", ["x", "X.example", "x:80", "x:", "127.0.0.1:8000", "[::1]", "[::ffff:1.2.3.4]:80", "a_b", "a%20b", ""]
)
def test_what_is_a_host_is_taken(server: Server, host: str) -> None:
    with connect(server) as connection:
        connection.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert statuses(everything(connection)) == [200]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/api%2Fme", 404),
        ("/api%2fme", 404),
        ("/api/me%2Fexport", 404),
        ("/api%5Cme", 404),
        ("/%2Fapi/me", 404),
        ("/api/%2e/me", 404),
        ("/api/%2e%2e/health", 404),
        ("/%2561pi/me", 404),
        ("/api%252Fme", 404),
        ("/api/me%00", 404),
        ("/api/me;x", 404),
        ("/api//me", 404),
        ("/docs%2Finitializer.js", 404),
        ("/docs/assets%2Fswagger-ui.css", 404),
        ("/docs/assets/%2e%2e/%2e%2e/__init__.py", 404),
        ("/%61pi/me", 200),
        ("/a%70i/%6De", 200),
        ("/%68ealth", 200),
        ("/%64ocs", 200),
        ("http://x/api/me", 200),
        ("http://x:80/%61pi/me?", 200),
        ("/api/tasks/a%2Fb", 400),
        ("/api/tasks/a%2F..%2F..%2Fme", 400),
        ("/api/tasks/%ff", 400),
        ("/api/tasks/%zz", 400),
        ("/api/tasks/%", 400),
        ("/api/tasks/%2561", 400),
        ("http://x", 404),
        ("/api/me#x", 400),
        ("x:80", 400),
    ],
)
def test_an_encoded_slash_separates_nothing_and_other_escapes_mean_what_they_say(
    server: Server, alice: Client, target: str, status: int
) -> None:
    with connect(server) as connection:
        connection.sendall(request(alice, f"GET {target} HTTP/1.1".encode(), b"Connection: close"))
        assert statuses(everything(connection)) == [status]


def test_an_encoded_slash_deletes_nothing(server: Server, alice: Client) -> None:
    alice.create("x")
    with connect(server) as connection:
        connection.sendall(request(alice, b"DELETE /api%2Fme HTTP/1.1", b"Connection: close"))
        assert statuses(everything(connection)) == [404]
    assert alice.titles() == ["x"]


# Time


@pytest.fixture(params=HOSTS)
def hasty(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A server that waits for its clients for a short time only."""
    monkeypatch.setattr(unsent, "STALL_TIMEOUT", 1)
    monkeypatch.setattr(unsent, "SWEEP", 0.1)
    with Server(make_settings(server_framework=request.param, keep_alive_timeout=1)) as server:
        yield server


def test_an_idle_connection_is_closed_after_the_time_that_is_told(hasty: Server) -> None:
    with connect(hasty) as connection:
        connection.sendall(GET)
        started = time.monotonic()
        assert b"\r\nkeep-alive: timeout=1\r\n" in everything(connection)
        assert 1 < time.monotonic() - started < 6


def test_a_connection_that_is_closed_tells_no_time(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(CLOSE)
        assert b"keep-alive" not in everything(connection)


def token(server: Server) -> bytes:
    return f"Authorization: Bearer {server.token(sub='reader')}".encode()


@pytest.fixture
def large(hasty: Server) -> bytes:
    """A request for an answer that no kernel keeps for a client that does not read."""
    headers = {"Authorization": token(hasty).decode().partition(": ")[2]}
    with httpx.Client(base_url=hasty.url, headers=headers, trust_env=False, verify=False) as client:
        for _ in range(max(0, 1000 - len(client.get("/api/tasks", params={"limit": "1000"}).json()))):
            client.post("/api/tasks", json={"title": "x" * 200, "description": "\N{GRINNING FACE}" * 1000})
    return b"GET /api/tasks?limit=1000 HTTP/1.1\r\nHost: x\r\n" + token(hasty) + b"\r\n\r\n"


def unread(server: Server, sent: bytes) -> socket.socket:
    """Open a connection that does not read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = server.url.removeprefix("http://").split(":")
    connection.connect((host, int(port)))
    connection.settimeout(10)
    connection.sendall(sent)
    return connection


def is_reset(connection: socket.socket) -> bool:
    """Wait until the server resets a connection without reading from it."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_clients_that_read_nothing_hold_nothing(
    hasty: Server, large: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with unread(hasty, large + GET * 1000) as stalled:
        assert is_reset(stalled)
    # Whoever reads is served, however long it takes.
    size = 0
    with unread(hasty, large.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as slow:
        while part := slow.recv(65536):
            size += len(part)
            time.sleep(0.01)
    assert size > 4_000_000
    # Over the limit for all, the oldest of whoever has most goes first, before its time.
    monkeypatch.setattr(unsent, "STALL_TIMEOUT", 60)
    monkeypatch.setattr(unsent, "MAX_UNSENT", 8_000_000)
    with unread(hasty, large) as first:
        time.sleep(1)
        with unread(hasty, large) as second:
            assert is_reset(first)
            assert not second.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []


# Clients that leave


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /hea",
        POST + b"5\r\n{",
        GET,
        GET * 200,
        b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
        b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
        b"hello\r\n\r\n",
        POST + b"zz\r\n",
    ],
)
@pytest.mark.parametrize("pause", [0, 0.05])
def test_a_client_that_leaves_is_no_fault(
    server: Server, caplog: pytest.LogCaptureFixture, sent: bytes, pause: float
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            connection = connect(server)
            connection.sendall(sent)
            time.sleep(pause)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            connection.close()
        with connect(server) as connection:
            connection.sendall(CLOSE)
            assert statuses(everything(connection)) == [200]
        time.sleep(0.2)
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR or one.exc_info] == []
