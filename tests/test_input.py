"""Bad input gets a clear 400 that says what was wrong and where, and stores nothing (FR-013, FR-017, FR-025)."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from openapi.contract import Contract
from settings.settings import Settings
from tests.support.client import Client, Conformance, assert_problem
from tests.support.problems import DATE_RULE
from tests.support.server import Server

VALID = {"title": "A task"}
TITLE_RULE = "must be text that is not only blanks and has no NUL character"


@pytest.mark.parametrize(
    ("change", "pointer", "detail"),
    [
        ({"title": ""}, "/title", "is shorter than 1 character"),
        ({"title": "   "}, "/title", TITLE_RULE),
        ({"title": "\t\n\u00a0"}, "/title", TITLE_RULE),
        ({"title": "\x85\x1c\x1f"}, "/title", TITLE_RULE),
        ({"title": "a\0b"}, "/title", TITLE_RULE),
        ({"title": "x" * 201}, "/title", "is longer than 200 characters"),
        ({"title": None}, "/title", "must be string"),
        ({"title": 1}, "/title", "must be string"),
        ({"description": "x" * 1001}, "/description", "is longer than 1000 characters"),
        ({"description": "\0"}, "/description", "must be text without a NUL character"),
        ({"description": []}, "/description", "must be string or null"),
        ({"completed": "true"}, "/completed", "must be boolean"),
        ({"completed": None}, "/completed", "must be boolean"),
        ({"priority": "urgent"}, "/priority", "must be one of: low, medium, high, null"),
        ({"priority": "High"}, "/priority", "must be one of: low, medium, high, null"),
        ({"due_date": "2026-12-01"}, "/due_date", DATE_RULE),
        ({"due_date": "2026-12-01T09:00:00"}, "/due_date", DATE_RULE),
        ({"due_date": "2026-12-01T09:00:00Z\n"}, "/due_date", DATE_RULE),
        ({"due_date": "2026-13-01T09:00:00Z"}, "/due_date", DATE_RULE),
        ({"due_date": "2026-12-01T09:00:00+01:60"}, "/due_date", DATE_RULE),
        ({"due_date": "2026-12-01T09:00:00+24:00"}, "/due_date", DATE_RULE),
        ({"due_date": "2026-02-29T09:00:00Z"}, "/due_date", DATE_RULE),
        ({"due_date": "2026-12-01 09:00:00Z"}, "/due_date", DATE_RULE),
        ({"due_date": "２０２６-12-01T09:00:00Z"}, "/due_date", DATE_RULE),
        ({"due_date": "0000-12-01T09:00:00Z"}, "/due_date", DATE_RULE),
        ({"due_date": "0001-01-01T00:00:00+00:01"}, "/due_date", DATE_RULE),
        ({"due_date": "9999-12-31T23:59:59-12:00"}, "/due_date", DATE_RULE),
        ({"due_date": 1}, "/due_date", "must be string or null"),
        ({"due": "2026-12-01T09:00:00Z"}, "/due", "is not known here"),
        ({"id": "8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11"}, "/id", "is not known here"),
        ({"user_id": "bob"}, "/user_id", "is not known here"),
        ({"a/b~c": 1}, "/a~1b~0c", "is not known here"),
        ({"~" * 120: 1}, "/" + "~0" * 50, "is not known here"),
        ({"x" + "/" * 120: 1}, "/x" + "~1" * 49, "is not known here"),
    ],
)
def test_a_field_that_breaks_a_rule_is_named(alice: Client, change: dict[str, Any], pointer: str, detail: str) -> None:
    task = alice.create()
    for response in (
        alice.post("/api/tasks", json=VALID | change),
        alice.put(f"/api/tasks/{task['id']}", json=VALID | change),
    ):
        assert response.status_code == 400
        assert {"in": "body", "pointer": pointer, "detail": detail} in response.json()["errors"]
    assert alice.get("/api/tasks").json() == [task]


def test_a_missing_title_is_named(alice: Client) -> None:
    assert_problem(
        alice.post("/api/tasks", json={}),
        400,
        "bad_request",
        "Invalid body: /title is missing.",
        ("body", "/title", "is missing"),
    )


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_change_needs_a_body(alice: Client, method: str) -> None:
    task = alice.create()
    response = alice.request(method, f"/api/tasks/{task['id']}", headers={"Content-Type": "application/json"})
    detail = "is not JSON: Expecting value at line 1, column 1"
    assert_problem(response, 400, "bad_request", f"Invalid body: it {detail}.", ("body", "", detail))


def test_everything_wrong_is_reported_at_once(alice: Client) -> None:
    errors = alice.post("/api/tasks", json={"completed": 1, "priority": 2, "x": 3}).json()["errors"]
    assert {error["pointer"] for error in errors} == {"/title", "/completed", "/priority", "/x"}


@pytest.mark.parametrize("body", [{}, {"completed": None}, {"completed": True, "title": "x"}, [], "true", None])
def test_completion_takes_nothing_but_completed(alice: Client, body: Any) -> None:
    task = alice.create()
    response = alice.patch(f"/api/tasks/{task['id']}/complete", content=json.dumps(body), headers=JSON)
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")
    assert alice.get("/api/tasks").json() == [task]


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"", "is not JSON: Expecting value at line 1, column 1"),
        (b"{", "is not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        (b'{"title": "a"} x', "is not JSON: Extra data at line 1, column 16"),
        (b'{"title": "a\nb"}', "is not JSON: Invalid control character at at line 1, column 13"),
        (b'{"title": "\xff"}', "is not UTF-8, or has half of a surrogate pair"),
        (b'{"title": "\\ud800"}', "is not UTF-8, or has half of a surrogate pair"),
        (b'{"title": "\\uDFFF\\uD800"}', "is not UTF-8, or has half of a surrogate pair"),
        (b'{"title": "a", "title": "b"}', "has the name 'title' more than once in one object"),
        (b'{"title": NaN}', "is not JSON: it has NaN or Infinity"),
        (b'{"title": -Infinity}', "is not JSON: it has NaN or Infinity"),
        (b'{"title": 1e400}', "has a number that is too large"),
        (b'{"title": ' + b"1" * 5000 + b"}", "has a number of more than 30 digits"),
        (b'{"title": ' + b"[" * 2000 + b"]" * 2000 + b"}", "is nested more than 32 levels deep"),
        (b"[" * 30000, "is nested more than 32 levels deep"),
    ],
)
def test_a_body_that_is_not_sound_json_is_refused(alice: Client, content: bytes, detail: str) -> None:
    response = alice.post("/api/tasks", content=content, headers=JSON)
    assert_problem(response, 400, "bad_request", f"Invalid body: it {detail}.", ("body", "", detail))
    assert alice.titles() == []


@pytest.mark.parametrize(
    ("inner", "at_the_bound", "over_it"),
    [
        ("[" * 31 + "]" * 31, "is not known here", None),
        ("[" * 32 + "]" * 32, None, "is nested more than 32 levels deep"),
        ("1" * 30, "is not known here", None),
        ("1" * 31, None, "has a number of more than 30 digits"),
        ("-" + "1" * 29, "is not known here", None),
    ],
)
def test_json_is_read_up_to_its_bounds_and_no_further(
    alice: Client, inner: str, at_the_bound: str | None, over_it: str | None
) -> None:
    response = alice.post("/api/tasks", content=f'{{"title": "x", "y": {inner}}}', headers=JSON)
    pointer, detail = ("/y", at_the_bound) if at_the_bound else ("", over_it)
    assert response.json()["errors"] == [{"in": "body", "pointer": pointer, "detail": detail}]


def test_a_surrogate_pair_is_one_character(alice: Client) -> None:
    response = alice.post("/api/tasks", content=b'{"title": "\\ud83d\\ude00"}', headers=JSON)
    assert response.json()["title"] == "😀"


@pytest.mark.parametrize("depth_in_a_string", ["[" * 150, '\\"' + "[" * 100 + "\\\\"])
def test_brackets_in_a_string_are_not_nesting(alice: Client, depth_in_a_string: str) -> None:
    content = f'{{"title": "{depth_in_a_string}"}}'.encode()
    assert alice.post("/api/tasks", content=content, headers=JSON).status_code == 201


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_json_is_taken_in_any_spelling_of_its_media_type(alice: Client, media_type: str) -> None:
    response = alice.post("/api/tasks", content=json.dumps(VALID), headers={"Content-Type": media_type})
    assert response.status_code == 201


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/jsonx",
        "application/merge-patch+json",
        "",
        "json",
        None,
    ],
)
def test_a_body_that_is_not_declared_as_json_is_refused(alice: Client, media_type: str | None) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    response = alice.post("/api/tasks", content=json.dumps(VALID).encode(), headers=headers)
    assert_problem(response, 415, "unsupported_media_type", "Send the body as application/json in UTF-8.")


def test_a_chunked_body_is_read_like_any_other(alice: Client) -> None:
    content = iter([b'{"title": ', b'"in two', b' parts"}'])
    assert alice.post("/api/tasks", content=content, headers=JSON).json()["title"] == "in two parts"


def test_a_chunked_body_is_checked_like_any_other(alice: Client) -> None:
    response = alice.post("/api/tasks", content=iter([b'{"title": ', b"1}"]), headers=JSON)
    assert response.json()["errors"] == [{"in": "body", "pointer": "/title", "detail": "must be string"}]


@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_body_over_64_kib_is_too_large(alice: Client, in_chunks: bool) -> None:
    content = b" " * (64 * 1024 + 1)
    response = alice.post("/api/tasks", content=iter([content]) if in_chunks else content, headers=JSON)
    assert_problem(response, 413, "content_too_large", "The request body is larger than 65536 bytes.")


def test_a_body_of_64_kib_is_read(alice: Client) -> None:
    content = json.dumps(VALID).encode()
    response = alice.post("/api/tasks", content=content.ljust(64 * 1024), headers=JSON)
    assert response.status_code == 201


def test_nothing_of_a_long_input_is_echoed(alice: Client) -> None:
    name, value = "n" * 5000, "v" * 5000
    response = alice.post("/api/tasks", json={"title": value, name: value})
    assert response.status_code == 400
    assert "v" * 10 not in response.text
    assert "n" * 101 not in response.text


def test_complete_without_a_body_does_not_mind_a_media_type(alice: Client) -> None:
    task = alice.create()
    for media_type in ("application/json", "text/plain"):
        response = alice.patch(f"/api/tasks/{task['id']}/complete", headers={"Content-Type": media_type})
        assert response.status_code == 200


@pytest.mark.parametrize("path", ["/", "/api", "/api/tasks/", "//api/tasks", "/api/tasks//", "/health/", "/API/tasks"])
def test_an_unknown_path_is_not_found(alice: Client, server: Any, path: str) -> None:
    response = alice.get(f"{server.url}{path}", follow_redirects=False)
    detail = "There is nothing at this path. The documentation is at /docs."
    assert_problem(response, 404, "path_not_found", detail)


@pytest.mark.parametrize("character", ["%00", "%0a", "%0d%0a", "%7f"])
def test_a_control_character_in_the_path_is_refused(alice: Client, character: str) -> None:
    response = alice.get(f"/api/tasks/{character}")
    detail = "has a control character"
    assert_problem(response, 400, "bad_request", f"Invalid path: it {detail}.", ("path", "", detail))


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/api/tasks", "GET, POST, OPTIONS"),
        ("HEAD", "/api/tasks", "GET, POST, OPTIONS"),
        ("TRACE", "/api/tasks", "GET, POST, OPTIONS"),
        ("POST", "/api/tasks/8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11", "GET, PUT, PATCH, DELETE, OPTIONS"),
        ("GET", "/api/tasks/8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11/complete", "PATCH, OPTIONS"),
        ("POST", "/health", "GET, OPTIONS"),
    ],
)
def test_a_method_that_a_path_does_not_have_is_answered_with_those_that_it_has(
    anonymous: Client, method: str, path: str, allow: str
) -> None:
    response = anonymous.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allow)
    if method != "HEAD":
        assert_problem(response, 405, "method_not_allowed", f"This path allows {allow}.")


def test_options_tells_what_a_path_allows(anonymous: Client) -> None:
    response: httpx.Response = anonymous.options("/api/tasks")
    assert (response.status_code, response.headers["allow"], response.content) == (204, "GET, POST, OPTIONS", b"")


def test_a_parameter_that_the_contract_requires_is_missed(
    make_settings: Callable[..., Settings], contract: Contract, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    document = copy.deepcopy(contract.document)
    document["components"]["parameters"]["Status"]["required"] = True
    path = tmp_path / "contract.yaml"
    path.write_text(json.dumps(document))
    monkeypatch.setattr("openapi.contract.CONTRACT", path)
    with (
        Server(make_settings()) as server,
        Client(server.url, Conformance(), token=server.token(sub="forgetful")) as client,
    ):
        assert client.get("/api/tasks", params={"status": "all"}).status_code == 200
        detail = "Invalid query: /status is missing."
        assert_problem(client.get("/api/tasks"), 400, "bad_request", detail, ("query", "/status", "is missing"))
