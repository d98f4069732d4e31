"""Calls from frontends on other origins, as a browser would judge the headers (FR-021)."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from openapi.contract import Contract
from tests.support.client import Client

ORIGIN = "http://localhost:3000"
OTHER_ORIGIN = "http://localhost:3001"
FOREIGN_ORIGINS = [
    "https://evil.example",
    "null",
    "https://localhost:3000",
    "http://localhost",
    "http://localhost:30000",
    "http://localhost:3000.evil.example",
    "http://evil.example/?http://localhost:3000",
]
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
TASK = "/api/tasks/8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11"  # which nobody has
OPERATIONS = [
    ("GET", "/api/tasks"),
    ("POST", "/api/tasks"),
    ("GET", TASK),
    ("PUT", TASK),
    ("DELETE", TASK),
    ("PATCH", f"{TASK}/complete"),
    ("GET", "/health"),
    ("GET", "/ready"),
]
# Every script may read these and send those without being told (https://fetch.spec.whatwg.org).
ALWAYS_READABLE = {
    "cache-control",
    "content-language",
    "content-length",
    "content-type",
    "expires",
    "last-modified",
    "pragma",
}
OF_THE_CONNECTION = {"connection", "content-encoding", "date", "keep-alive", "transfer-encoding", "vary"}
# For the browser itself, no script needs to read them.
OF_THE_BROWSER = {"content-security-policy", "referrer-policy", "x-content-type-options", "x-frame-options"}


def preflight(client: Client, path: str, method: str, *headers: str, origin: str = ORIGIN) -> httpx.Response:
    """Ask as a browser asks before a request that is not simple."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        asked["Access-Control-Request-Headers"] = ",".join(sorted(name.lower() for name in headers))
    return client.options(path, headers=asked)


def names(value: str) -> set[str]:
    """Return the header or method names in a list."""
    return {name.strip().lower() for name in value.split(",")}


def declared_headers(node: Any) -> Iterator[str]:
    """Yield the name of every header of an answer in the contract."""
    if isinstance(node, dict):
        if "description" in node and isinstance(node.get("headers"), dict):
            yield from node["headers"]
        for value in node.values():
            yield from declared_headers(value)


def read_headers() -> set[str]:
    """Return the name of every header that the contract has the API read."""
    parameters = Contract().document["components"]["parameters"].values()
    return {one["name"] for one in parameters if one["in"] == "header"} | {
        "Authorization",
        "Content-Type",
        "X-Request-Id",
    }


ERRORS: list[tuple[int, str, str, dict[str, Any]]] = [
    (400, "POST", "/api/tasks", {"json": {}}),
    (400, "GET", "/api/tasks?status=x", {}),
    (401, "GET", "/api/tasks", {"headers": {"Authorization": "Bearer x"}}),
    (404, "GET", TASK, {}),
    (404, "GET", "/nothing", {}),
    (404, "GET", "/docs/nothing", {}),
    (405, "POST", TASK, {}),
    (405, "POST", "/docs", {}),
    (413, "POST", "/api/tasks", {"content": b" " * 70_000, "headers": {"Content-Type": "application/json"}}),
    (415, "POST", "/api/tasks", {"content": b"<a/>", "headers": {"Content-Type": "text/xml"}}),
]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_preflight_needs_no_token(anonymous: Client, method: str, path: str) -> None:
    response = preflight(anonymous, path, method, "Authorization", "Content-Type")
    assert (response.status_code, response.content) == (204, b"")
    assert "content-type" not in response.headers


@pytest.mark.parametrize("origin", [ORIGIN, OTHER_ORIGIN])
def test_a_preflight_allows_the_origin_that_asks(anonymous: Client, origin: str) -> None:
    response = preflight(anonymous, "/api/tasks", "POST", origin=origin)
    assert response.headers["access-control-allow-origin"] == origin


def test_a_preflight_allows_credentials(anonymous: Client) -> None:
    assert preflight(anonymous, "/api/tasks", "POST").headers["access-control-allow-credentials"] == "true"


def test_a_preflight_allows_every_method(anonymous: Client) -> None:
    response = preflight(anonymous, "/api/tasks", "POST")
    assert names(response.headers["access-control-allow-methods"]) >= {method.lower() for method in METHODS}


@pytest.mark.parametrize("header", sorted(read_headers()))
def test_a_preflight_allows_every_header_that_the_api_reads(anonymous: Client, header: str) -> None:
    response = preflight(anonymous, "/api/tasks", "POST", header)
    assert header.lower() in names(response.headers["access-control-allow-headers"])
    assert response.headers["access-control-allow-origin"] == ORIGIN


def test_a_preflight_allows_all_headers_at_once(anonymous: Client) -> None:
    response = preflight(anonymous, "/api/tasks", "POST", *read_headers())
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert names(response.headers["access-control-allow-headers"]) >= {name.lower() for name in read_headers()}


def test_a_preflight_does_not_allow_a_header_that_the_api_does_not_read(anonymous: Client) -> None:
    response = preflight(anonymous, "/api/tasks", "POST", "X-Other")
    assert response.status_code == 204
    assert "access-control-allow-origin" not in response.headers
    assert "x-other" not in names(response.headers["access-control-allow-headers"])


def test_a_preflight_does_not_allow_a_method_that_the_api_does_not_have(anonymous: Client) -> None:
    response = preflight(anonymous, "/api/tasks", "TRACE")
    assert response.status_code == 204
    assert "access-control-allow-origin" not in response.headers


def test_a_preflight_carries_the_request_id(anonymous: Client) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "X-Request-Id": "preflight-1"}
    assert anonymous.options("/api/tasks", headers=asked).headers["x-request-id"] == "preflight-1"


def test_a_preflight_without_a_request_id_gets_one(anonymous: Client) -> None:
    assert preflight(anonymous, "/api/tasks", "POST").headers["x-request-id"]


def test_options_without_an_origin_is_no_preflight(anonymous: Client) -> None:
    response = anonymous.options("/api/tasks")
    assert (response.status_code, response.headers["allow"]) == (204, "GET, POST, OPTIONS")


@pytest.mark.parametrize("origin", [ORIGIN, OTHER_ORIGIN])
def test_an_answer_can_be_read_on_an_allowed_origin(alice: Client, origin: str) -> None:
    response = alice.get("/api/tasks", headers={"Origin": origin})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == origin
    assert response.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize(("status", "method", "path", "options"), ERRORS)
def test_an_error_can_be_read_on_an_allowed_origin(
    alice: Client, status: int, method: str, path: str, options: dict[str, Any]
) -> None:
    headers = {"Origin": ORIGIN, **options.get("headers", {})}
    response = alice.request(method, path, **{**options, "headers": headers})
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert response.headers["access-control-allow-credentials"] == "true"
    assert "x-request-id" in names(response.headers["access-control-expose-headers"])


def test_a_missing_token_can_be_read_on_an_allowed_origin(anonymous: Client) -> None:
    response = anonymous.get("/api/tasks", headers={"Origin": ORIGIN})
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (401, ORIGIN)


def test_another_users_task_can_be_told_on_an_allowed_origin(alice: Client, bob: Client) -> None:
    response = bob.get(f"/api/tasks/{alice.create()['id']}", headers={"Origin": ORIGIN})
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (403, ORIGIN)


def test_every_header_that_the_contract_has_the_api_set_is_exposed(alice: Client) -> None:
    exposed = names(alice.get("/api/tasks", headers={"Origin": ORIGIN}).headers["access-control-expose-headers"])
    declared = {name.lower() for name in declared_headers(Contract().document)}
    assert declared >= {"location", "retry-after", "www-authenticate", "x-request-id"}
    assert exposed == declared | {"allow"}


def test_every_header_that_is_really_set_is_exposed(alice: Client) -> None:
    origin = {"Origin": ORIGIN}
    answers = [alice.post("/api/tasks", json={"title": "x"}, headers=origin)]
    task = answers[0].headers["location"]
    answers += [
        alice.get("/api/tasks", headers=origin),
        alice.get(task, headers=origin),
        alice.put(task, json={"title": "y"}, headers=origin),
        alice.patch(f"{task}/complete", headers=origin),
        alice.delete(task, headers=origin),
        alice.options(task, headers=origin),
    ]
    for _, method, path, options in ERRORS:
        answers.append(alice.request(method, path, **{**options, "headers": origin | options.get("headers", {})}))
    unreadable = {
        (answer.request.method, answer.request.url.path, answer.status_code, name)
        for answer in answers
        for name in set(answer.headers) - ALWAYS_READABLE - OF_THE_CONNECTION - OF_THE_BROWSER
        if not name.startswith("access-control-") and name not in names(answer.headers["access-control-expose-headers"])
    }
    assert unreadable == set()


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_preflight_does_not_allow_another_origin(anonymous: Client, origin: str) -> None:
    response = preflight(anonymous, "/api/tasks", "POST", "Authorization", origin=origin)
    assert response.status_code == 204
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_an_answer_cannot_be_read_on_another_origin(alice: Client, origin: str) -> None:
    response = alice.get("/api/tasks", headers={"Origin": origin})
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(("status", "method", "path", "options"), ERRORS)
def test_an_error_cannot_be_read_on_another_origin(
    alice: Client, status: int, method: str, path: str, options: dict[str, Any]
) -> None:
    headers = {"Origin": "https://evil.example", **options.get("headers", {})}
    response = alice.request(method, path, **{**options, "headers": headers})
    assert response.status_code == status
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("origin", [ORIGIN, "https://evil.example", "null", "*"])
def test_no_answer_has_a_wildcard(alice: Client, origin: str) -> None:
    answers = [
        alice.get("/api/tasks", headers={"Origin": origin}),
        alice.get("/nothing", headers={"Origin": origin}),
        alice.get("/openapi.json", headers={"Origin": origin}),
        preflight(alice, "/api/tasks", "POST", "Authorization", origin=origin),
    ]
    assert [
        (name, value)
        for answer in answers
        for name, value in answer.headers.items()
        if name.startswith("access-control-") and "*" in value
    ] == []


def test_caches_are_told_that_an_answer_depends_on_the_origin(alice: Client) -> None:
    answers = [alice.get("/api/tasks", headers={"Origin": ORIGIN}), preflight(alice, "/api/tasks", "POST")]
    assert [names(answer.headers["vary"]) >= {"origin"} for answer in answers] == [True, True]
