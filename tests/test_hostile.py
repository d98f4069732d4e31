"""Hostile requests, most of them on raw sockets: each is answered with a problem, or served as what it is."""

import gzip
import re

import httpx
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.support.client import Client, assert_problem
from tests.support.problems import DATE_RULE, NOT_FOUND
from tests.support.raw import connect, everything, problem
from tests.support.server import Server

TASK = "/api/tasks/8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11"  # which nobody has
VALID = b'{"title": "x"}'
CHUNKS = b'e\r\n{"title": "x"}\r\n0\r\n\r\n'
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
NOT_HTTP = (400, "bad_request")


class Raw:
    """Sends what no HTTP library would, as one user."""

    def __init__(self, server: Server, client: Client) -> None:
        self.server = server
        self.authorization = f"Authorization: {client.headers['authorization']}"

    def head(self, line: str, *fields: str, host: str = "Host: x") -> bytes:
        """Return the head of a request after which the connection ends."""
        own = [host] if host else []
        lines = [line, *own, self.authorization, "Connection: close", *fields, "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def send(self, request: bytes) -> bytes:
        """Send a request and return everything that comes back."""
        with connect(self.server) as connection:
            connection.sendall(request)
            return everything(connection)

    def answer(self, request: bytes) -> httpx.Response:
        """Send a request and return its one answer."""
        received = self.send(request)
        assert len(re.findall(rb"HTTP/1\.1 \d", received)) == 1, received
        head, _, body = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        fields = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        return httpx.Response(int(status.split()[1]), headers=fields, content=body)


@pytest.fixture
def raw(server: Server, alice: Client) -> Raw:
    return Raw(server, alice)


def assert_bad(response: httpx.Response, place: str, pointer: str, detail: str) -> None:
    """Check a 400 whole that names one fault."""
    assert_problem(
        response, 400, "bad_request", f"Invalid {place}: {pointer or 'it'} {detail}.", (place, pointer, detail)
    )


# The request line


@pytest.mark.parametrize(
    "line",
    [
        "get /api/tasks HTTP/1.1",
        "GET /api/tasks",
        "GET /api/tasks HTTP/0.9",
        "GET /api/tasks HTTP/2.0",
        "GET /api/tasks HTTP/3.0",
        "GET /api/tasks http/1.1",
        "GET  HTTP/1.1",
        "GET /api/tasks?q=a\tb HTTP/1.1",
        "GET /api/tasks?q=\xff HTTP/1.1",
        "GET /a b HTTP/1.1",
        "CONNECT evil.example:443 HTTP/1.1",
        "PRI * HTTP/2.0",
    ],
)
def test_a_request_line_that_is_none_of_http_1_is_answered_with_a_problem(raw: Raw, line: str) -> None:
    assert problem(raw.send(raw.head(line))) == NOT_HTTP


@pytest.mark.parametrize("line", ["GET /health HTTP/1.0", "GET http://evil.example/health HTTP/1.1"])
def test_old_http_and_a_whole_url_are_served(raw: Raw, line: str) -> None:
    assert raw.answer(raw.head(line)).json() == {"status": "ok"}


def test_a_whole_url_does_not_lead_elsewhere(raw: Raw) -> None:
    response = raw.answer(raw.head("GET http://evil.example/docs/ HTTP/1.1", host="Host: evil.example"))
    assert (response.status_code, response.headers["location"]) == (307, "../docs")


@pytest.mark.parametrize(
    "path",
    ["*", "//", "//evil.example/api/tasks", "/api/tasks%0d%0aX:y", "/api/tasks%00", "/api/../health",
     "/api/tasks/%2e%2e", "/docs%0a", "/docs/%0a", "/openapi.json%0a", "/docs/initializer.js%0a",
     "/docs%0d%0a", "/docs%00"],
)  # fmt: skip
def test_a_path_that_only_looks_like_one_of_ours_is_not_found(raw: Raw, path: str) -> None:
    method = "OPTIONS" if path == "*" else "GET"
    response = raw.answer(raw.head(f"{method} {path} HTTP/1.1"))
    if path == "/api/tasks/%2e%2e":  # an id, if a strange one
        assert_bad(response, "path", "/id", "must be a UUID")
    else:
        assert_problem(response, *NOT_FOUND)


def test_an_id_of_5000_digits_is_no_uuid(raw: Raw) -> None:
    response = raw.answer(raw.head(f"GET /api/tasks/{'9' * 5000} HTTP/1.1"))
    assert (response.status_code, response.json()["errors"][-1]) == (
        400,
        {"in": "path", "pointer": "/id", "detail": "must be a UUID"},
    )
    assert len(response.content) < 500


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "HEAD"])
def test_another_method_is_refused_and_echoes_nothing(raw: Raw, method: str) -> None:
    response = raw.answer(raw.head(f"{method} /api/tasks HTTP/1.1", "X-Secret: marker"))
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST, OPTIONS")
    assert "marker" not in response.text
    assert bool(response.content) == (method != "HEAD")


# Headers


@pytest.mark.parametrize(
    "field",
    [
        "X: a\r\n b",  # a folded line
        "X: a\rY: b",
        "X: a\0b",
        "nocolon",
        ": nameless",
        "X Y: z",
        "Content-Length: +14",
        "Content-Length: 0xe",
        "Content-Length: 14, 14",
        "Content-Length: 99999999999999999999999",
        "Content-Length: 14\r\nContent-Length: 14",
        "Content-Length: 14\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 14",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, identity",
    ],
)
def test_a_header_that_two_readers_would_read_differently_is_answered_with_a_problem(raw: Raw, field: str) -> None:
    assert problem(raw.send(raw.head("POST /api/tasks HTTP/1.1", JSON, field) + VALID)) == NOT_HTTP


def test_lines_that_end_in_a_line_feed_alone_are_answered_with_a_problem(raw: Raw) -> None:
    assert problem(raw.send(raw.head("GET /health HTTP/1.1").replace(b"\r\n", b"\n"))) == NOT_HTTP


@pytest.mark.parametrize("path", ["/api/tasks", "/health", "/docs", "/nothing"])
@pytest.mark.parametrize("name", ["Host", "Authorization", "Content-Type"])
def test_a_header_that_has_one_value_is_refused_twice(raw: Raw, path: str, name: str) -> None:
    own = [] if name in ("Host", "Authorization") else [f"{name}: x"]
    response = raw.answer(raw.head(f"GET {path} HTTP/1.1", *own, f"{name.lower()}: x"))
    assert_bad(response, "header", f"/{name}", "is given more than once")


@pytest.mark.parametrize("second", ["application/json", "text/plain"])
def test_a_body_with_two_media_types_is_refused(raw: Raw, alice: Client, second: str) -> None:
    fields = (JSON, f"Content-Type: {second}", f"Content-Length: {len(VALID)}")
    response = raw.answer(raw.head("POST /api/tasks HTTP/1.1", *fields) + VALID)
    assert_bad(response, "header", "/Content-Type", "is given more than once")
    assert alice.titles() == []


def test_a_request_without_a_host_is_refused(raw: Raw) -> None:
    assert_bad(raw.answer(raw.head("GET /health HTTP/1.1", host="")), "header", "/Host", "is missing")


def test_five_thousand_small_headers_are_too_many(raw: Raw) -> None:
    assert problem(raw.send(raw.head("GET /health HTTP/1.1", *["a: b"] * 5000))) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "field", ["Cookie: \xff\xfe; =", "Origin: \xff", "X-Request-Id: \xff", "Accept: \xff/\xff;q=x", "Range: \xff"]
)
def test_bytes_that_are_no_text_in_a_header_do_no_harm(raw: Raw, field: str) -> None:
    assert raw.answer(raw.head("GET /api/tasks HTTP/1.1", field)).json() == []


@pytest.mark.parametrize("scheme", ["wss", "ws", "https", "javascript", "http, https"])
def test_whatever_scheme_a_proxy_names_the_request_is_served(raw: Raw, scheme: str) -> None:
    assert raw.answer(raw.head("GET /api/tasks HTTP/1.1", f"X-Forwarded-Proto: {scheme}")).json() == []


@pytest.mark.parametrize("value", ["bytes=9999999-", "nonsense", "bytes=0-0,2-3", "bytes=-", "bytes=5-1", "", "\xff"])
@pytest.mark.parametrize("path", ["/docs", "/docs/assets/swagger-ui.css", "/docs/initializer.js"])
def test_a_file_is_sent_whole_whatever_range_is_asked_for(raw: Raw, anonymous: Client, path: str, value: str) -> None:
    response = raw.answer(raw.head(f"GET {path} HTTP/1.1", f"Range: {value}", "If-Range: \xff"))
    assert (response.status_code, response.content) == (200, anonymous.get(path).content)


@pytest.mark.parametrize(
    "field",
    ["If-Modified-Since: Mon, 99 Foo 99999999999999999999 99:99:99 GMT", 'If-None-Match: \xff,,,W/"', "If-Match: x"],
)
def test_a_senseless_condition_on_a_file_does_not_count(raw: Raw, field: str) -> None:
    assert raw.answer(raw.head("GET /docs/assets/swagger-ui.css HTTP/1.1", field)).status_code == 200


# Bodies on the wire


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n",
        b"-1\r\n",
        b"0xe\r\n" + CHUNKS[3:],
        b"ffffffffffffffff1\r\n",
        b"5\r\n" + CHUNKS[3:],
        b"e\n" + CHUNKS[3:],
        CHUNKS[:-2] + b"Content-Length: 3\r\n\r\n",
    ],
)
def test_broken_chunks_are_answered_with_a_problem(raw: Raw, alice: Client, chunks: bytes) -> None:
    assert problem(raw.send(raw.head("POST /api/tasks HTTP/1.1", JSON, CHUNKED) + chunks)) == NOT_HTTP
    assert alice.titles() == []


def test_broken_chunks_of_a_request_that_waits_for_another_answer_are_refused_after_it(
    raw: Raw, alice: Client, database_url: str
) -> None:
    first = raw.head("GET /api/tasks HTTP/1.1").replace(b"Connection: close\r\n", b"")
    broken = raw.head("POST /api/tasks HTTP/1.1", JSON, CHUNKED) + b"zz\r\n"
    alice.create("there")
    with psycopg.connect(make_conninfo(database_url, user="postgres")) as holder, connect(raw.server) as connection:
        holder.execute("LOCK TABLE tasks")
        connection.sendall(first + broken)
        answers = everything(connection)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answers) == [b"503", b"400"]
    assert problem(answers) == NOT_HTTP


@pytest.mark.parametrize("coding", ["gzip, chunked", "Chunked, chunked", "deflate,chunked"])
def test_another_transfer_coding_is_refused(raw: Raw, coding: str) -> None:
    response = raw.answer(raw.head("POST /api/tasks HTTP/1.1", JSON, f"Transfer-Encoding: {coding}") + CHUNKS)
    assert response.status_code == 400
    if response.json().get("errors"):  # else the parser's
        assert_bad(response, "header", "/Transfer-Encoding", "must be chunked")


@pytest.mark.parametrize("coding", ["identity", "xchunked", "gzip"])
def test_a_body_without_an_end_is_refused(raw: Raw, coding: str) -> None:
    assert problem(raw.send(raw.head("POST /api/tasks HTTP/1.1", JSON, f"Transfer-Encoding: {coding}") + CHUNKS)) == (
        NOT_HTTP
    )


def test_headers_behind_the_body_are_none(raw: Raw, alice: Client, bob: Client) -> None:
    trailers = f"Authorization: {bob.headers['authorization']}\r\nIdempotency-Key: \xff\r\n".encode("latin-1")
    request = raw.head("POST /api/tasks HTTP/1.1", JSON, CHUNKED) + CHUNKS[:-2] + trailers + b"\r\n"
    assert raw.answer(request).status_code == 201
    nameless = request.replace(raw.authorization.encode() + b"\r\n", b"")
    assert problem(raw.send(nameless)) == (401, "missing_token")
    assert (alice.titles(), bob.titles()) == (["x"], [])


@pytest.mark.parametrize(
    "request_",
    [
        "POST /api/tasks\r\nContent-Type: application/json\r\nContent-Length: 70000",
        "POST /nothing\r\nContent-Length: 14",
        "TRACE /api/tasks\r\nContent-Length: 14",
        "POST /docs\r\nContent-Length: 14",
    ],
)
def test_a_client_that_waits_to_be_told_to_go_on_is_refused_and_let_go(raw: Raw, request_: str) -> None:
    line, *fields = request_.split("\r\n")
    head = raw.head(f"{line} HTTP/1.1", "Expect: 100-continue", *fields).replace(b"Connection: close\r\n", b"")
    received = raw.send(head)  # which would not end if the server waited for the body
    assert b"100 Continue" not in received
    assert problem(received)[0] in (404, 405, 413)


def test_a_client_that_waits_to_be_told_to_go_on_is_told(raw: Raw) -> None:
    with connect(raw.server) as connection:
        fields = ("Expect: 100-continue", JSON, f"Content-Length: {len(VALID)}")
        connection.sendall(raw.head("POST /api/tasks HTTP/1.1", *fields))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(VALID)
        assert everything(connection).startswith(b"HTTP/1.1 201 Created")


def test_requests_in_a_row_are_answered_in_their_order(raw: Raw) -> None:
    bad = raw.head("POST /api/tasks HTTP/1.1", JSON, "Content-Length: 2") + b"{}"
    requests = [bad, raw.head("GET /nothing HTTP/1.1"), raw.head("GET /health HTTP/1.1")]
    open_ones = [request.replace(b"Connection: close\r\n", b"") for request in requests[:-1]]
    received = raw.send(b"".join([*open_ones, requests[-1]]))
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"400", b"404", b"200"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/tasks"), ("GET", TASK), ("DELETE", TASK), ("GET", "/api/me"), ("GET", "/health"), ("GET", "/ready")],
)
def test_a_large_body_that_no_operation_reads_is_too_large_too(alice: Client, method: str, path: str) -> None:
    response = alice.request(method, path, content=b"x" * 65537)
    assert_problem(response, 413, "content_too_large", "The request body is larger than 65536 bytes.")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "x", "gzip, identity", ""])
@pytest.mark.parametrize("is_encoded", [True, False])
def test_an_encoded_body_is_not_decoded(alice: Client, coding: str, is_encoded: bool) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    response = alice.post("/api/tasks", content=gzip.compress(VALID) if is_encoded else VALID, headers=headers)
    detail = "Send the body as it is, without a content encoding."
    assert_problem(response, 415, "unsupported_media_type", detail)


def test_a_body_that_says_that_it_is_not_encoded_is_read(alice: Client) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "Identity"}
    assert alice.post("/api/tasks", content=VALID, headers=headers).status_code == 201


# Bodies as JSON

NOT_UTF_8 = "is not UTF-8, or has half of a surrogate pair"


@pytest.mark.parametrize(
    ("content", "pointer", "detail"),
    [
        ('{"title": "x"}'.encode("utf-16"), "", NOT_UTF_8),
        ('{"title": "x"}'.encode("utf-32"), "", NOT_UTF_8),
        ('{"title": "é"}'.encode("latin-1"), "", NOT_UTF_8),
        (b'{"title": "\xc0\x80"}', "", NOT_UTF_8),
        (b'{"title": "\xed\xa0\x80"}', "", NOT_UTF_8),
        (b'{"\\ud800": 1}', "", NOT_UTF_8),
        (b"\xef\xbb\xbf" + VALID, "", "is not JSON: Unexpected UTF-8 BOM (decode using utf-8-sig) at line 1, column 1"),
        (VALID + b"\0", "", "is not JSON: Extra data at line 1, column 15"),
        (b'{"title": "x", "a": {"b": 1, "b": 2}}', "", "has the name 'b' more than once in one object"),
        (b'{"title": "x", "a": [{"\\u0062": 1, "b": 2}]}', "", "has the name 'b' more than once in one object"),
        (b'{"title": "x", "' + b"k" * 300 + b'": 1}', "/" + "k" * 100, "is not known here"),
        (b'{"title": "x", "\\u0000": 1}', "/\0", "is not known here"),
        (b'{"title": "x", "": 1}', "/", "is not known here"),
        (b'{"title": "x", "__proto__": {"x": 1}}', "/__proto__", "is not known here"),
        (b'{"title": {"$ne": null}}', "/title", "must be string"),
        (b'{"title": -0}', "/title", "must be string"),
        (b'{"title": 1e-999999999}', "/title", "must be string"),
        (b'{"title": 0.' + b"1" * 5000 + b"}", "/title", "must be string"),
        (b'{"title": 1e' + b"9" * 1000 + b"}", "", "has a number that is too large"),
        (b'{"title": -' + b"9" * 5000 + b"}", "", "has a number of more than 30 digits"),
        (b'{"title": "x", "completed": 1}', "/completed", "must be boolean"),
        (b'{"title": "x", "due_date": "' + b"9" * 60000 + b'"}', "/due_date", DATE_RULE),
        (b'{"title": "x", "a": ' + b"[" * 31 + b"]" * 31 + b"}", "/a", "is not known here"),
        (b'{"title": "x", "a": ' + b'{"a":' * 32 + b"1" + b"}" * 32 + b"}", "", "is nested more than 32 levels deep"),
    ],
)  # fmt: skip
def test_hostile_json_is_refused_at_its_place(alice: Client, content: bytes, pointer: str, detail: str) -> None:
    response = alice.post("/api/tasks", content=content, headers={"Content-Type": "application/json"})
    assert_bad(response, "body", pointer, detail)
    assert alice.titles() == []


@pytest.mark.parametrize(
    "content",
    [
        b"{'title': 'x'}",
        b'{"title": "x",}',
        b'{"title": "x"} // x',
        b'/**/ {"title": "x"}',
        b'{"title": 01}',
        b'{"title": .5}',
        b'{"title": +1}',
        b'{"title": 0x1}',
        b'{"title": tru}',
        b'{"title": "\\x41"}',
        b'{title: "x"}',
        b"\0",
        b" ",
        b'"' * 60001,
        b'"\\' * 30000,
    ],
)
def test_what_only_some_take_for_json_is_refused(alice: Client, content: bytes) -> None:
    response = alice.post("/api/tasks", content=content, headers={"Content-Type": "application/json"})
    (error,) = response.json()["errors"]
    assert (response.status_code, error["in"], error["pointer"]) == (400, "body", "")
    assert error["detail"].startswith("is not JSON: ")
    assert len(response.content) < 500


def test_a_body_with_thousands_of_faults_has_a_short_answer(alice: Client) -> None:
    faults = {f"{number}-{'n' * 200}": number for number in range(250)}
    response = alice.post("/api/tasks", json=faults)
    assert (response.status_code, len(response.json()["errors"])) == (400, 20)
    assert len(response.content) < 20 * 200
    assert max(map(len, re.findall("n+", response.text))) <= 100


# Parameters


@pytest.mark.parametrize(
    ("query", "pointer", "detail"),
    [
        ("limit=5%0a", "/limit", "must be integer"),
        ("limit=0x5", "/limit", "must be integer"),
        ("limit=1e1", "/limit", "must be integer"),
        ("limit=-0", "/limit", "is less than the minimum of 1"),
        ("q&" * 4000, "/q", "is given more than once"),
        ("x" * 8000 + "=1", "/" + "x" * 100, "is not known here"),
        ("status[]=all", "/status[]", "is not known here"),
        ("=", "/", "is not known here"),
        ("q=%ed%a0%80", "", "is not percent-encoded UTF-8"),
        ("q=%c0%80", "", "is not percent-encoded UTF-8"),
        ("due_from=9999-12-31T23:59:59-12:00", "/due_from", DATE_RULE),
    ],
)  # fmt: skip
def test_a_hostile_parameter_is_refused_at_its_place(raw: Raw, query: str, pointer: str, detail: str) -> None:
    assert_bad(raw.answer(raw.head(f"GET /api/tasks?{query} HTTP/1.1")), "query", pointer, detail)


@pytest.mark.load
def test_a_thousand_unknown_parameters_have_a_short_answer(alice: Client) -> None:
    response = alice.get("/api/tasks?" + "&".join(f"p{number}=1" for number in range(800)))
    assert (response.status_code, len(response.json()["errors"])) == (400, 20)
