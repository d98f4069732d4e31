"""The answers compared: a server whose answers differ from the first one's does other work, and is not measured."""

from datetime import datetime
from typing import Any

import httpx

from bench import data
from bench.operations import CHANGED, NEW

NEW_EACH_TIME = ("id", "created_at", "updated_at")
INSTANTS = ("due_date", "created_at", "updated_at")

Answer = tuple[str, int, Any]


def collect(url: str) -> list[Answer]:
    """Run every operation once, on a fresh database; return what came, less what is new each time."""
    user = data.user(7)
    path = f"/api/tasks/{data.task(7, of=7)}"
    with httpx.Client(base_url=url, trust_env=False) as client:
        found = [
            _answer("a forged token", client.get(path, headers=_bearer(data.token(user, secret="another" * 8)))),
            _answer("an expired token", client.get(path, headers=_bearer(data.token(user, lifetime=-60)))),
        ]
        client.headers = httpx.Headers(_bearer(data.token(user)))
        found += [
            _answer("get one", client.get(path)),
            _answer("list 20 pending", client.get("/api/tasks?status=pending&limit=20")),
            _answer("list 100", client.get("/api/tasks")),
            _answer("update", client.put(path, json=CHANGED), "updated_at"),
            _answer("toggle", client.patch(f"{path}/complete"), "updated_at"),
        ]
        created = client.post("/api/tasks", json=NEW)
        own = f"/api/tasks/{created.json()['id']}"
        found += [
            _answer("create", created, *NEW_EACH_TIME),
            _answer("get the created one", client.get(own), *NEW_EACH_TIME),
            _answer("delete", client.delete(own)),
            _answer("get the deleted one", client.get(own)),
        ]
    return found


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _answer(name: str, response: httpx.Response, *without: str) -> Answer:
    """Return an answer to compare; errors have a body of each server's own."""
    if not response.is_success or not response.content:
        return name, response.status_code, None
    content = response.json()
    tasks = content if isinstance(content, list) else [content]
    return name, response.status_code, [_comparable(task, without) for task in tasks]


def _comparable(task: dict[str, Any], without: tuple[str, ...]) -> dict[str, Any]:
    """Return a task with its instants read, since `09:00:00Z` is also `09:00:00+00:00`."""
    values = {name: None if value is None else _read(name, value) for name, value in task.items()}
    return values | dict.fromkeys(without, "new")


def _read(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name in INSTANTS else value


def differences(found: list[Answer], expected: list[Answer]) -> list[str]:
    """Return a line for each answer that is not as expected."""
    return [
        f"{ours[0]}: {ours[1:]} and not {theirs[1:]}"[:1000]
        for ours, theirs in zip(found, expected, strict=True)
        if ours != theirs
    ]
