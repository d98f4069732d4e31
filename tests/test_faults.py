"""A fault of the server is a 500 that tells nothing of its inside, and stores nothing."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from postgres.database import Database
from settings.settings import Settings
from tests.support.client import Client, Conformance, assert_problem
from tests.support.hosts import HOSTS
from tests.support.server import Server

DETAIL = "The server failed to answer. The fault is in its log under this request's id."


@pytest.fixture(params=HOSTS)
def broken(
    request: pytest.FixtureRequest,
    make_settings: Callable[..., Settings],
    conformance: Conformance,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Client]:
    """A client of a server whose database layer has a fault."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(Database, "rows", fail)
    monkeypatch.setattr("models.schema.check", fail)
    with (
        Server(make_settings(server_framework=request.param)) as server,
        Client(server.url, conformance, token=server.token(sub="broken")) as client,
    ):
        yield client


IDENTIFIER = "8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/tasks"),
        ("POST", "/api/tasks"),
        ("GET", f"/api/tasks/{IDENTIFIER}"),
        ("PUT", f"/api/tasks/{IDENTIFIER}"),
        ("DELETE", f"/api/tasks/{IDENTIFIER}"),
        ("PATCH", f"/api/tasks/{IDENTIFIER}/complete"),
        ("GET", "/ready"),
    ],
)
def test_a_fault_is_a_500_that_is_explained_in_the_log_only(
    broken: Client, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    body: dict[str, Any] = {"json": {"title": "x"}} if method in ("POST", "PUT") else {}
    with caplog.at_level(logging.ERROR):
        response = broken.request(method, path, **body)
    assert_problem(response, 500, "internal_error", DETAIL)
    assert response.headers["x-request-id"] in caplog.text
    assert "a secret of the inside" in caplog.text


@pytest.mark.parametrize("answer", [{"status": "fine"}, {"status": "ok", "more": 1}, {}])
def test_an_answer_that_the_contract_does_not_have_is_noticed_by_the_tests_client(
    make_settings: Callable[..., Settings],
    conformance: Conformance,
    monkeypatch: pytest.MonkeyPatch,
    answer: dict[str, object],
) -> None:
    monkeypatch.setattr("handlers.health.health", lambda: answer)
    with (
        Server(make_settings()) as server,
        Client(server.url, conformance) as client,
        pytest.raises(AssertionError, match="GET /health 200"),
    ):
        client.get("/health")
