"""The table of tasks, and the values of its columns for the fields of a request."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

from models.base import Base, CodePoints, Instant

# Exactly as PostgreSQL prints it, or comparing models and schema would find a difference.
DUE_OR = "\nCASE\n    WHEN due_date IS NULL THEN '{end}'::timestamp with time zone\n    ELSE due_date\nEND"


def _list_indexes(name: str, *columns: str | sa.TextClause) -> tuple[sa.Index, sa.Index]:
    """Return the indexes of one order of the list: all tasks, and a small one of pending tasks.

    The columns after the id are filters, which PostgreSQL checks in the index before it fetches a row.
    """
    return (
        sa.Index(f"ix_tasks_by_{name}", "user_id", *columns, "completed"),
        sa.Index(f"ix_tasks_pending_by_{name}", "user_id", *columns, postgresql_where=sa.text("NOT completed")),
    )


class Task(Base):
    """A user's task. The user comes first in the primary key, so every look-up goes through the owner."""

    __tablename__ = "tasks"
    __table_args__ = (
        sa.CheckConstraint("char_length(title) BETWEEN 1 AND 200 AND btrim(title) <> ''", name="title"),
        sa.CheckConstraint("char_length(description) <= 1000", name="description_length"),
        sa.CheckConstraint("priority IN ('low', 'medium', 'high')", name="priority"),
        sa.CheckConstraint(
            "due_date >= '0001-01-01 00:00Z' AND due_date < '10000-01-01 00:00Z'", name="due_date_years"
        ),
        *_list_indexes("created", "created_at", "id", "priority", "due_date"),
        *_list_indexes("title", "title_folded", "id", "priority", "due_date"),
        # Tasks without a due date come last in both directions, so each has an index with its own end in their place.
        *_list_indexes("due_first", sa.text(f"({DUE_OR.format(end='infinity')})"), "id", "priority"),
        *_list_indexes("due_last", sa.text(f"({DUE_OR.format(end='-infinity')})"), "id", "priority"),
        sa.Index("ix_tasks_id", "id"),  # for the probe, the one query that crosses users
    )

    user_id: Mapped[str] = mapped_column(CodePoints, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[UUID] = mapped_column(sa.Uuid, primary_key=True, server_default=sa.func.gen_random_uuid())
    title: Mapped[str] = mapped_column(CodePoints)
    title_folded: Mapped[str] = mapped_column(CodePoints)
    description: Mapped[str | None] = mapped_column(CodePoints)
    description_folded: Mapped[str | None] = mapped_column(CodePoints)
    completed: Mapped[bool] = mapped_column(sa.Boolean, server_default=sa.false())
    priority: Mapped[str | None] = mapped_column(CodePoints)
    due_date: Mapped[datetime | None] = mapped_column(Instant)
    version: Mapped[int] = mapped_column(sa.Integer, server_default="1")


def utc(column: InstrumentedAttribute[Any]) -> sa.Label[datetime]:
    """Read an instant in UTC, whatever the session's time zone."""
    return sa.func.timezone(sa.literal_column("'UTC'"), column, type_=sa.DateTime()).label(column.key)


# What a client sees of a task, in order.
TASK_COLUMNS: tuple[InstrumentedAttribute[Any] | sa.Label[Any], ...] = (
    *(Task.id, Task.version, Task.user_id, Task.title, Task.description, Task.completed, Task.priority),
    *(utc(column) for column in (Task.due_date, Task.created_at, Task.updated_at)),
)


def column_values(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for the validated fields of a request, by the names that `placeholders` takes."""
    values = {f"new_{name}": value for name, value in fields.items()}
    for name in ("title", "description"):
        if name in fields:
            values[f"new_{name}_folded"] = fields[name] and fold(fields[name])
    if fields.get("due_date") is not None:
        values["new_due_date"] = instant(fields["due_date"])
    return values


def placeholders(names: frozenset[str]) -> dict[str, Any]:
    """Return the parameters that a statement sets its columns to, for values of these names."""
    table = Task.__table__.c
    columns = {name.removeprefix("new_"): name for name in sorted(names)}
    return {column: sa.bindparam(name, type_=table[column].type) for column, name in columns.items()}


def fold(string: str) -> str:
    """Return a text in the form that is compared and searched regardless of case."""
    return string.casefold()


def instant(string: str) -> datetime:
    """Return a validated RFC 3339 date-time as an instant in UTC."""
    return datetime.fromisoformat(string.upper()).astimezone(UTC)
