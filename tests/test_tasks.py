"""The six operations as a frontend uses them (FR-001 to FR-006, SC-007)."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.client import Client, assert_problem

FULL: dict[str, Any] = {
    "title": "Water the plants",
    "description": "Also the ones on the balcony",
    "completed": True,
    "priority": "high",
    "due_date": "2026-12-01T09:00:00Z",
}


def test_a_task_with_only_a_title_has_the_defaults_for_the_rest(alice: Client) -> None:
    task = alice.create("Buy milk")
    created = task.pop("created_at")
    assert task.pop("updated_at") == created
    assert uuid.UUID(task.pop("id")).version == 4
    assert abs(datetime.fromisoformat(created) - datetime.now(UTC)) < timedelta(minutes=1)
    assert task == {
        "version": 1,
        "user_id": alice.user,
        "title": "Buy milk",
        "description": None,
        "completed": False,
        "priority": None,
        "due_date": None,
    }


def test_a_created_task_keeps_every_field_given(alice: Client) -> None:
    task = alice.create(**FULL)
    assert {name: task[name] for name in FULL} == FULL


def test_the_location_of_a_created_task_leads_to_it(alice: Client) -> None:
    response = alice.post("/api/tasks", json=FULL)
    assert alice.get(response.headers["location"]).json() == response.json()


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("2026-12-01T10:00:00+01:00", "2026-12-01T09:00:00Z"),
        ("2026-12-01t09:00:00z", "2026-12-01T09:00:00Z"),
        ("2026-12-01T09:00:00.123456Z", "2026-12-01T09:00:00.123456Z"),
        ("2026-12-01T09:00:00.123456789Z", "2026-12-01T09:00:00.123456Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ("9999-12-31T23:59:59+14:00", "9999-12-31T09:59:59Z"),
    ],
)
def test_a_due_date_is_answered_in_utc_to_the_microsecond(alice: Client, given: str, stored: str) -> None:
    task = alice.create(due_date=given)
    assert task["due_date"] == stored
    assert alice.get(f"/api/tasks/{task['id']}").json()["due_date"] == stored


@pytest.mark.parametrize("title", ["x", "x" * 200, "😀" * 200, " x ", "'; DROP TABLE tasks; --", "%s %(a)s", "\\ud800"])
def test_a_title_comes_back_as_it_was_sent(alice: Client, title: str) -> None:
    task = alice.create(title, description=title)
    assert (task["title"], task["description"]) == (title, title)
    assert alice.titles() == [title]


CHANGES = pytest.mark.parametrize(
    ("method", "media_type"), [("PUT", "application/json"), ("PATCH", "application/merge-patch+json")]
)


@CHANGES
def test_a_change_of_some_fields_keeps_the_rest(alice: Client, method: str, media_type: str) -> None:
    task = alice.create(**FULL)
    path = f"/api/tasks/{task['id']}"
    fields = {"title": "Water all", "priority": "low"}
    changed = alice.request(method, path, json=fields, headers={"Content-Type": media_type}).json()
    assert changed == task | fields | {"version": 2, "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > task["updated_at"]
    assert alice.get(path).json() == changed


@CHANGES
def test_a_change_clears_nullable_fields_with_null(alice: Client, method: str, media_type: str) -> None:
    task = alice.create(**FULL)
    cleared = {"description": None, "priority": None, "due_date": None}
    headers = {"Content-Type": media_type}
    changed = alice.request(method, f"/api/tasks/{task['id']}", json=cleared, headers=headers).json()
    assert changed == task | cleared | {"version": 2, "updated_at": changed["updated_at"]}


@CHANGES
def test_a_change_takes_a_whole_task_as_a_frontend_has_it(alice: Client, method: str, media_type: str) -> None:
    task = alice.create()
    headers = {"Content-Type": media_type}
    changed = alice.request(method, f"/api/tasks/{task['id']}", json=FULL, headers=headers).json()
    assert {name: changed[name] for name in FULL} == FULL


def test_an_empty_update_is_refused(alice: Client) -> None:
    task = alice.create()
    assert_problem(
        alice.put(f"/api/tasks/{task['id']}", json={}),
        400,
        "bad_request",
        "Invalid body: it has less than 1 property.",
        ("body", "", "has less than 1 property"),
    )


def test_complete_without_a_body_toggles(alice: Client) -> None:
    task = alice.create()
    path = f"/api/tasks/{task['id']}/complete"
    assert [alice.patch(path).json()["completed"] for _ in range(3)] == [True, False, True]


def test_complete_with_a_body_sets(alice: Client) -> None:
    task = alice.create()
    path = f"/api/tasks/{task['id']}/complete"
    answers = [alice.patch(path, json={"completed": value}).json() for value in (True, True, False, False)]
    assert [answer["completed"] for answer in answers] == [True, True, False, False]


@pytest.mark.slow
def test_devices_that_toggle_at_once_lose_no_toggle(alice: Client) -> None:
    task = alice.create()
    path = f"/api/tasks/{task['id']}/complete"
    with ThreadPoolExecutor(10) as devices:
        states = list(devices.map(lambda _: alice.patch(path).json()["completed"], range(41)))
    assert sorted(states) == [False] * 20 + [True] * 21
    assert alice.get(f"/api/tasks/{task['id']}").json()["completed"] is True


def test_a_deleted_task_is_gone(alice: Client) -> None:
    task, other = alice.create("gone"), alice.create("stays")
    assert alice.delete(f"/api/tasks/{task['id']}").status_code == 204
    assert alice.titles() == [other["title"]]
    assert_problem(alice.get(f"/api/tasks/{task['id']}"), 404, "task_not_found", "There is no task with this id.")


def test_a_user_without_tasks_gets_an_empty_list(alice: Client) -> None:
    assert alice.get("/api/tasks").json() == []


ON_ONE_TASK: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/api/tasks/{}", {}),
    ("PUT", "/api/tasks/{}", {"json": {"title": "x"}}),
    ("DELETE", "/api/tasks/{}", {}),
    ("PATCH", "/api/tasks/{}/complete", {}),
    ("PATCH", "/api/tasks/{}/complete", {"json": {"completed": True}}),
]


@pytest.mark.parametrize(("method", "path", "options"), ON_ONE_TASK)
def test_an_unknown_task_is_not_found(alice: Client, method: str, path: str, options: dict[str, Any]) -> None:
    response = alice.request(method, path.format(uuid.uuid4()), **options)
    assert_problem(response, 404, "task_not_found", "There is no task with this id.")


@pytest.mark.parametrize(("method", "path", "options"), ON_ONE_TASK)
def test_another_users_task_is_forbidden_and_stays_as_it_was(
    alice: Client, bob: Client, method: str, path: str, options: dict[str, Any]
) -> None:
    task = alice.create("secret")
    response = bob.request(method, path.format(task["id"]), **options)
    assert_problem(response, 403, "not_your_task", "This task belongs to another user.")
    assert alice.get(f"/api/tasks/{task['id']}").json() == task


NO_UUID = "must be a UUID"
TOO_LONG = "is longer than 36 characters"


@pytest.mark.parametrize(("method", "path", "options"), ON_ONE_TASK)
@pytest.mark.parametrize(
    ("identifier", "details"),
    [
        ("1", {NO_UUID}),
        ("x" * 36, {NO_UUID}),
        ("00000000-0000-0000-0000-00000000000g", {NO_UUID}),
        ("8e4c9a0e3f5b4c869d0f0a4b5f2f7a11", {NO_UUID}),
        ("8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a110", {NO_UUID, TOO_LONG}),
        ("x" * 100, {NO_UUID, TOO_LONG}),
    ],
)
def test_a_malformed_id_is_refused(
    alice: Client, method: str, path: str, options: dict[str, Any], identifier: str, details: set[str]
) -> None:
    response = alice.request(method, path.format(identifier), **options)
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")
    errors = {(error["in"], error["pointer"], error["detail"]) for error in response.json()["errors"]}
    assert errors == {("path", "/id", detail) for detail in details}


def test_the_list_shows_only_the_callers_tasks(alice: Client, bob: Client) -> None:
    alice.create("hers")
    bob.create("his")
    assert (alice.titles(), bob.titles()) == (["hers"], ["his"])


def test_an_id_in_upper_case_is_the_same_id(alice: Client) -> None:
    task = alice.create()
    assert alice.get(f"/api/tasks/{task['id'].upper()}").json() == task


@pytest.mark.slow
def test_a_hundred_requests_at_once_all_succeed(alice: Client) -> None:
    with ThreadPoolExecutor(100) as clients:
        answers = list(clients.map(lambda number: alice.create(f"task {number}"), range(100)))
    assert sorted(alice.titles()) == sorted(answer["title"] for answer in answers)
