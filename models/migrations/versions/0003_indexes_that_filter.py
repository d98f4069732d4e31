"""Indexes that check a list's filters, small ones for pending tasks, and policies that are estimated well."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

DUE_OR = "(CASE WHEN due_date IS NULL THEN '{}'::timestamptz ELSE due_date END)"
ORDERS: dict[str, list[Any]] = {
    "created": ["created_at", "id", "priority", "due_date"],
    "title": ["title_folded", "id", "priority", "due_date"],
    "due_first": [sa.text(DUE_OR.format("infinity")), "id", "priority"],
    "due_last": [sa.text(DUE_OR.format("-infinity")), "id", "priority"],
}


def upgrade() -> None:
    # Keeps indexes that were made beforehand without blocking writes; see docs/data-model.md.
    for name, columns in ORDERS.items():
        op.create_index(f"ix_tasks_by_{name}", "tasks", ["user_id", *columns, "completed"], if_not_exists=True)
        op.create_index(
            f"ix_tasks_pending_by_{name}",
            "tasks",
            ["user_id", *columns],
            postgresql_where=sa.text("NOT completed"),
            if_not_exists=True,
        )
        op.drop_index(f"ix_tasks_{name}", "tasks")

    # PostgreSQL counts a comparison with the setting as one more filter, so it expects few rows, and sorts where it
    # should read in order. For coalesce() it expects half of the rows.
    for policy, condition in (
        ("tasks_select", "user_id = current_setting('app.user_id', true)"),
        ("tasks_probe", "id::text = current_setting('app.probe', true)"),
    ):
        op.execute(f"ALTER POLICY {policy} ON tasks USING (coalesce({condition}, false))")
