"""The operations on one existing task, each one statement and one round trip.

Every statement names its user and runs as that user under row-level security. Only after a miss a second statement asks
why.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from models.caller import Caller
from models.errors import TaskForbidden, TaskNotFound, VersionMismatch
from models.task import TASK_COLUMNS, Task, column_values, placeholders
from postgres.database import Database
from postgres.round_trip import Row
from postgres.scope import Scope
from postgres.statement import read

THE_USER = Task.user_id == sa.bindparam("the_user")
THE_TASK = (THE_USER, Task.id == sa.bindparam("the_task"))

GET = read(sa.select(*TASK_COLUMNS).where(*THE_TASK))
UPDATE = (
    sa.update(Task).where(*THE_TASK).values(updated_at=sa.func.now(), version=Task.version + 1).returning(*TASK_COLUMNS)
)
TOGGLE = UPDATE.values(completed=sa.not_(Task.completed))
DELETE = sa.delete(Task).where(*THE_TASK).returning(Task.id)
# The one row with this id, whoever owns it; without the version if it is another user's.
PROBE = read(
    sa.select(sa.case((Task.user_id == sa.func.current_setting("app.user_id"), Task.version)).label("version")).where(
        Task.id == sa.bindparam("the_task")
    )
)


@dataclass(frozen=True)
class Precondition:
    """The versions that a task may have, None for any, and those that it must not have."""

    versions: tuple[int, ...] | None = None
    other_than: tuple[int, ...] = ()

    @property
    def parameters(self) -> dict[str, list[int]]:
        """The values of CONDITIONS, by the names of those that apply."""
        parameters = {"other_than": list(self.other_than)} if self.other_than else {}
        return parameters if self.versions is None else parameters | {"versions": list(self.versions)}


ALWAYS = Precondition()
CONDITIONS = {
    "versions": Task.version == sa.func.any(sa.bindparam("versions", type_=postgresql.ARRAY(sa.Integer))),
    "other_than": Task.version != sa.func.all(sa.bindparam("other_than", type_=postgresql.ARRAY(sa.Integer))),
}


def get_task(database: Database, caller: Caller, task_id: str) -> Row:
    """Return a task. Raises TaskNotFound, TaskForbidden."""
    return _one(database, caller, task_id, GET)


def update_task(
    database: Database, caller: Caller, task_id: str, fields: Mapping[str, Any], precondition: Precondition = ALWAYS
) -> Row:
    """Change the fields given, if any, and return the task. Raises TaskNotFound, TaskForbidden, VersionMismatch."""
    values = column_values(fields)
    statement = _update(frozenset(values)) if values else GET
    return _one(database, caller, task_id, statement, precondition, values)


def toggle_task(database: Database, caller: Caller, task_id: str, precondition: Precondition = ALWAYS) -> Row:
    """Toggle `completed` and return the task. Raises TaskNotFound, TaskForbidden, VersionMismatch."""
    return _one(database, caller, task_id, TOGGLE, precondition)


def delete_task(database: Database, caller: Caller, task_id: str, precondition: Precondition = ALWAYS) -> None:
    """Delete a task. Raises TaskNotFound, TaskForbidden, VersionMismatch."""
    _one(database, caller, task_id, DELETE, precondition)


@cache
def _update(names: frozenset[str]) -> sa.Executable:
    return UPDATE.values(placeholders(names))


@cache
def _conditional(statement: Any, *conditions: str) -> Any:
    """Return the statement with conditions that the write itself checks."""
    return statement.where(*(CONDITIONS[name] for name in conditions))


def _one(
    database: Database,
    caller: Caller,
    task_id: str,
    statement: Any,
    precondition: Precondition = ALWAYS,
    values: Mapping[str, Any] | None = None,
) -> Row:
    identifier = UUID(task_id)
    conditions = precondition.parameters
    if conditions:
        statement = _conditional(statement, *conditions)
    parameters = {"the_user": caller.id, "the_task": identifier, **conditions, **(values or {})}
    rows = database.rows(Scope.user(caller.id), statement, parameters)
    if rows:
        return rows[0]
    found = database.rows(Scope.probe(caller.id, identifier), PROBE, {"the_task": identifier})
    if not found:
        raise TaskNotFound
    if found[0]["version"] is None:
        raise TaskForbidden
    raise VersionMismatch(found[0]["version"])
