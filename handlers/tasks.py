"""The operations on tasks. The contract has checked the input before it comes here.

What is not a parameter of the operation comes from the request's context: `user` and `token_info` from `bearer_info`,
the rest from the application.
"""

from typing import Any

from handlers.conditions import entity_tag, is_current, precondition
from handlers.pages import Cursors, next_link
from models import idempotency, task, task_list
from postgres.database import Database
from postgres.driver import Row

Body = dict[str, Any]
Answer = tuple[Any, int, dict[str, str]]


def list_tasks(
    database: Database,
    cursors: Cursors,
    user: str,
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
    after = cursors.open(user, query, cursor) if cursor else None
    page = task_list.list_tasks(database, user, query, limit, after)
    if page.end is None:
        return page.rows, 200, {}
    return page.rows, 200, {"Link": next_link("/api/tasks", query, limit, cursors.seal(user, query, page.end))}


def create_task(database: Database, token_info: Body, body: Body, idempotency_key: str | None = None) -> Answer:
    """Create a task, and the user with their first."""
    if idempotency_key is None:
        created, is_replay = task.create_task(database, token_info, body), False
    else:
        created, is_replay = idempotency.create_task_once(database, token_info, body, idempotency_key)
    headers = {"Location": f"/api/tasks/{created['id']}", "ETag": entity_tag(created["version"])}
    return created, 201, headers | ({"Idempotency-Replayed": "true"} if is_replay else {})


def get_task(database: Database, user: str, id: str, if_none_match: str | None = None) -> Answer:
    """Return one task, unless the reader has its version already."""
    found = task.get_task(database, user, id)
    if is_current(found["version"], if_none_match):
        return None, 304, {"ETag": entity_tag(found["version"])}
    return _answer(found)


def update_task(
    database: Database, user: str, id: str, body: Body, if_match: str | None = None, if_none_match: str | None = None
) -> Answer:
    """Change the fields given."""
    return _answer(task.update_task(database, user, id, body, precondition(if_match, if_none_match)))


def patch_task(
    database: Database, user: str, id: str, body: Body, if_match: str | None = None, if_none_match: str | None = None
) -> Answer:
    """Merge a patch, which for an object without nested ones is to change the fields given."""
    return update_task(database, user, id, body, if_match, if_none_match)


def delete_task(
    database: Database, user: str, id: str, if_match: str | None = None, if_none_match: str | None = None
) -> tuple[None, int]:
    """Delete one task."""
    task.delete_task(database, user, id, precondition(if_match, if_none_match))
    return None, 204


def complete_task(
    database: Database, user: str, id: str, body: Body, if_match: str | None = None, if_none_match: str | None = None
) -> Answer:
    """Set `completed` to the value given, or turn it round where the request has no body."""
    condition = precondition(if_match, if_none_match)
    if body:
        return _answer(task.update_task(database, user, id, body, condition))
    return _answer(task.toggle_task(database, user, id, condition))


def _answer(found: Row) -> Answer:
    return found, 200, {"ETag": entity_tag(found["version"])}
