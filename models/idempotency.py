"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header, section 2), stored with their task in one statement."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache, partial
from typing import Any

import sqlalchemy as sa

from models.base import CodePoints
from models.caller import Caller
from models.errors import KeyInUse, KeyReused, StorageLimit
from models.idempotency_key import IS_EXPIRED, IdempotencyKey
from models.quota import Quota
from models.task import TASK_COLUMNS, column_values
from models.task_creation import answer, new_task, store
from models.user import NEW_USER, user_values
from postgres.database import Database
from postgres.errors import ConstraintViolated, LockTimeout
from postgres.round_trip import Row
from postgres.scope import Scope
from postgres.statement import read

ATTEMPTS = 3
SWEEP_SIZE = 10_000  # keys that one statement erases at most


THE_KEY = (IdempotencyKey.user_id == sa.bindparam("the_user"), IdempotencyKey.key == sa.bindparam("the_key"))

REPLAY = read(sa.select(IdempotencyKey.fingerprint, IdempotencyKey.task).where(*THE_KEY, sa.not_(IS_EXPIRED)))
EXPIRE = sa.delete(IdempotencyKey).where(*THE_KEY, IS_EXPIRED).returning(IdempotencyKey.key)
SWEEP = (
    sa.delete(IdempotencyKey)
    .where(
        sa.tuple_(IdempotencyKey.user_id, IdempotencyKey.key).in_(
            sa.select(IdempotencyKey.user_id, IdempotencyKey.key).where(IS_EXPIRED).limit(SWEEP_SIZE)
        )
    )
    .returning(IdempotencyKey.key)
)


def create_task_once(
    database: Database, quota: Quota, caller: Caller, fields: Mapping[str, Any], key: str
) -> tuple[Row, bool]:
    """Store a new task and its key, or return the task of this key and True.

    Raises KeyReused, KeyInUse, TooManyTasks, TooManyKeys, Crowded.
    """
    fingerprint = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).digest()
    values, scope = column_values(fields), Scope.user(caller.id)
    parameters = {**user_values(caller), **values, "the_key": key, "fingerprint": fingerprint}
    create = partial(_create, frozenset(values))
    for _ in range(ATTEMPTS):
        limit: StorageLimit | None = None
        try:
            return store(database, quota, caller, create, parameters), False
        except LockTimeout as error:
            raise KeyInUse from error
        except StorageLimit as error:
            limit = error
        except ConstraintViolated:  # the key exists, or the user was erased a moment ago
            pass
        for found in database.rows(scope, REPLAY, parameters):
            if found["fingerprint"] != fingerprint:
                raise KeyReused
            return as_answered(found["task"]), True
        if limit:
            raise limit
        database.rows(scope, EXPIRE, parameters)
    raise KeyInUse


def sweep(database: Database) -> int:
    """Erase expired keys of all users, SWEEP_SIZE at most, and return their number."""
    return len(database.rows(Scope.sweep(), SWEEP, {}))


@cache
def _create(names: frozenset[str], is_counted: bool) -> sa.Executable:
    """Return the statement that stores the user if they are new, the task, and the key with the response."""
    task = new_task(names, is_counted=is_counted, has_key=True).cte("new_task")
    kept = (
        sa.insert(IdempotencyKey)
        .from_select(
            ["user_id", "key", "fingerprint", "task"],
            sa.select(
                task.c.user_id,
                sa.bindparam("the_key", type_=CodePoints),
                sa.bindparam("fingerprint", type_=sa.LargeBinary),
                sa.func.to_jsonb(sa.literal_column("new_task")),
            ),
        )
        .cte("kept")
    )
    return answer(task, is_counted=is_counted).add_cte(NEW_USER, kept)


def as_answered(task: Mapping[str, Any]) -> Row:
    """Return a stored response as the row that it was made from."""
    row = {column.key: task[column.key] for column in TASK_COLUMNS}
    for name in ("due_date", "created_at", "updated_at"):
        row[name] = row[name] and datetime.fromisoformat(row[name])
    return row
