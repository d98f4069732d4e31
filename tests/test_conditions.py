"""Entity tags and conditional requests (RFC 9110, section 13)."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.client import Client, assert_problem

WRITES: list[tuple[str, str, dict[str, Any]]] = [
    ("PUT", "/api/tasks/{}", {"json": {"title": "changed"}}),
    ("PATCH", "/api/tasks/{}", {"json": {"title": "changed"}}),
    ("PATCH", "/api/tasks/{}", {"json": {}}),
    ("PATCH", "/api/tasks/{}/complete", {}),
    ("PATCH", "/api/tasks/{}/complete", {"json": {"completed": True}}),
    ("DELETE", "/api/tasks/{}", {}),
]
CURRENT, STALE = '"2"', '"1"'


@pytest.fixture
def task(alice: Client) -> dict[str, Any]:
    """A task at version 2."""
    created = alice.create()
    changed: dict[str, Any] = alice.put(f"/api/tasks/{created['id']}", json={"title": "second"}).json()
    return changed


def assert_stale(response: httpx.Response, tag: str) -> None:
    detail = "The task has changed since. Its current entity tag is in the ETag header."
    assert_problem(response, 412, "precondition_failed", detail)
    assert response.headers["etag"] == tag


def test_every_answer_with_a_task_has_its_version_as_entity_tag(alice: Client) -> None:
    created = alice.post("/api/tasks", json={"title": "x"})
    path = created.headers["location"]
    answers = [
        created,
        alice.get(path),
        alice.put(path, json={"title": "y"}),
        alice.patch(path, json={"title": "z"}),
        alice.patch(f"{path}/complete"),
        alice.patch(f"{path}/complete", json={"completed": True}),
        alice.get(path),
    ]
    assert [answer.headers["etag"] for answer in answers] == ['"1"', '"1"', '"2"', '"3"', '"4"', '"5"', '"5"']
    assert [answer.json()["version"] for answer in answers] == [1, 1, 2, 3, 4, 5, 5]


@pytest.mark.parametrize("tags", [CURRENT, f"W/{CURRENT}", f'"x", {CURRENT}', f'{STALE},W/{CURRENT} , "y"', "*"])
def test_a_reader_who_has_the_version_gets_no_body(alice: Client, task: dict[str, Any], tags: str) -> None:
    response = alice.get(f"/api/tasks/{task['id']}", headers={"If-None-Match": tags})
    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", CURRENT)


@pytest.mark.parametrize("tags", [STALE, '"x"', '""', '"02"', '"20"', '"99999999999999999999"', '"3", W/"1"'])
def test_a_reader_who_has_another_version_gets_the_task(alice: Client, task: dict[str, Any], tags: str) -> None:
    response = alice.get(f"/api/tasks/{task['id']}", headers={"If-None-Match": tags})
    assert (response.status_code, response.json()) == (200, task)


@pytest.mark.parametrize(("method", "path", "options"), WRITES)
@pytest.mark.parametrize("tags", [CURRENT, f'"x", {CURRENT}', "*"])
def test_a_write_for_the_current_version_happens(
    alice: Client, task: dict[str, Any], method: str, path: str, options: dict[str, Any], tags: str
) -> None:
    response = alice.request(method, path.format(task["id"]), headers={"If-Match": tags}, **options)
    assert response.status_code in (200, 204)


@pytest.mark.parametrize(("method", "path", "options"), WRITES)
@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": STALE},
        {"If-Match": f"W/{CURRENT}"},
        {"If-Match": '"3", "x", ""'},
        {"If-Match": '"2147483648"'},
        {"If-None-Match": "*"},
        {"If-None-Match": CURRENT},
        {"If-None-Match": f"W/{CURRENT}"},
        {"If-None-Match": f"{STALE}, {CURRENT}"},
        {"If-Match": CURRENT, "If-None-Match": "*"},
        {"If-Match": "*", "If-None-Match": CURRENT},
    ],
)
def test_a_write_for_another_version_changes_nothing_and_tells_the_current_one(
    alice: Client, task: dict[str, Any], method: str, path: str, options: dict[str, Any], headers: dict[str, str]
) -> None:
    assert_stale(alice.request(method, path.format(task["id"]), headers=headers, **options), CURRENT)
    assert alice.get(f"/api/tasks/{task['id']}").json() == task


@pytest.mark.parametrize(("method", "path", "options"), WRITES)
def test_a_condition_does_not_hide_whose_task_it_is(
    alice: Client, bob: Client, task: dict[str, Any], method: str, path: str, options: dict[str, Any]
) -> None:
    for tags in (CURRENT, STALE, "*"):
        forbidden = bob.request(method, path.format(task["id"]), headers={"If-Match": tags}, **options)
        assert_problem(forbidden, 403, "not_your_task", "This task belongs to another user.")
        assert "etag" not in forbidden.headers
    alice.delete(f"/api/tasks/{task['id']}")
    gone = alice.request(method, path.format(task["id"]), headers={"If-Match": "*"}, **options)
    assert_problem(gone, 404, "task_not_found", "There is no task with this id.")


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize(
    "tags",
    [
        *("1", '"1', "'1'", '"1" "2"', '"1",', "**", '*, "1"', "", 'w/"1"', 'x"1"', '"1"x', '"a b"', '"1", "a b"'),
        *('"1"x, "2"', '"1",x "2"', f'"{"x" * 65}"', f'"1", "{"x" * 65}"', ", ".join(['"1"'] * 21)),
    ],
)
def test_malformed_entity_tags_are_named(alice: Client, task: dict[str, Any], header: str, tags: str) -> None:
    response = alice.put(f"/api/tasks/{task['id']}", json={"title": "x"}, headers={header: tags})
    detail = "must be at most 20 entity tags in quotes, separated by commas, or an asterisk"
    pointer = f"/{header}"
    assert_problem(response, 400, "bad_request", f"Invalid header: {pointer} {detail}.", ("header", pointer, detail))


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize(
    "tags",
    [
        *('""', 'W/"x"', '"x"', '"!#~"', '"x", ""', '"x","y"', 'W/"x",W/"y"', '"x" \t,\t "y"'),
        *(f'"{"x" * 64}"', f'"x", "{"x" * 64}"', ", ".join(['"x"'] * 20)),
    ],
)
def test_well_formed_entity_tags_are_taken(alice: Client, task: dict[str, Any], header: str, tags: str) -> None:
    response = alice.put(f"/api/tasks/{task['id']}", json={"title": "x"}, headers={header: tags})
    assert response.status_code == (412 if header == "If-Match" else 200)


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_a_list_of_tags_has_at_most_2000_characters(alice: Client, task: dict[str, Any], header: str) -> None:
    def write(length: int) -> httpx.Response:
        tags = '"x",' + " " * (length - 7) + '"y"'
        return alice.put(f"/api/tasks/{task['id']}", json={"title": "x"}, headers={header: tags})

    assert write(2000).status_code == (412 if header == "If-Match" else 200)
    detail = "is longer than 2000 characters"
    pointer = f"/{header}"
    response = write(2001)
    assert_problem(response, 400, "bad_request", f"Invalid header: {pointer} {detail}.", ("header", pointer, detail))


def test_several_headers_of_tags_are_one_list(alice: Client, task: dict[str, Any]) -> None:
    path = f"/api/tasks/{task['id']}"
    assert alice.get(path, headers=[("If-None-Match", '"x"'), ("If-None-Match", CURRENT)]).status_code == 304
    headers = [("If-Match", '"x"'), ("If-Match", CURRENT), ("Content-Type", "application/json")]
    assert alice.put(path, content=b'{"title": "x"}', headers=headers).status_code == 200


@pytest.mark.slow
def test_of_devices_that_race_with_the_same_tag_one_wins(alice: Client, task: dict[str, Any]) -> None:
    path = f"/api/tasks/{task['id']}"

    def write(device: int) -> httpx.Response:
        return alice.put(path, json={"title": f"device {device}"}, headers={"If-Match": CURRENT})

    with ThreadPoolExecutor(8) as devices:
        answers = list(devices.map(write, range(8)))
    won = [answer for answer in answers if answer.status_code == 200]
    lost = [answer for answer in answers if answer.status_code == 412]
    assert (len(won), len(lost)) == (1, 7)
    assert {answer.headers["etag"] for answer in lost} == {'"3"'}
    assert alice.get(path).json() == won[0].json()


@pytest.mark.slow
def test_devices_that_read_and_retry_lose_no_write(alice: Client) -> None:
    path = f"/api/tasks/{alice.create('0')['id']}"

    def count(_: int) -> None:
        while True:
            current = alice.get(path)
            title = str(int(current.json()["title"]) + 1)
            if alice.put(path, json={"title": title}, headers={"If-Match": current.headers["etag"]}).is_success:
                return

    with ThreadPoolExecutor(5) as devices:
        list(devices.map(count, range(25)))
    assert alice.get(path).json()["title"] == "25"


# Merge patch (RFC 7396)


@pytest.mark.parametrize("media_type", ["application/merge-patch+json", "application/json"])
def test_a_merge_patch_changes_what_it_names_and_null_clears(alice: Client, media_type: str) -> None:
    task = alice.create("kept", description="cleared", priority="low", due_date="2026-01-01T00:00:00Z")
    content = b'{"description": null, "priority": "high"}'
    response = alice.patch(f"/api/tasks/{task['id']}", content=content, headers={"Content-Type": media_type})
    written = {"version": 2, "updated_at": response.json()["updated_at"]}
    assert response.json() == task | {"description": None, "priority": "high"} | written


def test_an_empty_patch_changes_nothing(alice: Client, task: dict[str, Any]) -> None:
    response = alice.patch(f"/api/tasks/{task['id']}", json={})
    assert (response.status_code, response.headers["etag"], response.json()) == (200, CURRENT, task)


@pytest.mark.parametrize("patch", ["[]", "null", '"x"', '{"title": null}', '{"completed": null}', '{"id": "x"}'])
def test_a_patch_that_would_make_no_task_is_refused(alice: Client, task: dict[str, Any], patch: str) -> None:
    headers = {"Content-Type": "application/merge-patch+json"}
    response = alice.patch(f"/api/tasks/{task['id']}", content=patch, headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")
    assert alice.get(f"/api/tasks/{task['id']}").json() == task


def test_put_and_patch_give_the_same_result(alice: Client) -> None:
    fields = {"title": "x", "description": None, "completed": True, "priority": "low"}
    by_put, by_patch = alice.create(description="d"), alice.create(description="d")
    answers = [
        alice.put(f"/api/tasks/{by_put['id']}", json=fields).json(),
        alice.patch(f"/api/tasks/{by_patch['id']}", json=fields).json(),
    ]
    for answer in answers:
        for name in ("id", "created_at", "updated_at"):
            del answer[name]
    assert answers[0] == answers[1]
