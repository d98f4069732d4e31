"""The operations on tasks. The contract has checked the input before it comes here.

What is no parameter of the operation has a reserved name: `caller`, `body`, and the services in `openapi/request.py`.
"""

from collections.abc import Callable
from typing import Any

from handlers.conditions import entity_tag, is_current, precondition
from handlers.pages import Cursors, next_link
from models import idempotency, task_list, task_operations
from models.caller import Caller
from postgres.database import Database
from postgres.round_trip import Row

Body = dict[str, Any]
Tags = str | None  # entity tags
Answer = tuple[Any, int, dict[str, str]]


def list_tasks(
    database: Database,
    cursors: Cursors,
    url_for: Callable[..., str],
    caller: Caller,
    *,
    status: str,
    sort: str,
    order: str | None = None,
    priority: list[str] | None = None,
    due_from: str | None = None,
    due_to: str | None = None,
    overdue: bool,
    q: str | None = None,
    limit: int,
    cursor: str | None = None,
) -> Answer:
    """List a page of the user's tasks."""
    filters = {"priority": priority, "due_from": due_from, "due_to": due_to, "overdue": overdue, "q": q}
    query = task_list.Query.of(status=status, sort=sort, order=order, **filters)
    after = cursors.open(caller.id, query, cursor) if cursor else None
    page = task_list.list_tasks(database, caller, query, limit, after)
    if page.end is None:
        return page.rows, 200, {}
    sealed = cursors.seal(caller.id, query, page.end)
    return page.rows, 200, {"Link": next_link(url_for("list_tasks"), query, limit, sealed)}


def create_task(
    database: Database,
    url_for: Callable[..., str],
    caller: Caller,
    body: Body,
    idempotency_key: str | None = None,
) -> Answer:
    """Create a task, and the user with their first."""
    if idempotency_key is None:
        created, is_replay = task_operations.create_task(database, caller, body), False
    else:
        created, is_replay = idempotency.create_task_once(database, caller, body, idempotency_key)
    headers = {"Location": url_for("get_task", id=created["id"]), "ETag": entity_tag(created["version"])}
    return created, 201, headers | ({"Idempotency-Replayed": "true"} if is_replay else {})


def get_task(database: Database, caller: Caller, id: str, if_none_match: Tags = None) -> Answer:
    """Return one task, unless the reader has its version already."""
    found = task_operations.get_task(database, caller, id)
    if is_current(found["version"], if_none_match):
        return None, 304, {"ETag": entity_tag(found["version"])}
    return _answer(found)


def update_task(
    database: Database, caller: Caller, id: str, body: Body, if_match: Tags = None, if_none_match: Tags = None
) -> Answer:
    """Change the fields given."""
    return _answer(task_operations.update_task(database, caller, id, body, precondition(if_match, if_none_match)))


def patch_task(
    database: Database, caller: Caller, id: str, body: Body, if_match: Tags = None, if_none_match: Tags = None
) -> Answer:
    """Merge a patch, which for an object without nested ones is to change the fields given."""
    return update_task(database, caller, id, body, if_match, if_none_match)


def delete_task(
    database: Database, caller: Caller, id: str, if_match: Tags = None, if_none_match: Tags = None
) -> tuple[None, int]:
    """Delete one task."""
    task_operations.delete_task(database, caller, id, precondition(if_match, if_none_match))
    return None, 204


def complete_task(
    database: Database, caller: Caller, id: str, body: Body, if_match: Tags = None, if_none_match: Tags = None
) -> Answer:
    """Set `completed` to the value given, or turn it round where the request has no body."""
    condition = precondition(if_match, if_none_match)
    if body:
        return _answer(task_operations.update_task(database, caller, id, body, condition))
    return _answer(task_operations.toggle_task(database, caller, id, condition))


def _answer(found: Row) -> Answer:
    return found, 200, {"ETag": entity_tag(found["version"])}
