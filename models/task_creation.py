"""Creating a task, and with their first one its user, in one statement."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Final

import sqlalchemy as sa

from models.caller import Caller
from models.errors import Crowded, TooManyKeys, TooManyTasks
from models.quota import HAS_ROOM_FOR_KEY, HAS_ROOM_FOR_TASK, STORED, Quota
from models.task import TASK_COLUMNS, Task, column_values, placeholders
from models.user import NEW_USER, user_values
from postgres.database import Database
from postgres.errors import ConstraintViolated, LockTimeout
from postgres.round_trip import Row
from postgres.scope import Scope

OWNER: Final = sa.bindparam("the_user", type_=Task.user_id.type)


def create_task(database: Database, quota: Quota, caller: Caller, fields: Mapping[str, Any]) -> Row:
    """Store a new task, and the caller as a user if they are new. Raises TooManyTasks, Crowded."""
    values = column_values(fields)
    query = partial(_create, frozenset(values)), {**user_values(caller), **values}
    try:
        return store(database, quota, caller, *query)
    except ConstraintViolated:  # the user was erased between the two parts of the statement
        return store(database, quota, caller, *query)


def store(
    database: Database,
    quota: Quota,
    caller: Caller,
    create: Callable[[bool], sa.Executable],
    parameters: Mapping[str, Any],
) -> Row:
    """Store a new task by the statement that `create` returns, if it is counted or not, and return it.

    Raises TooManyTasks, TooManyKeys, Crowded.
    """
    if not quota.must_count(caller.id):
        (row,) = database.rows(Scope.user(caller.id), create(False), parameters)
        return row
    tasks = 0
    for is_exclusive in (True,) if quota.is_near(caller.id) else (False, True):
        scope = Scope.user(caller.id, is_exclusive=is_exclusive)
        given = {**parameters, **quota.parameters(is_exclusive=is_exclusive)}
        try:
            (row,) = database.rows(scope, create(True), given)
        except LockTimeout as error:
            if is_exclusive:
                raise Crowded from error
            raise
        tasks, keys = row.pop("stored_tasks"), row.pop("stored_keys")
        quota.note(caller.id, tasks, keys)
        if row["id"] is not None:
            return row
    raise (TooManyTasks if tasks >= quota.tasks else TooManyKeys)


@cache
def _create(names: frozenset[str], is_counted: bool) -> sa.Executable:
    statement: Any = new_task(names, is_counted=is_counted, has_key=False)
    if is_counted:
        statement = answer(statement.cte("new_task"), is_counted=True)
    found: sa.Executable = statement.add_cte(NEW_USER)
    return found


def new_task(names: frozenset[str], *, is_counted: bool, has_key: bool) -> Any:
    """Return the insertion of a task with values of these names; one that is counted stores none over the quota."""
    columns = {"user_id": OWNER, **placeholders(names)}
    if not is_counted:
        return sa.insert(Task).values(columns).returning(*TASK_COLUMNS)
    room = (HAS_ROOM_FOR_TASK, HAS_ROOM_FOR_KEY) if has_key else (HAS_ROOM_FOR_TASK,)
    chosen = sa.select(*columns.values()).where(*room)
    return sa.insert(Task).from_select(list(columns), chosen).returning(*TASK_COLUMNS)


def answer(task: sa.CTE, *, is_counted: bool) -> sa.Select[*tuple[Any, ...]]:
    """Return the query for the new task; for one that is counted with the counts, null if there was no room."""
    columns = [task.c[column.key].label(column.key) for column in TASK_COLUMNS]
    if not is_counted:
        return sa.select(*columns)
    return sa.select(*columns, *STORED.c).select_from(STORED.outerjoin(task, sa.true()))
