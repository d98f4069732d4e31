"""The seven operations as requests, each spread over all users."""

import json
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bench.data import TASKS, USERS, task, user

TASKS_EACH = 10  # of each user's tasks are got, updated and toggled


class Request(NamedTuple):
    """A request of one user."""

    method: str
    path: str
    user: str
    body: str = ""


NEW = {
    "title": "Water the plants",
    "description": "Also those on the balcony, but not the cactus.",
    "priority": "high",
    "due_date": "2026-12-01T10:00:00+01:00",
}
CHANGED = {"title": "Water all the plants", "priority": None}


def _get(owner: str, id: str) -> Request:
    return Request("GET", f"/api/tasks/{id}", owner)


def _update(owner: str, id: str) -> Request:
    return Request("PUT", f"/api/tasks/{id}", owner, json.dumps(CHANGED))


def _toggle(owner: str, id: str) -> Request:
    return Request("PATCH", f"/api/tasks/{id}/complete", owner)


def delete(owner: str, id: str) -> Request:
    """Delete a task."""
    return Request("DELETE", f"/api/tasks/{id}", owner)


def _list_pending(owner: str) -> Request:
    return Request("GET", "/api/tasks?status=pending&limit=20", owner)


def _list_all(owner: str) -> Request:
    return Request("GET", "/api/tasks", owner)


def _create(owner: str) -> Request:
    return Request("POST", "/api/tasks", owner, json.dumps(NEW))


def _each_user(request: Callable[[str], Request]) -> Iterator[Request]:
    return (request(user(number)) for number in range(USERS))


def _each_task(request: Callable[[str, str], Request]) -> Iterator[Request]:
    for owner in range(USERS):
        for number in range(0, TASKS, TASKS // TASKS_EACH):
            yield request(user(owner), task(number, owner))


# In this order: lists are read before anything is created. What is deleted is added just before.
OPERATIONS: dict[str, Callable[[], Iterator[Request]]] = {
    "get one": lambda: _each_task(_get),
    "list 20 pending": lambda: _each_user(_list_pending),
    "list 100": lambda: _each_user(_list_all),
    "update": lambda: _each_task(_update),
    "toggle": lambda: _each_task(_toggle),
    "create": lambda: _each_user(_create),
    "delete": lambda: iter(()),
}


def requests(operation: str) -> list[Request]:
    """Return the requests of an operation, mixed so that neighbours are of different users."""
    found = list(OPERATIONS[operation]())
    random.Random(0).shuffle(found)
    return found


def warm_up() -> list[Request]:
    """Return a mixture of requests that leaves the lists of the users as long as they are."""
    mixture = [*_each_user(_list_pending), *_each_user(_list_all), *_each_user(lambda _: _create("warm-up"))]
    for request in (_get, _update, _toggle):
        mixture += list(_each_task(request))[::TASKS_EACH]
    random.Random(0).shuffle(mixture)
    return mixture
