"""The operations on tasks, whose input is already validated against the contract.

Arguments are parameters of the operation, or have a reserved name: `caller`, `body`, and the services in
`openapi/request.py`.
"""

from collections.abc import Callable
from typing import Any

from handlers.conditions import entity_tag, is_current, precondition
from handlers.pages import Cursors, next_link
from models import idempotency, task_creation, task_list, task_operations
from models.caller import Caller
from models.quota import Quota
from postgres.database import Database
from postgres.round_trip import Row

Body = dict[str, Any]
Tags = str | None  # entity tags
Result = tuple[Any, int, dict[str, str]]  # body, status and headers


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
) -> Result:
    """List a page of the user's tasks."""
    filters = {"priority": priority, "due_from": due_from, "due_to": due_to, "overdue": overdue, "q": q}
    query = task_list.Query.of(status=status, sort=sort, order=order, **filters)
    after = cursors.open(caller.id, query, cursor) if cursor else None
    rows, end = task_list.list_tasks(database, caller, query, limit, after)
    if end is None:
        return rows, 200, {}
    sealed = cursors.seal(caller.id, query, end)
    return rows, 200, {"Link": next_link(url_for("list_tasks"), query, limit, sealed)}


def create_task(
    database: Database,
    quota: Quota,
    url_for: Callable[..., str],
    caller: Caller,
    body: Body,
    idempotency_key: str | None = None,
) -> Result:
    """Create a task, and with their first one the user."""
    if idempotency_key is None:
        created, is_replay = task_creation.create_task(database, quota, caller, body), False
    else:
        created, is_replay = idempotency.create_task_once(database, quota, caller, body, idempotency_key)
    headers = {"Location": url_for("get_task", id=created["id"]), "ETag": entity_tag(created["version"])}
    return created, 201, headers | ({"Idempotency-Replayed": "true"} if is_replay else {})


def get_task(database: Database, caller: Caller, id: str, if_none_match: Tags = None) -> Result:
    """Return a task, unless the client already has its version."""
    found = task_operations.get_task(database, caller, id)
    if is_current(found["version"], if_none_match):
        return None, 304, {"ETag": entity_tag(found["version"])}
    return _result(found)


def update_task(
    database: Database, caller: Caller, id: str, body: Body, if_match: Tags = None, if_none_match: Tags = None
) -> Result:
    """Change the fields given."""
    return _result(task_operations.update_task(database, caller, id, body, precondition(if_match, if_none_match)))


def patch_task(
    database: Database, caller: Caller, id: str, body: Body, if_match: Tags = None, if_none_match: Tags = None
) -> Result:
    """Merge a patch, which changes the fields given, as a task has no nested objects."""
    return update_task(database, caller, id, body, if_match, if_none_match)


def delete_task(
    database: Database, caller: Caller, id: str, if_match: Tags = None, if_none_match: Tags = None
) -> tuple[None, int]:
    """Delete a task."""
    task_operations.delete_task(database, caller, id, precondition(if_match, if_none_match))
    return None, 204


def complete_task(
    database: Database, caller: Caller, id: str, body: Body, if_match: Tags = None, if_none_match: Tags = None
) -> Result:
    """Set `completed` to the value given, or toggle it if the request has no body."""
    condition = precondition(if_match, if_none_match)
    if body:
        return _result(task_operations.update_task(database, caller, id, body, condition))
    return _result(task_operations.toggle_task(database, caller, id, condition))


def _result(found: Row) -> Result:
    return found, 200, {"ETag": entity_tag(found["version"])}
