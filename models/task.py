"""Tasks and the statements on one of them. Each public function is one operation: one statement, one round trip.

Every statement names its user and runs as that user under row-level security; only after a miss does a second one ask
what the first did not find.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    DateTime,
    Executable,
    ForeignKey,
    Index,
    Integer,
    Label,
    TextClause,
    Uuid,
    bindparam,
    case,
    delete,
    false,
    func,
    insert,
    literal_column,
    not_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

from models.base import Base, CodePoints, Instant
from models.errors import ConstraintViolated, TaskForbidden, TaskNotFound, VersionMismatch
from models.user import User
from postgres.database import Database, read
from postgres.driver import Row

# As PostgreSQL prints it, or the comparison of models and schema would see a difference.
DUE_OR = "\nCASE\n    WHEN due_date IS NULL THEN '{end}'::timestamp with time zone\n    ELSE due_date\nEND"


def _list_indexes(name: str, *columns: str | TextClause) -> tuple[Index, Index]:
    """Return the indexes of one order of the list: of all tasks, and a small one of those that are pending.

    The columns behind the id are filters, which PostgreSQL then checks in the index before it fetches a row.
    """
    return (
        Index(f"ix_tasks_by_{name}", "user_id", *columns, "completed"),
        Index(f"ix_tasks_pending_by_{name}", "user_id", *columns, postgresql_where=text("NOT completed")),
    )


class Task(Base):
    """A user's task. The user comes first in the primary key: no row is reached but through its owner."""

    __tablename__ = "tasks"
    __table_args__ = (
        CheckConstraint("char_length(title) BETWEEN 1 AND 200 AND btrim(title) <> ''", name="title"),
        CheckConstraint("char_length(description) <= 1000", name="description_length"),
        CheckConstraint("priority IN ('low', 'medium', 'high')", name="priority"),
        CheckConstraint("due_date >= '0001-01-01 00:00Z' AND due_date < '10000-01-01 00:00Z'", name="due_date_years"),
        *_list_indexes("created", "created_at", "id", "priority", "due_date"),
        *_list_indexes("title", "title_folded", "id", "priority", "due_date"),
        # Tasks without a due date come last in either direction: each has an index with its own end in their place.
        *_list_indexes("due_first", text(f"({DUE_OR.format(end='infinity')})"), "id", "priority"),
        *_list_indexes("due_last", text(f"({DUE_OR.format(end='-infinity')})"), "id", "priority"),
        Index("ix_tasks_id", "id"),  # for the probe, the one query that crosses users
    )

    user_id: Mapped[str] = mapped_column(CodePoints, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, server_default=func.gen_random_uuid())
    title: Mapped[str] = mapped_column(CodePoints)
    title_folded: Mapped[str] = mapped_column(CodePoints)
    description: Mapped[str | None] = mapped_column(CodePoints)
    description_folded: Mapped[str | None] = mapped_column(CodePoints)
    completed: Mapped[bool] = mapped_column(Boolean, server_default=false())
    priority: Mapped[str | None] = mapped_column(CodePoints)
    due_date: Mapped[datetime | None] = mapped_column(Instant)
    version: Mapped[int] = mapped_column(Integer, server_default="1")


def utc(column: InstrumentedAttribute[Any]) -> Label[datetime]:
    """Read an instant in UTC, whatever time zone the session has."""
    return func.timezone(literal_column("'UTC'"), column, type_=DateTime()).label(column.key)


# What a client sees of a task, in this order.
ANSWER = (
    Task.id,
    Task.version,
    Task.user_id,
    Task.title,
    Task.description,
    Task.completed,
    Task.priority,
    utc(Task.due_date),
    utc(Task.created_at),
    utc(Task.updated_at),
)

THE_USER = Task.user_id == bindparam("the_user")
THE_TASK = (THE_USER, Task.id == bindparam("the_task"))

GET = read(select(*ANSWER).where(*THE_TASK))
UPDATE = update(Task).where(*THE_TASK).values(updated_at=func.now(), version=Task.version + 1).returning(*ANSWER)
TOGGLE = UPDATE.values(completed=not_(Task.completed))
DELETE = delete(Task).where(*THE_TASK).returning(Task.id)
NEW_USER = (
    postgresql.insert(User)
    .values(id=bindparam("the_user"), email=bindparam("the_email"), name=bindparam("the_name"))
    .on_conflict_do_nothing()
    .cte("new_user")
)
INSERT = insert(Task).values(user_id=bindparam("the_user")).returning(*ANSWER)
# The one row with this id, whoever owns it; of another user's task not even the version.
PROBE = read(
    select(case((Task.user_id == func.current_setting("app.user_id"), Task.version)).label("version")).where(
        Task.id == bindparam("the_task")
    )
)


@dataclass(frozen=True)
class Precondition:
    """The versions that a task must have, None for any, and those that it must not have."""

    versions: tuple[int, ...] | None = None
    other_than: tuple[int, ...] = ()

    @property
    def parameters(self) -> dict[str, list[int]]:
        """The values for the conditions that a statement is to have."""
        parameters = {"other_than": list(self.other_than)} if self.other_than else {}
        return parameters if self.versions is None else parameters | {"versions": list(self.versions)}


ALWAYS = Precondition()
CONDITIONS = {
    "versions": Task.version == func.any(bindparam("versions", type_=postgresql.ARRAY(Integer))),
    "other_than": Task.version != func.all(bindparam("other_than", type_=postgresql.ARRAY(Integer))),
}


def get_task(database: Database, user_id: str, task_id: str) -> Row:
    """Return the task.

    Raises TaskNotFound, TaskForbidden.
    """
    return _one(database, user_id, task_id, GET)


def create_task(database: Database, claims: Mapping[str, Any], fields: Mapping[str, Any]) -> Row:
    """Store a new task of the user that `claims` describe, and the user with it where they are new."""
    values = columns(fields)
    statement, parameters = _create(frozenset(values)), {**owner(claims), **values}
    try:
        (row,) = database.rows(claims["sub"], statement, parameters)
    except ConstraintViolated:  # the user was erased between the two parts of the statement
        (row,) = database.rows(claims["sub"], statement, parameters)
    return row


def update_task(
    database: Database,
    user_id: str,
    task_id: str,
    fields: Mapping[str, Any],
    precondition: Precondition = ALWAYS,
) -> Row:
    """Change the fields given and return the task; without any field nothing changes.

    Raises TaskNotFound, TaskForbidden, VersionMismatch.
    """
    values = columns(fields)
    statement = _update(frozenset(values)) if values else GET
    return _one(database, user_id, task_id, statement, precondition, values)


def toggle_task(database: Database, user_id: str, task_id: str, precondition: Precondition = ALWAYS) -> Row:
    """Turn `completed` round and return the task.

    Raises TaskNotFound, TaskForbidden, VersionMismatch.
    """
    return _one(database, user_id, task_id, TOGGLE, precondition)


def delete_task(database: Database, user_id: str, task_id: str, precondition: Precondition = ALWAYS) -> None:
    """Delete the task.

    Raises TaskNotFound, TaskForbidden, VersionMismatch.
    """
    _one(database, user_id, task_id, DELETE, precondition)


def owner(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of NEW_USER."""
    return {"the_user": claims["sub"], "the_email": claims["email"], "the_name": claims["name"]}


def columns(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the fields of a request, already validated, under the names that `placeholders` takes."""
    values = {f"new_{name}": value for name, value in fields.items()}
    for name in ("title", "description"):
        if name in fields:
            values[f"new_{name}_folded"] = fold(fields[name])
    if fields.get("due_date") is not None:
        values["new_due_date"] = instant(fields["due_date"])
    return values


def placeholders(names: frozenset[str]) -> dict[str, Any]:
    """Return what a statement sets its columns to, for values of these names."""
    table = Task.__table__.c
    columns = {name.removeprefix("new_"): name for name in sorted(names)}
    return {column: bindparam(name, type_=table[column].type) for column, name in columns.items()}


def fold(string: str | None) -> str | None:
    """Return the form in which texts are compared and searched without regard to case."""
    return None if string is None else string.casefold()


def instant(string: str) -> datetime:
    """Turn an RFC 3339 date-time, already validated, into the instant in UTC."""
    return datetime.fromisoformat(string.upper()).astimezone(UTC)


@cache
def _create(names: frozenset[str]) -> Executable:
    return INSERT.values(placeholders(names)).add_cte(NEW_USER)


@cache
def _update(names: frozenset[str]) -> Executable:
    return UPDATE.values(placeholders(names))


@cache
def _conditional(statement: Any, *conditions: str) -> Any:
    """Return the statement with conditions that are checked together with the write."""
    return statement.where(*(CONDITIONS[name] for name in conditions))


def _one(
    database: Database,
    user_id: str,
    task_id: str,
    statement: Any,
    precondition: Precondition = ALWAYS,
    values: Mapping[str, Any] | None = None,
) -> Row:
    the_task = {"the_task": UUID(task_id)}
    conditions = precondition.parameters
    if conditions:
        statement = _conditional(statement, *conditions)
    rows = database.rows(user_id, statement, {"the_user": user_id, **the_task, **conditions, **(values or {})})
    if rows:
        return rows[0]
    found = database.rows(user_id, PROBE, the_task, probe=task_id.lower())
    if not found:
        raise TaskNotFound
    if found[0]["version"] is None:
        raise TaskForbidden
    raise VersionMismatch(found[0]["version"])
