"""Versions for conditional writes, idempotency keys for safe retries, folded descriptions for the search."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"

CODE_POINTS = sa.Text(collation="C")
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Long, because a migration is read from top to bottom."""
    op.add_column("tasks", sa.Column("version", sa.Integer, nullable=False, server_default="1"))
    op.add_column("tasks", sa.Column("description_folded", CODE_POINTS))
    _fold_descriptions()

    # Pages need an index for each direction, with its last instant in place of a missing due date.
    op.drop_index("ix_tasks_due_asc", "tasks")
    op.drop_index("ix_tasks_due_desc", "tasks")
    for name, end in (("ix_tasks_due_first", "infinity"), ("ix_tasks_due_last", "-infinity")):
        key = sa.text(f"(CASE WHEN due_date IS NULL THEN '{end}' ELSE due_date END)")
        op.create_index(name, "tasks", ["user_id", key, "id"])

    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", CODE_POINTS, nullable=False),
        sa.Column("key", CODE_POINTS, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("task", JSONB, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("user_id", "key", name="pk_idempotency_keys"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_idempotency_keys_users", ondelete="CASCADE"),
        sa.CheckConstraint("char_length(key) BETWEEN 1 AND 255", name=op.f("ck_idempotency_keys_key_length")),
    )
    op.create_index("ix_idempotency_keys_created", "idempotency_keys", ["created_at"])

    is_own = "user_id = current_setting('app.user_id', true)"
    is_swept = "current_setting('app.probe', true) = 'expired-keys' AND created_at < now() - interval '24 hours'"
    op.execute("ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE idempotency_keys FORCE ROW LEVEL SECURITY")
    for command, condition in (
        ("SELECT", f"USING ({is_own} OR {is_swept})"),
        ("INSERT", f"WITH CHECK ({is_own})"),
        ("UPDATE", f"USING ({is_own}) WITH CHECK ({is_own})"),
        ("DELETE", f"USING ({is_own} OR {is_swept})"),
    ):
        name = f"idempotency_keys_{command.lower()}"
        op.execute(f"CREATE POLICY {name} ON idempotency_keys FOR {command} {condition}")

    # The probe has a setting of its own, besides the user.
    op.execute("DROP POLICY tasks_probe ON tasks")
    op.execute("CREATE POLICY tasks_probe ON tasks FOR SELECT USING (id::text = current_setting('app.probe', true))")


def _fold_descriptions() -> None:
    """Fill the new column by Python's case folding, without FORCE, which hides the rows from their owner."""
    connection = op.get_bind()
    op.execute("ALTER TABLE tasks NO FORCE ROW LEVEL SECURITY")
    rows = connection.execute(
        sa.text("SELECT user_id, id, description FROM tasks WHERE description IS NOT NULL"),
        execution_options={"stream_results": True},
    )
    while batch := rows.fetchmany(1000):
        connection.execute(
            sa.text("UPDATE tasks SET description_folded = :folded WHERE user_id = :user_id AND id = :id"),
            [{"user_id": row.user_id, "id": row.id, "folded": row.description.casefold()} for row in batch],
        )
    op.execute("ALTER TABLE tasks FORCE ROW LEVEL SECURITY")
