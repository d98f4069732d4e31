"""Tasks and the statements on one of them. Each public function is one operation: one statement, one round trip.

Every statement names its user and runs as that user under row-level security; only after a miss does a second one ask
what the first did not find.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Label,
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
from models.database import Database, Row, read
from models.errors import ConstraintViolated, TaskForbidden, TaskNotFound, VersionMismatch
from models.user import User

# As PostgreSQL prints it, or the comparison of models and schema would see a difference.
DUE_OR = "\nCASE\n    WHEN due_date IS NULL THEN '{end}'::timestamp with time zone\n    ELSE due_date\nEND"


class Task(Base):
    """A user's task. The user comes first in the primary key: no row is reached but through its owner."""

    __tablename__ = "tasks"
    __table_args__ = (
        CheckConstraint("char_length(title) BETWEEN 1 AND 200 AND btrim(title) <> ''", name="title"),
        CheckConstraint("char_length(description) <= 1000", name="description_length"),
        CheckConstraint("priority IN ('low', 'medium', 'high')", name="priority"),
        CheckConstraint("due_date >= '0001-01-01 00:00Z' AND due_date < '10000-01-01 00:00Z'", name="due_date_years"),
        Index("ix_tasks_created", "user_id", "created_at", "id"),
        Index("ix_tasks_title", "user_id", "title_folded", "id"),
        # Tasks without a due date come last in either direction: each has an index with its own end in their place.
        Index("ix_tasks_due_first", "user_id", text(f"({DUE_OR.format(end='infinity')})"), "id"),
        Index("ix_tasks_due_last", "user_id", text(f"({DUE_OR.format(end='-infinity')})"), "id"),
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
CREATE = INSERT.add_cte(NEW_USER)
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

    def narrow(self, statement: Any) -> Any:
        """Return the statement with this condition, to be checked together with the write."""
        if self.versions is not None:
            statement = statement.where(Task.version == func.any(bindparam("versions", self.versions, ARRAY)))
        if self.other_than:
            statement = statement.where(Task.version != func.all(bindparam("other_than", self.other_than, ARRAY)))
        return statement


ARRAY = postgresql.ARRAY(Integer)
ALWAYS = Precondition()


def get_task(database: Database, user_id: str, task_id: str) -> Row:
    """Return the task.

    Raises TaskNotFound, TaskForbidden.
    """
    return _one(database, user_id, task_id, GET)


def create_task(database: Database, claims: Mapping[str, Any], fields: Mapping[str, Any]) -> Row:
    """Store a new task of the user that `claims` describe, and the user with it where they are new."""
    statement = CREATE.values(**columns(fields))
    try:
        (row,) = database.rows(claims["sub"], statement, owner(claims))
    except ConstraintViolated:  # the user was erased between the two parts of the statement
        (row,) = database.rows(claims["sub"], statement, owner(claims))
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
    statement = UPDATE.values(**columns(fields)) if fields else GET
    return _one(database, user_id, task_id, statement, precondition)


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
    """Turn the fields of a request, already validated, into column values."""
    values = dict(fields)
    for name in ("title", "description"):
        if name in values:
            values[f"{name}_folded"] = fold(values[name])
    if values.get("due_date") is not None:
        values["due_date"] = instant(values["due_date"])
    return values


def fold(string: str | None) -> str | None:
    """Return the form in which texts are compared and searched without regard to case."""
    return None if string is None else string.casefold()


def instant(string: str) -> datetime:
    """Turn an RFC 3339 date-time, already validated, into the instant in UTC."""
    return datetime.fromisoformat(string.upper()).astimezone(UTC)


def _one(database: Database, user_id: str, task_id: str, statement: Any, precondition: Precondition = ALWAYS) -> Row:
    the_task = {"the_task": UUID(task_id)}
    rows = database.rows(user_id, precondition.narrow(statement), {"the_user": user_id, **the_task})
    if rows:
        return rows[0]
    found = database.rows(user_id, PROBE, the_task, probe=task_id.lower())
    if not found:
        raise TaskNotFound
    if found[0]["version"] is None:
        raise TaskForbidden
    raise VersionMismatch(found[0]["version"])
