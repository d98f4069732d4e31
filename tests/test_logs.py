"""Logs and request ids: one line a request, an id on every answer, and nothing that a user wrote or keeps secret."""

import asyncio
import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from starlette.responses import Response

from models import schema
from openapi.contract import Contract
from openapi.middleware import access_log as access
from openapi.middleware.request_context import RequestContext
from postgres.database import Database
from settings.settings import Settings
from tests.support.client import Client, Conformance, assert_problem
from tests.support.hosts import HOSTS
from tests.support.server import SECRET, ServerProcess, sign

LINE = re.compile(
    r"(?P<method>\S+) (?P<template>\S+) (?P<status>\d+) (?P<duration>\d+\.\d)ms user=(?P<user>.+) request=(?P<id>\S+)"
)
TASK = "/api/tasks/8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11"  # which nobody has
SECONDS = 10  # to wait for a line, which comes after the answer


class AccessLog(logging.Handler):
    """Receives the access lines of the servers in this process."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self._lines.append(record.getMessage())
            self._changed.notify_all()

    def lines(self, request_id: str) -> list[str]:
        """Wait for the line of a request, and return it with all others of the same request."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._of(request_id), SECONDS), f"no line of request {request_id}"
            return self._of(request_id)

    def _of(self, request_id: str) -> list[str]:
        return [line for line in self._lines if line.endswith(f" request={request_id}")]

    def line(self, response: httpx.Response) -> dict[str, str]:
        """Wait for the line of the request that was answered so, and return its parts."""
        (line,) = self.lines(response.headers["x-request-id"])
        match = LINE.fullmatch(line)
        assert match, line
        return match.groupdict()

    def parts(self, response: httpx.Response) -> tuple[str, str, str]:
        """Return method, path template and status of the line of a request."""
        line = self.line(response)
        return line["method"], line["template"], line["status"]


@pytest.fixture
def access_log() -> Iterator[AccessLog]:
    """What the requests of this test leave in the access log."""
    logger, handler = logging.getLogger("tasks_api.access"), AccessLog()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)


# The access line


@pytest.mark.parametrize(
    ("method", "path", "template", "status"),
    [
        ("GET", "/api/tasks?status=pending", "/api/tasks", "200"),
        ("POST", "/api/tasks", "/api/tasks", "400"),
        ("GET", TASK, "/api/tasks/{id}", "404"),
        ("PUT", TASK, "/api/tasks/{id}", "400"),
        ("DELETE", TASK, "/api/tasks/{id}", "404"),
        ("PATCH", f"{TASK}/complete", "/api/tasks/{id}/complete", "404"),
        ("GET", "/health", "/health", "200"),
        ("GET", "/ready", "/ready", "200"),
        ("GET", "/docs", "-", "200"),
        ("GET", "/nothing/1", "-", "404"),
    ],
)
def test_the_access_line_has_method_path_template_and_status(
    alice: Client, access_log: AccessLog, method: str, path: str, template: str, status: str
) -> None:
    response = alice.request(method, path)
    assert access_log.parts(response) == (method, template, status)


@pytest.mark.parametrize(
    ("method", "status", "options"),
    [
        ("DELETE", "405", {}),
        ("POST", "413", {"content": b" " * 70_000, "headers": {"Content-Type": "application/json"}}),
        ("POST", "415", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
        ("OPTIONS", "204", {}),
    ],
)
def test_a_request_that_reaches_no_handler_has_its_path_template_too(
    alice: Client, access_log: AccessLog, method: str, status: str, options: dict[str, Any]
) -> None:
    response = alice.request(method, "/api/tasks", **options)
    assert access_log.parts(response) == (method, "/api/tasks", status)


def test_a_refused_token_has_its_path_template_too(anonymous: Client, access_log: AccessLog) -> None:
    response = anonymous.get(TASK, headers={"Authorization": "Bearer x"})
    assert access_log.parts(response) == ("GET", "/api/tasks/{id}", "401")


def test_every_request_has_one_line(alice: Client, access_log: AccessLog) -> None:
    paths = ["/api/tasks", "/nothing", "/docs", "/health", "/api/tasks/x", "/api/tasks"]
    ids = [alice.get(path).headers["x-request-id"] for path in paths]
    assert [len(access_log.lines(request_id)) for request_id in ids] == [1] * len(ids)


@pytest.mark.parametrize("path", ["/api/tasks", TASK, "/api/tasks?status=x"])
def test_the_access_line_has_the_user_of_the_token(alice: Client, access_log: AccessLog, path: str) -> None:
    assert access_log.line(alice.get(path))["user"] == repr(alice.user)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}])
def test_the_access_line_of_an_unknown_caller_has_no_user(
    anonymous: Client, access_log: AccessLog, headers: dict[str, str]
) -> None:
    assert access_log.line(anonymous.get("/api/tasks", headers=headers))["user"] == "None"


def test_a_user_id_with_line_breaks_stays_on_one_line(
    make_client: Callable[..., Client], access_log: AccessLog
) -> None:
    client = make_client("x\r\n\u2028GET /api/tasks 200 0.1ms user='root'")
    line = access_log.line(client.get("/api/tasks"))
    assert (line["method"], line["status"]) == ("GET", "200")
    assert line["user"].splitlines() == [line["user"]]


def test_the_duration_covers_the_request(alice: Client, access_log: AccessLog) -> None:
    response = alice.get("/api/tasks")
    assert 0 < float(access_log.line(response)["duration"]) <= response.elapsed.total_seconds() * 1000 + 100


# The request id


@pytest.mark.parametrize("request_id", ["a", "x" * 64, "0b9f5a1c-2d3e-4f60-8e4c-9a0e3f5b4c86", "A.b_c-1"])
def test_a_sane_request_id_is_kept(anonymous: Client, request_id: str) -> None:
    response = anonymous.get("/health", headers={"X-Request-Id": request_id})
    assert response.headers["x-request-id"] == request_id


@pytest.mark.parametrize(
    "request_id",
    [
        b"",
        b"x" * 65,
        b"x" * 10_000,
        b"two words",
        b"tab\there",
        "é".encode(),
        "é".encode("latin-1"),
        b"a%0d%0ab",
        b"a;b",
        b"<script>",
        b"'--",
        b"a,b",
    ],
)
def test_an_insane_request_id_is_replaced(anonymous: Client, access_log: AccessLog, request_id: bytes) -> None:
    response = anonymous.get("/health", headers={b"X-Request-Id": request_id})
    assert re.fullmatch(r"[0-9a-f]{16}", response.headers["x-request-id"])
    assert access_log.line(response)["id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("request_id", [b"a\r\nb", b"a\n", b"a\rb", b"a\0b", b"\x1b[31m", b"a\x85b"])
def test_a_request_id_with_control_characters_is_replaced(access_log: AccessLog, request_id: bytes) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    # Servers refuse most of these before; other servers may not.
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"x-request-id", request_id)],
        "extensions": {},
    }
    services: Any = None
    app = RequestContext(access.AccessLog(Response()), contract=Contract(), services=services)
    asyncio.run(app(scope, receive, send))
    answered = dict(sent[0]["headers"])[b"x-request-id"].decode()
    assert re.fullmatch(r"[0-9a-f]{16}", answered)
    assert len(access_log.lines(answered)) == 1


def test_requests_without_an_id_get_different_ones(anonymous: Client) -> None:
    ids = {anonymous.get("/health").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/tasks", 200),
        ("GET", TASK, 404),
        ("GET", "/api/tasks/x", 400),
        ("POST", "/api/tasks", 400),
        ("GET", "/nothing", 404),
        ("DELETE", "/api/tasks", 405),
        ("OPTIONS", "/api/tasks", 204),
        ("GET", "/docs", 200),
        ("GET", "/docs/nothing", 404),
        ("GET", "/docs/", 307),
        ("POST", "/docs", 405),
        ("GET", "/openapi.json", 200),
    ],
)
def test_the_request_id_is_on_every_answer(alice: Client, method: str, path: str, status: int) -> None:
    response = alice.request(method, path, headers={"X-Request-Id": "the-id"})
    assert (response.status_code, response.headers.get_list("x-request-id")) == (status, ["the-id"])


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://evil.example"])
def test_the_request_id_is_on_preflights(anonymous: Client, access_log: AccessLog, origin: str) -> None:
    request_id = f"preflight-{secrets.token_hex(4)}"
    asked = {"Origin": origin, "Access-Control-Request-Method": "PUT", "X-Request-Id": request_id}
    response = anonymous.options(TASK, headers=asked)
    assert response.headers["x-request-id"] == request_id
    line = access_log.line(response)
    assert (line["method"], line["status"]) == ("OPTIONS", "204")


def test_the_request_id_is_in_the_problem(anonymous: Client) -> None:
    response = anonymous.get("/api/tasks", headers={"X-Request-Id": "the-id"})
    assert_problem(response, 401, "missing_token", "Send a token: Authorization: Bearer <JWT>.")
    assert response.json()["request_id"] == "the-id"


# What no log may have


@pytest.mark.parametrize("framework", HOSTS)
@pytest.mark.parametrize("level", ["info", "debug"])
def test_no_log_has_a_token_a_secret_or_what_users_write(
    database_url: str, conformance: Conformance, tmp_path: Path, level: str, framework: str
) -> None:
    settings = Settings.load({"BETTER_AUTH_SECRET": SECRET})
    good = sign(settings, sub="logged-user", email="email@marker.example", name="name-marker")
    refused = [
        sign(Settings.load({"BETTER_AUTH_SECRET": "another-secret-that-is-long-enough"}), sub="subject-marker"),
        sign(settings, -60, sub="subject-marker"),
        sign(settings, sub="subject-marker", aud="audience-marker"),
        "not-a-token-marker",
    ]
    answers: list[int] = []
    with ServerProcess(
        directory=tmp_path,
        DATABASE_URL=f"{database_url} password=password-marker",
        BETTER_AUTH_SECRET=SECRET,
        LOG_LEVEL=level,
        SERVER_FRAMEWORK=framework,
    ) as server:
        for token in [good, *refused]:
            with Client(server.url, conformance, token=token) as client:
                answers.extend(response.status_code for response in _session(client))
    log = server.log.read_text()
    markers = ["marker", SECRET, "another-secret", *(part for token in [good, *refused] for part in token.split("."))]
    assert {marker for marker in markers if marker in log} == set()
    assert sorted(set(answers)) == [200, 201, 204, 400, 401, 404, 405, 413, 415]
    assert len(re.findall(r"tasks_api\.access \S+ (?!/health ).* request=", log)) == len(answers)


def _session(client: Client) -> Iterator[httpx.Response]:
    """Send good and bad requests that have a marker in every part that a user writes."""
    fields = {"title": "title-marker", "description": "description-marker"}
    created = client.post("/api/tasks", json=fields)
    yield created
    task = created.headers.get("location", TASK)
    yield client.get("/api/tasks")
    yield client.get(task)
    yield client.put(task, json=fields)
    yield client.put(task, json={"title": "title-marker" * 100, "field-marker": "value-marker"})
    yield client.put(task, content=b'{"title": "body-marker', headers={"Content-Type": "application/json"})
    yield client.patch(f"{task}/complete", json={"completed": "completed-marker"})
    yield client.delete(task)
    yield client.get(task)
    yield client.post("/api/tasks", content=b"body-marker" * 10_000, headers={"Content-Type": "application/json"})
    yield client.post("/api/tasks", content=b"body-marker", headers={"Content-Type": "text/plain"})
    yield client.get("/api/tasks", params={"status": "status-marker", "parameter-marker": "x"})
    yield client.get("/api/tasks/id-marker")
    yield client.get("/path-marker", headers={"X-Request-Id": "id marker", "Cookie": "cookie-marker"})
    yield client.patch("/api/tasks?query-marker")
    yield client.get("/docs/file-marker")


def test_no_log_has_what_a_user_wrote_when_the_database_refuses_it(
    empty_database_url: str, conformance: Conformance, tmp_path: Path
) -> None:
    database = Database(empty_database_url)
    schema.migrate(database)
    database.dispose()
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("ALTER TABLE tasks ADD CONSTRAINT ck_tasks_broken CHECK (priority IS NULL)")
    token = sign(Settings.load({"BETTER_AUTH_SECRET": SECRET}), sub="user", email="email@marker.example")
    environment = {"DATABASE_URL": empty_database_url, "BETTER_AUTH_SECRET": SECRET}
    with (
        ServerProcess(directory=tmp_path, **environment) as server,
        Client(server.url, conformance, token=token) as client,
    ):
        response = client.post("/api/tasks", json={"title": "title-marker", "priority": "low"})
        assert_problem(
            response,
            500,
            "internal_error",
            "The server failed to answer. The fault is in its log under this request's id.",
        )
    log = server.log.read_text()
    assert f"request {response.headers['x-request-id']} failed" in log
    assert "ck_tasks_broken" in log
    assert re.findall(r"\S*marker\S*", log) == []
