"""Everything that is stored about a user."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import Integer, bindparam, delete, func, not_, select

from models.base import CodePoints
from models.caller import Caller
from models.idempotency import as_answered
from models.idempotency_key import IdempotencyKey
from models.task import TASK_COLUMNS, Task, utc
from models.task_operations import THE_USER
from models.user import User
from postgres.database import Database
from postgres.round_trip import Row
from postgres.scope import Scope
from postgres.statement import read

BATCH = 100  # rows that an export holds in memory at most
ERASURE_TIMEOUT = 120.0  # seconds; an erasure takes as long as the user has tasks

IS_ME = User.id == bindparam("the_user")
SUMMARY = read(
    select(
        select(User.email).where(IS_ME).scalar_subquery().label("email"),
        select(User.name).where(IS_ME).scalar_subquery().label("name"),
        func.count().filter(not_(Task.completed)).label("pending"),
        func.count().filter(Task.completed).label("completed"),
    ).where(THE_USER)
)
USER = read(select(User.id, User.email, User.name, utc(User.created_at), utc(User.updated_at)).where(IS_ME))
TASKS = read(
    select(*TASK_COLUMNS)
    .where(THE_USER, Task.id > bindparam("after", type_=Task.id.type))
    .order_by(Task.id)
    .limit(bindparam("limit", type_=Integer))
)
KEYS = read(
    select(IdempotencyKey.key, IdempotencyKey.task, utc(IdempotencyKey.created_at))
    .where(IdempotencyKey.user_id == bindparam("the_user"), IdempotencyKey.key > bindparam("after", type_=CodePoints))
    .order_by(IdempotencyKey.key)
    .limit(bindparam("limit", type_=Integer))
)
ERASE = delete(User).where(IS_ME).returning(User.id)


def summary(database: Database, caller: Caller) -> Row:
    """Return `email`, `name` and the numbers of `pending` and `completed` tasks; None and 0 for a new user."""
    (row,) = database.rows(Scope.user(caller.id), SUMMARY, {"the_user": caller.id})
    return row


def user(database: Database, caller: Caller) -> Row | None:
    """Return the stored user, None if they have not written anything yet."""
    rows = database.rows(Scope.user(caller.id), USER, {"the_user": caller.id})
    return rows[0] if rows else None


def tasks(database: Database, caller: Caller) -> Iterator[list[Row]]:
    """Yield all tasks of the user by id, in batches."""
    return _all(database, caller, TASKS, "id", UUID(int=0))


def idempotency_keys(database: Database, caller: Caller) -> Iterator[list[Row]]:
    """Yield all idempotency keys of the user, in batches."""
    for batch in _all(database, caller, KEYS, "key", ""):
        yield [row | {"task": as_answered(row["task"])} for row in batch]


def erase(database: Database, caller: Caller) -> None:
    """Erase the user, their tasks and their idempotency keys."""
    database.rows(Scope.user(caller.id), ERASE, {"the_user": caller.id}, timeout=ERASURE_TIMEOUT)


def _all(database: Database, caller: Caller, statement: Any, key: str, after: Any) -> Iterator[list[Row]]:
    scope, parameters = Scope.user(caller.id), {"the_user": caller.id, "limit": BATCH}
    while rows := database.rows(scope, statement, parameters | {"after": after}):
        yield rows
        after = rows[-1][key]
